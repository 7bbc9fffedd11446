"""The distances at which a relaxed adsorbate or surface counts as no longer what it was."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from escn_calc.errors import InputError


@dataclass(frozen=True)
class Thresholds:
    """What `find_anomalies` goes by; docs/anomalies.md explains each choice.

    An *excess* is a distance minus the sum of the covalent radii of the two atoms (Cordero et al. 2008,
    DOI 10.1039/b801115j, as ASE has them).

    Attributes
    ----------
    bond_formed : float
        Excess in Å below which two atoms of adsorbates count as bonded.
    bond_broken : float
        Excess in Å above which a bond of the start counts as broken. In between a bond stays what it was.
    surface_bond : float
        Excess in Å below which an atom of an adsorbate counts as bonded to an atom of the slab.
    desorption : float
        Å. Molecules farther than this from the slab, and from what stands on it, have desorbed.
    migration : float
        Å along the surface. What binds the adsorbate may move by this much before its site counts as another.
    enclosure : float
        Degrees. An atom of an adsorbate has gone below the surface if no cone of this half-angle with the atom as its
        apex is free of slab atoms. The widest free cone has 90° in the plane of the surface layer, and 55° or 70° in an
        octahedral or tetrahedral hole.
    stretch : float
        Times its length at the start beyond which two neighbouring slab atoms have parted. Second neighbours of fcc
        metals are 1.41 times farther than first ones.
    slab_displacement : float
        Å. Slab atoms that move farther than this are worth a note.
    force : float
        eV/Å. Atoms half a bond length apart feel less than a tenth of the default.
    collision : float
        Times the sum of the covalent radii below which two atoms have run into each other. The shortest bonds, triple
        ones between light atoms, have 0.77.

    Raises
    ------
    InputError
        A value that is not a positive number, or two values in the wrong order.
    """

    bond_formed: float = 0.3
    bond_broken: float = 0.5
    surface_bond: float = 0.5
    desorption: float = 4.0
    migration: float = 0.6
    enclosure: float = 80.0
    stretch: float = 1.35
    slab_displacement: float = 0.75
    force: float = 1000.0
    collision: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"anomaly threshold {field.name} is {value}; it must be a positive number")
        if self.bond_broken < self.bond_formed:
            raise InputError(
                f"anomaly threshold bond_broken ({self.bond_broken:g} Å) is below bond_formed "
                f"({self.bond_formed:g} Å): a bond would be formed and broken at once"
            )
        if self.stretch <= 1:
            raise InputError(f"anomaly threshold stretch is {self.stretch:g}; it must be above 1")
        if self.enclosure >= 90:
            raise InputError(f"anomaly threshold enclosure is {self.enclosure:g}°; in the surface layer it is 90°")
