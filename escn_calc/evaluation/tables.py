"""Metrics by element, by group and by structure."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols

from escn_calc.evaluation.metrics import Comparison, Metrics, compute_metrics

STRUCTURE_COLUMNS = (
    "origin",
    "group",
    "formula",
    "atoms",
    "atoms_counted",
    "energy_label_eV",
    "energy_eV",
    "energy_error_eV",
    "energy_error_eV_per_atom",
    "forces_mae_eV_per_A",
    "forces_max_error_eV_per_A",
    "stress_mae_eV_per_A3",
)
"""Columns of the table of structures; the energy is the one compared, that is after a change of its zero."""


@dataclass(frozen=True)
class ElementRow:
    """How good a model is for one element.

    Attributes
    ----------
    element : chemical symbol.
    atoms_with_forces : atoms of the element whose forces were compared.
    forces_mae : eV/Å, over the components of these forces; None if there are none.
    structures_with_energy : structures containing the element whose energies were compared.
    energy_mae_per_atom : eV per atom of any kind, over these structures; None if there are none.
    """

    element: str
    atoms_with_forces: int
    forces_mae: float | None
    structures_with_energy: int
    energy_mae_per_atom: float | None


@dataclass(frozen=True)
class GroupRow:
    """How good a model is for one group of structures."""

    group: str
    metrics: Metrics


def element_rows(comparisons: Sequence[Comparison]) -> tuple[ElementRow, ...]:
    """Metrics of each element that occurs, by atomic number."""
    forces: dict[int, list[np.ndarray]] = defaultdict(list)
    energies: dict[int, list[float]] = defaultdict(list)
    for comparison in comparisons:
        numbers = comparison.numbers[comparison.counted]
        errors = np.abs(comparison.force_errors)
        for number in np.unique(comparison.numbers).tolist():
            forces[number].append(errors[numbers == number] if comparison.has_forces else errors)
            if comparison.energy_error_per_atom is not None:
                energies[number].append(abs(comparison.energy_error_per_atom))
    return tuple(_element_row(number, np.concatenate(forces[number]), energies[number]) for number in sorted(forces))


def _element_row(number: int, force_errors: np.ndarray, energy_errors: list[float]) -> ElementRow:
    return ElementRow(
        element=chemical_symbols[number],
        atoms_with_forces=len(force_errors),
        forces_mae=float(force_errors.mean()) if len(force_errors) else None,
        structures_with_energy=len(energy_errors),
        energy_mae_per_atom=float(np.mean(energy_errors)) if energy_errors else None,
    )


def group_rows(comparisons: Sequence[Comparison]) -> tuple[GroupRow, ...]:
    """Metrics of each group, worst first: by force MAE, then by energy MAE per atom; ungraded ones last."""
    members: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        members[comparison.group].append(comparison)
    rows = [GroupRow(group, compute_metrics(of_group)) for group, of_group in members.items()]
    return tuple(sorted(rows, key=_badness, reverse=True))


def _badness(row: GroupRow) -> tuple[float, float]:
    forces, energy = row.metrics.forces_mae, row.metrics.energy_mae_per_atom
    return (-1.0 if forces is None else forces, -1.0 if energy is None else energy)


def write_structure_table(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a CSV file with a row for each structure; what could not be compared is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(STRUCTURE_COLUMNS)
        writer.writerows(_structure_row(comparison) for comparison in comparisons)


def _structure_row(comparison: Comparison) -> tuple[str | int | float | None, ...]:
    force_errors = np.abs(comparison.force_errors)
    stress_error = comparison.stress_error
    return (
        comparison.origin,
        comparison.group,
        Symbols(comparison.numbers).get_chemical_formula(),
        len(comparison.numbers),
        int(comparison.counted.sum()),
        comparison.energy,
        comparison.predicted_energy,
        comparison.energy_error,
        comparison.energy_error_per_atom,
        float(force_errors.mean()) if len(force_errors) else None,
        float(force_errors.max()) if len(force_errors) else None,
        None if stress_error is None else float(np.abs(stress_error).mean()),
    )
