"""The plan of a campaign: every relaxation, named by its content, before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from escn_calc.adsorption.energies import check_role
from escn_calc.adsorption.gas_molecules import gas_atoms
from escn_calc.adsorption.placements import Placement, placements
from escn_calc.adsorption.slabs import check_vacuum
from escn_calc.adsorption.species import Species, species
from escn_calc.cell_relaxation import Cell
from escn_calc.screening.config_file import CampaignFile
from escn_calc.screening.model import ModelFacts
from escn_calc.screening.systems import (
    Adsorbed,
    Crystal,
    Surface,
    adsorbates_of,
    crystals_of,
    surfaces_of,
)
from escn_calc.screening.tasks import KINDS, Kind, Labels, RelaxationSettings, Task, structure_digest, without_repeats
from escn_calc.yaml_file import Key

REFERENCES_OF_ADSORPTION_MODELS = ("oc20", "molecules")
"""Schemes in which the training data of models with adsorption energies count."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a campaign relaxes, in the order in which it does.

    Attributes
    ----------
    stages : tuple of tuples of Task
        What can run at the same time: bulks; gas molecules and clean slabs; slabs with adsorbates. The later stages are
        built from the lattices that are known so far.
    bulks, adsorbates : dict of str
        Digests of what they are made of, by name.
    notes : tuple of str
        What the user should know.
    """

    stages: tuple[tuple[Task, ...], ...]
    bulks: dict[str, str]
    adsorbates: dict[str, str]
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All relaxations."""
        return tuple(task for stage in self.stages for task in stage)

    @property
    def counts(self) -> dict[str, int]:
        """Number of relaxations by kind."""
        found = Counter(task.kind for task in self.tasks)
        return {kind: found[kind] for kind in KINDS}

    @property
    def systems(self) -> Counter[tuple[str, str, float | None]]:
        """Number of placements by surface, adsorbate and coverage."""
        return Counter(task.labels.system for task in self.stages[-1])


def make_plan(campaign: CampaignFile, facts: ModelFacts, relaxed: Mapping[str, Atoms]) -> Plan:
    """Build every structure of a campaign.

    Parameters
    ----------
    campaign : CampaignFile
        What is asked for.
    facts : ModelFacts
        What relaxes.
    relaxed : mapping
        Relaxed crystals by the key of their task; where one is missing, slabs have the lattice as given.

    Raises
    ------
    InputError
        Something cannot be built, or the model cannot evaluate it or has no energy for it; with file and line.
    """
    planner = _Planner(campaign, facts)
    planner.check_model()
    adsorbed = adsorbates_of(campaign)
    crystals = crystals_of(campaign, planner.default_lattice)
    planner.check_crystals(crystals)
    bulk_tasks = {crystal.bulk.name: planner.bulk_task(crystal) for crystal in crystals if crystal.lattice != "fixed"}
    lattices = {name: relaxed[task.key] for name, task in bulk_tasks.items() if task.key in relaxed}
    known = [
        crystal.with_atoms(lattices[crystal.bulk.name]) if crystal.bulk.name in lattices else crystal
        for crystal in crystals
    ]
    surfaces = surfaces_of(campaign, known)
    planner.check_references(adsorbed)
    clean = planner.slab_tasks(surfaces)
    references = [] if facts.energy_kind == "adsorption" else [*planner.gas_tasks(adsorbed), *clean]
    adslabs = [task for surface in surfaces for what in adsorbed for task in planner.adslab_tasks(surface, what)]
    stages = [list(bulk_tasks.values()), references, adslabs]
    plan = Plan(
        stages=tuple(map(without_repeats, stages)),
        bulks={crystal.bulk.name: f"{crystal.lattice} {structure_digest(crystal.bulk.atoms)}" for crystal in crystals},
        adsorbates={what.name: _digest(what) for what in adsorbed},
        notes=(),
    )
    return replace(plan, notes=tuple(_notes(plan, facts)))


