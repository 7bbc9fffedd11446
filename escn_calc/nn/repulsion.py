r"""The repulsion of two nuclei at short range, known for every pair of elements without any fit to the model.

Ziegler, Biersack & Littmark (1985), "The Stopping and Range of Ions in Matter": the Coulomb energy of two nuclei
screened by a universal function of the distance,

    E(r) = e^2/(4 pi eps_0) Z_i Z_j / r  phi(r / a),     a = 0.8854 a_0 / (Z_i^0.23 + Z_j^0.23),
    phi(x) = 0.18175 exp(-3.1998 x) + 0.50986 exp(-0.94229 x) + 0.28022 exp(-0.4029 x) + 0.02817 exp(-0.20162 x).

Here it is multiplied by the envelope of :mod:`escn_calc.nn.envelope` that ends at 0.7 times the sum of the two covalent
radii (Cordero et al. 2008, doi 10.1039/b801115j), or at the cutoff if that is shorter. It vanishes there with two
derivatives. Triple bonds, the shortest ones, are 0.77 to 0.8 times that sum long, so that no bond feels the repulsion:
ending at the full sum it would push C and O in CO apart with 28 eV/Å, which the network would have to undo.
"""

import torch
from torch import Tensor

from escn_calc.nn.envelope import envelope
from escn_calc.nn.incidence import Incidence

COULOMB = 14.3996454785
"""e^2/(4 pi eps_0) in eV Å (CODATA 2018)."""
BOHR = 0.529177210903
"""a_0 in Å (CODATA 2018)."""
SCREENING_LENGTH = 0.8854 * BOHR
SCREENING_POWER = 0.23
AMPLITUDES = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.1998, 0.94229, 0.4029, 0.20162)
ENVELOPE_EXPONENT = 6
RANGE = 0.7
"""Where the repulsion ends, as a multiple of the sum of the covalent radii."""

# fmt: off
COVALENT_RADII = (
    0.20,
    0.31, 0.28,
    1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58,
    1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40,
    2.44, 2.15,
    2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87,
    1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50,
    2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
)
# fmt: on
"""Å by atomic number, hydrogen (1) to curium (96); the value of number 0, no element, only has to be positive."""


def zbl_energy(numbers: Tensor, source: Tensor, target: Tensor, distances: Tensor, cutoff: float) -> Tensor:
    """Return the repulsion as one energy per atom: each directed edge gives half of its pair to its target.

    Parameters
    ----------
    numbers : (N,) atomic numbers, at most 96.
    source, target : (E,) node indices; every pair in both directions.
    distances : (E,) Å, at least 0.01 Å.
    cutoff : Å, of the graph.

    Returns
    -------
    (N,) eV in the dtype of ``distances``; their sum is the repulsion of all pairs.
    """
    z = numbers.to(distances)
    radii = torch.tensor(COVALENT_RADII, dtype=distances.dtype, device=distances.device)[numbers]
    charges, end = z[source] * z[target], (RANGE * (radii[source] + radii[target])).clamp(max=cutoff)
    screened = COULOMB * charges / distances * _screening(z[source], z[target], distances)
    pairs = screened * envelope(distances, end, ENVELOPE_EXPONENT)
    return Incidence(target, len(numbers)).sum(pairs / 2)


def _screening(z_i: Tensor, z_j: Tensor, distances: Tensor) -> Tensor:
    """phi(r / a) of the module docstring, (E,)."""
    x = distances * (z_i**SCREENING_POWER + z_j**SCREENING_POWER) / SCREENING_LENGTH
    decays = torch.tensor(DECAYS, dtype=x.dtype, device=x.device)
    return torch.exp(-decays * x[:, None]) @ torch.tensor(AMPLITUDES, dtype=x.dtype, device=x.device)
