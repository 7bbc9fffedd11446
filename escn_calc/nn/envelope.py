r"""A factor that takes a function of the distance to zero at a cutoff, with two continuous derivatives.

The polynomial of Gasteiger, Groß & Günnemann (2020, arXiv 2003.03123) of exponent p, with x = d/cutoff,

    f(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),

is 1 at 0 with p - 1 vanishing derivatives, and zero at 1 with two. It has a triple root there,

    f(x) = (1 - x)^3 (1 + 3 x + 6 x^2 + ... + p(p+1)/2 x^(p-1)),

and is evaluated in this form: all terms are positive, so that nothing cancels where f is small.
"""

import torch
from torch import Tensor

MOST_EXPONENT = 100


def envelope(distances: Tensor, cutoff: float | Tensor, exponent: int) -> Tensor:
    """Return f(d / cutoff), zero from the cutoff on.

    Parameters
    ----------
    distances : (E,) Å, positive.
    cutoff : Å; one number, or (E,).
    exponent : p, at least 2; the larger, the closer to the cutoff the factor falls.

    Returns
    -------
    (E,) in [0, 1].
    """
    x = (distances / cutoff).clamp(max=1.0)
    k = torch.arange(exponent, device=x.device)
    series = x[:, None] ** k @ ((k + 1) * (k + 2) // 2).to(x.dtype)
    return (1 - x) ** 3 * series
