"""What is adsorbed, as far as the bookkeeping of energies needs to know it: a name and a composition."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase.data import atomic_numbers
from ase.formula import Formula

from escn_calc.adsorption.catalogue import catalogue_spelling
from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Species:
    """What is adsorbed, as far as bookkeeping needs to know it.

    Attributes
    ----------
    name : str
        As in the catalogue of adsorbates, without an asterisk: ``"OH"``.
    composition : tuple of (str, int)
        Symbols and numbers of its atoms, by symbol.
    """

    name: str
    composition: tuple[tuple[str, int], ...]


def species(source: str | Atoms, name: str | None = None) -> Species:
    """Return the species that a formula or the atoms of an adsorbate stand for.

    Parameters
    ----------
    source : str or Atoms
        A formula such as ``"OH"``, ``"*OOH"`` or ``"CH3O*"``, or the adsorbate alone, without slab. Another way to
        write a name of the catalogue of adsorbates is that name: ``"HCO"`` is ``"CHO"``.
    name : str, optional
        Its name if that is no formula (``"glycine"``), or not the one that ASE makes of the atoms.

    Raises
    ------
    InputError
        A text that is no formula, or no atoms.
    """
    if isinstance(source, str):
        formula = catalogue_spelling(source)
        counts = composition(formula)
    else:
        formula, counts = source.get_chemical_formula(), Counter(source.get_chemical_symbols())
    if not counts:
        raise InputError("an adsorbate without atoms has no reference; give its formula, such as 'OH', or its atoms")
    return Species(name or formula, tuple(sorted(counts.items())))


def composition(formula: str) -> Counter[str]:
    """Count the atoms of a formula.

    Raises
    ------
    InputError
        The text is no formula.
    """
    if not is_formula(formula):
        raise InputError(f"{formula!r} is not a chemical formula; give one such as 'OH', or the atoms and a name")
    return Counter(Formula(formula).count())


def is_formula(text: str) -> bool:
    """Return whether ASE reads a text as a formula of elements."""
    try:
        counts = Formula(text).count()
    except ValueError:
        return False
    return all(symbol in atomic_numbers and symbol != "X" for symbol in counts)
