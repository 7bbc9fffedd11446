"""Properties of the whole network with random weights, free of any stored number."""

from dataclasses import replace

import pytest
import torch

from escn_calc.errors import CheckpointError
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.parameters import initialise
from escn_calc.nn.rotations import edge_frames, rolled

SMALL = ESCNConfig(
    lmax_list=(3,),
    mmax_list=(2,),
    num_layers=2,
    sphere_channels=6,
    hidden_channels=8,
    edge_channels=7,
    cutoff=5.0,
    max_num_elements=20,
    num_sphere_samples=32,
    distance_resolution=0.1,
)


def make(config, dtype=torch.float64):
    """A network with weights large enough to drive the activations out of their linear range."""
    network = ESCN(config, dtype)
    initialise(network, torch.Generator().manual_seed(4))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "so2" in name and name.endswith("weight"):
                weight.mul_(6)
            elif "edge_block" in name and "embedding" in name:
                weight.mul_(500)
            elif name.endswith("bias"):
                weight.zero_()
    return network.requires_grad_(False)


def cluster(count=6):
    """Positions, numbers and all directed pairs of a small molecule, edges sorted by target."""
    generator = torch.Generator().manual_seed(7)
    positions = 2.0 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    numbers = torch.randint(1, 20, (count,), generator=generator)
    target, source = torch.nonzero(~torch.eye(count, dtype=torch.bool)).T
    return positions, numbers, source, target


def evaluate(network, positions, numbers, source, target, roll=None):
    vectors = positions[source] - positions[target]
    frames = edge_frames(vectors / vectors.norm(dim=-1, keepdim=True))
    output = network(numbers, source, target, vectors, frames if roll is None else rolled(frames, roll))
    return output.node_energy, output.forces


def test_permuted_atoms():
    network = make(SMALL)
    positions, numbers, source, target = cluster()
    energy, forces = evaluate(network, positions, numbers, source, target)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted, force_permuted = evaluate(network, positions[order], numbers[order], source, target)
    torch.testing.assert_close(permuted, energy[order], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(force_permuted, forces[order], rtol=1e-11, atol=1e-12)


def test_fine_grids_make_the_network_rotation_equivariant():
    network = make(replace(SMALL, resolution=32, num_sphere_samples=2048))
    positions, numbers, source, target = cluster()
    energy, forces = evaluate(network, positions, numbers, source, target)
    rotation = edge_frames(torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64))[0]
    turned, force_turned = evaluate(network, positions @ rotation.T, numbers, source, target)
    assert (turned.sum() - energy.sum()).abs() / energy.abs().sum() < 1e-6
    assert (force_turned - forces @ rotation.T).abs().max() / forces.abs().max() < 1e-3


def test_mirror_images_differ():
    """SO(3), not O(3): the imaginary maps carry odd paths."""
    network = make(replace(SMALL, resolution=32, num_sphere_samples=512))
    positions, numbers, source, target = cluster()
    energy, _ = evaluate(network, positions, numbers, source, target)
    mirrored, _ = evaluate(network, -positions, numbers, source, target)
    assert (mirrored.sum() - energy.sum()).abs() / energy.abs().sum() > 1e-4


@pytest.mark.parametrize(("mmax", "longitudes", "tolerance"), [(0, None, 1e-12), (2, 25, 1e-6)])
def test_rolls_do_not_matter_for_mmax_0_or_many_longitudes(mmax, longitudes, tolerance):
    network = make(replace(SMALL, mmax_list=(mmax,), edge_longitudes=longitudes))
    positions, numbers, source, target = cluster()
    _, forces = evaluate(network, positions, numbers, source, target)
    _, rolled_forces = evaluate(network, positions, numbers, source, target, torch.linspace(0, 6, len(source)).double())
    assert (forces - rolled_forces).abs().max() / forces.abs().max() < tolerance


def test_rolls_matter_on_the_published_grid():
    network = make(SMALL)
    positions, numbers, source, target = cluster()
    _, forces = evaluate(network, positions, numbers, source, target)
    _, rolled_forces = evaluate(network, positions, numbers, source, target, torch.linspace(0, 6, len(source)).double())
    assert (forces - rolled_forces).abs().max() / forces.abs().max() > 1e-5


