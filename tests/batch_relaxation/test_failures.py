"""What goes wrong with one structure is its own end, and does not touch the others."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from escn_calc import relax_batch
from escn_calc.batch_relaxation import iter_relax_batch
from escn_calc.errors import BatchError, CalculationError, InputError
from tests.batch_relaxation.alone import alone, assert_same_end
from tests.batch_relaxation.emt_potential import EMTPotential, slabs


def failing_at(call: int, size: int, error: Exception):
    """Let structures of ``size`` atoms fail in one of the evaluations, counted from 0."""
    return lambda number, atoms: error if number == call and len(atoms) == size else None


def differing() -> list[Atoms]:
    """Slabs of 5, 13 and 9 atoms."""
    structures = slabs(3)
    assert [len(atoms) for atoms in structures] == [5, 13, 9]
    return structures


def test_a_failure_midway_keeps_the_last_frame_and_the_others():
    error = CalculationError("energy of structure 1 (Ag12C): not finite")
    results = relax_batch(differing(), EMTPotential(fails=failing_at(3, 13, error)))
    expected = alone(differing()[1], steps=2)
    assert results[1].reason == "failed" and not results[1].converged
    assert results[1].message == "stopped after step 2: energy of structure 1 (Ag12C): not finite"
    assert results[1].steps == 2
    np.testing.assert_allclose(results[1].atoms.positions, expected.atoms.positions, rtol=0, atol=1e-8)
    for index in (0, 2):
        assert_same_end(results[index], alone(differing()[index]))


def test_a_failure_is_named_by_its_place_in_the_whole_list():
    second_of_the_third = sum(alone(atoms).steps + 1 for atoms in differing()[:2]) + 1
    error = CalculationError("energy of structure 0 (Au8N): not finite")
    results = relax_batch(differing(), EMTPotential(fails=failing_at(second_of_the_third, 9, error)), max_active=1)
    assert results[2].message == "stopped after step 0: energy of structure 2 (Au8N): not finite"


class Broken(FixAtoms):
    """A constraint with a bug, from its second call on."""

    calls = 0

    def adjust_positions(self, atoms, new):
        type(self).calls += 1
        if type(self).calls > 1:
            raise KeyError("no such layer")
        super().adjust_positions(atoms, new)


class Poisoned(FixAtoms):
    def adjust_forces(self, atoms, forces):
        forces[:] = np.nan


def test_a_broken_constraint_harms_its_own_structure_only(monkeypatch):
    monkeypatch.setattr(Broken, "calls", 0)
    structures = differing()
    structures[0].set_constraint(Broken([0]))
    results = relax_batch(structures, EMTPotential())
    assert results[0].reason == "failed"
    assert results[0].message == "stopped after step 1: KeyError: 'no such layer'"
    for index in (1, 2):
        assert_same_end(results[index], alone(structures[index]))


def test_a_nan_in_one_does_not_reach_the_others():
    structures = differing()
    structures[1].set_constraint(Poisoned([0]))
    with pytest.raises(BatchError, match="fmax nan eV/Å at step 0") as caught:
        relax_batch(structures, EMTPotential())
    assert list(caught.value.errors) == [1]
    for index in (0, 2):
        assert_same_end(caught.value.results[index], alone(structures[index]))


def test_structures_that_cannot_be_evaluated_are_named_after_the_others_are_done():
    good = slabs(2)
    out_of_range = slabs(1)[0]
    out_of_range.set_constraint(FixAtoms([77]))
    structures = [good[0], Atoms(), Atoms("He"), "Cu", good[1], out_of_range]
    with pytest.raises(BatchError) as caught:
        relax_batch(structures, EMTPotential(), max_active=2)
    error = caught.value
    assert [result is None for result in error.results] == [False, True, True, True, False, True]
    for index in (0, 4):
        assert_same_end(error.results[index], alone(structures[index]))
    assert {index: str(reason) for index, reason in error.errors.items()} == {
        1: "structure 1 has no atoms: remove it from the list",
        2: "atom 0 (He) of structure 2 (He): the model does not know it",
        3: "structure 3 is of type str: expected ase.Atoms",
        5: "structure 5: IndexError: index 77 is out of bounds for axis 0 with size 5",
    }
    assert isinstance(error.errors[2], InputError) and isinstance(error.errors[5].__cause__, IndexError)


def test_one_structure_alone_raises_its_own_error():
    with pytest.raises(InputError, match=re.escape("atom 0 (He) of structure 0 (He): the model does not know it")):
        relax_batch([Atoms("He")], EMTPotential())


def test_a_cell_that_cannot_relax_is_an_error_of_its_structure():
    structures = [bulk("Cu"), Atoms("Cu", cell=(5, 5, 5))]
    with pytest.raises(BatchError) as caught:
        relax_batch(structures, EMTPotential(), cell="full")
    assert caught.value.results[0].converged
    assert "Cu must be periodic along its three cell vectors" in str(caught.value.errors[1])


def test_a_cell_that_falls_apart_harms_its_own_structure_only():
    structures = [bulk("Cu"), bulk("Au", a=2.4)]
    results = relax_batch(structures, EMTPotential(), cell="full", steps=60)
    assert results[0].converged
    assert results[1].reason == "failed" and "the cell was stretched by factors" in results[1].message


def test_interrupt_keeps_what_is_known():
    def interrupt(call, atoms):
        if call == 4:
            raise KeyboardInterrupt
        return None

    structures = differing()
    structures[2] = alone(structures[2]).atoms
    results = relax_batch(structures, EMTPotential(fails=interrupt))
    assert [result.reason for result in results] == ["interrupted", "interrupted", "converged"]
    expected = alone(structures[0], steps=3)
    assert results[0].steps == 3
    np.testing.assert_allclose(results[0].atoms.positions, expected.atoms.positions, rtol=0, atol=1e-8)


def interrupt_at_once(call, atoms):
    raise KeyboardInterrupt


def test_interrupt_before_anything_is_known():
    with pytest.raises(KeyboardInterrupt):
        relax_batch(differing(), EMTPotential(fails=interrupt_at_once))


def test_interrupt_names_what_never_began():
    def interrupt(call, atoms):
        if call == 4:
            raise KeyboardInterrupt
        return None

    with pytest.raises(BatchError, match="structure 2: not evaluated, the run was interrupted before") as caught:
        relax_batch(differing(), EMTPotential(fails=interrupt), max_active=2)
    assert [result and result.reason for result in caught.value.results] == ["interrupted", "interrupted", None]
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(iter_relax_batch(differing(), EMTPotential(fails=interrupt), max_active=2))
    ends = iter_relax_batch(differing(), EMTPotential(fails=interrupt), max_active=2)
    assert [(index, end.reason) for index, end in (next(ends), next(ends))] == [(0, "interrupted"), (1, "interrupted")]


def test_interrupt_amid_the_results_yields_none_twice():
    ends = iter_relax_batch(slabs(3), EMTPotential(), steps=0)
    seen = [next(ends), ends.throw(KeyboardInterrupt), next(ends)]
    with pytest.raises(KeyboardInterrupt):
        next(ends)
    assert [(index, end.reason) for index, end in seen] == [(index, "step limit") for index in range(3)]


def test_a_structure_that_cannot_be_evaluated_leaves_an_older_trajectory(tmp_path):
    (tmp_path / "0.traj").write_text("an older file")
    with pytest.raises(InputError, match="does not know it"):
        relax_batch([Atoms("He")], EMTPotential(), trajectories=tmp_path)
    assert (tmp_path / "0.traj").read_text() == "an older file"


def test_a_trajectory_that_cannot_be_written_costs_its_own_structure_only(tmp_path):
    (tmp_path / "0.traj").mkdir()
    results = relax_batch(slabs(2), EMTPotential(), trajectories=tmp_path)
    assert results[0].reason == "failed" and results[0].steps == 0
    assert re.match("stopped after step 0: IsADirectoryError|stopped after step 0: PermissionError", results[0].message)
    assert_same_end(results[1], alone(slabs(2)[1]))
