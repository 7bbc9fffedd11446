"""The cap and each of its tie rules on candidates made by hand."""

import numpy as np
import pytest
import torch

from escn_calc.graph import cap
from escn_calc.graph.cap import nearest, refine


def select(vectors, limit, numbers=None, searched_radius=100.0):
    """Kept rows of candidates around atom 0, in rank order; candidate k is atom k + 1."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    numbers = torch.tensor([29, *(numbers or [29] * len(vectors))])
    source = torch.arange(1, len(vectors) + 1)
    selection = nearest(numbers, source, torch.zeros_like(source), vectors, limit, searched_radius)
    return selection.kept.tolist(), bool(selection.finished[0])


def test_nearest_equals_sorting_each_target_when_nothing_is_tied():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 12, 400))
    target[target == 5] = 4
    source = torch.from_numpy(rng.integers(0, 12, 400))
    vectors = torch.from_numpy(rng.normal(size=(400, 3)) * 3)
    distances = vectors.norm(dim=1)
    for limit in (1, 7, 40, 1000):
        expected = []
        for atom in range(12):
            mine = (target == atom).nonzero().squeeze(1).tolist()
            expected += sorted(mine, key=lambda k: float(distances[k]))[:limit]
        selection = nearest(torch.full((12,), 6), source, target, vectors, limit, 100.0)
        assert selection.kept.tolist() == expected
        counts = torch.bincount(target, minlength=12)
        assert selection.finished.tolist() == (counts >= limit).tolist()


@pytest.mark.parametrize("limit", [0, -1])
def test_no_cap_keeps_all_in_order(limit):
    kept, finished = select([[0, 3, 0], [0, 0, 1], [2, 0, 0]], limit)
    assert (kept, finished) == ([1, 2, 0], False)


def test_no_candidates():
    empty = torch.zeros(0, dtype=torch.int64)
    for limit in (0, 20):
        selection = nearest(torch.tensor([1]), empty, empty, torch.zeros(0, 3, dtype=torch.float64), limit, 6.0)
        assert len(selection.kept) == 0
        assert selection.finished.tolist() == [False]


def test_refine_chains_small_gaps_and_numbers_groups_in_order():
    groups = torch.tensor([1, 0, 0, 1, 0, 0])
    values = torch.tensor([5.0, 2.0, 1.0, 5.0, 1.09, 1.18])
    assert refine(groups, values, 0.1).tolist() == [2, 1, 0, 2, 0, 0]
    assert refine(groups, values, 0.05).tolist() == [4, 3, 0, 4, 1, 2]


def test_finished_needs_the_whole_last_shell_inside_the_searched_radius():
    vectors = [[0, 0, 1], [0, 2, 0], [0, 0, 3]]
    assert select(vectors, 2, searched_radius=2.1)[1]
    assert not select(vectors, 2, searched_radius=2.0 + 0.5 * cap.SHELL_GAP)[1]
    assert not select(vectors, 4, searched_radius=10.0)[1]


def test_distance_noise_below_the_gap_does_not_decide():
    """Two candidates 1e-6 Å apart in distance: the lighter one is kept, whichever is nearer."""
    for noise in (-1e-6, 1e-6):
        kept, _ = select([[0, 0, 1], [0, 2, 0], [2 + noise, 0, 0]], 2, numbers=[29, 8, 29])
        assert kept == [0, 1]
    assert select([[0, 0, 1], [0, 2, 0], [2 - 1e-4, 0, 0]], 2, numbers=[29, 8, 29])[0] == [0, 2]


def test_lighter_element_first():
    square = [[2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]]
    for light in range(4):
        numbers = [29] * 4
        numbers[light] = 1
        assert select(square, 1, numbers=numbers)[0] == [light]


def test_less_crowded_first():
    square = [[2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]]
    for far in range(4):
        inner = [-0.5 * component for component in square[far]]
        assert select([inner, *square], 2)[0] == [0, far + 1]
    heavy_at_plus_x = [[1, 0, 0], [-1, 0, 0], [2, 0, 0], [-2, 0, 0]]
    assert select(heavy_at_plus_x, 3, numbers=[78, 1, 6, 6])[0][2] == 3


def test_mirror_images_are_told_apart_by_handedness_and_rotate_with_the_structure():
    """Two candidates that only a reflection exchanges: crowding is equal, the choice still follows every rotation."""
    rng = np.random.default_rng(3)
    kept = []
    vectors = np.array([[0.9, 0.0, 0.4], [-0.4, 0.0, 1.2], [1.0, 2.0, 0.3], [1.0, -2.0, 0.3]])
    for _ in range(30):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        rotation *= np.sign(np.linalg.det(rotation))
        kept.append(tuple(select(vectors @ rotation.T, 3)[0][2:]))
    assert len(set(kept)) == 1
    mirrored = vectors * [1, -1, 1]
    assert select(mirrored, 3)[0][2] != kept[0][0]


def test_equivalent_candidates_follow_the_generic_direction():
    square = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]], dtype=torch.float64)
    order = torch.argsort(square @ torch.tensor(cap.GENERIC_DIRECTION, dtype=torch.float64)).tolist()
    for limit in (1, 2, 3, 4):
        assert select(square, limit)[0] == order[:limit]


def test_generic_direction_is_perpendicular_to_no_lattice_vector():
    """Integer vectors, and those of hexagonal lattices, with components up to 12."""
    steps = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3), -1).reshape(-1, 3)
    steps = steps[np.abs(steps).any(1)]
    in_plane = [[1, 0, 0], [0.5, 0.75**0.5, 0]]
    for lattice in (np.eye(3), [*in_plane, [0, 0, (8 / 3) ** 0.5]], [*in_plane, [0, 3**-0.5, (2 / 3) ** 0.5]]):
        assert np.abs(steps @ np.array(lattice) @ cap.GENERIC_DIRECTION).min() > 1e-5


def test_scores_in_chunks_are_the_same(monkeypatch):
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(60, 3))
    vectors = torch.from_numpy(2.0 * directions / np.linalg.norm(directions, axis=1, keepdims=True))
    target = torch.arange(60) % 6
    numbers = torch.from_numpy(rng.choice([1, 8, 29], 60))
    arguments = numbers, torch.arange(60), target, vectors, 4, 10.0
    expected = nearest(*arguments).kept
    monkeypatch.setattr(cap, "_CHUNK", 1)
    assert nearest(*arguments).kept.equal(expected)
    assert torch.bincount(target[expected]).tolist() == [4] * 6


def test_candidates_far_beyond_the_cap_do_not_count(monkeypatch):
    """Leaving them out before sorting changes nothing: random distances, chains of shells, all in one shell, few."""
    rng = np.random.default_rng(7)
    chain = 2 + 0.9 * cap.SHELL_GAP * np.arange(3000)
    for distances in (
        9 * rng.random(3000) ** (1 / 3),
        chain,
        np.full(3000, 2.0),
        np.round(5 * rng.random(3000), 1) + 1,
    ):
        vectors = rng.normal(size=(3000, 3))
        vectors = torch.from_numpy(vectors * (distances / np.linalg.norm(vectors, axis=1))[:, None])
        target = torch.from_numpy(np.sort(rng.integers(0, 9, 3000)))
        arguments = torch.full((9,), 6), torch.zeros_like(target), target, vectors
        for limit in (1, 20, 300, 5000):
            found = nearest(*arguments, limit, 8.0)
            with monkeypatch.context() as patch:
                patch.setattr(cap, "_near", lambda target, *_: torch.arange(len(target)))
                expected = nearest(*arguments, limit, 8.0)
            assert found.kept.equal(expected.kept)
            assert found.finished.equal(expected.finished)
