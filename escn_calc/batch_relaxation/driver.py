"""Many relaxations at once: whatever waits for an evaluation is evaluated together."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ase.optimize
from ase import Atoms

from escn_calc.batch_relaxation.arguments import (
    batch_optimizer,
    check_can_relax,
    check_max_active,
    trajectory_paths,
)
from escn_calc.batch_relaxation.relaxation import Callback, Relaxation, RelaxSettings, as_error_of
from escn_calc.cell_relaxation import Cell, check_cell_options
from escn_calc.errors import CalculationError, ESCNError, renumbered, without_errors
from escn_calc.relax import DEFAULT_SMAX, check_limits
from escn_calc.relax_result import EnergyRiseWarning, RelaxResult, energy_notes
from escn_calc.structures import check_is_list

if TYPE_CHECKING:
    from escn_calc.potential import Potential

ACTIVE_ATOMS = 4000
"""Structures are relaxed together up to this many atoms, enough for a large device; a batch is what fits into it."""


def relax_batch(
    structures: Sequence[Atoms],
    potential: Potential,
    *,
    optimizer: str = "LBFGS",
    fmax: float = 0.05,
    steps: int = 500,
    cell: Cell = "fixed",
    smax: float = DEFAULT_SMAX,
    pressure_GPa: float = 0.0,  # noqa: N803 (a unit)
    trajectories: str | Path | Sequence[str | Path | None] | None = None,
    callbacks: Sequence[Callback] = (),
    max_active: int | None = None,
) -> list[RelaxResult]:
    """Relax many structures, evaluated together.

    Each goes its own way, with ASE's optimiser and its own constraints: alone, the positions at every step are those of
    :func:`escn_calc.relax.relax`. A structure that has ended makes room for one that waits. Whatever goes wrong with
    one does not touch the others.

    Parameters
    ----------
    structures : sequence of Atoms
        Structures of any size, cell and periodicity, with their constraints. They are not changed.
    potential : Potential
        A loaded model with forces; with gradient forces, which bring the stress, if cells are to relax.
    optimizer : str
        Name of an optimiser in ``ase.optimize``, one of ``BATCH_OPTIMIZERS``.
    fmax, steps, cell, smax, pressure_GPa
        As in :func:`escn_calc.relax.relax`, the same for every structure.
    trajectories : str, Path, or sequence of str, Path or None, optional
        A folder for one ASE trajectory per structure, ``0.traj``, ``1.traj`` and so on, with leading zeros; or a file
        for each structure, None for none. An existing file is replaced once its structure has been evaluated.
    callbacks : sequence of callables
        Each is called for every frame of every structure with its place in the list, the ``RelaxStep`` and the frame
        (``Atoms`` with results, not to be changed). If it returns words, that relaxation ends as ``"stopped"`` with
        these words as its message. See :func:`stop_on_desorption` and :func:`stop_on_explosion`.
    max_active : int, optional
        Largest number of structures that are relaxed at the same time (default: as many as have about ``ACTIVE_ATOMS``
        atoms together). With 1 each is evaluated alone.

    Returns
    -------
    list of RelaxResult, in the order of ``structures``
        Each as :func:`escn_calc.relax.relax` returns it; ``wall_time_s`` is the time from the first evaluation of a
        structure to its end, shared with others. After Ctrl-C those under way end as ``"interrupted"``.

    Raises
    ------
    InputError
        Before anything is evaluated: not a list of structures, an unsuitable potential, an option out of range.
    BatchError
        After all others have ended: some structures could not be evaluated even once (or, after Ctrl-C, never were).
        ``results`` holds the results of the others, ``errors`` the reasons. An only structure raises its own error.

    Warns
    -----
    EnergyRiseWarning
        Some relaxations ended more than 0.05 eV above an earlier step; ``RelaxResult.notes`` says which.
    """
    relaxations = iter_relax_batch(
        structures,
        potential,
        optimizer=optimizer,
        fmax=fmax,
        steps=steps,
        cell=cell,
        smax=smax,
        pressure_GPa=pressure_GPa,
        trajectories=trajectories,
        callbacks=callbacks,
        max_active=max_active,
    )
    ends: dict[int, RelaxResult | ESCNError] = {}
    try:
        for index, end in relaxations:
            ends[index] = end
    except KeyboardInterrupt:
        if not ends:
            raise
    in_order = [ends.get(index, _never_begun(index)) for index in range(len(structures))]
    _warn_of_rises(in_order)
    return without_errors(in_order)


def iter_relax_batch(
    structures: Sequence[Atoms],
    potential: Potential,
    *,
    optimizer: str = "LBFGS",
    fmax: float = 0.05,
    steps: int = 500,
    cell: Cell = "fixed",
    smax: float = DEFAULT_SMAX,
    pressure_GPa: float = 0.0,  # noqa: N803 (a unit)
    trajectories: str | Path | Sequence[str | Path | None] | None = None,
    callbacks: Sequence[Callback] = (),
    max_active: int | None = None,
) -> Iterator[tuple[int, RelaxResult | ESCNError]]:
    """Relax many structures, evaluated together, and yield each when it has ended.

    Parameters
    ----------
    structures, potential, optimizer, fmax, steps, cell, smax, pressure_GPa, trajectories, callbacks, max_active
        As in :func:`relax_batch`; they are checked at once, before the first result is asked for.

    Yields
    ------
    int
        Place of a structure in ``structures``.
    RelaxResult or ESCNError
        How its relaxation ended; an error if it could not be evaluated even once.

    Raises
    ------
    InputError
        As :func:`relax_batch`.
    KeyboardInterrupt
        Ctrl-C, after what was under way has been yielded as ``"interrupted"``.
    """
    check_is_list(structures)
    name = batch_optimizer(optimizer)
    check_limits(fmax, steps)
    check_cell_options(cell, smax, pressure_GPa)
    check_can_relax(potential, cell)
    check_max_active(max_active)
    settings = RelaxSettings(getattr(ase.optimize, name), fmax, steps, cell, smax, pressure_GPa, tuple(callbacks))
    waiting = deque(
        zip(range(len(structures)), structures, trajectory_paths(trajectories, len(structures)), strict=True)
    )
    return _relaxations(waiting, potential, settings, max_active)


Waiting = deque[tuple[int, Atoms, Path | None]]


def _relaxations(
    waiting: Waiting, potential: Potential, settings: RelaxSettings, max_active: int | None
) -> Iterator[tuple[int, RelaxResult | ESCNError]]:
    active: list[Relaxation] = []
    try:
        while waiting or active:
            yield from _fill(active, waiting, settings, max_active)
            _evaluate(active, potential)
            yield from _take_out_ended(active)
    except KeyboardInterrupt:
        for relaxation in active:
            relaxation.interrupt()
        yield from _take_out_ended(active)
        raise


def _fill(
    active: list[Relaxation], waiting: Waiting, settings: RelaxSettings, max_active: int | None
) -> Iterator[tuple[int, ESCNError]]:
    """Begin relaxations while there is room, and yield what cannot begin."""
    while waiting and _has_room(active, max_active):
        index, atoms, trajectory = waiting.popleft()
        try:
            active.append(Relaxation(index, atoms, settings, trajectory))
        except Exception as error:  # carried on to the owner of the structure
            yield index, as_error_of(index, error)


def _has_room(active: list[Relaxation], max_active: int | None) -> bool:
    if max_active is not None:
        return len(active) < max_active
    return sum(len(relaxation.atoms) for relaxation in active) < ACTIVE_ATOMS


def _evaluate(active: list[Relaxation], potential: Potential) -> None:
    """Evaluate what waits for it, and let it take a step."""
    outcomes = potential.evaluate_each([relaxation.atoms for relaxation in active])
    for relaxation, outcome in zip(active, outcomes, strict=True):
        relaxation.take(renumbered(outcome, relaxation.index) if isinstance(outcome, ESCNError) else outcome)


def _take_out_ended(active: list[Relaxation]) -> Iterator[tuple[int, RelaxResult | ESCNError]]:
    """Yield how relaxations have ended; each is taken out first, so that none comes twice if Ctrl-C comes between."""
    for relaxation in list(active):
        if relaxation.end is not None:
            active.remove(relaxation)
            yield relaxation.index, relaxation.end


def _warn_of_rises(ends: list[RelaxResult | ESCNError]) -> None:
    """Give one warning for all structures that ended above an earlier step."""
    risen = [index for index, end in enumerate(ends) if isinstance(end, RelaxResult) and energy_notes(end.history)]
    if risen:
        first = ", ".join(map(str, risen[:5])) + (", ..." if len(risen) > 5 else "")
        warnings.warn(
            f"{len(risen)} of {len(ends)} relaxations (structure {first}) ended well above an earlier step; their "
            "notes say how far. Do not trust these results",
            EnergyRiseWarning,
            stacklevel=3,
        )


def _never_begun(index: int) -> CalculationError:
    return CalculationError(f"structure {index}: not evaluated, the run was interrupted before")
