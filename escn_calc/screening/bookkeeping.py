"""What the adsorption energies of a campaign are made with: clean slabs, gas molecules and the reference scheme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from escn_calc.adsorption.energies import AdsorptionEnergy, EnergyKind, adsorption_energy
from escn_calc.adsorption.references import ReferenceScheme, named_scheme, own_scheme
from escn_calc.errors import InputError
from escn_calc.screening.tasks import Labels


@dataclass(frozen=True)
class References:
    """Energies that others are relative to.

    Attributes
    ----------
    kind : str
        What the model returns, ``"total"`` or ``"adsorption"`` energies.
    scheme : ReferenceScheme
        What adsorption energies are relative to.
    slabs, gases : mapping
        Energies in eV of clean slabs and gas molecules that have converged, by name.
    problems : mapping
        What is wrong with the others, and with bulks, by name.
    """

    kind: EnergyKind
    scheme: ReferenceScheme
    slabs: Mapping[str, float]
    gases: Mapping[str, float]
    problems: Mapping[str, str]

    def energy(self, raw: float, labels: Labels) -> AdsorptionEnergy:
        """Return the adsorption energy that a raw one makes.

        Raises
        ------
        InputError
            Something that it is relative to is not there.
        """
        if self.kind == "adsorption":
            return adsorption_energy("adsorption", raw, labels.species, self.scheme)
        needed = [labels.surface, *self.scheme.molecules(labels.species)]
        absent = [name for name in needed if name not in self.slabs and name not in self.gases]
        if absent:
            raise InputError(self.problems.get(absent[0], f"{absent[0]} has not been relaxed yet"))
        return adsorption_energy(
            self.kind,
            raw,
            labels.species,
            self.scheme,
            slab=self.slabs[labels.surface],
            gas_energies=self.gases,
        )


def references_of(metadata: Mapping[str, Any], rows: Iterable[Any]) -> References:
    """Collect the energies that others are relative to.

    Parameters
    ----------
    metadata : mapping
        Of the database.
    rows : iterable of rows
        Of the database; those of slabs with adsorbates are not needed.
    """
    given = metadata["about"]["references"]
    scheme = own_scheme(given) if isinstance(given, dict) else named_scheme(given)
    energies: dict[str, dict[str, float]] = {"slab": {}, "gas": {}}
    problems = {}
    for row in rows:
        if row.kind == "adslab":
            continue
        if row.state != "converged":
            failure = row.get("failure")
            problems[row.name] = f"{row.name} has not converged ({row.state}{f': {failure}' if failure else ''})"
        elif row.kind in energies:
            energies[row.kind][row.name] = row.energy
    kind = metadata["about"]["model"]["energy_kind"]
    return References(kind, scheme, energies["slab"], energies["gas"], problems)
