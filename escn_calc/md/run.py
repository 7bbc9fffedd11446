"""Molecular dynamics of one structure: the loop around single steps of an integrator of ASE.

:class:`~escn_calc.md.dynamics.Dynamics` takes the steps and copies itself into a snapshot after each, so that whatever
ends a run, its state and its last good frame are those of a complete step. Checking what is asked for, writing and
ending are done here.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from escn_calc.errors import InputError
from escn_calc.identity import Identity, check_identity
from escn_calc.md.dynamics import Dynamics, is_crystal
from escn_calc.md.guards import BrokenRunError
from escn_calc.md.integrators import check_constraints
from escn_calc.md.outputs import Mark, OutputError, Outputs, Paths
from escn_calc.md.results import EnergyDriftWarning, MDResult, MDStep, Reason
from escn_calc.md.settings import MDSettings, check_settings
from escn_calc.md.state import (
    State,
    load_state,
    model_identity,
    save_state,
    structure_identity,
)

if TYPE_CHECKING:
    from os import PathLike

DRIFT_WORTH_A_WARNING = 1.0
"""meV/atom/ps. At 300 K an atom has 39 meV of kinetic energy: in 10 ps a quarter of it would come from nowhere."""

DRIFT_SIGNIFICANCE = 3.0
"""Standard errors of the drift that a warning must be sure of."""

FEWEST_STEPS_FOR_DRIFT = 100
"""Shorter runs at constant energy are not warned about."""


def run_md(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    steps: int,
    ensemble: str = "nve",
    timestep_fs: float = 1.0,
    temperature_K: float | Sequence[float] = 300.0,  # noqa: N803 (unit)
    pressure_GPa: float = 0.0,  # noqa: N803 (unit)
    thermostat_time_fs: float = 100.0,
    barostat_time_fs: float = 1000.0,
    seed: int = 0,
    every: int = 10,
    trajectory: str | PathLike[str] | None = None,
    log: str | PathLike[str] | None = None,
    state: str | PathLike[str] | None = None,
    state_every: int = 100,
    resume: bool = False,
    overwrite: bool = False,
    stop_on_evaporation: bool = True,
    progress: Callable[[MDStep], None] | None = None,
) -> MDResult:
    """Run molecular dynamics with an integrator of ASE.

    Steps 0, ``every``, 2 ``every`` … are logged: they become frames of the trajectory and rows of the log. A run with a
    state file can be killed at any moment and resumed, and its files will be those of a run that was never killed, bit
    by bit, if the calculator returns the same bits for the same positions.

    A run stops before its end if it explodes (a number that is not finite, or a force, temperature, kinetic energy of
    an atom or jump of the total energy far outside of what sound runs reach), and if an atom loses all others
    ("evaporated"; looked for at logged steps, once in 100 fs at most). See :mod:`escn_calc.md.guards`.

    Parameters
    ----------
    atoms : Atoms
        The structure at the start, with its constraints; it is not changed. Momenta that are not all zero are the
        initial ones. Otherwise they are drawn at the (start) temperature from ``seed``, without net momentum unless
        something is constrained. To resume, pass the same structure again.
    calculator : BaseCalculator
        Any ASE calculator with energy and forces; with stress for constant pressure.
    steps : int
        Number of steps from the start of the run, through all its restarts. A finished run can be resumed with more,
        unless its temperature is a ramp, which spreads over all steps. With 0 everything is checked and the structure
        evaluated.
    ensemble : str
        ``"nve"``, ``"langevin"``, ``"nose-hoover"``, ``"bussi"``, ``"npt"`` (the volume changes) or
        ``"npt-anisotropic"`` (the whole cell changes); see :mod:`escn_calc.md.integrators`.
    timestep_fs : float
        In fs.
    temperature_K : float or (float, float)
        In K; a pair is a linear ramp from start to end. With ``"nve"`` it is that of the initial momenta alone.
    pressure_GPa : float
        In GPa; with constant pressure only.
    thermostat_time_fs, barostat_time_fs : float
        Relaxation times in fs: of the temperature (for ``"langevin"`` the inverse of the friction) and of the cell.
    seed : int
        Of the random numbers of this run; no global generator is used.
    every : int
        Distance of logged steps.
    trajectory : path, optional
        ASE ``.traj`` file of the frames, with momenta, energy, forces and, in three-dimensional crystals where the
        calculator has it, stress; ``info`` holds ``step`` and ``time_fs``.
    log : path, optional
        CSV file of the thermodynamics, see :func:`escn_calc.md.read_log`.
    state : path, optional
        File to resume from, written before the first frame, every ``state_every`` steps, and when the run ends.
    state_every : int
        Steps between two states.
    resume : bool
        Continue the run of the state file. Without any of the files the run starts from the beginning.
    overwrite : bool
        Replace existing files.
    stop_on_evaporation : bool
        Stop when an atom that was not alone at the start has no other within 6 Å. Pass False if atoms are meant to
        leave (desorption, evaporation); it may also be changed to go on with a run that was stopped.
    progress : callable, optional
        Called with the ``MDStep`` of every logged step once it is written. Its errors end the run and are passed on
        once the state is saved.

    Returns
    -------
    MDResult
        The last good frame, how the run ended, and what the meters say.

    Raises
    ------
    InputError
        Something asked for cannot be done, an existing file is in the way, another process runs the state, or the state
        or a file is that of another run. No file has been touched then.
    ESCNError
        The structure at the start cannot be evaluated. (Failures after that are reported in the result.)
    Exception
        What ``progress`` raises, and errors of a calculator that are mistakes in a program, such as ``KeyError``; the
        state is saved.

    Warns
    -----
    TimestepWarning
        The timestep is unusual, probably in another unit.
    EnergyDriftWarning
        At constant energy the total energy drifted.

    Notes
    -----
    Temperatures count the degrees of freedom that constraints leave (``Atoms.get_number_of_degrees_of_freedom``). Where
    nothing is fixed these include the motion of the centre of mass, which ``nose-hoover``, ``bussi`` and ``npt`` do not
    heat: the other motions then are hotter by a factor N/(N − 1). In small free structures hold the centre of mass with
    ``ase.constraints.FixCom``, which is counted correctly (not with constant pressure).

    The drift is counted per atom that can move at least in one direction: atoms that are fixed take no energy up.
    """
    settings = check_settings(
        ensemble=ensemble,
        steps=steps,
        timestep_fs=timestep_fs,
        temperature_K=temperature_K,
        pressure_GPa=pressure_GPa,
        thermostat_time_fs=thermostat_time_fs,
        barostat_time_fs=barostat_time_fs,
        seed=seed,
        every=every,
        state_every=state_every,
    )
    paths = Paths(*(None if path is None else Path(path) for path in (trajectory, log, state)))
    paths.check(resume=resume, overwrite=overwrite)
    _check_structure(atoms, settings)
    direct = _kind_of_forces(calculator) == "direct"
    _check_properties(calculator, settings)
    written = {name: name in paths.named for name in ("trajectory", "log")}
    identity: Identity = {
        "model": model_identity(calculator),
        "structure": structure_identity(atoms),
        "settings": {**settings.record(), **written},
    }
    with paths.locked():
        paths.check(resume=resume, overwrite=overwrite)
        earlier = _earlier_state(paths, identity, settings) if resume else None
        paths.check_writable()
        start = time.perf_counter()
        snapshot = earlier.snapshot if earlier else None
        run = Dynamics(atoms, calculator, settings, snapshot, direct=direct, evaporation=stop_on_evaporation)
        first_step = run.good.step
        ending = _keep_going(run, paths, identity, earlier.mark if earlier else None, progress)
    return _result(run, ending, first_step, time.perf_counter() - start)


@dataclass
class _Ending:
    """How a run ended."""

    reason: Reason = "finished"
    message: str = ""
    notes: list[str] = field(default_factory=list)


def _keep_going(
    run: Dynamics, paths: Paths, identity: Identity, mark: Mark | None, progress: Callable[[MDStep], None] | None
) -> _Ending:
    """Take all steps with their outputs, and save the state whatever ends them."""
    if mark is None:
        mark = Mark()
        if paths.state is not None:
            _save_first_state(paths.state, State(identity, run.snapshot, mark))
    outputs = Outputs(paths, mark, run.final_structure(), run.settings.npt)
    ending = _Ending()

    def save() -> None:
        if paths.state is not None:
            outputs.sync()
            save_state(paths.state, State(identity, run.snapshot, outputs.mark))

    def at_the_end(action: Callable[[], None]) -> None:
        try:
            action()
        except OutputError as error:
            ending.notes.append(f"at the end: {error}")

    try:
        _take_steps(run, outputs, save, progress)
    except KeyboardInterrupt:
        ending.reason = "interrupted"
    except BrokenRunError as error:
        ending.reason, ending.message = error.reason, str(error)
    except OutputError as error:
        ending.reason, ending.message = "failed", f"stopped after step {run.good.step}: {error}"
    finally:
        try:
            at_the_end(save)
        finally:
            at_the_end(outputs.close)
    return ending


def _take_steps(
    run: Dynamics, outputs: Outputs, save: Callable[[], None], progress: Callable[[MDStep], None] | None
) -> None:
    first = run.good.step
    while True:
        step = run.good.step
        if run.is_logged(step) and outputs.mark.rows <= step // run.settings.every:
            outputs.write(run.good)
            if progress is not None:
                progress(run.good.thermodynamics)
        run.check_isolation()
        if step == run.settings.steps:
            return
        if step > first and step % run.settings.state_every == 0:
            save()
        run.advance()


def _save_first_state(path: Path, state: State) -> None:
    try:
        save_state(path, state)
    except OutputError as error:
        raise InputError(str(error)) from error


def _result(run: Dynamics, ending: _Ending, first_step: int, wall_time: float) -> MDResult:
    drift = run.drift.drift() if run.settings.ensemble == "nve" else None
    rate = (run.good.step - first_step) / wall_time
    notes = _drift_notes(run, drift)
    for note in notes:
        warnings.warn(note, EnergyDriftWarning, stacklevel=3)
    return MDResult(
        atoms=run.final_structure(),
        reason=ending.reason,
        message=ending.message,
        last=run.good.thermodynamics,
        mean_temperature_K=run.temperature.mean,
        std_temperature_K=run.temperature.deviation,
        drift=None if drift is None else drift[0],
        drift_error=None if drift is None else drift[1],
        wall_time_s=wall_time,
        steps_per_s=rate,
        ns_per_day=rate * run.settings.timestep_fs * 86400e-6,
        notes=(*notes, *ending.notes),
    )


def _drift_notes(run: Dynamics, drift: tuple[float, float] | None) -> tuple[str, ...]:
    if drift is None or run.good.step < FEWEST_STEPS_FOR_DRIFT:
        return ()
    slope, error = drift
    if abs(slope) <= DRIFT_WORTH_A_WARNING or abs(slope) <= DRIFT_SIGNIFICANCE * error:
        return ()
    cause = (
        "direct forces are not the gradient of the energy; use forces='gradient'"
        if run.direct
        else f"try a timestep below {run.settings.timestep_fs:g} fs; are the forces the gradient of the energy?"
    )
    return (f"the total energy drifts by {slope:+.3g} ± {error:.2g} meV/atom/ps: {cause}",)


def _earlier_state(paths: Paths, identity: Identity, settings: MDSettings) -> State | None:
    if paths.state is None or not paths.state.exists():
        return None
    earlier = load_state(paths.state)
    check_identity(paths.state, earlier.identity, identity)
    paths.check_content(earlier.mark)
    if earlier.snapshot.step > settings.steps:
        raise InputError(
            f"steps is {settings.steps}, but the state {str(paths.state)!r} is at step {earlier.snapshot.step} "
            "already; steps counts from the start of the run"
        )
    return earlier


def _check_structure(atoms: Atoms, settings: MDSettings) -> None:
    if not isinstance(atoms, Atoms):
        raise InputError(f"atoms is {atoms!r}; pass an ase.Atoms")
    if len(atoms) == 0:
        raise InputError("the structure has no atoms")
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.get_momenta()).all():
        raise InputError("the structure has positions or momenta that are not finite")
    if not np.isfinite(atoms.cell.array).all():
        raise InputError("the cell of the structure is not finite")
    if atoms.pbc.any() and np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
        raise InputError(
            f"pbc is {atoms.pbc.tolist()}, but the structure has no cell in these directions "
            f"({atoms.cell.array.tolist()} Å); set its cell, or pbc=False"
        )
    massless = np.flatnonzero(~(atoms.get_masses() > 0))
    if len(massless):
        raise InputError(f"atom {massless[0]} ({atoms.symbols[massless[0]]}) has no mass; set its mass in amu")
    check_constraints(atoms, settings)
    if settings.npt and not is_crystal(atoms):
        raise InputError(
            f"{settings.ensemble} needs a structure that is periodic in three directions, and pbc is "
            f"{atoms.pbc.tolist()}: its volume has no meaning; choose an ensemble at constant volume"
        )


def _kind_of_forces(calculator: object) -> str | None:
    """Return "direct" or "gradient" for a model of this package, which is loaded by this, and None for others."""
    if not isinstance(calculator, BaseCalculator):
        raise InputError(f"calculator is {calculator!r}; pass a calculator of ASE, such as ESCNCalculator()")
    kind: str | None = getattr(getattr(calculator, "potential", None), "forces", None)
    return kind


def _check_properties(calculator: BaseCalculator, settings: MDSettings) -> None:
    if "forces" not in calculator.implemented_properties:
        raise InputError(f"molecular dynamics needs forces, and the calculator {calculator.name!r} has none")
    if settings.npt and "stress" not in calculator.implemented_properties:
        raise InputError(
            f"{settings.ensemble} needs the stress, and the calculator {calculator.name!r} has none; "
            "ESCNCalculator has it with forces='gradient'"
        )