@dataclass(frozen=True)
class _Planner:
    campaign: CampaignFile
    facts: ModelFacts

    @property
    def default_lattice(self) -> Cell:
        return "fixed" if self.facts.energy_kind == "adsorption" else "full"

    def check_model(self) -> None:
        """Make sure that the model can relax, and that its energies go with the references."""
        config, facts = self.campaign.config, self.facts
        where = self.campaign.model_key
        if not facts.has_forces:
            raise self.campaign.error(where, f"{facts.name} has no forces to relax with; set forces: gradient")
        if facts.energy_kind == "unknown":
            raise self.campaign.error(
                where,
                f"it is not known whether {facts.name} returns total or adsorption energies; its card must say it",
            )
        if facts.energy_kind == "adsorption" and config.references not in REFERENCES_OF_ADSORPTION_MODELS:
            found = "is missing" if config.references is None else f"is {config.references!r}"
            raise self.campaign.error(
                ("references",),
                f"{found}, but {facts.name} returns adsorption energies, from which nothing can be subtracted any more "
                f"({facts.energy_reference}); name the scheme of its training data: "
                f"{' or '.join(REFERENCES_OF_ADSORPTION_MODELS)}",
            )

    def check_crystals(self, crystals: Sequence[Crystal]) -> None:
        """Make sure that lattices that are to relax can."""
        for crystal in crystals:
            if crystal.lattice == "fixed":
                continue
            key = crystal.key if self.campaign.config.lattice is None else ("lattice",)
            with self.campaign.at(key):
                check_role(self.facts.energy_kind, "bulk")
            if not self.facts.has_stress:
                raise self.campaign.error(
                    key,
                    f"{self.facts.name} has no stress, so the lattice of {crystal.bulk.name} cannot relax; set "
                    "lattice: fixed and give lattices of this model, or use gradient forces",
                )

    def check_references(self, adsorbed: Sequence[Adsorbed]) -> None:
        """Make sure that every adsorbate has a reference."""
        scheme = self.campaign.config.scheme
        for what in adsorbed:
            with self.campaign.at(what.key):
                scheme.reference(species_of(what))

    def bulk_task(self, crystal: Crystal) -> Task:
        name = crystal.bulk.name
        task = self._task("bulk", name, crystal.bulk.atoms, Labels(bulk=name), crystal.lattice)
        self._check_elements(task, crystal.key)
        return task

    def gas_tasks(self, adsorbed: Sequence[Adsorbed]) -> list[Task]:
        """Gas molecules that the references need."""
        everything = [one for what in adsorbed for one in species_of(what)]
        formulas = self.campaign.config.scheme.molecules(everything)
        tasks = [self._task("gas", formula, gas_atoms(formula), Labels()) for formula in formulas]
        for task in tasks:
            self._check_elements(task, ("references",))
        return tasks

    def slab_tasks(self, surfaces: Sequence[Surface]) -> list[Task]:
        """Clean slabs."""
        tasks = [self._task("slab", one.slab.name, one.slab.atoms, _labels(one)) for one in surfaces]
        for task, surface in zip(tasks, surfaces, strict=True):
            self._check_slab(task, surface.key)
        return tasks

    def adslab_tasks(self, surface: Surface, what: Adsorbed) -> Iterator[Task]:
        """One for every placement on a slab."""
        options = self.campaign.config.placements
        for coverage in options.coverage:
            with self.campaign.at(what.key):
                found = placements(
                    surface.slab,
                    what.adsorbates[0] if len(what.adsorbates) == 1 else list(what.adsorbates),
                    mode=options.mode,
                    number=options.number,
                    seed=options.seed,
                    coverage=coverage,
                )
            for placement in found:
                labels = replace(
                    _labels(surface),
                    adsorbate=what.name,
                    species=_adsorbed_species(placement, what),
                    coverage=coverage,
                    site=placement.site,
                )
                amount = "" if coverage is None else f" {coverage:g} ML"
                name = f"{surface.slab.name} {what.name}{amount} {placement.site}"
                task = self._task("adslab", name, placement.atoms, labels)
                self._check_slab(task, what.key)
                yield task

    def _task(self, kind: Kind, name: str, atoms: Atoms, labels: Labels, cell: Cell = "fixed") -> Task:
        section = self.campaign.config.relaxation
        settings = RelaxationSettings(section.optimizer, section.fmax, section.steps, section.smax, cell)
        return Task(kind, name, atoms, settings, self.facts.identity, labels)

    def _check_slab(self, task: Task, key: Key) -> None:
        self._check_elements(task, key)
        if self.facts.cutoff is not None:
            with self.campaign.at(key):
                check_vacuum(task.atoms, self.facts.cutoff, task.name)

    def _check_elements(self, task: Task, key: Key) -> None:
        unknown = _unknown_elements(task, self.facts)
        if unknown and self.facts.refuses_others:
            assert self.facts.elements is not None
            raise self.campaign.error(
                key,
                f"{task.name} contains {', '.join(unknown)}, which {self.facts.name} does not know; it knows "
                f"{', '.join(self.facts.elements)}",
            )


def species_of(what: Adsorbed) -> tuple[Species, ...]:
    """Return what is adsorbed as bookkeeping needs to know it, each once."""
    return tuple(species(one.atoms, one.name) for one in what.adsorbates)


def _adsorbed_species(placement: Placement, what: Adsorbed) -> tuple[Species, ...]:
    """One entry for each molecule of a placement, told by their atoms; a coverage repeats them in turn."""
    known = species_of(what)
    return tuple(known[index % len(known)] for index in range(len(placement.molecules)))


def _labels(surface: Surface) -> Labels:
    slab = surface.slab
    return Labels(
        bulk="" if slab.bulk is None else slab.bulk.name,
        surface=slab.name,
        miller=slab.miller,
        termination=slab.termination,
    )


def _digest(what: Adsorbed) -> str:
    return " ".join(structure_digest(one.atoms) + str(tuple(np.atleast_1d(one.binding))) for one in what.adsorbates)


def _unknown_elements(task: Task, facts: ModelFacts) -> list[str]:
    if facts.elements is None:
        return []
    return sorted(set(task.atoms.get_chemical_symbols()) - set(facts.elements))


def _notes(plan: Plan, facts: ModelFacts) -> Iterator[str]:
    unseen = sorted({symbol for task in plan.tasks for symbol in _unknown_elements(task, facts)})
    if unseen:
        yield f"{', '.join(unseen)} did not occur in the training of {facts.name}: do not trust these energies"
    if facts.not_for:
        yield f"{facts.name} is not for {facts.not_for}"
