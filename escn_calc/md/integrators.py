"""The integrators of ASE behind the names of the ensembles, and what they remember between two steps.

- ``nve``: velocity Verlet.
- ``langevin``: friction and noise on every atom (Vanden-Eijnden and Ciccotti), friction 1/thermostat time. ASE's
  ``fixcm`` stays off: it does not sample the ensemble. Add ``ase.constraints.FixCom`` to hold the centre of mass.
- ``bussi``: velocity Verlet with stochastic rescaling of all velocities.
- ``nose-hoover``: a chain of three thermostats, deterministic and time reversible.
- ``npt``, ``npt-anisotropic``: Martyna-Tobias-Klein with chains on atoms and cell. Of ASE's integrators at constant
  pressure these are the ones that both sample the ensemble and keep a conserved quantity (Berendsen's does not sample,
  Melchionna's and the older NPT class have no chain and need a triangular cell). ``npt`` changes the volume alone,
  as liquids and cubic crystals need it; ``npt-anisotropic`` moves the three cell vectors freely.

Two things are put right here. ASE's chain counts 3N degrees of freedom, constraints or not, and its momenta would
collect the forces on fixed atoms: with half a slab fixed, the other half would be twice as hot as asked.
:class:`ConstrainedNoseHoover` counts as ``Atoms.get_temperature`` does and projects the forces as constraints project
momenta, which is exact for constraints that are linear in the positions. It also takes over the positions that the
constraints leave: calculators of ASE keep their results for positions that moved by less than 1e-15 Å, so that forces
would not always belong to the positions to the last bit.

During a ramp only the target temperatures change. Thermostat and barostat masses stay those of the hottest
temperature, so that the coupling is never faster than asked.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixedLine, FixedPlane, Hookean
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md.settings import MDSettings

Integrator = VelocityVerlet | Langevin | NoseHooverChainNVT | IsotropicMTKNPT | MTKNPT
"""All of them; ``Bussi`` is a ``VelocityVerlet``."""

CHAIN = ("_q", "_p", "_thermostat._eta", "_thermostat._p_eta")
BAROSTAT = ("_barostat._xi", "_barostat._p_xi")

MEMORY: dict[str, tuple[str, ...]] = {
    "nve": (),
    "langevin": (),
    "bussi": ("transferred_energy",),
    "nose-hoover": CHAIN,
    "npt": (*CHAIN, *BAROSTAT, "_eps", "_p_eps"),
    "npt-anisotropic": (*CHAIN, *BAROSTAT, "_h", "_p_g"),
}
"""What each integrator keeps from one step to the next, besides the atoms and the random generator."""

LINEAR_CONSTRAINTS = (FixAtoms, FixCartesian, FixCom, FixedLine, FixedPlane, Hookean)


SMALLEST_PROBE = 1e-9
"""What the constraints may leave, by rounding, of momenta near one along directions that they fix."""


class ConstrainedNoseHoover(NoseHooverChainNVT):
    """ASE's Nosé-Hoover chain for atoms with linear constraints.

    Parameters
    ----------
    atoms : Atoms
        The structure; its momenta obey its constraints.
    timestep, thermostat_time : float
        In ASE's unit of time.
    temperature : float
        In K.
    """

    def __init__(self, atoms: Atoms, timestep: float, temperature: float, thermostat_time: float) -> None:
        super().__init__(atoms, timestep, temperature_K=temperature, tdamp=thermostat_time)
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=atoms.get_number_of_degrees_of_freedom() / 3,
            masses=self.masses,
            temperature_K=temperature,
            tdamp=thermostat_time,
        )

    def _update_atoms(self) -> None:
        super()._update_atoms()
        self._q = self.atoms.get_positions()
        self._p = self.atoms.get_momenta()

    def _get_forces(self) -> np.ndarray:
        forces: np.ndarray = super()._get_forces()
        for constraint in self.atoms.constraints:
            if hasattr(constraint, "adjust_momenta"):
                constraint.adjust_momenta(self.atoms, forces)
        return forces


def check_constraints(atoms: Atoms, settings: MDSettings) -> None:
    """Make sure that something can move, and that the ensemble can be sampled under the constraints.

    Raises
    ------
    InputError
        It cannot; the message names the constraint.
    """
    names = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
    if names and settings.npt:
        raise InputError(
            f"the structure has constraints ({names}), and {settings.ensemble} moves every atom; remove them"
        )
    try:
        freedom = atoms.get_number_of_degrees_of_freedom()
    except NotImplementedError as error:
        raise InputError(f"a constraint ({names}) does not say how many degrees of freedom it removes") from error
    if freedom < 1:
        raise InputError(f"the constraints ({names}) leave nothing that can move")
    if settings.ensemble == "nose-hoover":
        for constraint in atoms.constraints:
            if not isinstance(constraint, LINEAR_CONSTRAINTS):
                raise InputError(
                    f"nose-hoover cannot hold the constraint {type(constraint).__name__}; choose langevin or bussi"
                )


def set_initial_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Keep the momenta that a structure has; give it thermal ones if it is at rest.

    Parameters
    ----------
    atoms : Atoms
        Its momenta are changed, and obey its constraints afterwards.
    temperature : float
        Of the Maxwell-Boltzmann distribution, in K. Net momentum is removed, unless something is constrained.
    rng : Generator
        Source of the random numbers.
    """
    atoms.set_momenta(atoms.get_momenta())
    if atoms.get_momenta().any():
        return
    thermalize_momenta(atoms, temperature, rng=rng)
    if not atoms.constraints and len(atoms) > 1:
        Stationary(atoms, preserve_temperature=False)


