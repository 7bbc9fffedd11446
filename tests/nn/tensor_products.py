"""The tensor product written out from Wigner 3j symbols, knowing nothing of edge frames.

y^(l_out)_n = sum h(l_in, l_f, l_out) C^(l_out, n)_(l_in, m)(l_f, k) x^(l_in)_m Y^(l_f)_k(u)
"""

from fractions import Fraction
from functools import cache
from math import factorial, sqrt

import numpy as np
import torch

from escn_calc.nn.harmonics import solid_harmonics


@cache
def wigner_3j(j1, j2, j3, m1, m2, m3):
    """Racah's formula, exact up to one square root."""
    if m1 + m2 + m3 or not abs(j1 - j2) <= j3 <= j1 + j2 or abs(m1) > j1 or abs(m2) > j2 or abs(m3) > j3:
        return 0.0
    total = Fraction(0)
    for t in range(max(0, j2 - j3 - m1, j1 - j3 + m2), min(j1 + j2 - j3, j1 - m1, j2 + m2) + 1):
        parts = (t, j3 - j2 + t + m1, j3 - j1 + t - m2, j1 + j2 - j3 - t, j1 - t - m1, j2 - t + m2)
        below = 1
        for part in parts:
            below *= factorial(part)
        total += Fraction((-1) ** t, below)
    square = Fraction(factorial(j1 + j2 - j3) * factorial(j1 - j2 + j3) * factorial(-j1 + j2 + j3))
    square /= factorial(j1 + j2 + j3 + 1)
    for j, m in ((j1, m1), (j2, m2), (j3, m3)):
        square *= factorial(j + m) * factorial(j - m)
    sign = (-1) ** (j1 - j2 - m3) * (1 if total >= 0 else -1)
    return sign * sqrt(square * total * total)


@cache
def to_complex(degree):
    """(2l+1, 2l+1): coefficients of real harmonics, m = -l ... l, to those of Condon and Shortley's complex ones."""
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=complex)
    matrix[degree, degree] = 1
    for m in range(1, degree + 1):
        matrix[degree + m, degree + m] = (-1) ** m / sqrt(2)
        matrix[degree + m, degree - m] = -1j * (-1) ** m / sqrt(2)
        matrix[degree - m, degree + m] = 1 / sqrt(2)
        matrix[degree - m, degree - m] = 1j / sqrt(2)
    return matrix


@cache
def coupling(l_in, l_filter, l_out):
    """C in the real basis, (2 l_in+1, 2 l_filter+1, 2 l_out+1) float64; odd paths times -i."""
    table = np.zeros((2 * l_in + 1, 2 * l_filter + 1, 2 * l_out + 1))
    for m in range(-l_in, l_in + 1):
        for k in range(max(-l_filter, -l_out - m), min(l_filter, l_out - m) + 1):
            n = m + k
            symbol = wigner_3j(l_in, l_filter, l_out, m, k, -n)
            table[l_in + m, l_filter + k, l_out + n] = (-1) ** (l_in - l_filter + n) * sqrt(2 * l_out + 1) * symbol
    out = to_complex(l_out).conj()
    real = np.einsum("abc,ai,bj,ck->ijk", table, to_complex(l_in), to_complex(l_filter), out, optimize=True)
    if (l_in + l_filter + l_out) % 2:
        real = -1j * real
    assert abs(real.imag).max() < 1e-14
    return torch.from_numpy(real.real.copy())


def all_paths(lmax, filter_lmax=None):
    """Every (l_in, l_filter, l_out) with l_in, l_out <= lmax."""
    highest = 2 * lmax if filter_lmax is None else filter_lmax
    return [
        (l_in, l_filter, l_out)
        for l_in in range(lmax + 1)
        for l_out in range(lmax + 1)
        for l_filter in range(abs(l_in - l_out), min(l_in + l_out, highest) + 1)
    ]


def tensor_product(x, directions, weights, lmax):
    """Messages (E, K, C') of features (E, K, C) along unit vectors (E, 3)."""
    harmonics = solid_harmonics(directions, max(path[1] for path in weights))
    channels = next(iter(weights.values())).shape[0]
    messages = x.new_zeros(len(x), (lmax + 1) ** 2, channels)
    for (l_in, l_filter, l_out), weight in weights.items():
        features = x[:, l_in**2 : (l_in + 1) ** 2]
        of_filter = harmonics[:, l_filter**2 : (l_filter + 1) ** 2]
        path = torch.einsum("mkn,emc,ek->enc", coupling(l_in, l_filter, l_out), features, of_filter)
        messages[:, l_out**2 : (l_out + 1) ** 2] += path @ weight.T
    return messages
