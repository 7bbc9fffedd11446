"""Electrochemical reactions on a surface, step by step, from free energies of adsorption.

A reaction is a sequence of states; each step takes up or releases pairs H⁺ + e⁻, so that the potential tilts the free
energies of the states by n e U. The limiting potential is where the last step turns downhill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from escn_calc.adsorption.electrode import Electrode, FreeEnergy
from escn_calc.adsorption.energies import adsorbed
from escn_calc.adsorption.references import OC20
from escn_calc.adsorption.species import species
from escn_calc.adsorption.thermochemistry import ROOM_TEMPERATURE, check_same_temperature
from escn_calc.errors import InputError

WATER_FORMATION = 2.46
"""eV. Minus the free energy of H2 + 1/2 O2 → H2O(l) at 298 K and 1 bar, from the measured 1.23 V. Density functionals
get O2 wrong, so its free energy is counted from H2O and H2 (J. K. Nørskov et al., J. Phys. Chem. B 108, 17886 (2004),
doi:10.1021/jp047349j)."""


@dataclass(frozen=True)
class State:
    """A point on the way of a reaction.

    Attributes
    ----------
    name : str
    at_zero : float
        Free energy at 0 V vs RHE in eV, relative to the first state or any other zero common to all.
    electrons : int
        Pairs H⁺ + e⁻ taken up so far, from the same zero.
    """

    name: str
    at_zero: float
    electrons: int


@dataclass(frozen=True)
class Step:
    """An elementary step between two states.

    Attributes
    ----------
    name : str
        ``"O* → OH*"``.
    at_zero : float
        Its free energy at 0 V vs RHE, in eV.
    electrons : int
        Pairs H⁺ + e⁻ that it takes up; negative if it releases them.
    potential_rhe : float
        V vs RHE.
    """

    name: str
    at_zero: float
    electrons: int
    potential_rhe: float

    @property
    def free_energy(self) -> float:
        """Free energy at the potential, in eV."""
        return self.at_zero + self.electrons * self.potential_rhe


@dataclass(frozen=True)
class Pathway:
    """A reaction as a sequence of states.

    Attributes
    ----------
    name : str
    states : tuple of State
    electrode : Electrode

    Raises
    ------
    InputError
        Fewer than two states, or steps that do not all take up, or all release, pairs H⁺ + e⁻.
    """

    name: str
    states: tuple[State, ...]
    electrode: Electrode

    def __post_init__(self) -> None:
        signs = {(step.electrons > 0) - (step.electrons < 0) for step in self.steps}
        if len(signs) != 1 or 0 in signs:
            raise InputError(
                f"the steps of the {self.name} take up {', '.join(str(step.electrons) for step in self.steps) or 'no'} "
                "pairs H⁺ + e⁻; a pathway has a limiting potential if each step takes up some, or each releases some"
            )

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, each with its free energy at the potential."""
        return tuple(
            Step(
                f"{before.name} → {after.name}",
                after.at_zero - before.at_zero,
                after.electrons - before.electrons,
                self.electrode.potential_rhe,
            )
            for before, after in zip(self.states, self.states[1:], strict=False)
        )

    @property
    def free_energies(self) -> tuple[float, ...]:
        """Free energies of the states at the potential in eV, relative to the first."""
        first = self.states[0]
        potential = self.electrode.potential_rhe
        return tuple(
            state.at_zero - first.at_zero + (state.electrons - first.electrons) * potential for state in self.states
        )

    @property
    def equilibrium_potential(self) -> float:
        """Where the whole reaction is in equilibrium, in V vs RHE."""
        first, last = self.states[0], self.states[-1]
        return -(last.at_zero - first.at_zero) / (last.electrons - first.electrons)

    @property
    def limiting_step(self) -> Step:
        """The step that goes uphill longest as the potential drives the reaction."""
        return max(self.steps, key=lambda step: step.at_zero / abs(step.electrons))

    @property
    def limiting_potential(self) -> float:
        """Where the limiting step is in equilibrium, in V vs RHE; beyond it all steps go downhill."""
        step = self.limiting_step
        return -step.at_zero / step.electrons

    @property
    def overpotential(self) -> float:
        """Distance of the limiting potential from equilibrium in V, positive."""
        return abs(self.limiting_potential - self.equilibrium_potential)


