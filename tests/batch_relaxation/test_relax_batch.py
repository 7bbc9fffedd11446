"""Every structure ends with what ``relax`` would have returned, as soon as it has ended."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.io import Trajectory

from escn_calc import relax_batch
from escn_calc.batch_relaxation import iter_relax_batch
from escn_calc.relax import EnergyRiseWarning
from tests.batch_relaxation.alone import alone, assert_same_end
from tests.batch_relaxation.emt_potential import EMTPotential, slabs


def test_results_are_those_of_relax_in_the_order_given():
    structures = slabs(4)
    results = relax_batch(structures, EMTPotential())
    assert len({result.steps for result in results}) > 1
    for atoms, result in zip(structures, results, strict=True):
        assert_same_end(result, alone(atoms))
        assert result.converged and result.wall_time_s > 0
        assert [step.index for step in result.history] == list(range(result.steps + 1))
        assert result.atoms.calc.name == "escn" and result.atoms.constraints
        assert result.atoms.get_stress().shape == (6,)


def test_input_is_not_changed():
    structures = slabs(2)
    relax_batch(structures, EMTPotential(), steps=2)
    assert structures == slabs(2) and structures[0].calc is None


def test_no_structures():
    potential = EMTPotential()
    assert relax_batch([], potential) == []
    assert list(iter_relax_batch([], potential)) == [] and potential.batches == []


def test_without_steps_structures_are_only_evaluated():
    potential = EMTPotential()
    results = relax_batch(slabs(2), potential, steps=0)
    assert [result.reason for result in results] == ["step limit", "step limit"]
    assert len(potential.batches) == 1 and len(potential.batches[0]) == 2


def test_one_evaluation_for_each_frame():
    potential = EMTPotential()
    results = relax_batch(slabs(3), potential)
    assert len(potential.batches) == max(result.steps for result in results) + 1
    assert sum(map(len, potential.batches)) == sum(result.steps + 1 for result in results)


def test_structures_that_end_make_room_for_others():
    structures = slabs(7)
    potential = EMTPotential()
    results = relax_batch(structures, potential, max_active=3)
    frames = sum(result.steps + 1 for result in results)
    sizes = list(map(len, potential.batches))
    assert max(sizes) == 3 and sum(sizes) == frames
    first_below = next(number for number, size in enumerate(sizes) if size < 3)
    assert sizes[first_below:] == sorted(sizes[first_below:], reverse=True)
    for atoms, result in zip(structures, results, strict=True):
        assert_same_end(result, alone(atoms))


def test_without_a_limit_atoms_are_counted(monkeypatch):
    monkeypatch.setattr("escn_calc.batch_relaxation.driver.ACTIVE_ATOMS", 20)
    potential = EMTPotential()
    relax_batch([bulk("Cu", cubic=True).repeat((2, 1, 1))] * 5, potential, steps=0)
    assert potential.batches == [[8, 8, 8], [8, 8]]


def test_results_come_as_they_are_ready():
    structures = slabs(4)
    steps = {index: result.steps for index, result in enumerate(relax_batch(structures, EMTPotential()))}
    potential = EMTPotential()
    seen = []
    for index, result in iter_relax_batch(structures, potential):
        assert len(potential.batches) == result.steps + 1
        seen.append(index)
    assert [steps[index] for index in seen] == sorted(steps.values())


def test_step_limit():
    (result,) = relax_batch(slabs(1), EMTPotential(), fmax=1e-9, steps=2)
    assert (result.reason, result.steps, len(result.history)) == ("step limit", 2, 3)


class Uphill(EMTPotential):
    """Forces that point the wrong way."""

    def _evaluate(self, call, place, atoms):
        prediction = super()._evaluate(call, place, atoms)
        prediction.forces[:] *= -1
        return prediction


def test_rises_of_the_energy_are_noted_and_warned_of_once():
    with pytest.warns(EnergyRiseWarning, match=r"2 of 2 relaxations \(structure 0, 1\) ended well above") as caught:
        results = relax_batch(slabs(2), Uphill(), optimizer="FIRE", steps=12)
    assert len([one for one in caught if one.category is EnergyRiseWarning]) == 1 and caught[0].filename == __file__
    assert all(re.match(r"energy rose by .* do not trust this result", result.notes[0]) for result in results)


def test_sound_relaxations_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relax_batch(slabs(2), EMTPotential())


def test_trajectories_in_a_folder_hold_the_frames_of_relax(tmp_path):
    structures = slabs(2)
    (tmp_path / "0.traj").write_text("an older file")
    results = relax_batch(structures, EMTPotential(), trajectories=tmp_path, steps=4, fmax=1e-6)
    for index, result in enumerate(results):
        alone(structures[index], trajectory=tmp_path / "alone.traj", steps=4, fmax=1e-6)
        with Trajectory(tmp_path / f"{index}.traj") as frames, Trajectory(tmp_path / "alone.traj") as expected:
            assert frames.description == expected.description
            assert [frame.get_potential_energy() for frame in frames] == [step.energy for step in result.history]
            for frame, other in zip(frames, expected, strict=True):
                np.testing.assert_allclose(frame.positions, other.positions, rtol=0, atol=1e-8)
                np.testing.assert_allclose(frame.get_forces(), other.get_forces(), rtol=0, atol=1e-8)
                assert frame.calc.name == "escn" and frame.constraints


def test_names_of_trajectories_sort_as_the_structures(tmp_path):
    relax_batch([bulk("Cu")] * 11, EMTPotential(), trajectories=str(tmp_path / "a" / "b"), steps=0)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        f"{index:02d}.traj" for index in range(11)
    ]


def test_trajectories_by_name(tmp_path):
    relax_batch(slabs(2), EMTPotential(), trajectories=[None, tmp_path / "second.traj"], steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["second.traj"]
