"""Frames and Wigner-D matrices: the identities that define them, at every direction that could be special."""

from itertools import product

import pytest
import torch

from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.layout import kept_coefficients, node_index
from escn_calc.nn.rotations import (
    SINGULAR_DIRECTION,
    _stretched_coupling,
    carried_frames,
    edge_frames,
    kept_wigner,
    rolled,
    wigner_d,
)
from tests.tolerances import FRAME, IDENTITY

DTYPES = [torch.float64, torch.float32]
LMAX = 11
SHIFTS = (1e-4, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 1e-12, 1e-12, 1e-15)


def special_directions(dtype):
    """Axes, diagonals, both ends of the singular axis, and directions at small distances from each."""
    corners = [torch.tensor(c, dtype=torch.float64) for c in product((-1.0, 0.0, 1.0), repeat=3) if any(c)]
    singular = torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)
    exact = torch.stack([*corners, singular, -singular])
    exact = exact / exact.norm(dim=-1, keepdim=True)
    sizes = torch.tensor(SHIFTS, dtype=torch.float64)[:, None, None]
    generator = torch.Generator().manual_seed(0)
    shifts = sizes * torch.randn(len(SHIFTS), *exact.shape, generator=generator, dtype=torch.float64)
    near = (exact + shifts).reshape(-1, 3)
    return normalised(torch.cat((exact, near)).to(dtype))


def random_directions(count, dtype):
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return normalised(vectors.to(dtype))


def normalised(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


@pytest.fixture(params=DTYPES, ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def directions(dtype):
    return torch.cat((special_directions(dtype), random_directions(200, dtype)))


def test_frames_are_rotations_that_take_the_edge_to_y(directions, dtype):
    frames = edge_frames(directions)
    assert frames.dtype == dtype
    identity = torch.eye(3, dtype=dtype).expand_as(frames)
    assert (frames @ frames.transpose(1, 2) - identity).abs().max() < 4 * FRAME[dtype]
    assert (torch.linalg.det(frames) - 1).abs().max() < 4 * FRAME[dtype]
    y = torch.tensor((0.0, 1.0, 0.0), dtype=dtype)
    assert ((frames @ directions[:, :, None]).squeeze(-1) - y).abs().max() < 4 * FRAME[dtype]


def test_frames_are_smooth_away_from_the_singular_direction():
    directions = random_directions(500, torch.float64)
    singular = normalised(torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64))
    away = directions[directions @ singular < 0.9]
    step = 1e-6 * random_directions(len(away), torch.float64)
    change = (edge_frames(normalised(away + step)) - edge_frames(away)).norm(dim=(1, 2))
    assert change.max() < 2e-5


def test_singular_direction_keeps_its_distance_from_common_edges():
    """No lattice vector with indices up to 4 of a cubic crystal, in its own axes or with (111) up, comes near."""
    integers = torch.tensor([c for c in product(range(-4, 5), repeat=3) if any(c)], dtype=torch.float64)
    surface = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    crystal = normalised(torch.cat((integers, integers @ normalised(surface).T)))
    singular = normalised(torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64))
    assert (crystal - singular).norm(dim=-1).min() > 0.04


def test_wigner_matrices_are_orthogonal_representations(directions, dtype):
    frames = edge_frames(directions)
    other = edge_frames(directions.flip(0))
    tolerance = IDENTITY[dtype]
    for d, d_other, d_product in zip(
        wigner_d(frames, LMAX), wigner_d(other, LMAX), wigner_d(frames @ other, LMAX), strict=True
    ):
        assert d.dtype == dtype
        identity = torch.eye(d.shape[-1], dtype=dtype).expand_as(d)
        assert (d @ d.transpose(1, 2) - identity).abs().max() < tolerance
        assert (d @ d_other - d_product).abs().max() < tolerance


def test_wigner_matrices_rotate_the_harmonics(directions, dtype):
    frames = edge_frames(directions)
    points = random_directions(30, dtype)
    turned = solid_harmonics(torch.einsum("eij,pj->epi", frames, points), LMAX)
    plain = solid_harmonics(points, LMAX)
    for degree, d in enumerate(wigner_d(frames, LMAX)):
        block = slice(degree**2, (degree + 1) ** 2)
        expected = torch.einsum("emn,pn->epm", d, plain[:, block])
        assert (turned[..., block] - expected).abs().max() < IDENTITY[dtype]


