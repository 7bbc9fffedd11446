"""What a campaign is made of: crystals, slabs and adsorbates, built from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ase import Atoms

from escn_calc.adsorption.adsorbates import Adsorbate, adsorbate
from escn_calc.adsorption.bulks import Bulk, bulk
from escn_calc.adsorption.slabs import Slab, slabs, user_slab
from escn_calc.cell_relaxation import Cell
from escn_calc.structure_input import read_structure
from escn_calc.yaml_file import Key

if TYPE_CHECKING:
    from escn_calc.screening.config_file import CampaignFile


@dataclass(frozen=True)
class Crystal:
    """A bulk, how its lattice relaxes, and where the configuration names it."""

    bulk: Bulk
    lattice: Cell
    key: Key

    def with_atoms(self, atoms: Atoms) -> Crystal:
        """Return the same crystal with another lattice."""
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        return replace(self, bulk=replace(self.bulk, atoms=bare))


@dataclass(frozen=True)
class Surface:
    """A slab, and where the configuration names it."""

    slab: Slab
    key: Key


@dataclass(frozen=True)
class Adsorbed:
    """What is adsorbed together, and where the configuration names it."""

    adsorbates: tuple[Adsorbate, ...]
    key: Key

    @property
    def name(self) -> str:
        """``"CO"``, or ``"CO+O"`` for several."""
        return "+".join(one.name for one in self.adsorbates)


def crystals_of(campaign: CampaignFile, default_lattice: Cell) -> list[Crystal]:
    """Return the crystals of a campaign, their lattices as given.

    Parameters
    ----------
    campaign : CampaignFile
    default_lattice : str
        How lattices relax where the configuration does not say it.

    Raises
    ------
    InputError
        One cannot be built, or two have the same name.
    """
    crystals = []
    for index, section in enumerate(campaign.config.bulks):
        key = ("bulks", index)
        source = campaign.beside(section.source)
        with campaign.at(key):
            built = bulk(source, crystal=section.crystal, lattice=section.a, name=section.name)
        lattice = section.lattice or campaign.config.lattice or default_lattice
        crystals.append(Crystal(built, lattice, key))
    _check_names(campaign, [(crystal.bulk.name, crystal.key) for crystal in crystals])
    return crystals


def surfaces_of(campaign: CampaignFile, crystals: Sequence[Crystal]) -> list[Surface]:
    """Cut all slabs, and read those from files.

    Raises
    ------
    InputError
        One cannot be built, or two have the same name.
    """
    found = [surface for crystal in crystals for surface in _cut(campaign, crystal)]
    for index, section in enumerate(campaign.config.slabs):
        key = ("slabs", index)
        with campaign.at(key):
            slab = user_slab(read_structure(section.path), section.name or section.path.stem)
        found.append(Surface(slab, key))
    _check_names(campaign, [(surface.slab.name, surface.key) for surface in found])
    return found


def adsorbates_of(campaign: CampaignFile) -> list[Adsorbed]:
    """Return what is adsorbed.

    Raises
    ------
    InputError
        One is not known, or two have the same name.
    """
    found = []
    for index, section in enumerate(campaign.config.adsorbates):
        key = ("adsorbates", index)
        with campaign.at(key):
            made = tuple(adsorbate(campaign.beside(source), binding=section.binding) for source in section.source)
        if section.name is not None:
            made = tuple(replace(one, name=section.name) for one in made)
        found.append(Adsorbed(made, key))
    _check_names(campaign, [(adsorbed.name, adsorbed.key) for adsorbed in found])
    return found


def _cut(campaign: CampaignFile, crystal: Crystal) -> Iterator[Surface]:
    section = campaign.config.surfaces
    assert section is not None  # there are bulks, so it has been asked for
    sizes = ("layers", "minimum_thickness", "minimum_width", "minimum_area", "supercell")
    given = {name: getattr(section, name) for name in sizes if getattr(section, name) is not None}
    for index, facet in enumerate(section.facets):
        key = ("surfaces", "facets", index)
        with campaign.at(key):
            found = slabs(
                crystal.bulk,
                facet,
                vacuum=section.vacuum,
                symmetric=section.symmetric,
                free_layers=section.free_layers,
                **given,
            )
        yield from (Surface(slab, key) for slab in found)


def _check_names(campaign: CampaignFile, named: Sequence[tuple[str, Key]]) -> None:
    seen: dict[str, Key] = {}
    for name, key in named:
        if name in seen:
            line = campaign.file.line_of(seen[name])
            raise campaign.error(key, f"{name} is there already, from line {line}; leave one out, or give it a name")
        seen[name] = key