def oxygen_reduction(intermediates: Mapping[str, FreeEnergy], electrode: Electrode | None = None) -> Pathway:
    """Return the associative reduction of oxygen, O2 + 4 (H⁺ + e⁻) → 2 H2O over OOH*, O* and OH*.

    Parameters
    ----------
    intermediates : mapping
        Free energies of adsorption of ``"OOH"``, ``"O"`` and ``"OH"`` relative to H2O and H2; the potentials and pH of
        their own electrodes do not matter.
    electrode : Electrode, optional
        The conditions (default: 0 V vs RHE, 298.15 K), at room temperature: that of O2 is known for no other.

    Raises
    ------
    InputError
        An intermediate is missing, or is something else, or is relative to other molecules, or temperatures differ.
    """
    electrode = electrode or Electrode()
    return Pathway("oxygen reduction", _oxygen_states(intermediates, electrode), electrode)


def oxygen_evolution(intermediates: Mapping[str, FreeEnergy], electrode: Electrode | None = None) -> Pathway:
    """Return the oxidation of water, 2 H2O → O2 + 4 (H⁺ + e⁻) over OH*, O* and OOH*; see :func:`oxygen_reduction`."""
    electrode = electrode or Electrode()
    return Pathway("oxygen evolution", _oxygen_states(intermediates, electrode)[::-1], electrode)


def hydrogen_evolution(hydrogen: FreeEnergy, electrode: Electrode | None = None) -> Pathway:
    """Return the evolution of hydrogen, 2 (H⁺ + e⁻) → H2 over H*.

    Raises
    ------
    InputError
        The free energy is not that of H relative to H2, or is for another temperature than the electrode.
    """
    electrode = electrode or Electrode()
    (adsorbed_hydrogen,) = _states({"H": hydrogen}, ("H",), electrode)
    states = (State("*", 0.0, 0), adsorbed_hydrogen, State("* + H2", 0.0, 2))
    return Pathway("hydrogen evolution", states, electrode)


def _oxygen_states(intermediates: Mapping[str, FreeEnergy], electrode: Electrode) -> tuple[State, ...]:
    """Return the states from O2 to H2O, free energies and electrons counted from 2 H2O + *."""
    check_same_temperature("the free energy of O2", ROOM_TEMPERATURE, "the electrode", electrode.temperature_K)
    return (
        State("* + O2", 2 * WATER_FORMATION, -4),
        *_states(intermediates, ("OOH", "O", "OH"), electrode),
        State("* + 2 H2O", 0.0, 0),
    )


def _states(intermediates: Mapping[str, FreeEnergy], names: Sequence[str], electrode: Electrode) -> list[State]:
    missing = [name for name in names if name not in intermediates]
    if missing:
        raise InputError(
            f"the free energy of {', '.join(missing)} is missing; the reaction runs over {', '.join(names)}"
        )
    states = []
    for name in names:
        found, wanted = intermediates[name], species(name)
        if found.energy.species != (wanted,) or found.energy.reference != OC20.reference(wanted):
            raise InputError(
                f"the free energy given for {name} is that of {adsorbed(found.energy.species)} relative to "
                f"{found.energy.reference}; it must be that of {name}* relative to {OC20.reference(wanted)} "
                "(see convert)"
            )
        check_same_temperature(
            f"the free energy of {name}*", found.electrode.temperature_K, "the electrode", electrode.temperature_K
        )
        states.append(State(f"{name}*", found.at_zero, int(found.electrons)))
    return states