def test_values_and_derivatives_are_finite_everywhere(dtype):
    directions = special_directions(dtype).requires_grad_()
    total = sum(d.square().sum() + d.sin().sum() for d in wigner_d(edge_frames(directions), 6))
    (first,) = torch.autograd.grad(total, directions, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), directions)
    assert total.isfinite()
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_derivatives_are_right():
    directions = random_directions(5, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda u: torch.cat([d.flatten(1) for d in wigner_d(edge_frames(u), 4)], 1), directions
    )


def slopes(frames_of, direction, lmax):
    """Largest operator norm of dD^l by a unit step of the direction, for l = 0 ... lmax."""

    def matrices(u):
        return tuple(d[0] for d in wigner_d(frames_of(u / u.norm(dim=-1, keepdim=True)), lmax))

    tangents = torch.linalg.svd(direction).Vh[1:]
    jacobians = torch.autograd.functional.jacobian(matrices, direction)
    return [max(torch.linalg.matrix_norm(j[:, :, 0] @ tangent, 2).item() for tangent in tangents) for j in jacobians]


def carried(u):
    return carried_frames(edge_frames(u), u)


def test_carried_frames_have_the_same_values(dtype):
    directions = special_directions(dtype)
    assert (carried(directions) - edge_frames(directions)).abs().max() < FRAME[dtype]


def test_derivatives_of_carried_frames_are_bounded_by_the_degree():
    """|dD^l| <= l |du| at every direction, the singular one included."""
    singular = torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)
    singular = singular / singular.norm()
    directions = special_directions(torch.float64)
    near = directions[(directions - singular).norm(dim=-1) < 0.01]
    for direction in torch.cat((near, directions[::12])):
        for degree, slope in enumerate(slopes(carried, direction[None], 2)):
            assert slope == pytest.approx(degree, abs=1e-9)
    assert len(near) > 5
    assert slopes(carried, singular[None], 6) == pytest.approx(range(7), abs=1e-9)


def test_derivatives_of_canonical_frames_grow_near_the_singular_direction():
    """The reason for carried frames: the roll of a frame field turns by tan(t / 2), t the angle from its centre."""
    singular = torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)
    aside = torch.linalg.svd(singular[None]).Vh[1]
    near = singular / singular.norm() + 1e-3 * aside
    assert slopes(edge_frames, (near / near.norm())[None], 1)[1] == pytest.approx(2000, rel=0.01)


def test_second_derivatives_of_carried_frames_do_not_depend_on_the_direction():
    """For a function that ignores rolls, l m = 0 rows of D, all charts have the same Hessian: that of Y^l."""
    point = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    for direction in special_directions(torch.float64)[::7]:

        def energy(u, frames_of):
            unit = (u / u.norm())[None]
            d = wigner_d(frames_of(unit), 3)[3][0]
            return (d @ solid_harmonics(point, 3)[9:16])[3].sin()

        hessian = torch.autograd.functional.hessian(lambda u: energy(u, carried), direction)
        assert hessian.isfinite().all() and (hessian - hessian.T).abs().max() < 1e-10
        if (direction - torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)).norm() > 0.1:
            reference = torch.autograd.functional.hessian(lambda u: energy(u, edge_frames), direction)
            assert (hessian - reference).abs().max() < 1e-9 * max(1.0, reference.abs().max())


def test_inference_mode_leaves_nothing_behind_that_breaks_derivatives():
    _stretched_coupling.cache_clear()
    with torch.inference_mode():
        wigner_d(edge_frames(random_directions(2, torch.float64)), 3)
    directions = random_directions(2, torch.float64).requires_grad_()
    wigner_d(edge_frames(directions), 3)[3].sum().backward()
    assert directions.grad.isfinite().all()


def test_a_roll_only_mixes_plus_and_minus_m():
    frames = edge_frames(random_directions(20, torch.float64))
    angles = torch.linspace(-3, 3, 20, dtype=torch.float64)
    for degree, (d, turned) in enumerate(zip(wigner_d(frames, 5), wigner_d(rolled(frames, angles), 5), strict=True)):
        for m in range(degree + 1):
            plus, minus = d[:, degree + m], d[:, degree - m]
            c, s = (m * angles).cos()[:, None], (m * angles).sin()[:, None]
            torch.testing.assert_close(turned[:, degree + m], c * plus - s * minus)
            torch.testing.assert_close(turned[:, degree - m], c * minus + s * plus if m else minus)


def test_kept_rows_are_the_rows_of_the_whole_matrix():
    matrices = wigner_d(edge_frames(random_directions(4, torch.float64)), 3)
    whole = torch.stack([torch.block_diag(*[d[e] for d in matrices]) for e in range(4)])
    assert torch.equal(kept_wigner(matrices, kept_coefficients(3, 1)), whole[:, node_index(3, 1)])
