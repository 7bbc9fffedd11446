"""The hyperparameters of an eSCN network, validated."""

from dataclasses import dataclass
from math import isqrt

from escn_calc.errors import CheckpointError
from escn_calc.nn.envelope import MOST_EXPONENT
from escn_calc.nn.repulsion import COVALENT_RADII

GRIDS = ("published", "resolved")
REPULSIONS = ("zbl",)
DISTANCE_FUNCTIONS = ("gaussian", "sigmoid", "linearsigmoid", "silu")
LMAX_LIMIT = 11
MOST_GRID_LINES = 128
LARGEST_RESOLVED = 66
LARGEST_COUNTS = {
    "num_layers": 1000,
    "sphere_channels": 100_000,
    "hidden_channels": 100_000,
    "edge_channels": 100_000,
    "max_num_elements": 1000,
    "num_sphere_samples": 8192,
}
LONGEST = {"cutoff": 100.0, "basis_width_scalar": 1e6, "distance_resolution": 100.0}
"""Limits far beyond any network, so that a malformed file is refused before memory is spent on it."""


@dataclass(frozen=True)
class ESCNConfig:
    """Shape of one eSCN network (Passaro & Zitnick 2023, arXiv 2302.03655).

    Names and defaults are those of the published implementation, so that a configuration found in a
    FAIR checkpoint is used word for word. Lengths are in Å.

    Attributes
    ----------
    lmax_list, mmax_list : one entry per resolution; 0 <= mmax <= lmax <= 11.
    sphere_channels : channels C of one resolution's spherical-harmonic coefficients.
    hidden_channels : width H between the two linear maps of an SO(2) block.
    edge_channels : width E of the invariant edge embedding.
    max_neighbors : strict cap on edges into one atom, nearest first; 0 or less means no cap.
    num_sphere_samples : points Q on which the output heads evaluate the node features; for resolved grids 2 n^2, the
        points of n latitudes and 2 n longitudes.
    resolution : latitudes and longitudes of every sphere grid, None for the published rule; for resolved grids the
        node grid alone is meant, exact up to degree 2 n - 1, None for n = 4 lmax + 6.
    edge_longitudes : longitudes of the edge grid alone, the number behind ``frames="converged"``;
        None for the published rule, for resolved grids 8 mmax + 3. Not part of FAIR's configuration.
    energy_reduce : "sum" (energy = 0.001 x sum over atoms) or "mean" (mean over atoms, no factor).
    grids : "published", or "resolved": Lebedev grids on nodes, Gauss-Legendre latitudes and as many longitudes on
        edges as it takes for the result to depend neither on the roll of the edge frames nor on the orientation of the
        structure; where mmax is 1 longitudes follow the roll and any number does. Not FAIR's.
    cutoff_envelope : exponent of the polynomial that takes every message to zero at the cutoff, with two derivatives
        (:func:`escn_calc.nn.envelope.envelope`); None for none. Not FAIR's.
    repulsion : "zbl" if the nuclear repulsion :func:`escn_calc.nn.repulsion.zbl_energy` (eV) is part of the energy; it
        is added to the output of the network after the normalisers. None for none. Not FAIR's.
    """

    lmax_list: tuple[int, ...] = (6,)
    mmax_list: tuple[int, ...] = (2,)
    num_layers: int = 8
    sphere_channels: int = 128
    hidden_channels: int = 256
    edge_channels: int = 128
    cutoff: float = 8.0
    max_neighbors: int = 40
    max_num_elements: int = 90
    num_sphere_samples: int = 128
    distance_function: str = "gaussian"
    basis_width_scalar: float = 1.0
    distance_resolution: float = 0.02
    resolution: int | None = None
    edge_longitudes: int | None = None
    regress_forces: bool = True
    energy_reduce: str = "sum"
    grids: str = "published"
    cutoff_envelope: int | None = None
    repulsion: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lmax_list", tuple(self.lmax_list))
        object.__setattr__(self, "mmax_list", tuple(self.mmax_list))
        if not self.lmax_list or len(self.lmax_list) != len(self.mmax_list):
            raise CheckpointError(
                f"lmax_list {self.lmax_list} and mmax_list {self.mmax_list} need one entry per resolution"
            )
        for lmax, mmax in zip(self.lmax_list, self.mmax_list, strict=True):
            if not (type(lmax) is type(mmax) is int and 0 <= mmax <= lmax <= LMAX_LIMIT):
                raise CheckpointError(f"resolution lmax={lmax}, mmax={mmax} violates 0 <= mmax <= lmax <= {LMAX_LIMIT}")
        if self.distance_function not in DISTANCE_FUNCTIONS:
            raise CheckpointError(
                f"distance_function {self.distance_function!r} is not one of {', '.join(DISTANCE_FUNCTIONS)}"
            )
        if self.energy_reduce not in ("sum", "mean"):
            raise CheckpointError(f"energy_reduce {self.energy_reduce!r} is neither 'sum' nor 'mean'")
        for name, most in LARGEST_COUNTS.items():
            self._require_count(name, most)
        for name, longest in LONGEST.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= longest:
                raise CheckpointError(f"{name} is {value!r}, but must be positive and at most {longest:g}")
        if type(self.max_neighbors) is not int:
            raise CheckpointError(f"max_neighbors is {self.max_neighbors!r}, but must be a whole number (0: no cap)")
        if type(self.regress_forces) is not bool:
            raise CheckpointError(f"regress_forces is {self.regress_forces!r}, but must be true or false")
        if self.resolution is not None:
            self._require_count("resolution", MOST_GRID_LINES)
            if self.resolution % 2 and self.grids == "published":
                raise CheckpointError(f"resolution is {self.resolution}, but must be an even number of latitudes")
        if self.edge_longitudes is not None:
            self._require_count("edge_longitudes", MOST_GRID_LINES)
        if self.num_distances < 2:
            raise CheckpointError(
                f"cutoff {self.cutoff} Å over distance_resolution {self.distance_resolution} Å "
                "leaves fewer than 2 basis functions"
            )
        self._check_grids()
        self._check_smoothness()

    def _check_grids(self) -> None:
        if self.grids not in GRIDS:
            raise CheckpointError(f"grids is {self.grids!r}, but must be {' or '.join(map(repr, GRIDS))}")
        if not self.resolved:
            return
        latitudes = isqrt(self.num_sphere_samples // 2)
        if self.num_sphere_samples != 2 * latitudes**2:
            raise CheckpointError(
                f"num_sphere_samples is {self.num_sphere_samples}, but resolved grids have n latitudes and 2 n "
                f"longitudes: take 2 n^2 points, such as {2 * latitudes**2 or 2} or {2 * (latitudes + 1) ** 2}"
            )
        fewest = max(self.lmax_list) + 1
        if latitudes < fewest:
            raise CheckpointError(
                f"num_sphere_samples is {self.num_sphere_samples}, but degrees up to {fewest - 1} need at least "
                f"{2 * fewest**2} output points"
            )
        if self.resolution is not None and self.resolution < fewest:
            raise CheckpointError(
                f"resolution is {self.resolution}, but degrees up to {fewest - 1} need at least {fewest}"
            )
        if self.resolution is not None and self.resolution > LARGEST_RESOLVED:
            raise CheckpointError(
                f"resolution is {self.resolution}, but resolved grids are known up to {LARGEST_RESOLVED}"
            )
        fewest = 2 * max(self.mmax_list) + 1
        if self.edge_longitudes is not None and self.edge_longitudes < fewest:
            raise CheckpointError(
                f"edge_longitudes is {self.edge_longitudes}, but orders up to {max(self.mmax_list)} need at least "
                f"{fewest}"
            )

    def _check_smoothness(self) -> None:
        exponent = self.cutoff_envelope
        if exponent is not None and not (type(exponent) is int and 2 <= exponent <= MOST_EXPONENT):
            raise CheckpointError(
                f"cutoff_envelope is {exponent!r}, but must be a whole number from 2 to {MOST_EXPONENT}, or None"
            )
        if self.repulsion not in (None, *REPULSIONS):
            raise CheckpointError(f"repulsion is {self.repulsion!r}, but must be 'zbl' or None")
        for name in ("cutoff_envelope", "repulsion"):
            if getattr(self, name) is not None and self.max_neighbors > 0:
                raise CheckpointError(
                    f"{name} needs whole neighbourhoods, but max_neighbors is {self.max_neighbors}: where neighbours "
                    "change places at a strict cap the energy jumps; set max_neighbors to 0"
                )
        if self.repulsion is not None and self.max_num_elements > len(COVALENT_RADII):
            raise CheckpointError(
                f"max_num_elements is {self.max_num_elements}, but repulsion 'zbl' knows covalent radii below atomic "
                f"number {len(COVALENT_RADII)} only"
            )

    def _require_count(self, name: str, most: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(f"{name} is {value!r}, but must be a whole number from 1 to {most}")

    @property
    def resolved(self) -> bool:
        """Whether the energy is free of the roll of the edge frames, so that derivatives may leave it out."""
        return self.grids == "resolved"

    @property
    def num_distances(self) -> int:
        """Number of radial basis functions, truncated as the published code does."""
        return int(self.cutoff / self.distance_resolution)

    @property
    def all_channels(self) -> int:
        """Channels of all resolutions together, the width of node embedding and heads."""
        return len(self.lmax_list) * self.sphere_channels
