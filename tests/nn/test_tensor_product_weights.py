"""The map between path weights of a tensor product and SO(2) weights: the identities its docstring states."""

from math import pi, sqrt

import pytest
import torch

from escn_calc.errors import InputError
from escn_calc.nn import SO2Weights, filter_degrees, path_weights, so2_weights
from escn_calc.nn.clebsch_gordan import clebsch_gordan
from escn_calc.nn.tensor_product_weights import aligned_coupling, is_odd
from tests.nn.tensor_products import all_paths, coupling, wigner_3j

LMAX = 6
EXACT = 1e-14


def random_paths(lmax, shape=(3, 2), seed=0, filter_lmax=None):
    generator = torch.Generator().manual_seed(seed)
    paths = all_paths(lmax, filter_lmax)
    return {path: torch.randn(shape, generator=generator, dtype=torch.float64) for path in paths}


def random_so2(lmax, mmax, shape=(3, 2), seed=1):
    generator = torch.Generator().manual_seed(seed)

    def table(m):
        return torch.randn(lmax + 1 - m, lmax + 1 - m, *shape, generator=generator, dtype=torch.float64)

    real = tuple(table(m) for m in range(mmax + 1))
    return SO2Weights(real, tuple(table(m) for m in range(1, mmax + 1)))


def largest_difference(ours, theirs):
    return max((ours[path] - theirs[path]).abs().max().item() for path in theirs)


def test_clebsch_gordan_coefficients_are_wigner_3j_symbols():
    for l_in, l_filter, l_out in all_paths(LMAX):
        for m in range(-min(l_in, l_out), min(l_in, l_out) + 1):
            symbol = wigner_3j(l_in, l_filter, l_out, m, 0, -m)
            expected = (-1) ** (l_in - l_filter + m) * sqrt(2 * l_out + 1) * symbol
            assert clebsch_gordan(l_in, m, l_filter, l_out) == pytest.approx(expected, abs=EXACT)


def test_the_3j_symbols_of_these_tests_are_those_of_sympy():
    wigner = pytest.importorskip("sympy.physics.wigner")
    for symbol in [
        (2, 3, 4, 1, -2, 1),
        (6, 11, 5, -3, 0, 3),
        (4, 5, 6, 4, -5, 1),
        (3, 3, 3, 1, 1, -2),
        (6, 12, 6, 0, 0, 0),
    ]:
        assert wigner_3j(*symbol) == pytest.approx(float(wigner.wigner_3j(*symbol)), rel=1e-14, abs=1e-16)


def test_clebsch_gordan_coefficients_outside_the_triangle_are_zero():
    assert clebsch_gordan(1, 0, 3, 1) == 0
    assert clebsch_gordan(4, 1, 1, 2) == 0


def test_parity_and_orthogonality():
    for l_in, l_out in [(0, 0), (2, 3), (4, 4), (6, 5), (11, 11)]:
        orders = range(-min(l_in, l_out), min(l_in, l_out) + 1)
        rows = {f: [clebsch_gordan(l_in, m, f, l_out) for m in orders] for f in filter_degrees(l_in, l_out)}
        for f, row in rows.items():
            assert row[::-1] == pytest.approx([(-1) ** (l_in + f + l_out) * value for value in row], abs=EXACT)
            for other, values in rows.items():
                overlap = sum(a * b for a, b in zip(row, values, strict=True))
                assert overlap == pytest.approx((2 * l_out + 1) / (2 * f + 1) * (f == other), abs=EXACT)


def test_an_aligned_filter_couples_m_with_plus_or_minus_m():
    """The real Clebsch-Gordan coefficients at k = 0: c for even paths, c times the sign of -i for odd ones."""
    for path in all_paths(LMAX):
        l_in, l_filter, l_out = path
        expected = torch.zeros(2 * l_in + 1, 2 * l_out + 1, dtype=torch.float64)
        for m in range(min(l_in, l_out) + 1):
            c = aligned_coupling(path, m) / sqrt((2 * l_filter + 1) / (4 * pi))
            if is_odd(path):
                expected[l_in - m, l_out + m] = -c
                expected[l_in + m, l_out - m] = c
            else:
                expected[l_in + m, l_out + m] = expected[l_in - m, l_out - m] = c
        assert (coupling(*path)[:, l_filter] - expected).abs().max() < EXACT


