"""Starting structures of the training set: fcc surfaces, adsorbates, bulks and molecules, drawn by number.

``draw_start(seed, index, lattice, kinds)`` is a pure function: the same arguments give the same atoms on every
machine, so a labelling run that was stopped goes on where it left off. Kinds are drawn at random per index, which makes
any prefix of the sequence a fair sample of the whole.

Lengths are in Å. Every cell is periodic in three directions; slabs and molecules have at least 12 Å of vacuum.
"""

from __future__ import annotations

from collections.abc import Sequence

import near
import numpy as np
import wide
from ase import Atoms
from building import U_METALS, is_trapped
from starts import Kind, Start

NEAR = (
    Kind("co111", 0.11, (8, 20), 4),
    Kind("adsorbate-chain", 0.37, (5, 18), 3),
    Kind("adsorbate", 0.24),
    Kind("surface", 0.07, (0, 6), 1),
    Kind("contact", 0.05),
    Kind("gas", 0.08, (0, 10), 1),
    Kind("bulk", 0.08),
)
"""Around equilibrium, on small cells."""

WIDE = (
    Kind("md", 0.40, (6, 10), md_frames=12),
    Kind("adsorbate-chain", 0.16, (8, 18), 2),
    Kind("large", 0.14, (2, 6), 1),
    Kind("path", 0.14, series=wide.PATH_FRAMES - 1),
    Kind("curve", 0.08, series=wide.CURVE_FRAMES - 1, largest_force=100.0, highest_formation=40.0),
    Kind("eos", 0.08, series=wide.EOS_FRAMES - 1),
)
"""Hot, on larger cells, and far from equilibrium."""

CURVES = (Kind("curve", 1.0, series=wide.CURVE_FRAMES - 1, largest_force=100.0, highest_formation=40.0),)
"""Bond curves alone: the ten distances of one start are too few for a curve without shelves."""

NEW_METAL = (
    Kind("md", 0.25, (6, 10), md_frames=12),
    Kind("adsorbate-chain", 0.35, (5, 18), 3),
    Kind("adsorbate", 0.15),
    Kind("surface", 0.10, (0, 6), 1),
    Kind("bulk", 0.06),
    Kind("eos", 0.04, series=wide.EOS_FRAMES - 1),
    Kind("contact", 0.05),
)
"""A few hundred labels of a metal to fine-tune on: slabs, clean and covered, and crystals."""

KIND_SETS = {"near": NEAR, "wide": WIDE, "curves": CURVES, "new-metal": NEW_METAL}

BUILDERS = {
    "co111": near.build_co111,
    "adsorbate-chain": near.build_adsorbate,
    "adsorbate": near.build_adsorbate,
    "surface": near.build_surface,
    "contact": near.build_contact,
    "gas": near.build_gas,
    "bulk": near.build_bulk,
    "md": wide.build_hot,
    "large": wide.build_large,
    "path": wide.build_path,
    "curve": wide.build_curve,
    "eos": wide.build_eos,
}


def draw_start(seed: int, index: int, lattice: dict[str, float], kinds: Sequence[Kind] = NEAR) -> Start:
    """Draw starting structure number `index`.

    Parameters
    ----------
    seed
        Seed of the whole data set.
    index
        Number of the start, from zero.
    lattice
        Cubic lattice constant of each fcc metal to draw from, Å.
    kinds
        Kinds to draw from, one of `KIND_SETS`.

    Raises
    ------
    RuntimeError
        If a builder put O beside a metal of `building.U_METALS`, which is a bug.
    """
    rng = np.random.default_rng([seed, index])
    weights = np.array([kind.share / kind.mean_labels for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    low, high = kind.relax_steps
    empty = Start(Atoms(), "", (), kind, int(rng.integers(low, high + 1)))
    start = BUILDERS[kind.name](empty, lattice, rng)
    if any(is_trapped(atoms) for atoms in (start.atoms, *start.series)):
        raise RuntimeError(f"start {index} of seed {seed} ({kind.name}) has O beside one of {U_METALS}")
    return start