def test_distant_parts_of_a_batch_do_not_talk():
    network = make(SMALL)
    positions, numbers, source, target = cluster()
    positions = positions.requires_grad_()
    other = positions.detach() + 0.1
    joint = torch.cat((positions, other))
    energy, _ = evaluate(
        network, joint, numbers.repeat(2), torch.cat((source, source + 6)), torch.cat((target, target + 6))
    )
    alone, _ = evaluate(network, other, numbers, source, target)
    torch.testing.assert_close(energy[6:], alone, rtol=1e-12, atol=1e-14)
    (gradient,) = torch.autograd.grad(energy[6:].sum(), positions, allow_unused=True)
    assert gradient is None or (gradient == 0).all()


def test_nodes_of_unequal_degree_get_the_sum_of_their_messages():
    """Removing the edges of one node changes its degree, and only what depends on it."""
    network = make(replace(SMALL, num_layers=1))
    positions, numbers, source, target = cluster()
    energy, _ = evaluate(network, positions, numbers, source, target)
    kept = target != 2
    fewer, _ = evaluate(network, positions, numbers, source[kept], target[kept])
    unchanged = torch.arange(6) != 2
    torch.testing.assert_close(fewer[unchanged], energy[unchanged], rtol=1e-12, atol=1e-14)
    assert (fewer[2] - energy[2]).abs() > 1e-9


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_edges(count):
    network = make(SMALL)
    empty = torch.zeros(0, dtype=torch.long)
    output = network(torch.ones(count, dtype=torch.long), empty, empty, torch.zeros(0, 3, dtype=torch.float64))
    assert output.node_energy.shape == (count,)
    assert output.forces.isfinite().all()


def test_energy_gradient_agrees_with_finite_differences():
    """Frames, Wigner matrices, grids and basis are all part of the derivative."""
    network = make(replace(SMALL, edge_longitudes=9))
    positions, numbers, source, target = cluster(4)
    positions = positions.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: evaluate(network, r, numbers, source, target)[0].sum(), positions)


def test_lmax_11_and_two_resolutions_run():
    config = replace(SMALL, lmax_list=(11, 2), mmax_list=(1, 2), num_layers=1)
    energy, forces = evaluate(make(config), *cluster(3)[:2], *torch.tensor([[1, 0], [0, 1]]))
    assert energy.isfinite().all()
    assert forces.isfinite().all()


def test_float32_stays_float32():
    positions, numbers, source, target = cluster()
    energy, forces = evaluate(make(SMALL, torch.float32), positions.float(), numbers, source, target)
    assert energy.dtype == forces.dtype == torch.float32


def test_no_global_state_is_read_or_changed():
    reference = evaluate(make(SMALL), *cluster())[1]
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        forces = evaluate(make(SMALL), *cluster())[1]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(forces, reference)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_energy_only_network_has_no_forces():
    network = make(replace(SMALL, regress_forces=False))
    positions, numbers, source, target = cluster()
    vectors = positions[source] - positions[target]
    assert network(numbers, source, target, vectors).forces is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmax_list": (3,), "mmax_list": (4,)}, "lmax=3, mmax=4 violates"),
        ({"lmax_list": (12,), "mmax_list": (2,)}, "lmax=12"),
        ({"lmax_list": (3, 2)}, "one entry per resolution"),
        ({"lmax_list": (), "mmax_list": ()}, "one entry per resolution"),
        ({"distance_function": "bessel"}, "'bessel' is not one of gaussian"),
        ({"energy_reduce": "max"}, "neither 'sum' nor 'mean'"),
        ({"num_layers": 0}, "num_layers is 0, but must be a whole number"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"resolution": 9}, "resolution is 9, but must be an even"),
        ({"resolution": 100000}, "resolution is 100000"),
        ({"edge_longitudes": 0}, "edge_longitudes is 0"),
        ({"num_layers": 2.0}, "num_layers is 2.0, but must be a whole number"),
        ({"num_sphere_samples": 300000}, "num_sphere_samples is 300000"),
        ({"cutoff": float("inf")}, "cutoff is inf"),
        ({"distance_resolution": 4.0}, "fewer than 2 basis functions"),
    ],
)
def test_impossible_configurations(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(SMALL, **change)
