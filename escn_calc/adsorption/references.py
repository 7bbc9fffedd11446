"""What adsorption energies are relative to: gas molecules, fixed values, or both, for every adsorbate.

A reference is a linear combination of gas molecules and a constant in eV; a scheme names one for each adsorbate. The
coefficients are exact fractions, so that it can be checked that a reference has the atoms of its adsorbate, that a
change of scheme and back changes nothing, and that a reference can be put in words: the reaction it stands for.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce

from escn_calc.adsorption.catalogue import catalogue_spelling
from escn_calc.adsorption.gas_molecules import GAS_MOLECULES
from escn_calc.adsorption.species import Species, composition, is_formula, species
from escn_calc.errors import InputError

TERM = re.compile(
    r"\s*(?P<sign>[+\-−])?\s*(?:(?P<factor>\d+/[1-9]\d*|\d+\.?\d*(?:e[+-]?\d{1,2})?|\.\d+|½)\s*\*?\s*)?"
    r"(?P<molecule>[A-Z][A-Za-z0-9]*)?(?:\(g\)|\s*eV)?"
)
"""One term of a reference as people write it: ``- 1/2 H2``, ``+ CO(g)``, ``-7.204 eV``."""


@dataclass(frozen=True)
class Reference:
    """Σ c·E(molecule) + constant: the zero of an adsorption energy.

    Attributes
    ----------
    molecules : tuple of (str, Fraction)
        Formulas of gas molecules and their coefficients, none of them zero, by formula.
    constant : float
        In eV.
    """

    molecules: tuple[tuple[str, Fraction], ...] = ()
    constant: float = 0.0

    def energy(self, gas_energies: Mapping[str, float]) -> float:
        """Return the energy of the combination in eV.

        Parameters
        ----------
        gas_energies : mapping
            Energies of the gas molecules in eV, by formula. Molecules that do not occur are ignored.

        Raises
        ------
        InputError
            An energy is missing, or is not a finite number.
        """
        missing = [name for name, _ in self.molecules if name not in gas_energies]
        if missing:
            raise InputError(
                f"the reference {self} needs the gas-phase energy of {', '.join(missing)}, which is not there; "
                f"there are {', '.join(sorted(gas_energies)) or 'none'}"
            )
        for name, _ in self.molecules:
            if not math.isfinite(gas_energies[name]):
                raise InputError(f"the gas-phase energy of {name} is {gas_energies[name]} eV, not a finite number")
        terms = [float(factor) * float(gas_energies[name]) for name, factor in self.molecules]
        return math.fsum([*terms, self.constant])

    def coefficient(self, molecule: str) -> Fraction:
        """Return how many of a molecule the reference contains."""
        return dict(self.molecules).get(molecule, Fraction(0))

    def composition(self) -> dict[str, Fraction]:
        """Return the atoms of the molecules, without those that cancel."""
        totals: dict[str, Fraction] = {}
        for name, factor in self.molecules:
            for symbol, count in composition(name).items():
                totals[symbol] = totals.get(symbol, Fraction(0)) + factor * count
        return {symbol: total for symbol, total in sorted(totals.items()) if total}

    def __add__(self, other: Reference) -> Reference:
        totals = dict(self.molecules)
        for name, factor in other.molecules:
            totals[name] = totals.get(name, Fraction(0)) + factor
        kept = tuple(sorted((name, factor) for name, factor in totals.items() if factor))
        return Reference(kept, self.constant + other.constant)

    def __sub__(self, other: Reference) -> Reference:
        return self + other * -1

    def __mul__(self, factor: int | Fraction) -> Reference:
        kept = tuple((name, own * factor) for name, own in self.molecules if factor)
        return Reference(kept, self.constant * float(factor))

    def __str__(self) -> str:
        positive_first = sorted(self.molecules, key=lambda item: item[1] < 0)
        texts = [f"{'-' if factor < 0 else '+'} {amount(abs(factor), name)}(g)" for name, factor in positive_first]
        if self.constant or not texts:
            texts.append(f"{'-' if self.constant < 0 else '+'} {abs(self.constant):g} eV")
        first = texts[0].removeprefix("+ ").replace("- ", "-", 1) if texts[0][0] in "+-" else texts[0]
        return " ".join([first, *texts[1:]])


def amount(factor: Fraction, name: str) -> str:
    """Write a number of molecules: ``H2``, ``2 H2``, ``1/2 H2``."""
    return name if factor == 1 else f"{factor} {name}"


@dataclass(frozen=True)
class ReferenceScheme:
    """The references of all adsorbates.

    Attributes
    ----------
    name : str
        Stored with every energy.
    entries : mapping
        References by name of the adsorbate, such as ``"OH"``, or by element.
    whole_molecules : bool
        Whether an adsorbate that is a gas molecule of the catalogue is its own reference.
    sums_elements : bool
        Whether the reference of an adsorbate without one is the sum of those of its atoms.
    """

    name: str
    entries: Mapping[str, Reference] = field(hash=False)
    whole_molecules: bool = False
    sums_elements: bool = True

    def reference(self, adsorbates: Species | Iterable[Species]) -> Reference:
        """Return the reference of one adsorbate, or the sum of several.

        Raises
        ------
        InputError
            The scheme has no reference for an adsorbate.
        """
        if isinstance(adsorbates, Species):
            return self._of_one(adsorbates)
        return reduce(Reference.__add__, map(self._of_one, adsorbates), Reference())

    def molecules(self, adsorbates: Iterable[Species]) -> tuple[str, ...]:
        """Return the formulas of the gas molecules whose energies the references of some adsorbates need."""
        return tuple(sorted({name for adsorbate in adsorbates for name, _ in self._of_one(adsorbate).molecules}))

    def _of_one(self, adsorbate: Species) -> Reference:
        if adsorbate.name in self.entries:
            return self._balanced(adsorbate, self.entries[adsorbate.name])
        if self.whole_molecules and _is_gas_molecule(adsorbate):
            return Reference(((adsorbate.name, Fraction(1)),))
        missing = [symbol for symbol, _ in adsorbate.composition if symbol not in self.entries]
        is_atom = sum(count for _, count in adsorbate.composition) == 1
        if missing or not (self.sums_elements or is_atom):
            raise InputError(self._no_reference(adsorbate, missing))
        return reduce(
            Reference.__add__, (self.entries[symbol] * count for symbol, count in adsorbate.composition), Reference()
        )

    def _balanced(self, adsorbate: Species, reference: Reference) -> Reference:
        found, wanted = reference.composition(), dict(adsorbate.composition)
        if reference.molecules and found != wanted:
            raise InputError(
                f"the reference {reference} of {adsorbate.name} in the scheme {self.name!r} has the atoms "
                f"{_counted(found) or 'none'}, the adsorbate {_counted(wanted)}"
            )
        return reference

    def _no_reference(self, adsorbate: Species, missing: list[str]) -> str:
        if self.whole_molecules:
            return (
                f"{adsorbate.name} is no stable gas molecule, so it cannot be its own reference; use the scheme "
                "'oc20', or state its reference yourself, as OH: H2O - 1/2 H2 does for OH"
            )
        there = ", ".join(sorted(self.entries))
        what = f" (no entry for {', '.join(missing)})" if missing and self.sums_elements else ""
        close = difflib.get_close_matches(adsorbate.name, self.entries, n=1, cutoff=0.75)
        hint = f"; did you mean {close[0]!r}?" if close else "; state your own references, as S: H2S - H2 does for S"
        return f"the reference scheme {self.name!r} has no reference for {adsorbate.name}{what}, only for {there}{hint}"


def parse_reference(source: str | float) -> Reference:
    """Read a reference: a number in eV, or a combination such as ``"H2O - 1/2 H2"`` or ``"CO - H2O + H2 + 0.1 eV"``.

    Raises
    ------
    InputError
        The text cannot be read, or the number is not finite.
    """
    if isinstance(source, bool) or not isinstance(source, str | int | float):
        raise InputError(f"a reference is {source!r}; it must be a number in eV or a text such as 'H2O - 1/2 H2'")
    if not isinstance(source, str):
        if not math.isfinite(source):
            raise InputError(f"a reference is {source} eV, not a finite number")
        return Reference((), float(source))
    text = source.strip()
    if not text:
        raise InputError("a reference is empty; write molecules and numbers in eV, such as 'H2O - 1/2 H2'")
    total, place = Reference(), 0
    while place < len(text):
        term = TERM.match(text, place)
        if term is None or not (term["factor"] or term["molecule"]) or (place and not term["sign"]):
            raise InputError(
                f"the reference {source!r} cannot be read from {text[place:].strip()!r} on; "
                "write molecules and numbers in eV, such as 'H2O - 1/2 H2' or '-3.477'"
            )
        total, place = total + _term(term), term.end()
    return total


def own_scheme(entries: Mapping[str, str | float], name: str = "own") -> ReferenceScheme:
    """Make a scheme of references per adsorbate or per element.

    Parameters
    ----------
    entries : mapping
        By adsorbate (``"OH"``) or element (``"O"``): a fixed value in eV, or a combination of gas molecules such as
        ``"H2O - H2"``. An entry for an adsorbate goes before those of its elements.
    name : str
        Stored with every energy.

    Raises
    ------
    InputError
        No entries, or two for one adsorbate; an entry that cannot be read, or whose molecules do not have the atoms of
        its adsorbate (for a name that is no formula, this is seen when it is used).
    """
    if not entries:
        raise InputError(f"the reference scheme {name!r} has no entries; state one, such as O: H2O - H2")
    if name in NAMED_SCHEMES:
        raise InputError(f"the name {name!r} is that of a scheme of the package; give your own scheme another name")
    keyed: dict[str, Reference] = {}
    for key, value in entries.items():
        spelled = catalogue_spelling(str(key))
        if spelled in keyed:
            raise InputError(f"the reference scheme {name!r} has two entries for {spelled}; leave one out")
        keyed[spelled] = parse_reference(value)
    scheme = ReferenceScheme(name, keyed)
    for key, reference in keyed.items():
        if reference.molecules and is_formula(key):
            scheme.reference(species(key))
    return scheme


def named_scheme(name: str) -> ReferenceScheme:
    """Return a scheme of the package.

    Raises
    ------
    InputError
        There is none of this name.
    """
    if name not in NAMED_SCHEMES:
        close = difflib.get_close_matches(name, NAMED_SCHEMES, n=1)
        raise InputError(
            f"unknown reference scheme {name!r}; {f'did you mean {close[0]!r}? ' if close else ''}"
            f"there are {', '.join(NAMED_SCHEMES)}, or state your own references"
        )
    return NAMED_SCHEMES[name]


def _term(term: re.Match[str]) -> Reference:
    factor = Fraction(1, 2) if term["factor"] == "½" else Fraction(term["factor"] or 1)
    signed = -factor if term["sign"] in ("-", "−") else factor
    if not term["molecule"]:
        return Reference((), float(signed))
    composition(term["molecule"])
    return Reference(((term["molecule"], signed),) if signed else ())


def _is_gas_molecule(adsorbate: Species) -> bool:
    return adsorbate.name in GAS_MOLECULES and composition(adsorbate.name) == dict(adsorbate.composition)


def _counted(counts: Mapping[str, int | Fraction]) -> str:
    return " ".join(f"{symbol}{'' if count == 1 else count}" for symbol, count in counts.items())


def _of_elements(entries: Mapping[str, str]) -> dict[str, Reference]:
    return {symbol: parse_reference(text) for symbol, text in entries.items()}


OC20 = ReferenceScheme("oc20", _of_elements({"H": "1/2 H2", "O": "H2O - H2", "C": "CO - H2O + H2", "N": "1/2 N2"}))
"""That of OC20 (L. Chanussot et al., ACS Catal. 11, 6059 (2021), doi:10.1021/acscatal.0c04525): carbon from CO, oxygen
from H2O, hydrogen from H2, nitrogen from N2, so that the reference of CxHyOzNw is
x CO + (x + y/2 - z) H2 + (z - x) H2O + w/2 N2. O2, which density functionals get wrong, does not occur."""

MOLECULES = ReferenceScheme(
    "molecules",
    _of_elements({"H": "1/2 H2", "O": "1/2 O2", "N": "1/2 N2"}),
    whole_molecules=True,
    sums_elements=False,
)
"""The adsorbate itself as a gas molecule; for H, N and O half of their diatomic molecule."""

OC20_DFT = ReferenceScheme("oc20-dft", _of_elements({"H": "-3.477", "C": "-7.282", "N": "-8.083", "O": "-7.204"}))
"""The energies behind ``OC20`` as its authors computed them (RPBE, VASP; L. Chanussot et al., arXiv:2010.09990,
table 5), for models with total energies on that very scale. No gas molecule is evaluated."""

NAMED_SCHEMES = {scheme.name: scheme for scheme in (OC20, MOLECULES, OC20_DFT)}
