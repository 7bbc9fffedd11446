"""A stand-in for a loaded model: ASE's EMT behind the interface of ``escn_calc.potential``."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from escn_calc.errors import CalculationError, InputError

SHA256 = {"default": "a" * 64, "other": "b" * 64, "energy-only": "c" * 64}


@dataclass(frozen=True)
class ToyCard:
    name: str
    sha256: str
    forces: str | None
    energy_kind: str = "adsorption"
    energy_reference: str = "clean slab [relaxed] and gas references"


@dataclass(frozen=True)
class ToyPrediction:
    energy: float
    energies: np.ndarray
    forces: np.ndarray | None
    stress: np.ndarray | None
    stresses: np.ndarray | None
    energy_kind: str
    forces_kind: str | None


class ToyPotential:
    """EMT energies, shifted by 1 eV for the model ``other``; refuses helium, fails when atoms are far away.

    Both kinds of forces are EMT's; ``gradient`` ones come with a stress, as those of a real model do.
    """

    def __init__(self, model: str, device: str, dtype: str, matmul: str, forces: str | None, frames: str) -> None:
        self.card = ToyCard(model, SHA256[model], None if model == "energy-only" else "direct")
        self.device, self.dtype, self.matmul, self.frames = "cpu", dtype, matmul, frames
        self.forces = forces or self.card.forces
        self.calls = 0

    def evaluate(self, structures: list[Atoms], search: object = None) -> list[ToyPrediction]:
        self.calls += 1
        return [self._evaluate(atoms) for atoms in structures]

    def _evaluate(self, atoms: Atoms) -> ToyPrediction:
        if "He" in atoms.symbols:
            raise InputError("structure 0: atom 0 is He, which the model does not know; remove it")
        if np.abs(atoms.positions).max() > 900:
            raise CalculationError("structure 0: the energy is nan; check the structure")
        toy = atoms.copy()
        toy.calc = EMT()
        shift = 1.0 if self.card.name == "other" else 0.0
        energies = toy.get_potential_energies() + shift / len(toy)
        has_stress = self.forces == "gradient" and atoms.cell.rank == 3
        return ToyPrediction(
            energy=float(energies.sum()),
            energies=energies.astype(np.float32),
            forces=toy.get_forces().astype(np.float32) if self.forces else None,
            stress=toy.get_stress() if has_stress else None,
            stresses=np.tile(toy.get_stress() / len(toy), (len(toy), 1)) if has_stress else None,
            energy_kind=self.card.energy_kind,
            forces_kind=self.forces,
        )


class ToyLoader:
    """Replaces ``load_potential``; remembers what it was asked for and what it made."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str | bool | None]] = []
        self.potentials: list[ToyPotential] = []

    def __call__(
        self,
        model: str | Path = "default",
        *,
        device: str = "auto",
        dtype: str = "float32",
        matmul: str = "full",
        forces: str | None = None,
        frames: str = "canonical",
        checkpoint_layers: bool | None = None,
    ) -> ToyPotential:
        self.requests.append(
            {
                "model": str(model),
                "device": device,
                "dtype": dtype,
                "matmul": matmul,
                "forces": forces,
                "frames": frames,
                "checkpoint_layers": checkpoint_layers,
            }
        )
        name = Path(model).stem
        if name not in SHA256:
            raise InputError(f"unknown model {str(model)!r}; did you mean 'default'?")
        self.potentials.append(ToyPotential(name, device, dtype, matmul, forces, frames))
        return self.potentials[-1]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> ToyLoader:
    """Let every calculator made during a test know and load toy models only, beside the published names."""
    toy_loader = ToyLoader()
    module = types.ModuleType("escn_calc.potential")
    module.load_potential = toy_loader
    monkeypatch.setitem(sys.modules, "escn_calc.potential", module)
    monkeypatch.setattr("escn_calc.calculator.shipped_models", lambda: SHA256)
    return toy_loader
