r"""Edge frames and Wigner-D matrices, deterministic and differentiable everywhere.

**Frame.** A frame is a rotation matrix F with F u = +y for the unit edge vector u; its rows are the frame's axes.
Let a be a fixed unit vector and p = (u + a)/|u + a| the bisector. The half turn about p, 2 p p^T - 1, takes u to a,
and a fixed rotation A with A a = y completes

    F(u) = A (2 p p^T - 1).

F is smooth wherever u != -a. No frame field is smooth on the whole sphere (hairy ball), so one such direction must
exist; a = -SINGULAR_DIRECTION keeps it at least 0.04 rad from the low-index lattice directions of crystals in common
orientations. There, p is replaced by a fixed vector normal to a: F is still a rotation with F u = y. On a coarse edge
grid the choice of a is one draw from the scatter of random frames; benchmarks/singular_direction.py shows how it was
made and where it lies.

**Derivatives.** F turns about the edge ever faster as u approaches the singular direction: the derivative of that roll
is tan(t/2), t the angle between u and a, and no smooth field on the whole sphere is without such a place. The exact
derivative of F is right where the energy depends on the roll (a coarse edge grid). Where it does not, the roll is left
out: around the current direction w = F^T y every edge gets a chart of its own,

    F(u) = F(w) S(u, w),    S(u, w) = 1 + K + K^2 / (1 + u . w),    K v = (u x w) x v,

where S is the smallest rotation that takes u to w, which has no roll. It is 1 at u = w, so values are the same, and all
derivatives at u = w are bounded independently of u: |dF v| <= |du| |v|, and for the Wigner matrices
|dD^l v| <= l |du| |v|. Energies that do not depend on rolls have the same derivatives of all orders in every chart.

**Wigner-D.** D^l(R) is the matrix with Y^l(R p) = D^l(R) Y^l(p). D^0 = 1, D^1 is R itself in the basis (x, y, z), and

    D^l = Q_l (D^1 (x) D^(l-1)) Q_l^T,

where Q_l, (2l+1, 3(2l-1)), is the isometry onto degree l inside the product of degrees 1 and l-1 (the stretched
Clebsch-Gordan coefficients in the real basis). The product Y^1 Y^(l-1) integrated against Y^l gives Q_l up to a
factor, by a quadrature that is exact. Every element is a polynomial in the elements of R: there are no Euler angles
and no poles.
"""

from functools import cache
from math import sqrt

import torch
from torch import Tensor

from escn_calc.nn.sphere_grid import grid_matrices

SINGULAR_DIRECTION = (-0.59134889, 0.34134800, 0.73060799)


def edge_frames(directions: Tensor) -> Tensor:
    """Return one rotation matrix per direction with ``frame @ direction = (0, 1, 0)``.

    Parameters
    ----------
    directions : (E, 3) unit vectors, target to source.

    Returns
    -------
    (E, 3, 3), rows are the frame's axes, determinant +1.
    """
    aligned, normal, to_y = _frame_constants(directions)
    bisector = _bisector(directions, aligned)
    squared = bisector.square().sum(-1, keepdim=True)
    degenerate = squared < (1e-3 * torch.finfo(directions.dtype).eps) ** 2
    length = torch.where(degenerate, 1.0, squared).sqrt()
    p = torch.where(degenerate, normal, bisector / length)
    half_turn = 2 * p[:, :, None] * p[:, None, :] - torch.eye(3, dtype=p.dtype, device=p.device)
    return to_y @ half_turn


def carried_frames(frames: Tensor, directions: Tensor) -> Tensor:
    """Return ``frames`` unchanged, with derivatives that carry them along with their edges without any roll.

    For energies that do not depend on the roll; bounded for every direction (see the module docstring).

    Parameters
    ----------
    frames : (E, 3, 3), taken as constants.
    directions : (E, 3) unit vectors with ``frames @ directions = (0, 1, 0)``.

    Returns
    -------
    (E, 3, 3).
    """
    return frames.detach() @ _smallest_rotation(directions, directions.detach())


def _smallest_rotation(u: Tensor, w: Tensor) -> Tensor:
    """S(u, w) of the module docstring, (E, 3, 3), for unit vectors that are not opposite."""
    x, y, z = torch.linalg.cross(u, w).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).view(-1, 3, 3)
    cosine = (u * w).sum(-1)[:, None, None]
    return torch.eye(3, dtype=u.dtype, device=u.device) + k + k @ k / (1 + cosine)


