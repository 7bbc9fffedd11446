"""The network on the stored graph and frames reproduces the stored numbers of every published variant."""

from functools import cache

import numpy as np
import pytest
import torch

from escn_calc.checkpoints.network import build_network
from escn_calc.nn.rotations import edge_frames, rolled
from tests.parity import MODELS, checkpoint, structures
from tests.tolerances import NETWORK_PARITY

ROLLS = 100


@cache
def network(model, dtype):
    return build_network(checkpoint(model), dtype)


def run(model, stored, dtype, frames):
    """Energy, forces and per-atom energies in eV and eV/Å, float64."""
    with torch.inference_mode():
        output = network(model, dtype)(
            torch.from_numpy(stored.atoms.numbers),
            stored.source,
            stored.target,
            stored.vectors.to(dtype),
            frames.to(dtype),
        )
    constants = checkpoint(model).normalizers
    atomic = output.node_energy.double().numpy() * constants.energy_std
    forces = output.forces.double().numpy() * constants.force_std + constants.force_mean
    return atomic.sum() + constants.energy_mean, forces, atomic


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_stored_numbers(model, dtype, record_figure):
    largest_force = max(np.abs(stored.forces).max() for stored in structures(model))
    energy_error = force_error = 0.0
    for stored in structures(model):
        energy, forces, atomic = run(model, stored, dtype, stored.frames)
        energy_error = max(energy_error, abs(energy - stored.energy) / np.abs(atomic).sum())
        force_error = max(force_error, np.abs(forces - stored.forces).max() / largest_force)
    record_figure(f"parity {model} {dtype}", f"energy {energy_error:.1e}, forces {force_error:.1e}")
    assert energy_error < NETWORK_PARITY[dtype]
    assert force_error < NETWORK_PARITY[dtype]


@cache
def canonical_and_rolls(model, index):
    """Energies and forces on the stored graph: canonical frames, then 100 random rolls of them; float64."""
    stored = structures(model)[index]
    canonical = edge_frames(stored.vectors / stored.vectors.norm(dim=-1, keepdim=True))
    generator = torch.Generator().manual_seed(11)
    frames = [canonical]
    for _ in range(ROLLS):
        angles = 2 * torch.pi * torch.rand(len(canonical), generator=generator, dtype=torch.float64)
        frames.append(rolled(canonical, angles))
    results = [run(model, stored, torch.float64, f)[:2] for f in frames]
    return np.array([energy for energy, _ in results]), np.array([forces for _, forces in results])


COARSE = [model for model in MODELS if model != "fine_grid"]


@pytest.mark.parametrize("model", COARSE)
def test_canonical_frames_lie_within_the_scatter_of_rolls(model):
    """The canonical result is one more draw: its distance from the mean of 100 rolls is within their 0.1-99.9 % range.

    For the energy that range is 3.09 standard deviations; for the forces the distance is the Euclidean one, whose
    range is taken as mean plus 3.09 standard deviations of the distances of the rolls.
    """
    for index, stored in enumerate(structures(model)):
        energies, forces = canonical_and_rolls(model, index)
        assert abs(energies[0] - energies[1:].mean()) < 3.09 * energies[1:].std(ddof=1), stored.name
        distances = np.linalg.norm((forces - forces[1:].mean(0)).reshape(len(forces), -1), axis=1)
        assert distances[0] < distances[1:].mean() + 3.09 * distances[1:].std(ddof=1), stored.name


@pytest.mark.parametrize("model", COARSE)
def test_rolls_agree_with_the_stored_random_draws(model, record_figure):
    """Root mean square z-score of the mean of the six stored calls against our rolls; 1 for equal distributions."""
    energy_scores, force_scores = [], []
    for index, stored in enumerate(structures(model)):
        energies, forces = canonical_and_rolls(model, index)
        energy_scores.append(z_scores(stored.sampled_energies, energies[1:]))
        force_scores.append(z_scores(stored.sampled_forces, forces[1:]).ravel())
    pooled = [float(np.sqrt(np.mean(np.square(np.hstack(scores))))) for scores in (energy_scores, force_scores)]
    record_figure(f"rolls against stored draws, {model}", f"pooled z: energy {pooled[0]:.2f}, forces {pooled[1]:.2f}")
    assert pooled[0] < 2.0
    assert pooled[1] < 1.5


def z_scores(draws, rolls):
    """Difference of two means over its standard error; the error has a floor of float32 rounding of the draws."""
    error = rolls.std(0, ddof=1) * np.sqrt(1 / len(draws) + 1 / len(rolls))
    return (draws.mean(0) - rolls.mean(0)) / np.hypot(error, 1e-6 * np.abs(rolls).max())
