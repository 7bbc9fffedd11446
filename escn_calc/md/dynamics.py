"""One dynamics: atoms, calculator, integrator and everything that must be known to take the next step."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorError, PropertyNotImplementedError

from escn_calc.errors import CalculationError, ESCNError, InputError
from escn_calc.md.drift import DriftMeter, RunningMean
from escn_calc.md.frame import Frame, measure
from escn_calc.md.guards import BrokenRunError, Guards
from escn_calc.md.integrators import (
    build_integrator,
    count_movable,
    get_memory,
    set_initial_momenta,
    set_memory,
    set_temperature,
)
from escn_calc.md.settings import MDSettings
from escn_calc.md.state import Snapshot
from escn_calc.relax import NUMERICAL_FAILURES


class Dynamics:
    """The moving atoms, their integrator, and the last good step.

    After every step the whole of it is copied into a :class:`~escn_calc.md.state.Snapshot`.
    """

    def __init__(
        self,
        atoms: Atoms,
        calculator: BaseCalculator,
        settings: MDSettings,
        earlier: Snapshot | None,
        *,
        direct: bool,
        evaporation: bool,
    ) -> None:
        self.settings = settings
        self.direct = direct
        self._rng = np.random.default_rng(settings.seed)
        self._atoms = atoms.copy()
        self._atoms.calc = calculator
        self._has_stress = "stress" in calculator.implemented_properties and is_crystal(atoms)
        set_initial_momenta(self._atoms, settings.start_temperature_K, self._rng)
        self._guards = Guards(self._atoms, settings, direct=direct, evaporation=evaporation)
        self._integrator = build_integrator(self._atoms, settings, self._rng)
        self.drift, self.temperature = DriftMeter(), RunningMean()
        self._movable = count_movable(self._atoms)
        if earlier is None:
            self.good = self._first_frame(0)
            self._guards.check_start(self.good)
            self._meter(self.good)
        else:
            self._return_to(earlier)
            self.good = self._first_frame(earlier.step)
        self.snapshot = self._take_snapshot()

    def is_logged(self, step: int) -> bool:
        """Whether a step has a frame and a row."""
        return step % self.settings.every == 0

    def advance(self) -> None:
        """Take one step; ``good`` and ``snapshot`` change only if it passes every check.

        Raises
        ------
        BrokenRunError
            The evaluation failed, or gave something that no sound run gives.
        """
        step = self.good.step + 1
        if self.settings.ramp:
            set_temperature(self._integrator, self.settings.temperature_at(step))
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self._integrator.step()
                frame = self._measure(step)
        except NUMERICAL_FAILURES as error:
            raise BrokenRunError(
                "failed", f"stopped after step {step - 1}: {error} (evaluation of step {step})"
            ) from error
        self._guards.check(frame, self.good)
        self._meter(frame)
        self.snapshot = self._take_snapshot(step)
        self.good = frame

    def check_isolation(self) -> None:
        """Check that no atom of the last good step has left the others."""
        self._guards.check_isolation(self.good)

    def final_structure(self) -> Atoms:
        """Return the last good frame as a structure of its own."""
        return self.good.put_into(self._atoms.copy())

    def _first_frame(self, step: int) -> Frame:
        try:
            return self._measure(step)
        except PropertyNotImplementedError as error:
            raise InputError(f"the calculator lacks what {self.settings.ensemble} needs: {error}") from error
        except ESCNError:
            raise
        except NotImplementedError as error:
            raise InputError(f"the calculator cannot evaluate this structure: {error}") from error
        except CalculatorError as error:
            raise CalculationError(f"the evaluation of the start failed: {error}") from error

    def _measure(self, step: int) -> Frame:
        npt = self.settings.npt
        stress = self._has_stress and (npt or self.is_logged(step))
        return measure(self._atoms, step, step * self.settings.timestep_fs, stress=stress, npt=npt)

    def _meter(self, frame: Frame) -> None:
        thermodynamics = frame.thermodynamics
        self.temperature.add(thermodynamics.temperature_K)
        if self.settings.ensemble == "nve":
            self.drift.add(thermodynamics.time_fs / 1000, thermodynamics.total / self._movable)

    def _take_snapshot(self, step: int | None = None) -> Snapshot:
        return Snapshot(
            step=self.good.step if step is None else step,
            positions=self._atoms.get_positions(),
            momenta=self._atoms.get_momenta(),
            cell=np.array(self._atoms.cell),
            memory=get_memory(self._integrator, self.settings.ensemble),
            random=dict(self._rng.bit_generator.state),
            drift=self.drift.state(),
            temperature=self.temperature.state(),
        )

    def _return_to(self, snapshot: Snapshot) -> None:
        self._atoms.set_cell(snapshot.cell, apply_constraint=False)
        self._atoms.set_positions(snapshot.positions, apply_constraint=False)
        self._atoms.set_momenta(snapshot.momenta, apply_constraint=False)
        set_memory(self._integrator, self.settings.ensemble, snapshot.memory)
        self._rng.bit_generator.state = snapshot.random
        self.drift = DriftMeter.restored(snapshot.drift)
        self.temperature = RunningMean(**snapshot.temperature)


def is_crystal(atoms: Atoms) -> bool:
    """Whether a structure repeats itself in three directions, so that pressure and stress have a meaning."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3
