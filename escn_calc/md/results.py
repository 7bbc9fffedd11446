"""What a run of molecular dynamics reports: one record a logged step, and one at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ase import Atoms

Reason = Literal["finished", "interrupted", "exploded", "evaporated", "failed"]


class EnergyDriftWarning(UserWarning):
    """The total energy of a run at constant energy changes steadily."""


@dataclass(frozen=True)
class MDStep:
    """Thermodynamics of one frame.

    Attributes
    ----------
    step : int
        Number of steps taken before this frame; the start has step 0.
    time_fs : float
        Time since the start in fs.
    potential, kinetic, total : float
        Energies of the whole structure in eV; ``total`` is the sum of the other two.
    temperature_K : float
        Kinetic temperature in K, over the degrees of freedom that the constraints leave.
    pressure_GPa : float or None
        Pressure in GPa, kinetic part included; None unless the cell moves.
    volume : float or None
        Volume of the cell in Å³; None unless the cell moves.
    """

    step: int
    time_fs: float
    potential: float
    kinetic: float
    total: float
    temperature_K: float  # noqa: N815 (unit)
    pressure_GPa: float | None = None  # noqa: N815 (unit)
    volume: float | None = None


@dataclass(frozen=True)
class MDResult:
    """How a run ended.

    Means, drift and steps cover the run from its start, through all its restarts; wall time and rates this call alone.

    Attributes
    ----------
    atoms : Atoms
        The last good frame, with momenta, constraints and a calculator that holds its energy (eV), forces (eV/Å) and,
        where there is one, stress (eV/Å³). After ``"evaporated"`` it is the frame in which the atom was found, which is
        the last one of the trajectory.
    reason : str
        ``"finished"``, ``"interrupted"`` (Ctrl-C), ``"exploded"``, ``"evaporated"`` or ``"failed"`` (an evaluation, or
        a file that cannot be written).
    message : str
        What was found and what to try; empty unless the run exploded, evaporated or failed.
    last : MDStep
        Thermodynamics of ``atoms``.
    mean_temperature_K, std_temperature_K : float
        Mean and standard deviation of the temperature over all good steps, in K.
    drift, drift_error : float or None
        Slope of the total energy and its standard error in meV/atom/ps, where only atoms count that can move at least
        in one direction; None unless the ensemble is NVE, and in runs too short to tell.
    wall_time_s : float
        Time taken by this call in seconds.
    steps_per_s, ns_per_day : float
        Steps a second of this call and the simulated time a day they amount to; 0 if it took no step.
    notes : tuple of str
        Reasons to doubt the result, and files that could not be completed at the end, one sentence each. Empty if
        there are none.
    """

    atoms: Atoms
    reason: Reason
    message: str
    last: MDStep
    mean_temperature_K: float  # noqa: N815 (unit)
    std_temperature_K: float  # noqa: N815 (unit)
    drift: float | None
    drift_error: float | None
    wall_time_s: float
    steps_per_s: float
    ns_per_day: float
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.reason == "finished"

    @property
    def steps(self) -> int:
        """Number of steps from the start to the last good frame."""
        return self.last.step

    @property
    def time_ps(self) -> float:
        """Time from the start to the last good frame in ps."""
        return self.last.time_fs / 1000
