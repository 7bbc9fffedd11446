"""Adsorption energies: which energies make one, what it is relative to, and when nothing may be subtracted.

What a model returns is either a total energy, or, for models trained on OC20 and ODAC23, already the adsorption energy.
From total energies

    E_ads = E(slab + adsorbates) - E(slab) - Σ references,

with the clean slab relaxed the same way. An adsorption-energy model gives E_ads at once, relative to the references of
its training data, and has no energies for gas molecules, bulks and clean slabs at all: what it returns for them has no
meaning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from escn_calc.adsorption.references import Reference, ReferenceScheme, amount
from escn_calc.adsorption.species import Species
from escn_calc.errors import InputError

EnergyKind = Literal["adsorption", "total", "unknown"]
Role = Literal["bulk", "gas", "slab", "adslab"]

ROLES: Mapping[Role, str] = {
    "bulk": "a bare bulk",
    "gas": "a gas molecule",
    "slab": "a slab without adsorbate",
    "adslab": "a slab with adsorbate",
}


def check_role(kind: EnergyKind, role: Role) -> None:
    """Make sure that a model's energy of a structure has a meaning.

    Parameters
    ----------
    kind : str
        What the model returns, as its card says.
    role : str
        What the structure is: ``"bulk"``, ``"gas"``, ``"slab"`` or ``"adslab"``.

    Raises
    ------
    InputError
        The kind is not known, or it is ``"adsorption"`` and nothing is adsorbed in the structure.
    """
    _check_known(kind)
    if kind == "adsorption" and role != "adslab":
        raise InputError(
            f"{ROLES[role]} has no energy in this model: it returns adsorption energies, trained only on slabs with an "
            "adsorbate, and a number it gives for anything else has no meaning; leave it out, the clean slab and the "
            "gas references are already subtracted"
        )


@dataclass(frozen=True)
class AdsorptionEnergy:
    """An adsorption energy that knows what it is relative to.

    Attributes
    ----------
    kind : str
        What it was made from: ``"total"`` energies, or the ``"adsorption"`` energy of a model.
    species : tuple of Species
        What is adsorbed, one entry per adsorbate.
    scheme : ReferenceScheme
        What ``value`` is relative to, besides the clean slab.
    base : float
        In eV, with what is never converted: E(slab + adsorbates) - E(slab), or the adsorption energy of the model.
    base_reference : Reference
        What ``base`` is relative to, besides the clean slab: nothing, or the references of the model.
    gas_energies : mapping
        Energies in eV, by formula, of the gas molecules between ``base`` and ``value``.
    """

    kind: Literal["adsorption", "total"]
    species: tuple[Species, ...]
    scheme: ReferenceScheme
    base: float
    base_reference: Reference
    gas_energies: Mapping[str, float] = field(hash=False)

    @property
    def value(self) -> float:
        """Adsorption energy of all adsorbates together, in eV; negative below clean slab and references.

        Relative to water or CO the energy of O or C may be positive though each is strongly bound: the references are.
        """
        return self.base + (self.base_reference - self.reference).energy(self.gas_energies)

    @property
    def reference(self) -> Reference:
        """What ``value`` is relative to, besides the clean slab."""
        return self.scheme.reference(self.species)

    @property
    def per_adsorbate(self) -> float:
        """Mean adsorption energy of the adsorbates, in eV."""
        return self.value / len(self.species)

    def per_site(self, sites: int) -> float:
        """Adsorption energy per site of the surface, in eV.

        At equal conditions the coverage with the lowest value per site, not per adsorbate, is the stable one.

        Parameters
        ----------
        sites : int
            Number of sites of the slab, such as its surface atoms; ``len(species) / sites`` is the coverage.

        Raises
        ------
        InputError
            The number is not positive.
        """
        if sites < 1:
            raise InputError(f"a slab with {sites} sites has no energy per site; give the number of its surface atoms")
        return self.value / sites

    @property
    def reaction(self) -> str:
        """The reaction whose energy this is, ``*`` being the clean slab: ``* + H2O(g) → OH* + 1/2 H2(g)``."""
        reference = self.reference
        left = ["*", *(f"{amount(factor, name)}(g)" for name, factor in reference.molecules if factor > 0)]
        right = [f"{amount(-factor, name)}(g)" for name, factor in reference.molecules if factor < 0]
        if reference.constant:
            left.append(f"references fixed at {reference.constant:g} eV")
        return f"{' + '.join(left)} → {' + '.join([adsorbed(self.species), *right])}"

    @property
    def words(self) -> str:
        """What the value is, for a reader who did not compute it."""
        origin = (
            "E(slab with adsorbate) - E(clean slab) - references, all total energies of one model"
            if self.kind == "total"
            else "as the model predicts it: the clean slab and the references are part of its training data"
        )
        changed = self.base_reference - self.reference
        if self.kind == "adsorption" and changed != Reference():
            origin += f"; its references {self.base_reference} were exchanged for these"
        used = ", ".join(f"{name} {self.gas_energies[name]:.4f} eV" for name, _ in changed.molecules)
        return (
            f"{self.value:+.4f} eV is the energy of {self.reaction} (reference scheme {self.scheme.name!r}; negative: "
            f"below clean slab and references); {origin}{f'; gas energies: {used}' if used else ''}; potential "
            "energies at rest, without zero-point, thermal, pressure or potential terms"
        )


def adsorption_energy(
    kind: EnergyKind,
    adslab: float,
    adsorbates: Species | Iterable[Species],
    scheme: ReferenceScheme,
    *,
    slab: float | None = None,
    gas_energies: Mapping[str, float] | None = None,
) -> AdsorptionEnergy:
    """Return the adsorption energy that the energies of a model make.

    Parameters
    ----------
    kind : str
        What the model returns, as its card says: ``"total"`` or ``"adsorption"`` energies.
    adslab : float
        Energy of the relaxed slab with everything adsorbed, in eV.
    adsorbates : Species or iterable of Species
        What is adsorbed, one entry per adsorbate.
    scheme : ReferenceScheme
        The references. For an adsorption-energy model those of its training data (OC20: ``"oc20"``); see
        :func:`convert` for others.
    slab : float, optional
        Energy of the clean slab in eV, relaxed the same way. Total energies only.
    gas_energies : mapping, optional
        Energies in eV of the relaxed gas molecules, by formula, from the same model. Total energies only.

    Raises
    ------
    InputError
        The kind is not known; a slab or gas energies with an adsorption-energy model, which has both subtracted
        already; no slab or a missing gas energy with a total-energy model; no adsorbate, or one without reference; an
        energy that is not finite.
    """
    _check_known(kind)
    species = (adsorbates,) if isinstance(adsorbates, Species) else tuple(adsorbates)
    if not species:
        raise InputError("nothing is adsorbed, so there is no adsorption energy; name the adsorbates")
    _check_finite("the slab with adsorbate", adslab)
    reference = scheme.reference(species)
    if kind == "adsorption":
        _refuse_subtraction(slab, gas_energies)
        return AdsorptionEnergy("adsorption", species, scheme, float(adslab), reference, {})
    if slab is None:
        raise InputError(
            "an adsorption energy from total energies needs that of the clean slab, relaxed the same way; give slab"
        )
    _check_finite("the clean slab", slab)
    gas = _used(gas_energies, reference)
    return AdsorptionEnergy("total", species, scheme, float(adslab) - float(slab), Reference(), gas)


def convert(
    energy: AdsorptionEnergy, scheme: ReferenceScheme, gas_energies: Mapping[str, float] | None = None
) -> AdsorptionEnergy:
    """Return the same adsorption energy relative to other references.

    The new value is counted from what was computed, not from the old value, so that a conversion back gives the old
    value to the last bit. Molecules that both references share cancel and need no energy: in the schemes ``"oc20"`` and
    ``"molecules"`` the reference of CO is CO.

    Parameters
    ----------
    energy : AdsorptionEnergy
    scheme : ReferenceScheme
        The new references.
    gas_energies : mapping, optional
        Energies in eV of gas molecules that ``energy`` does not have, by formula: from the same model, or for an
        adsorption-energy model from the method of its training data.

    Raises
    ------
    InputError
        A gas energy is missing or not finite, or differs from the one that ``energy`` was made with; an adsorbate has
        no reference in the scheme.
    """
    known = {**(gas_energies or {}), **energy.gas_energies}
    for name, value in (gas_energies or {}).items():
        if value != known[name]:
            raise InputError(
                f"the gas-phase energy of {name} is {value} eV here, but {known[name]} eV in the energy to be "
                "converted; take both from the same model and settings"
            )
    changed = energy.base_reference - scheme.reference(energy.species)
    return replace(energy, scheme=scheme, gas_energies={**energy.gas_energies, **_used(known, changed)})


def differential_energy(more: AdsorptionEnergy, fewer: AdsorptionEnergy) -> float:
    """Return the mean adsorption energy, in eV, of what the slab ``more`` has adsorbed beyond the slab ``fewer``.

    Raises
    ------
    InputError
        ``more`` does not hold all adsorbates of ``fewer`` and others, or they have different references.
    """
    added = Counter(more.species)
    added.subtract(Counter(fewer.species))
    if min(added.values()) < 0 or not sum(added.values()):
        raise InputError(
            f"{adsorbed(more.species)} is not {adsorbed(fewer.species)} and more, so nothing was added to it; compare "
            "coverages of the same slab"
        )
    if more.scheme != fewer.scheme:
        raise InputError(
            f"the energies have the reference schemes {more.scheme.name!r} and {fewer.scheme.name!r}; convert one"
        )
    return (more.value - fewer.value) / sum(added.values())


def adsorbed(species: Iterable[Species]) -> str:
    """Write what is adsorbed: ``OH*``, ``2 CO* + O*``."""
    counts = Counter(one.name for one in species)
    return " + ".join(f"{f'{count} ' if count > 1 else ''}{name}*" for name, count in counts.items())


def _check_known(kind: str) -> None:
    if kind not in ("adsorption", "total"):
        raise InputError(
            f"the energy kind of the model is {kind!r}, so it is not known whether its energies are total or "
            "adsorption energies; state it: nothing here guesses"
        )


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InputError(f"the energy of {name} is {value} eV, not a finite number")


def _refuse_subtraction(slab: float | None, gas_energies: Mapping[str, float] | None) -> None:
    given = " and ".join(
        text for text, there in (("a clean slab", slab is not None), ("gas molecules", bool(gas_energies))) if there
    )
    if given:
        raise InputError(
            f"the energy of {given} was given, but the model returns adsorption energies: the clean slab and the gas "
            "references are already subtracted, and subtracting them again would be wrong; leave them out"
        )


def _used(gas_energies: Mapping[str, float] | None, reference: Reference) -> dict[str, float]:
    """Return the energies that a reference needs, after making sure that they are all there."""
    known = gas_energies or {}
    reference.energy(known)
    return {name: float(known[name]) for name, _ in reference.molecules}
