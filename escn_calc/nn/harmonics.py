r"""Real spherical harmonics with y as polar axis, as polynomials.

A point is p = r (sin b sin a, cos b, sin b cos a), so b is the angle from +y and a = atan2(x, z). With the
Legendre functions P of non-negative leading sign (no Condon-Shortley phase) and
N_lm = sqrt((2l+1)/(4 pi) (l-m)!/(l+m)!),

    Y_l,m  = sqrt(2) N_lm P_lm(cos b) cos(m a)      m > 0
    Y_l,0  =         N_l0 P_l0(cos b)
    Y_l,-m = sqrt(2) N_lm P_lm(cos b) sin(m a)      m > 0

so that the integral of Y squared over the sphere is 1. Coefficients are ordered l-major, m = -l ... l: entry
l(l+1) + m. This is the convention of the published eSCN code (e3nn's "integral" normalisation).
"""

from math import factorial, pi, sqrt

import torch
from torch import Tensor


def solid_harmonics(points: Tensor, lmax: int) -> Tensor:
    """Return r^l Y_lm(p/r) of ``points``.

    Parameters
    ----------
    points : (..., 3), any length; on the unit sphere the result is Y_lm itself.
    lmax : highest degree.

    Returns
    -------
    (..., (lmax+1)^2). A polynomial in the coordinates, hence smooth at the poles and at the origin.
    """
    x, y, z = points.unbind(-1)
    legendre = _solid_legendre(y, (points * points).sum(-1), lmax)
    cosines, sines = _azimuthal(x, z, lmax)
    columns = []
    for degree in range(lmax + 1):
        for order in range(-degree, degree + 1):
            m = abs(order)
            azimuthal = sines[m] if order < 0 else cosines[m]
            columns.append(_norm(degree, order) * legendre[degree, m] * azimuthal)
    return torch.stack(columns, dim=-1)


def _norm(degree: int, order: int) -> float:
    m = abs(order)
    norm = sqrt((2 * degree + 1) / (4 * pi) * factorial(degree - m) / factorial(degree + m))
    return norm if order == 0 else sqrt(2) * norm


def _azimuthal(x: Tensor, z: Tensor, lmax: int) -> tuple[list[Tensor], list[Tensor]]:
    """Real and imaginary part of (z + i x)^m, i.e. (r sin b)^m times cos(m a) and sin(m a)."""
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(lmax):
        c, s = cosines[-1], sines[-1]
        cosines.append(z * c - x * s)
        sines.append(z * s + x * c)
    return cosines, sines


def _solid_legendre(y: Tensor, r2: Tensor, lmax: int) -> dict[tuple[int, int], Tensor]:
    """r^(l-m) P_lm(y/r) / sin(b)^m by the standard three-term recursion in l."""
    p: dict[tuple[int, int], Tensor] = {}
    double_factorial = 1.0
    for m in range(lmax + 1):
        p[m, m] = torch.full_like(y, double_factorial)
        double_factorial *= 2 * m + 1
        for degree in range(m + 1, lmax + 1):
            value = (2 * degree - 1) * y * p[degree - 1, m]
            if degree > m + 1:
                value = value - (degree + m - 1) * r2 * p[degree - 2, m]
            p[degree, m] = value / (degree - m)
    return p
