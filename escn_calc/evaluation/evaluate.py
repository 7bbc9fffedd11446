"""Labelled structures and a model in, a report out."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ase.data import chemical_symbols

from escn_calc.checkpoints.card import ModelCard
from escn_calc.constraints import free_indices
from escn_calc.errors import ESCNError, InputError
from escn_calc.evaluation.energy_reference import reference_energies
from escn_calc.evaluation.metrics import Comparison, compute_metrics
from escn_calc.evaluation.report import Report
from escn_calc.evaluation.tables import element_rows, group_rows
from escn_calc.graph import radius_graph
from escn_calc.labels import LabelledFrame
from escn_calc.options import ENERGY_REFERENCES, check_option
from escn_calc.potential import Potential, Prediction
from escn_calc.structures import StructureBatch, caller_level

FRAMES_NAMED = 5

Progress = Callable[[int, int], None]


class EnergyReferenceWarning(UserWarning):
    """Labels and model seem to count their energies from different zeros."""


def evaluate_model(
    potential: Potential,
    frames: Sequence[LabelledFrame],
    *,
    energy_reference: str = "as-is",
    all_atoms: bool = False,
    fixed_tags: Sequence[int] = (),
    skip_unsupported: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compare a model with labels, as OC20 does.

    Parameters
    ----------
    potential : Potential
        The model, from :func:`escn_calc.load_potential`.
    frames : sequence of LabelledFrame
        From :func:`escn_calc.labels.read_frames`; labels may be missing. Each counts once, whatever its
        ``repeat``.
    energy_reference : str
        "as-is", "shift-per-group" or "fit-elements", see
        :func:`escn_calc.evaluation.energy_reference.reference_energies`.
    all_atoms : bool
        Count forces on fixed atoms too. Otherwise atoms that a ``FixAtoms`` holds or that have one of ``fixed_tags``
        do not count, as in OC20, where these are the atoms with tag 0.
    fixed_tags : sequence of int
        Tags of atoms that count as fixed.
    skip_unsupported : bool
        Leave out structures with elements that the model refuses, and count them.
    progress : callable
        Told how many structures are done, and how many there are.

    Raises
    ------
    InputError
        No structures, no labels that the model could be compared with, elements that the model refuses, or a
        structure that cannot be evaluated; before the first evaluation.
    CalculationError
        A structure does not fit into memory or has no finite result.

    Warns
    -----
    EnergyReferenceWarning
        With "as-is", if the mean error of the energy is above 0.3 eV/atom, or above 1 eV and three times its scatter
        (of at least five structures).
    """
    check_option("energy_reference", energy_reference, ENERGY_REFERENCES)
    accepted, skipped = _by_elements(frames, potential)
    _check_skipped(len(accepted), skipped, potential, skip_unsupported)
    _check_labels(accepted, potential)
    _check_tags(accepted, fixed_tags)
    for frame in accepted:
        _check_structure(frame, potential)
    start = time.perf_counter()
    predictions = _predictions(accepted, potential, progress)
    seconds = time.perf_counter() - start
    counted = [_counted(frame, all_atoms, fixed_tags) for frame in accepted]
    compared = [_comparison(*parts) for parts in zip(accepted, counted, predictions, strict=True)]
    referenced = reference_energies(compared, energy_reference)
    notes = list(referenced.notes)
    if referenced.doubt is not None:
        notes.append(_warn_of_reference(referenced.doubt, potential.card))
    comparisons = referenced.comparisons
    return Report(
        overall=compute_metrics(comparisons),
        elements=element_rows(comparisons),
        groups=group_rows(comparisons),
        comparisons=comparisons,
        energy_reference=energy_reference,
        element_shifts=referenced.element_shifts,
        skipped=tuple(frame.origin for frame in skipped),
        notes=(*notes, *_notes(comparisons, potential, all_atoms), *_skipped_note(skipped)),
        seconds=seconds,
    )


