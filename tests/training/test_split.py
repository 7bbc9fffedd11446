"""Splits keep groups together, stay as they are when data are added, and leaks are refused."""

import pytest
from ase.build import bulk

from escn_calc.errors import InputError
from escn_calc.training.split import refuse_leaks, split_by_fraction
from tests.training.data_files import frame, slab


def frames_of(num_groups: int, per_group: int = 2):
    return [
        frame(slab(group * per_group + number), group=f"s{group}", origin=f"file@{group * per_group + number}")
        for group in range(num_groups)
        for number in range(per_group)
    ]


def groups(frames) -> set[str]:
    return {frame.group for frame in frames}


def test_groups_are_not_parted_and_nothing_is_lost():
    frames = frames_of(30)
    split = split_by_fraction(frames, 0.3, seed=0)
    assert not groups(split.train) & groups(split.validation)
    together = [*split.train, *split.validation]
    assert sorted(frame.origin for frame in together) == sorted(frame.origin for frame in frames)


def test_fraction_of_groups_holds_on_average():
    frames = [frame(slab(number), group=str(number)) for number in range(400)]
    assert 60 <= len(split_by_fraction(frames, 0.2, seed=1).validation) <= 100


def test_groups_keep_their_side_when_data_are_added_and_the_seed_matters():
    few, many = split_by_fraction(frames_of(20), 0.3, 0), split_by_fraction(frames_of(40)[::-1], 0.3, 0)
    assert groups(few.validation) == groups(many.validation) & groups(frames_of(20))
    assert groups(split_by_fraction(frames_of(20), 0.3, 1).validation) != groups(few.validation)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_both_sides_have_a_group(fraction):
    split = split_by_fraction(frames_of(2), fraction, seed=0)
    assert len(groups(split.train)) == len(groups(split.validation)) == 1


@pytest.mark.parametrize(("frames", "message"), [(frames_of(1), r"are of one group \(s0\)"), ([], "are of no group")])
def test_fewer_than_two_groups_are_refused(frames, message):
    with pytest.raises(InputError, match=message):
        split_by_fraction(frames, 0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_bad_fractions_are_refused(fraction):
    with pytest.raises(InputError, match="must be between 0 and 1"):
        split_by_fraction(frames_of(3), fraction, seed=0)


def test_shared_groups_are_refused_by_name_and_count():
    frames = frames_of(6)
    with pytest.raises(InputError, match=r"5 group\(s\) are both in training and in validation: s0, s1, s2 …; 9 valid"):
        refuse_leaks(frames[:9:2], frames[1:10])
    refuse_leaks(frames[:4], frames[4:])


def test_the_same_structure_under_two_groups_is_refused():
    atoms = slab()
    moved = atoms.copy()
    moved.positions += 1e-6
    train = [frame(bulk("Cu"), group="a", origin="t@0"), frame(atoms, group="b", origin="t@1")]
    with pytest.raises(InputError, match=r"1 validation frame\(s\) have the very structure .*: v@0 is t@1\. Remove"):
        refuse_leaks(train, [frame(moved, group="c", origin="v@0")])
    with pytest.raises(InputError, match="very structure"):
        split_by_fraction([frame(atoms, group=str(number)) for number in range(50)], 0.5, seed=0)


def test_similar_structures_are_no_leak():
    atoms = bulk("Cu")
    strained, other = atoms.copy(), bulk("Ni", a=3.61)
    strained.set_cell(1.01 * atoms.cell)
    refuse_leaks([frame(atoms, group="a")], [frame(strained, group="b"), frame(other, group="c")])
