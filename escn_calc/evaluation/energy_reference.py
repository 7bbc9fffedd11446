"""What to do where labels and model count their energies from different zeros.

Energies can be compared as they are, or after removing from the predictions what a difference of zeros can explain: one
constant per group, or one per element. Every removal makes the remaining errors smaller than those of a model with
the right zero, the more so the fewer structures share a constant; the notes say how many do.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols

from escn_calc.errors import InputError
from escn_calc.evaluation.metrics import Comparison

ABSURD_PER_ATOM = 0.3
"""eV/atom. A larger mean error does not come from a model that knows the chemistry."""
ABSURD_OFFSET = 1.0
ABSURD_RATIO = 3.0
"""Or a mean error above ``ABSURD_OFFSET`` eV that is ``ABSURD_RATIO`` times the scatter of the errors around it."""
FEWEST_FOR_SCATTER = 5


@dataclass(frozen=True, eq=False)
class Referenced:
    """Comparisons after the energies have got a common zero.

    Attributes
    ----------
    comparisons : as given, with changed predicted energies; without one where no error could remain.
    notes : what was done, for people.
    doubt : why the zeros seem to differ although nothing was to be done about it; None if they do not.
    element_shifts : symbol → eV per atom taken from the predictions; empty unless fitted.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    doubt: str | None
    element_shifts: dict[str, float]


def reference_energies(comparisons: Sequence[Comparison], method: str) -> Referenced:
    """Bring predicted energies to the zero of the labels.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Structures with or without energies.
    method : str
        "as-is" changes nothing. "shift-per-group" removes the mean error of each group from its predictions; a group
        with one energy has no error left, so that energy is not compared. "fit-elements" removes the least-squares
        fit of the errors by one energy for each element.

    Raises
    ------
    InputError
        "fit-elements" with no more energies than elements to fit.
    """
    if method == "shift-per-group":
        return _shifted_per_group(comparisons)
    if method == "fit-elements":
        return _fitted_to_elements(comparisons)
    return Referenced(tuple(comparisons), (), _doubt(comparisons), {})


def _shifted_per_group(comparisons: Sequence[Comparison]) -> Referenced:
    errors: dict[str, list[float]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.energy_error is not None:
            errors[comparison.group].append(comparison.energy_error)
    shifts = {group: float(np.mean(of_group)) if len(of_group) > 1 else None for group, of_group in errors.items()}
    shifted = tuple(_shifted(comparison, shifts.get(comparison.group)) for comparison in comparisons)
    alone = sum(shift is None for shift in shifts.values())
    sizes = [len(of_group) for of_group in errors.values() if len(of_group) > 1]
    notes = [
        f"energies: the mean error of each group was removed ({len(sizes)} groups, "
        f"{min(sizes, default=0)} to {max(sizes, default=0)} energies each); only differences within groups are judged"
    ]
    if alone:
        notes.append(f"energies: {alone} in groups of one were not compared, no error would be left of them")
    return Referenced(shifted, tuple(notes), None, {})


def _fitted_to_elements(comparisons: Sequence[Comparison]) -> Referenced:
    with_energy = [comparison for comparison in comparisons if comparison.energy_error is not None]
    if not with_energy:
        return Referenced(tuple(comparisons), (), None, {})
    elements = sorted({int(number) for comparison in with_energy for number in comparison.numbers})
    counts = np.array([_counts(comparison, elements) for comparison in with_energy], dtype=float)
    errors = np.array([comparison.energy_error for comparison in with_energy])
    values, _, rank, _ = np.linalg.lstsq(counts, errors, rcond=None)
    if len(errors) <= rank:
        raise InputError(
            f"{len(errors)} energies are too few to fit {rank} independent element energies, no error would be left; "
            "use the energy reference 'as-is' or 'shift-per-group', or evaluate more structures"
        )
    shifts = dict(zip(elements, values.tolist(), strict=True))
    shifted = tuple(
        _shifted(comparison, sum(shifts.get(int(number), 0.0) for number in comparison.numbers))
        for comparison in comparisons
    )
    compositions = len(np.unique(counts, axis=0))
    note = (
        f"energies: {rank} independent element energies, fitted to the errors of {len(errors)} structures with "
        f"{compositions} compositions, were removed from the predictions"
    )
    by_symbol = {chemical_symbols[number]: value for number, value in shifts.items()}
    return Referenced(shifted, (note,), None, by_symbol)


def _counts(comparison: Comparison, elements: list[int]) -> list[int]:
    found = Counter(comparison.numbers.tolist())
    return [found[number] for number in elements]


def _shifted(comparison: Comparison, shift: float | None) -> Comparison:
    if shift is None or comparison.predicted_energy is None:
        return replace(comparison, predicted_energy=None)
    return replace(comparison, predicted_energy=comparison.predicted_energy - shift)


def _doubt(comparisons: Sequence[Comparison]) -> str | None:
    """Say what is odd if the errors look like those of a different zero of energy."""
    errors = np.array([error for comparison in comparisons if (error := comparison.energy_error) is not None])
    per_atom = [error for comparison in comparisons if (error := comparison.energy_error_per_atom) is not None]
    if not per_atom:
        return None
    offset, offset_per_atom, scatter = float(errors.mean()), float(np.mean(per_atom)), float(errors.std())
    is_constant = len(errors) >= FEWEST_FOR_SCATTER and abs(offset) > max(ABSURD_OFFSET, ABSURD_RATIO * scatter)
    if abs(offset_per_atom) <= ABSURD_PER_ATOM and not is_constant:
        return None
    return f"the mean energy error is {offset:+.3g} eV ({offset_per_atom:+.3g} eV/atom), its scatter {scatter:.3g} eV"