def _by_elements(
    frames: Sequence[LabelledFrame], potential: Potential
) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Divide frames into those whose elements the model takes and the others."""
    refused = _refused_elements({int(number) for frame in frames for number in frame.atoms.numbers}, potential)
    accepted: list[LabelledFrame] = []
    skipped: list[LabelledFrame] = []
    for frame in frames:
        (accepted if refused.isdisjoint(frame.atoms.numbers.tolist()) else skipped).append(frame)
    return accepted, skipped


def _refused_elements(numbers: Iterable[int], potential: Potential) -> frozenset[int]:
    """Those of some atomic numbers whose elements a model does not take."""
    card = potential.card
    known = card.elements if card.refuse_unseen_elements and card.elements is not None else chemical_symbols
    return frozenset(
        number
        for number in numbers
        if number >= potential.config.max_num_elements or chemical_symbols[number] not in known
    )


def _check_skipped(accepted: int, skipped: Sequence[LabelledFrame], potential: Potential, skip: bool) -> None:
    if accepted == len(skipped) == 0:
        raise InputError("there are no structures to evaluate")
    if not skipped or (skip and accepted):
        return
    refused = _refused_elements({int(number) for frame in skipped for number in frame.atoms.numbers}, potential)
    symbols = " ".join(chemical_symbols[number] for number in sorted(refused))
    ways_out = "use a model that covers them" + (", or skip these structures (skip_unsupported)" if accepted else "")
    raise InputError(
        f"model {potential.card.name} does not take {symbols}, which occur in {len(skipped)} of "
        f"{accepted + len(skipped)} structures: {_origins(skipped)}; {ways_out}"
    )


def _origins(frames: Sequence[LabelledFrame]) -> str:
    more = f" and {len(frames) - FRAMES_NAMED} more" if len(frames) > FRAMES_NAMED else ""
    return ", ".join(frame.origin for frame in frames[:FRAMES_NAMED]) + more


def _check_labels(frames: Sequence[LabelledFrame], potential: Potential) -> None:
    if any(frame.energy is not None for frame in frames):
        return
    if not any(frame.forces is not None for frame in frames):
        raise InputError("none of the structures has an energy or forces to compare with; name the keys of the labels")
    if potential.forces is None:
        raise InputError(
            f"the structures have forces but no energies, and model {potential.card.name} was trained without forces; "
            "use forces='gradient'"
        )


def _check_tags(frames: Sequence[LabelledFrame], tags: Sequence[int]) -> None:
    present = {int(tag) for frame in frames for tag in np.unique(frame.atoms.get_tags())}
    absent = sorted(set(tags) - present)
    if absent:
        raise InputError(f"no atom has the tag {absent[0]}; the tags are {', '.join(map(str, sorted(present)))}")


def _check_structure(frame: LabelledFrame, potential: Potential) -> None:
    """Make sure that a structure has a graph."""
    try:
        radius_graph(StructureBatch.from_atoms([frame.atoms]), potential.config.cutoff, potential.config.max_neighbors)
    except InputError as error:
        raise InputError(f"{frame.origin}: {error}") from error


def _predictions(frames: Sequence[LabelledFrame], potential: Potential, progress: Progress) -> list[Prediction]:
    found: dict[int, Prediction] = {}
    for index, outcome in potential.iter_evaluate([frame.atoms for frame in frames]):
        if isinstance(outcome, ESCNError):
            raise type(outcome)(f"{frames[index].origin}: {outcome}") from outcome
        found[index] = outcome
        progress(len(found), len(frames))
    return [found[index] for index in range(len(frames))]


def _counted(frame: LabelledFrame, all_atoms: bool, fixed_tags: Sequence[int]) -> np.ndarray:
    if all_atoms:
        return np.ones(len(frame.atoms), dtype=bool)
    free = np.isin(np.arange(len(frame.atoms)), free_indices(frame.atoms))
    return free & ~np.isin(frame.atoms.get_tags(), list(fixed_tags))


def _comparison(frame: LabelledFrame, counted: np.ndarray, prediction: Prediction) -> Comparison:
    return Comparison(
        origin=frame.origin,
        group=frame.group,
        numbers=frame.atoms.numbers,
        counted=counted,
        energy=frame.energy,
        predicted_energy=prediction.energy,
        forces=frame.forces,
        predicted_forces=prediction.forces,
        stress=frame.stress,
        predicted_stress=prediction.stress,
    )


def _warn_of_reference(doubt: str, card: ModelCard) -> str:
    message = (
        f"{doubt}: labels and model seem to count energies from different zeros, then the energy metrics mean nothing. "
        f"Model {card.name} returns {card.energy_kind} energies ({card.energy_reference}). Compare with what the "
        "labels are, or evaluate with the energy reference 'shift-per-group' or 'fit-elements'"
    )
    warnings.warn(message, EnergyReferenceWarning, stacklevel=caller_level())
    return message


def _notes(comparisons: Sequence[Comparison], potential: Potential, all_atoms: bool) -> list[str]:
    notes = []
    with_forces = [comparison for comparison in comparisons if comparison.has_forces]
    if with_forces:
        counted = sum(int(comparison.counted.sum()) for comparison in with_forces)
        atoms = sum(len(comparison.numbers) for comparison in with_forces)
        which = "fixed ones included" if all_atoms else "those that are not fixed"
        notes.append(f"forces: {counted} of {atoms} atoms count, {which}")
    elif potential.forces is None and any(comparison.forces is not None for comparison in comparisons):
        notes.append("forces: not compared, the model was trained without")
    if any(comparison.is_relaxed for comparison in comparisons):
        notes.append("AEwT: single points at structures that are relaxed by their labels, not relaxed with the model")
    if potential.forces != "gradient" and any(comparison.stress is not None for comparison in comparisons):
        notes.append("stress: not compared, only gradient forces come with a stress")
    return notes


def _skipped_note(skipped: Sequence[LabelledFrame]) -> list[str]:
    if not skipped:
        return []
    return [f"{len(skipped)} structures skipped for elements that the model does not take: {_origins(skipped)}"]