def _bisector(u: Tensor, a: Tensor) -> Tensor:
    """Return u + a, kept normal to u - a where it is small.

    Unit vectors have (u + a) . (u - a) = 0. Near u = -a the sum is as small as the rounding of |u|, which would
    turn it; taking the component along u - a away restores the direction to full precision.
    """
    total, difference = u + a, u - a
    near = (u * a).sum(-1, keepdim=True) < 0
    squared = torch.where(near, difference.square().sum(-1, keepdim=True), 1.0)
    along = (total * difference).sum(-1, keepdim=True) / squared
    return torch.where(near, total - along * difference, total)


def _frame_constants(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, a unit vector normal to a, and a rotation A with A a = y, in the dtype of ``like``."""
    aligned = -torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64, device="cpu")
    aligned = aligned / aligned.norm()
    y = torch.tensor((0.0, 1.0, 0.0), dtype=torch.float64, device="cpu")
    p = (aligned + y) / (aligned + y).norm()
    to_y = 2 * torch.outer(p, p) - torch.eye(3, dtype=torch.float64, device="cpu")
    normal = torch.linalg.cross(aligned, y)
    normal = normal / normal.norm()
    return aligned.to(like), normal.to(like), to_y.to(like)


def rolled(frames: Tensor, angles: Tensor) -> Tensor:
    """Turn frames (E, 3, 3) about their edges by ``angles`` (E,), in radians."""
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = (cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine)
    return torch.stack(rows, dim=-1).view(-1, 3, 3) @ frames


def wigner_d(rotations: Tensor, lmax: int) -> list[Tensor]:
    """Return the Wigner-D matrices of degrees 0 ... lmax.

    Parameters
    ----------
    rotations : (E, 3, 3) rotation matrices.
    lmax : highest degree.

    Returns
    -------
    list of (E, 2l+1, 2l+1), rows and columns m = -l ... l; orthogonal, D(R S) = D(R) D(S).
    """
    count = len(rotations)
    matrices = [rotations.new_ones(count, 1, 1)]
    for degree in range(1, lmax + 1):
        previous = matrices[-1]
        size = 3 * (2 * degree - 1)
        product = rotations[:, :, None, :, None] * previous[:, None, :, None, :]
        coupling = _stretched_coupling(degree).to(rotations)
        matrices.append(coupling @ product.reshape(count, size, size) @ coupling.T)
    return matrices


@cache
def _stretched_coupling(degree: int) -> Tensor:
    """Q_l of the module docstring, (2l+1, 3(2l-1)) float64 with orthonormal rows.

    Made outside inference mode, because a later call may want derivatives through it.
    """
    with torch.device("cpu"), torch.inference_mode(mode=False), torch.no_grad():
        sample, integrate = grid_matrices(degree, 2 * (degree + 1), 2 * degree + 1)
        vector = sample[:, 1:4]
        lower = sample[:, (degree - 1) ** 2 : degree**2]
        upper = integrate[:, degree**2 : (degree + 1) ** 2]
        coupling = torch.einsum("pm,pi,pj->mij", upper, vector, lower).flatten(1)
        return coupling * sqrt(2 * degree + 1) / coupling.norm()


def kept_wigner(matrices: list[Tensor], kept: list[tuple[int, int]]) -> Tensor:
    """Return the rows ``kept`` (l, m pairs) of the block-diagonal Wigner matrix.

    Parameters
    ----------
    matrices : output of :func:`wigner_d` for degrees 0 ... lmax.
    kept : (l, m) of each output row.

    Returns
    -------
    (E, len(kept), (lmax+1)^2): rotates l-major node coefficients into the edge frame; its transpose rotates back.
    """
    lmax = max(degree for degree, _ in kept)
    rows = matrices[0].new_zeros(len(matrices[0]), len(kept), (lmax + 1) ** 2)
    for degree in range(lmax + 1):
        mine = [(row, degree + m) for row, (other, m) in enumerate(kept) if other == degree]
        target, source = map(list, zip(*mine, strict=True))
        rows[:, target, degree**2 : (degree + 1) ** 2] = matrices[degree][:, source]
    return rows