def count_movable(atoms: Atoms) -> int:
    """Count the atoms that the constraints leave free to move at least in one direction."""
    probe = atoms.copy()
    probe.set_momenta(np.random.default_rng(0).uniform(1, 2, (len(atoms), 3)))
    return int((np.abs(probe.get_momenta()) > SMALLEST_PROBE).any(axis=1).sum())


def build_integrator(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    """Make the integrator of an ensemble.

    Parameters
    ----------
    atoms : Atoms
        The structure at the start of the run, momenta included; the integrator moves it.
    settings : MDSettings
        The run.
    rng : Generator
        Source of the noise, for ``langevin`` and ``bussi``.
    """
    timestep = settings.timestep_fs * units.fs
    thermostat_time = settings.thermostat_time_fs * units.fs
    temperature = settings.hottest_temperature_K
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if settings.ensemble == "langevin":
        friction = 1 / thermostat_time
        return Langevin(atoms, timestep, temperature_K=temperature, friction=friction, fixcm=False, rng=rng)
    if settings.ensemble == "bussi":
        return Bussi(atoms, timestep, temperature_K=temperature, taut=thermostat_time, rng=rng)
    if settings.ensemble == "nose-hoover":
        return ConstrainedNoseHoover(atoms, timestep, temperature, thermostat_time)
    constant_pressure = IsotropicMTKNPT if settings.ensemble == "npt" else MTKNPT
    return constant_pressure(
        atoms,
        timestep,
        temperature_K=temperature,
        pressure_au=settings.pressure_GPa * units.GPa,
        tdamp=thermostat_time,
        pdamp=settings.barostat_time_fs * units.fs,
    )


def set_temperature(integrator: Integrator, temperature: float) -> None:
    """Change the temperature (K) that the thermostat, and the barostat if there is one, aims at."""
    if isinstance(integrator, Langevin):
        integrator.set_temperature(temperature_K=temperature)
    elif isinstance(integrator, Bussi):
        integrator.temp = units.kB * temperature
        integrator.target_kinetic_energy = 0.5 * integrator.temp * integrator.ndof
    elif isinstance(integrator, NoseHooverChainNVT | IsotropicMTKNPT | MTKNPT):
        integrator._thermostat._kT = units.kB * temperature
        if not isinstance(integrator, NoseHooverChainNVT):
            integrator._barostat._kT = units.kB * temperature


def get_memory(integrator: Integrator, ensemble: str) -> dict[str, np.ndarray]:
    """Copy what the integrator keeps between two steps."""
    return {name: np.array(reduce(getattr, name.split("."), integrator)) for name in MEMORY[ensemble]}


def set_memory(integrator: Integrator, ensemble: str, memory: dict[str, np.ndarray]) -> None:
    """Put back what :func:`get_memory` returned."""
    for name in MEMORY[ensemble]:
        *path, attribute = name.split(".")
        value = memory[name]
        setattr(reduce(getattr, path, integrator), attribute, value.copy() if value.ndim else float(value))
