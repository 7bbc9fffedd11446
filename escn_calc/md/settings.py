"""What a run is asked to do, checked before anything is evaluated or written."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

from escn_calc.errors import InputError

ENSEMBLES = ("nve", "langevin", "nose-hoover", "bussi", "npt", "npt-anisotropic")
"""Constant energy; three thermostats at constant volume; constant pressure, where the volume or the cell moves."""

NPT_ENSEMBLES = ("npt", "npt-anisotropic")

LARGEST_PRESSURE_GPA = 1000.0
"""Three times the pressure at the centre of the Earth."""

LARGEST_TIMESTEP_FS = 50.0
"""fs. No molecular vibration is followed with more: the number is meant in another unit."""

LONG_TIMESTEP_FS = 5.0
"""fs. Half the period of a stretched O-H bond; heavy metals alone can bear it."""

SHORT_TIMESTEP_FS = 0.2
"""fs. 1 fs is 0.098 and 2 fs are 0.196 of ASE's time units: smaller numbers are mostly meant in those."""


class TimestepWarning(UserWarning):
    """A timestep that is possible, but probably not what was meant."""


@dataclass(frozen=True)
class MDSettings:
    """The numbers that define a run; see :func:`escn_calc.md.run_md`."""

    ensemble: str
    steps: int
    timestep_fs: float
    start_temperature_K: float  # noqa: N815 (unit)
    end_temperature_K: float  # noqa: N815 (unit)
    pressure_GPa: float  # noqa: N815 (unit)
    thermostat_time_fs: float
    barostat_time_fs: float
    seed: int
    every: int
    state_every: int

    @property
    def ramp(self) -> bool:
        """Whether the temperature changes during the run."""
        return self.start_temperature_K != self.end_temperature_K

    @property
    def npt(self) -> bool:
        """Whether the cell moves."""
        return self.ensemble in NPT_ENSEMBLES

    @property
    def hottest_temperature_K(self) -> float:  # noqa: N802 (unit)
        """The higher end of the ramp in K."""
        return max(self.start_temperature_K, self.end_temperature_K)

    def temperature_at(self, step: int) -> float:
        """Return the temperature in K that the thermostat has during a step; the first step is number 1."""
        done = step / max(self.steps, 1)
        return self.start_temperature_K + (self.end_temperature_K - self.start_temperature_K) * done

    def record(self) -> dict[str, Any]:
        """Return what must stay the same when the run is continued."""
        record: dict[str, Any] = {
            "ensemble": self.ensemble,
            "timestep_fs": self.timestep_fs,
            "temperature_K": [self.start_temperature_K, self.end_temperature_K],
            "pressure_GPa": self.pressure_GPa,
            "thermostat_time_fs": self.thermostat_time_fs,
            "barostat_time_fs": self.barostat_time_fs,
            "seed": self.seed,
            "every": self.every,
        }
        return {**record, "steps": self.steps} if self.ramp else record


def check_settings(
    *,
    ensemble: str,
    steps: int,
    timestep_fs: float,
    temperature_K: float | Sequence[float],  # noqa: N803 (unit)
    pressure_GPa: float,  # noqa: N803 (unit)
    thermostat_time_fs: float,
    barostat_time_fs: float,
    seed: int,
    every: int,
    state_every: int,
) -> MDSettings:
    """Check the numbers of a run and put them into one record.

    Raises
    ------
    InputError
        One of them cannot be meant; the message says which, and what it must be.

    Warns
    -----
    TimestepWarning
        The timestep is above ``LONG_TIMESTEP_FS`` or below ``SHORT_TIMESTEP_FS``.
    """
    start, end = _temperatures(temperature_K)
    settings = MDSettings(
        ensemble=_ensemble(ensemble),
        steps=_count("steps", steps, 0),
        timestep_fs=_timestep(timestep_fs),
        start_temperature_K=start,
        end_temperature_K=end,
        pressure_GPa=_number("pressure_GPa", pressure_GPa, "GPa"),
        thermostat_time_fs=_positive("thermostat_time_fs", thermostat_time_fs, "fs"),
        barostat_time_fs=_positive("barostat_time_fs", barostat_time_fs, "fs"),
        seed=_count("seed", seed, 0),
        every=_count("every", every, 1),
        state_every=_count("state_every", state_every, 1),
    )
    if settings.ramp and settings.ensemble == "nve":
        raise InputError(
            f"temperature_K is a ramp from {start:g} K to {end:g} K, but at constant energy (nve) nothing holds a "
            f"temperature; choose one of {', '.join(ENSEMBLES[1:])}"
        )
    if settings.npt and settings.barostat_time_fs < settings.thermostat_time_fs:
        raise InputError(
            f"barostat_time_fs is {settings.barostat_time_fs:g} fs, but must not be shorter than thermostat_time_fs, "
            f"{settings.thermostat_time_fs:g} fs: a fast one makes the volume swing; 1000 fs is a good first choice"
        )
    if abs(settings.pressure_GPa) > LARGEST_PRESSURE_GPA:
        raise InputError(
            f"pressure_GPa is {settings.pressure_GPa:g}, beyond ±{LARGEST_PRESSURE_GPA:g} GPa; the unit is the "
            "gigapascal, and 1 bar is 0.0001 GPa"
        )
    if settings.pressure_GPa != 0 and not settings.npt:
        raise InputError(
            f"pressure_GPa is {settings.pressure_GPa:g}, but the cell stays as it is in {settings.ensemble}; "
            f"choose {' or '.join(NPT_ENSEMBLES)}"
        )
    return settings


def _ensemble(name: object) -> str:
    if isinstance(name, str) and name in ENSEMBLES:
        return name
    near = get_close_matches(str(name).lower(), ENSEMBLES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ENSEMBLES)}"
    raise InputError(f"unknown ensemble {name!r}; {hint}")


def _timestep(value: object) -> float:
    timestep = _positive("timestep_fs", value, "fs")
    if timestep > LARGEST_TIMESTEP_FS:
        raise InputError(
            f"timestep_fs is {timestep:g} fs, more than {LARGEST_TIMESTEP_FS:g} fs; the unit is the femtosecond, "
            "and 1 fs is a good first choice"
        )
    if timestep > LONG_TIMESTEP_FS:
        warnings.warn(
            f"timestep_fs is {timestep:g} fs: vibrations of light atoms take 10 fs; choose at most 2 fs, "
            "or 1 fs where there is hydrogen",
            TimestepWarning,
            stacklevel=4,
        )
    if timestep < SHORT_TIMESTEP_FS:
        warnings.warn(
            f"timestep_fs is {timestep:g} fs, which looks like ASE's unit of time (1 fs is 0.098 of them); "
            "give femtoseconds, without ase.units.fs",
            TimestepWarning,
            stacklevel=4,
        )
    return timestep


def _temperatures(value: object) -> tuple[float, float]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise InputError(f"temperature_K is {value!r}; give one temperature, or the pair (start, end) of a ramp")
        return _positive("temperature_K", value[0], "K"), _positive("temperature_K", value[1], "K")
    temperature = _positive("temperature_K", value, "K")
    return temperature, temperature


def _number(name: str, value: object, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; it must be a number in {unit}")
    return float(value)


def _positive(name: str, value: object, unit: str) -> float:
    number = _number(name, value, unit)
    if number <= 0:
        raise InputError(f"{name} is {number:g} {unit}; it must be above 0")
    return number


def _count(name: str, value: object, smallest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < smallest:
        raise InputError(f"{name} is {value!r}; it must be a whole number, {smallest} or more")
    return int(value)
