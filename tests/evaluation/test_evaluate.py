"""A model against labelled structures: the same numbers as one structure at a time, and what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from escn_calc import ESCNCalculator
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.native import write_native
from escn_calc.energy_model import EnergyModel
from escn_calc.errors import CalculationError, InputError
from escn_calc.evaluation import evaluate_model
from escn_calc.evaluation.evaluate import EnergyReferenceWarning
from escn_calc.labels import LabelledFrame
from escn_calc.nn.fast import FastESCN
from escn_calc.potential import Potential
from escn_calc.structures import UnseenElementWarning
from tests.smooth import rattled_slab, smooth_checkpoint, write_smooth_model


def potential(forces: str | None = None, **card) -> Potential:
    checkpoint = smooth_checkpoint()
    known = Checkpoint(**{**vars(checkpoint), "card": checkpoint.card.model_copy(update=card)})
    return Potential(known, device="cpu", dtype="float64", frames="canonical", forces=forces)


@pytest.fixture(scope="module")
def model() -> Potential:
    return potential()


def labelled(atoms: Atoms, model: Potential, number: int, group: str = "a", **changes) -> LabelledFrame:
    """Labels a little beside what the model says."""
    (prediction,) = model.evaluate([atoms])
    noise = np.random.default_rng(number)
    frame = LabelledFrame(
        atoms=atoms,
        energy=prediction.energy + 0.1 * noise.normal(),
        forces=prediction.forces + 0.05 * noise.normal(size=(len(atoms), 3)),
        stress=None if prediction.stress is None else prediction.stress + 1e-3 * noise.normal(size=6),
        group=group,
        origin=f"data.extxyz@{number}",
    )
    return replace(frame, **changes)


@pytest.fixture(scope="module")
def frames(model) -> list[LabelledFrame]:
    slab = rattled_slab()
    slab.set_constraint(FixAtoms(indices=[0, 1, 2, 3]))
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    return [
        labelled(slab, model, 0, "slab"),
        labelled(molecule("CO", vacuum=4), model, 1, "gas", stress=None),
        labelled(copper, model, 2, "bulk", energy=None),
        labelled(rattled_slab(2), model, 3, "slab", forces=None, stress=None),
    ]


def test_same_as_one_structure_at_a_time(frames, model, tmp_path):
    calculator = ESCNCalculator(write_smooth_model(tmp_path / "model"), dtype="float64", device="cpu")
    report = evaluate_model(model, frames)
    energy_errors, force_errors, stress_errors = [], [], []
    for frame in frames:
        atoms = frame.atoms.copy()
        fixed = atoms.constraints[0].index if atoms.constraints else []
        atoms.set_constraint()
        atoms.calc = calculator
        if frame.energy is not None:
            energy_errors.append(atoms.get_potential_energy() - frame.energy)
        if frame.forces is not None:
            force_errors.append(np.delete(atoms.get_forces() - frame.forces, fixed, axis=0))
        if frame.stress is not None:
            stress_errors.append(atoms.get_stress() - frame.stress)
    found = report.overall
    assert (found.structures, found.structures_with_energy, found.structures_with_stress) == (4, 3, 2)
    assert found.atoms_with_forces == 10 + 2 + 4
    assert found.energy_mae == pytest.approx(np.abs(energy_errors).mean(), rel=1e-9)
    assert found.forces_mae == pytest.approx(np.abs(np.concatenate(force_errors)).mean(), rel=1e-9)
    assert found.stress_mae == pytest.approx(np.abs(stress_errors).mean(), rel=1e-9)
    assert [comparison.origin for comparison in report.comparisons] == [frame.origin for frame in frames]
    assert [row.element for row in report.elements] == ["C", "O", "Cu"]
    assert {row.group for row in report.groups} == {"slab", "gas", "bulk"}
    assert report.notes == ("forces: 16 of 20 atoms count, those that are not fixed",)


def test_atoms_that_count(frames, model):
    every = evaluate_model(model, frames[:1], all_atoms=True)
    assert every.overall.atoms_with_forces == 14
    assert every.notes == ("forces: 14 of 14 atoms count, fixed ones included",)
    tagged = frames[0].atoms.copy()
    tagged.set_tags([0] * 4 + [1] * 8 + [2] * 2)
    by_tag = evaluate_model(model, [replace(frames[0], atoms=tagged)], fixed_tags=(1,))
    assert np.flatnonzero(by_tag.comparisons[0].counted).tolist() == [12, 13]
    with pytest.raises(InputError, match="no atom has the tag 7; the tags are 0, 1, 2"):
        evaluate_model(model, [replace(frames[0], atoms=tagged)], fixed_tags=(1, 7))


def test_batches_do_not_matter(frames, model, monkeypatch):
    together = evaluate_model(model, frames)
    monkeypatch.setattr("escn_calc.potential.EDGES_TOGETHER", 1)
    calls, steps = evaluations(monkeypatch), []
    alone = evaluate_model(model, frames, progress=lambda done, total: steps.append((done, total)))
    assert calls == [1, 1, 1, 1] and steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert alone.overall.energy_mae == pytest.approx(together.overall.energy_mae, rel=1e-9)
    assert alone.overall.forces_mae == pytest.approx(together.overall.forces_mae, rel=1e-9)


def test_a_failure_names_where_the_structure_came_from(frames, model, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(FastESCN, "__call__", failing)
    with pytest.raises(CalculationError, match=r"data.extxyz@0: structure 0 \(C.*failed on cpu: something else"):
        evaluate_model(model, frames)


def evaluations(monkeypatch) -> list[int]:
    calls = []
    evaluate = EnergyModel.evaluate

    def counting(self, batch, *rest, **more):
        calls.append(batch.num_structures)
        return evaluate(self, batch, *rest, **more)

    monkeypatch.setattr(EnergyModel, "evaluate", counting)
    return calls


def test_refused_elements_are_named_before_any_evaluation(frames, monkeypatch):
    copper_only = potential(elements=("Cu",), refuse_unseen_elements=True)
    calls = evaluations(monkeypatch)
    with pytest.raises(
        InputError,
        match=r"model smooth-0 does not take C O, which occur in 3 of 4 structures: data.extxyz@0, data.extxyz@1, "
        r"data.extxyz@3; use a model that covers them, or skip",
    ):
        evaluate_model(copper_only, frames)
    assert calls == []
    report = evaluate_model(copper_only, frames, skip_unsupported=True)
    assert calls == [1] and report.overall.structures == 1
    assert report.skipped == ("data.extxyz@0", "data.extxyz@1", "data.extxyz@3")
    assert report.notes[-1].startswith("3 structures skipped for elements that the model does not take: data.extxyz@0")
    with pytest.raises(InputError, match=r"occur in 2 of 2 structures: .*; use a model that covers them$"):
        evaluate_model(copper_only, frames[:2], skip_unsupported=True)


def test_elements_beyond_the_table_are_refused(frames, model):
    uranium = replace(frames[1], atoms=Atoms("U", cell=[9, 9, 9], pbc=True), forces=None, stress=None)
    with pytest.raises(InputError, match="does not take U, which occur in 1 of 1 structures"):
        evaluate_model(model, [uranium])


def test_unseen_elements_are_evaluated_where_the_model_allows(frames):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenElementWarning)
        assert evaluate_model(potential(elements=("Cu",)), frames).overall.structures == 4


def test_bad_structures_are_named_before_any_evaluation(frames, model, monkeypatch):
    calls = evaluations(monkeypatch)
    on_top = replace(frames[1], atoms=Atoms("CO", positions=[[0, 0, 0], [0, 0, 1e-3]]), origin="bad.traj@7")
    with pytest.raises(InputError, match=r"bad.traj@7: atom 0 \(C\) and atom 1 \(O\) of structure 0"):
        evaluate_model(model, [*frames, on_top])
    assert calls == []


def test_nothing_to_compare(frames, model):
    without = replace(frames[0], energy=None, forces=None)
    with pytest.raises(InputError, match="there are no structures to evaluate"):
        evaluate_model(model, [])
    with pytest.raises(InputError, match="none of the structures has an energy or forces to compare with"):
        evaluate_model(model, [without])
    with pytest.raises(InputError, match="energy_reference is 'shift', but must be one of as-is, shift-per-group"):
        evaluate_model(model, frames, energy_reference="shift")


def test_model_without_forces(frames):
    energies_only = potential(forces=None)
    energies_only.forces = None
    report = evaluate_model(energies_only, frames)
    assert report.overall.forces_mae is None and report.overall.energy_mae > 0
    assert "forces: not compared, the model was trained without" in report.notes
    assert "stress: not compared, only gradient forces come with a stress" in report.notes
    with pytest.raises(InputError, match="have forces but no energies, and model smooth-0 was trained without forces"):
        evaluate_model(energies_only, [replace(frames[0], energy=None)])


def test_other_zero_of_energy(frames, model):
    shifted = [replace(frame, energy=None if frame.energy is None else frame.energy + 50) for frame in frames]
    with pytest.warns(EnergyReferenceWarning, match=r"error is -50.*smooth-0 returns total energies \(none:"):
        as_is = evaluate_model(model, shifted)
    assert as_is.notes[0].startswith("the mean energy error is -50")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        per_group = evaluate_model(model, shifted, energy_reference="shift-per-group")
    assert per_group.overall.structures_with_energy == 2 and per_group.overall.energy_mae < 0.2
    assert per_group.overall.forces_mae == as_is.overall.forces_mae


def test_relaxed_structures_are_noted(frames, model):
    relaxed = replace(frames[1], forces=np.zeros((2, 3)))
    report = evaluate_model(model, [relaxed])
    assert report.overall.relaxed_structures == 1
    assert report.notes[1].startswith("AEwT: single points at structures that are relaxed by their labels")


def test_structures_are_not_changed(frames, model):
    before = [frame.atoms.copy() for frame in frames]
    evaluate_model(model, frames)
    assert all(frame.atoms == atoms and frame.atoms.calc is None for frame, atoms in zip(frames, before, strict=True))


def test_saved_model_gives_the_same_report(frames, model, tmp_path):
    write_native(smooth_checkpoint(), tmp_path / "model")
    from escn_calc import load_potential

    loaded = load_potential(tmp_path / "model", dtype="float64", device="cpu")
    assert evaluate_model(loaded, frames).overall == evaluate_model(model, frames).overall
