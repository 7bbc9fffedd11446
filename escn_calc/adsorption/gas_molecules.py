"""The gas molecules that adsorption energies are relative to: their structures, and what thermochemistry needs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

VACUUM = 8.0
"""Å between a molecule and each wall of its box, which is not periodic and only there for calculators that want one."""


@dataclass(frozen=True)
class GasMolecule:
    """A molecule in its electronic ground state.

    Attributes
    ----------
    formula : str
    structure : str
        Its name in ASE's G2 database.
    geometry : str
        As ``ase.thermochemistry.IdealGasThermo`` takes it.
    symmetry_number : int
        Number of rotations that exchange equal atoms only.
    spin : float
        Total spin: 1 for the triplet O2, 0.5 for a radical.
    """

    formula: str
    structure: str
    geometry: Literal["linear", "nonlinear"]
    symmetry_number: int
    spin: float = 0.0


GAS_MOLECULES = {
    molecule.formula: molecule
    for molecule in (
        GasMolecule("H2", "H2", "linear", 2),
        GasMolecule("N2", "N2", "linear", 2),
        GasMolecule("O2", "O2", "linear", 2, 1.0),
        GasMolecule("CO", "CO", "linear", 1),
        GasMolecule("NO", "NO", "linear", 1, 0.5),
        GasMolecule("CO2", "CO2", "linear", 2),
        GasMolecule("N2O", "N2O", "linear", 1),
        GasMolecule("HCN", "HCN", "linear", 1),
        GasMolecule("HF", "HF", "linear", 1),
        GasMolecule("HCl", "HCl", "linear", 1),
        GasMolecule("H2O", "H2O", "nonlinear", 2),
        GasMolecule("H2S", "SH2", "nonlinear", 2),
        GasMolecule("NO2", "NO2", "nonlinear", 2, 0.5),
        GasMolecule("NH3", "NH3", "nonlinear", 3),
        GasMolecule("H2O2", "H2O2", "nonlinear", 2),
        GasMolecule("N2H4", "N2H4", "nonlinear", 2),
        GasMolecule("CH4", "CH4", "nonlinear", 12),
        GasMolecule("CH2O", "H2CO", "nonlinear", 2),
        GasMolecule("CH3OH", "CH3OH", "nonlinear", 1),
        GasMolecule("HCOOH", "HCOOH", "nonlinear", 1),
        GasMolecule("C2H2", "C2H2", "linear", 2),
        GasMolecule("C2H4", "C2H4", "nonlinear", 4),
        GasMolecule("C2H6", "C2H6", "nonlinear", 6),
        GasMolecule("CH3CH2OH", "CH3CH2OH", "nonlinear", 1),
    )
}
"""By formula."""


def gas_molecule(formula: str) -> GasMolecule:
    """Return what is known of a gas molecule.

    Raises
    ------
    InputError
        It is not in the catalogue.
    """
    if formula not in GAS_MOLECULES:
        close = difflib.get_close_matches(formula, GAS_MOLECULES, n=1)
        raise InputError(
            f"the gas molecule {formula!r} is not known; {f'did you mean {close[0]!r}? ' if close else ''}"
            f"there are {', '.join(GAS_MOLECULES)}"
        )
    return GAS_MOLECULES[formula]


def gas_atoms(formula: str) -> Atoms:
    """Return a molecule of the catalogue, alone, to be relaxed.

    The geometry is that of ASE's G2 database (MP2, close to experiment). There are no periodic directions, so a
    molecule never sees its images; the box around it is for calculators that need one.

    Raises
    ------
    InputError
        It is not in the catalogue.
    """
    from ase.build import molecule

    known = gas_molecule(formula)
    atoms = molecule(known.structure, vacuum=VACUUM)
    atoms.info["gas molecule"] = known.formula
    return atoms
