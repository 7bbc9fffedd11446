r"""The weights of a tensor product as weights of SO(2) maps, and back (arXiv 2302.03655).

**Tensor product.** With one weight h for every path (l_in, l_f, l_out), |l_in - l_out| <= l_f <= l_in + l_out, the
message of an edge with direction u is

    y^(l_out)_n = sum_(l_in, l_f, m, k) h(l_in, l_f, l_out) C^(l_out, n)_(l_in, m)(l_f, k) x^(l_in)_m Y^(l_f)_k(u).

C are the Clebsch-Gordan coefficients in the basis of real harmonics. A path is *even* or *odd* as l_in + l_f + l_out
is; the real coefficients of odd paths are those of Condon and Shortley, carried to the real basis, times -i.

**In the edge frame** u = +y, where Y^(l_f)_k = sqrt((2 l_f + 1)/4 pi) delta(k, 0). What is left of C couples m with m
for even paths and m with -m for odd ones, both with the coefficient

    c_m(l_in, l_f, l_out) = sqrt((2 l_f + 1)/4 pi) <l_in m, l_f 0 | l_out m>,

so that with p, q the coefficients +m and -m

    y(+m) = W_r p - W_i q,   y(-m) = W_r q + W_i p,
    W_r[m, l_out, l_in] = sum of c_m h over even paths,   W_i[m, l_out, l_in] = sum of c_m h over odd paths.

**Back.** For each (l_in, l_out) there are 2 min(l_in, l_out) + 1 paths, and as many numbers W_r (m = 0 ... min) and
W_i (m = 1 ... min). The coefficients c are orthogonal, so nothing has to be solved:

    h(l_in, l_f, l_out) = 4 pi/(2 l_out + 1) [ c_0 W_0 + 2 sum_(m > 0) c_m W_m ],

W = W_r for even paths, W_i for odd ones. In this norm the map is an isometry:
sum_(l_f) h^2 = 4 pi/(2 l_out + 1) [ W_r[0]^2 + 2 sum_(m > 0) (W_r[m]^2 + W_i[m]^2) ].

**Truncation** to |m| <= mmax sets W to zero for larger m. Hence the truncated convolution is again a tensor product,
whose path weights are the orthogonal projection h' = path_weights(so2_weights(h, mmax)) of h. All l_f remain; of the
weights of (l_in, l_out), 2 min(mmax, l_in, l_out) + 1 combinations are free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from escn_calc.errors import InputError
from escn_calc.nn.clebsch_gordan import clebsch_gordan

Path = tuple[int, int, int]
"""Degrees (l_in, l_filter, l_out)."""


@dataclass(frozen=True, eq=False)
class SO2Weights:
    """Weights of the SO(2) maps of orders 0 ... mmax between degrees 0 ... lmax.

    Attributes
    ----------
    real : W_r for m = 0 ... mmax, (lmax+1-m, lmax+1-m, ...) each, entry [l_out - m, l_in - m].
    imaginary : W_i for m = 1 ... mmax, shaped like ``real[m]``.
    """

    real: tuple[Tensor, ...]
    imaginary: tuple[Tensor, ...]

    @property
    def lmax(self) -> int:
        """Highest degree."""
        return len(self.real[0]) - 1

    @property
    def mmax(self) -> int:
        """Highest order."""
        return len(self.imaginary)


def filter_degrees(l_in: int, l_out: int) -> range:
    """Return the degrees l_filter of all paths from l_in to l_out."""
    return range(abs(l_in - l_out), l_in + l_out + 1)


def aligned_coupling(path: Path, m: int) -> float:
    """Return c_m of a path (see the module docstring)."""
    l_in, l_filter, l_out = path
    return sqrt((2 * l_filter + 1) / (4 * pi)) * clebsch_gordan(l_in, m, l_filter, l_out)


def is_odd(path: Path) -> bool:
    """Return whether a path couples m with -m; inverted factors then give minus the inverted product, as in u x v."""
    return sum(path) % 2 == 1


def so2_weights(weights: Mapping[Path, Tensor], lmax: int, mmax: int | None = None) -> SO2Weights:
    """Return the SO(2) weights of a tensor product.

    Parameters
    ----------
    weights : h of each path (l_in, l_filter, l_out), all of one shape (...), for instance (out_channels, in_channels).
        Paths that are left out count as zero.
    lmax : highest degree of input and output.
    mmax : highest order that is kept; None for lmax, which keeps everything.

    Returns
    -------
    SO2Weights
        Entries of shape (...), in the dtype of ``weights``, differentiable.

    Raises
    ------
    InputError
        There is no path, or one violates the triangle rule or has a degree above lmax, or shapes differ.
    """
    _check_paths(weights, lmax)
    zero = torch.zeros_like(next(iter(weights.values())))

    def entry(m: int, l_out: int, l_in: int, odd: bool) -> Tensor:
        paths = [(l_in, l_filter, l_out) for l_filter in filter_degrees(l_in, l_out)]
        terms = [aligned_coupling(path, m) * weights[path] for path in paths if path in weights and is_odd(path) == odd]
        return sum(terms, start=zero)

    def table(m: int, odd: bool) -> Tensor:
        degrees = range(m, lmax + 1)
        return torch.stack([torch.stack([entry(m, l_out, l_in, odd) for l_in in degrees]) for l_out in degrees])

    highest = lmax if mmax is None else mmax
    return SO2Weights(
        real=tuple(table(m, odd=False) for m in range(highest + 1)),
        imaginary=tuple(table(m, odd=True) for m in range(1, highest + 1)),
    )


def path_weights(weights: SO2Weights) -> dict[Path, Tensor]:
    """Return the tensor product that the SO(2) maps are: h of every path, each (...) in the dtype of ``weights``."""

    def of_order(m: int, path: Path) -> Tensor:
        l_in, _, l_out = path
        table = weights.imaginary[m - 1] if is_odd(path) else weights.real[m]
        return (2 if m else 1) * aligned_coupling(path, m) * table[l_out - m, l_in - m]

    paths = {}
    degrees = range(weights.lmax + 1)
    for l_in, l_out in ((l_in, l_out) for l_in in degrees for l_out in degrees):
        zero = torch.zeros_like(weights.real[0][l_out, l_in])
        for l_filter in filter_degrees(l_in, l_out):
            path = (l_in, l_filter, l_out)
            orders = range(int(is_odd(path)), min(l_in, l_out, weights.mmax) + 1)
            total = sum((of_order(m, path) for m in orders), start=zero)
            paths[path] = 4 * pi / (2 * l_out + 1) * total
    return paths


def _check_paths(weights: Mapping[Path, Tensor], lmax: int) -> None:
    if not weights:
        raise InputError("there are no path weights; give at least one path (l_in, l_filter, l_out)")
    first, shape = next((path, tensor.shape) for path, tensor in weights.items())
    for path, tensor in weights.items():
        l_in, l_filter, l_out = path
        if not (0 <= l_in <= lmax and 0 <= l_out <= lmax and l_filter in filter_degrees(l_in, l_out)):
            raise InputError(
                f"path {path} does not exist: l_in and l_out go from 0 to {lmax}, l_filter from |l_in - l_out| to "
                "l_in + l_out"
            )
        if tensor.shape != shape:
            raise InputError(
                f"path {path} has weights of shape {tuple(tensor.shape)}, path {first} of shape {tuple(shape)}; "
                "all paths need one shape"
            )