def test_there_are_as_many_paths_as_so2_weights():
    for lmax in range(LMAX + 1):
        weights = so2_weights(random_paths(lmax, shape=()), lmax)
        assert sum(table.numel() for table in (*weights.real, *weights.imaginary)) == len(all_paths(lmax))


@pytest.mark.parametrize("lmax", range(LMAX + 1))
def test_paths_to_so2_and_back(lmax):
    paths = random_paths(lmax)
    returned = path_weights(so2_weights(paths, lmax))
    assert returned.keys() == paths.keys()
    assert largest_difference(returned, paths) < 1e-13


@pytest.mark.parametrize(("lmax", "mmax"), [(0, 0), (3, 3), (6, 6), (6, 2), (5, 0), (4, 1)])
def test_so2_to_paths_and_back(lmax, mmax):
    weights = random_so2(lmax, mmax)
    returned = so2_weights(path_weights(weights), lmax, mmax)
    pairs = zip((*returned.real, *returned.imaginary), (*weights.real, *weights.imaginary), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) < 1e-13


def test_the_map_is_an_isometry():
    lmax = 5
    paths = random_paths(lmax, shape=())
    weights = so2_weights(paths, lmax)
    for l_in in range(lmax + 1):
        for l_out in range(lmax + 1):
            size = weights.real[0][l_out, l_in] ** 2
            for m in range(1, min(l_in, l_out) + 1):
                for table in (weights.real[m], weights.imaginary[m - 1]):
                    size = size + 2 * table[l_out - m, l_in - m] ** 2
            expected = sum(paths[l_in, f, l_out] ** 2 for f in filter_degrees(l_in, l_out))
            assert 4 * pi / (2 * l_out + 1) * size == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("mmax", [0, 2, 4])
def test_truncation_is_an_orthogonal_projection_of_the_path_weights(mmax):
    lmax = 4
    paths, others = random_paths(lmax, shape=()), random_paths(lmax, shape=(), seed=5)

    def projected(weights):
        return path_weights(so2_weights(weights, lmax, mmax))

    def dot(a, b):
        return sum((2 * path[2] + 1) * a[path] * b[path] for path in a).item()

    once = projected(paths)
    assert largest_difference(projected(once), once) < 1e-13
    assert dot(once, others) == pytest.approx(dot(paths, projected(others)), rel=1e-12)
    free = sum(2 * min(mmax, l_in, l_out) + 1 for l_in in range(lmax + 1) for l_out in range(lmax + 1))
    units = [{**dict.fromkeys(paths, torch.tensor(0.0).double()), path: torch.tensor(1.0).double()} for path in paths]
    assert sum(projected(unit)[path].item() for unit, path in zip(units, paths, strict=True)) == pytest.approx(free)


def test_truncation_keeps_filters_of_all_degrees():
    """It is not a lower degree of the filter: orders up to 1 of l = 3 still need l_f = 6."""
    paths = path_weights(random_so2(3, 1, shape=()))
    assert all(paths[3, l_filter, 3].abs() > 1e-3 for l_filter in range(7))


def test_paths_left_out_are_zero():
    paths = random_paths(3, filter_lmax=3)
    whole = {path: paths.get(path, torch.zeros(3, 2, dtype=torch.float64)) for path in all_paths(3)}
    ours, theirs = so2_weights(paths, 3), so2_weights(whole, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(ours.real + ours.imaginary, theirs.real + theirs.imaginary, strict=True)
    )


def test_weights_stay_differentiable():
    paths = {path: value.requires_grad_() for path, value in random_paths(2, shape=(1, 1)).items()}
    back = path_weights(so2_weights(paths, 2))
    back[1, 1, 1].sum().backward()
    assert paths[1, 1, 1].grad.item() == pytest.approx(1)
    assert paths[2, 3, 2].grad is None or paths[2, 3, 2].grad.abs().item() < 1e-14


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({}, r"there are no path weights; give at least one path \(l_in, l_filter, l_out\)"),
        ({(1, 3, 1): 1.0}, r"path \(1, 3, 1\) does not exist: l_in and l_out go from 0 to 2"),
        ({(3, 0, 3): 1.0}, r"path \(3, 0, 3\) does not exist"),
        ({(1, 1, 1): 1.0, (0, 0, 0): (1.0, 2.0)}, r"path \(0, 0, 0\) has weights of shape \(2,\), path \(1, 1, 1\) of"),
    ],
)
def test_wrong_paths_are_refused(paths, message):
    with pytest.raises(InputError, match=message):
        so2_weights({path: torch.tensor(value) for path, value in paths.items()}, 2)
