"""Callbacks see every frame, and their words end the relaxation of one structure."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule

from escn_calc import relax_batch
from escn_calc.batch_relaxation import stop_on_desorption, stop_on_explosion
from escn_calc.errors import InputError
from escn_calc.relax_result import EnergyRiseWarning, RelaxStep
from tests.batch_relaxation.emt_potential import EMTPotential, slabs


def test_callbacks_see_every_frame():
    seen = []
    results = relax_batch(
        slabs(2),
        EMTPotential(),
        callbacks=[lambda index, step, atoms: seen.append((index, step, atoms.get_potential_energy()))],
    )
    for index, result in enumerate(results):
        mine = [(step, energy) for place, step, energy in seen if place == index]
        assert [step for step, _ in mine] == list(result.history)
        assert [energy for _, energy in mine] == [step.energy for step in result.history]


def test_words_of_a_callback_end_one_structure():
    def callback(index: int, step: RelaxStep, atoms: Atoms) -> str | None:
        return "far enough" if index == 1 and step.index == 2 else None

    results = relax_batch(slabs(3), EMTPotential(), callbacks=[callback])
    assert [result.reason for result in results] == ["converged", "stopped", "converged"]
    assert (results[1].message, results[1].steps, results[1].converged) == ("far enough", 2, False)


def test_an_error_of_a_callback_costs_its_own_structure_only():
    def callback(index: int, step: RelaxStep, atoms: Atoms) -> str | None:
        return {0: None, 2: None}[index]

    results = relax_batch(slabs(3), EMTPotential(), callbacks=[callback])
    assert [result.reason for result in results] == ["converged", "failed", "converged"]
    assert results[1].message == "stopped after step 0: KeyError: 1"


def test_an_explosion_is_stopped():
    structures = slabs(2)
    structures[1].positions[-1] = structures[1].positions[-2] + [0, 0, 0.25]
    limit = 30.0
    results = relax_batch(structures, EMTPotential(), callbacks=[stop_on_explosion(limit)])
    assert [result.reason for result in results] == ["converged", "stopped"]
    assert re.fullmatch(r"exploded: the largest force is [\d.e+]+ eV/Å, above 30 eV/Å, at step 0", results[1].message)
    assert results[1].fmax > limit


def slab_with_carbon_monoxide(pbc=(True, True, False)) -> Atoms:
    atoms = fcc111("Pt", (2, 2, 2), vacuum=6.0)
    add_adsorbate(atoms, molecule("CO"), 2.0, "ontop", mol_index=1)
    atoms.pbc = pbc
    return atoms


def step(index: int) -> RelaxStep:
    return RelaxStep(index, 0.0, 1.0)


def lifted(atoms: Atoms, by: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[-2:, 2] += by
    return moved


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True), (False, False, False)])
def test_an_adsorbate_that_leaves_is_named(pbc):
    start = slab_with_carbon_monoxide(pbc)
    callback = stop_on_desorption()
    assert callback(7, step(0), start) is None
    assert callback(7, step(1), lifted(start, 1.9)) is None
    assert callback(7, step(2), lifted(start, 2.1)) == (
        "desorbed: CO (atoms 8, 9) left the others by more than 4 Å at step 2"
    )


def test_an_image_of_the_surface_is_company():
    start = slab_with_carbon_monoxide((True, True, True))
    height = start.cell.lengths()[2]
    callback = stop_on_desorption()
    assert callback(0, step(0), start) is None
    assert callback(0, step(1), lifted(start, height)) is None


def test_what_was_apart_may_stay_apart_and_structures_are_not_confused():
    callback = stop_on_desorption(3.0)
    apart, bound = lifted(slab_with_carbon_monoxide(), 3.0), slab_with_carbon_monoxide()
    assert callback(0, step(0), apart) is None and callback(1, step(0), bound) is None
    assert callback(0, step(1), apart) is None
    assert callback(1, step(1), apart) is not None


def test_a_single_atom_that_leaves_its_molecule():
    start = molecule("H2O")
    callback = stop_on_desorption(2.0)
    assert callback(0, step(0), start) is None
    broken = start.copy()
    broken.positions[1] += [0, 5.0, 0]
    assert callback(0, step(3), broken) == "desorbed: H (atom 1) left the others by more than 2 Å at step 3"


def test_desorption_during_a_relaxation():
    structures = slabs(2)
    structures[0].positions[-1, 2] += 0.5
    callbacks = [stop_on_desorption(3.0)]
    with pytest.warns(EnergyRiseWarning, match="1 of 2 relaxations"):
        results = relax_batch(structures, Repelling(), optimizer="FIRE", callbacks=callbacks, steps=40)
    assert results[1].converged
    assert results[0].reason == "stopped" and results[0].message.startswith("desorbed: H (atom 4) left the others")


class Repelling(EMTPotential):
    """EMT, and a pull upwards on hydrogen."""

    def _evaluate(self, call, place, atoms):
        prediction = super()._evaluate(call, place, atoms)
        prediction.forces[atoms.symbols == "H", 2] += 20.0
        return prediction


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_limits(value):
    with pytest.raises(InputError, match=r"force is .* eV/Å; it must be a positive number"):
        stop_on_explosion(value)
    with pytest.raises(InputError, match=r"distance is .* Å; it must be a positive number"):
        stop_on_desorption(value)
