r"""Clebsch-Gordan coefficients of a filter that has only m = 0, as in the frame of an edge.

For J = l_out, by Racah's sum (G. Racah, Phys. Rev. 62, 438 (1942)), here written with binomial coefficients:

    <l_in m, l_f 0 | J m> = sqrt(P) sum_k (-1)^k (a over k) (b over l_in - m - k) (c over l_f - k),

    a = l_in + l_f - J,  b = l_in - l_f + J,  c = -l_in + l_f + J,
    P = (2J+1) (J+m)! (J-m)! (l_in-m)! (l_in+m)! l_f!^2 / ((l_in + l_f + J + 1)! a! b! c!).

Sum and P are rational, so that only the last step rounds. Two identities carry the theory of
:mod:`escn_calc.nn.tensor_product_weights`:

    <l_in -m, l_f 0 | J -m> = (-1)^(l_in + l_f + J) <l_in m, l_f 0 | J m>,                            (parity)
    sum_m <l_in m, l_f 0 | J m> <l_in m, l_f' 0 | J m> = (2J+1)/(2 l_f+1) delta(l_f, l_f').           (orthogonality)
"""

from fractions import Fraction
from functools import cache
from math import comb, factorial, sqrt


@cache
def clebsch_gordan(l_in: int, m: int, l_filter: int, l_out: int) -> float:
    """Return <l_in m, l_filter 0 | l_out m> in the phases of Condon and Shortley, correctly rounded twice.

    Parameters
    ----------
    l_in, l_filter, l_out : degrees; the result is 0 where they violate the triangle rule.
    m : order, |m| <= l_in and |m| <= l_out.
    """
    a, b, c = l_in + l_filter - l_out, l_in - l_filter + l_out, -l_in + l_filter + l_out
    if min(a, b, c) < 0:
        return 0.0
    terms = range(max(0, l_in - m - b, l_filter - c), min(a, l_in - m, l_filter) + 1)
    total = sum((-1) ** k * comb(a, k) * comb(b, l_in - m - k) * comb(c, l_filter - k) for k in terms)
    above = (2 * l_out + 1) * factorial(l_filter) ** 2
    for degree in (l_in, l_out):
        above *= factorial(degree + m) * factorial(degree - m)
    below = factorial(l_in + l_filter + l_out + 1) * factorial(a) * factorial(b) * factorial(c)
    size = sqrt(Fraction(above * total * total, below))
    return size if total >= 0 else -size
