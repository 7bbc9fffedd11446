"""Constants fitted from scratch describe what the network has to learn, which is not the repulsion it adds itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii

from escn_calc.nn.repulsion import zbl_energy
from escn_calc.training.constants import beyond_repulsion
from escn_calc.training.graphs import FrameDataset
from tests.training.data_files import frame

REFERENCE = -3.5
STEP = 1e-5
CUTOFF = 5.0


def pair_repulsion(symbols: str, distance: float) -> float:
    numbers = torch.from_numpy(Atoms(symbols).numbers)
    ends = torch.tensor([[0, 1], [1, 0]])
    return float(zbl_energy(numbers, *ends, torch.full((2,), distance, dtype=torch.float64), CUTOFF).sum())


@pytest.mark.parametrize("symbols", ["HH", "CuO"])
def test_repulsion_is_taken_from_energies_and_forces(symbols):
    distance = 0.5 * covalent_radii[Atoms(symbols).numbers].sum()
    push = (pair_repulsion(symbols, distance - STEP) - pair_repulsion(symbols, distance + STEP)) / (2 * STEP)
    assert push > 1
    forces = np.array([[-push, 0, 0], [push, 0, 0]])
    atoms = Atoms(symbols, [[0, 0, 0], [distance, 0, 0]])
    labelled = frame(atoms, 2 * REFERENCE + pair_repulsion(symbols, distance), forces=forces)
    (graph,) = FrameDataset([labelled], CUTOFF, 0, only_free_atoms=False)
    left = beyond_repulsion(labelled, graph, CUTOFF)
    assert left.energy == pytest.approx(2 * REFERENCE, abs=1e-9)
    np.testing.assert_allclose(left.forces, 0, atol=1e-6 * push)
    unlabelled = beyond_repulsion(replace(labelled, energy=None, forces=None), graph, CUTOFF)
    assert unlabelled.energy is None and unlabelled.forces is None
