"""The repulsion of close nuclei against an independent formula, published numbers and its limits."""

from dataclasses import replace

import ase.data
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.units import Bohr, Hartree

from escn_calc.errors import CheckpointError
from escn_calc.nn.repulsion import COVALENT_RADII, zbl_energy
from tests.smooth import smooth_config

CUTOFF = 5.0
PAIRS = [(1, 1), (6, 8), (8, 29), (29, 29), (79, 82)]


def pair_energy(first, second, distance, dtype=torch.float64, cutoff=CUTOFF):
    """Energies of the two atoms of a pair; ``distance`` may be a tensor that records derivatives."""
    distances = torch.as_tensor(distance, dtype=dtype).expand(2)
    return zbl_energy(torch.tensor([first, second]), torch.tensor([1, 0]), torch.tensor([0, 1]), distances, cutoff)


def independent_energy(z_i, z_j, r):
    """The formula in numpy and atomic units, with the published envelope in its expanded form."""
    x = r / Bohr * (z_i**0.23 + z_j**0.23) / 0.8854
    screening = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    screening += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    t = r / (0.7 * (ase.data.covalent_radii[z_i] + ase.data.covalent_radii[z_j]))
    fade = np.where(t < 1, 1 - 28 * t**6 + 48 * t**7 - 21 * t**8, 0.0)
    return z_i * z_j / (r / Bohr) * Hartree * screening * fade


def test_radii_are_those_of_ase():
    assert len(COVALENT_RADII) == 97
    np.testing.assert_array_equal(COVALENT_RADII, ase.data.covalent_radii[:97])


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_independent_formula(first, second):
    end = 0.7 * (COVALENT_RADII[first] + COVALENT_RADII[second])
    for distance in end * np.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.95]):
        energies = pair_energy(first, second, distance)
        expected = independent_energy(first, second, distance)
        assert energies.sum().item() == pytest.approx(expected, rel=1e-7)
        assert energies[0] == energies[1]


def test_screening_of_copper():
    """At x = 1 the four terms add up to 0.00741 + 0.19871 + 0.18729 + 0.02303; the envelope is still 1."""
    length = 0.8854 * 0.529177 / (2 * 29**0.23)
    assert length == pytest.approx(0.10798, abs=1e-5)
    energy = pair_energy(29, 29, length).sum().item()
    assert energy == pytest.approx(14.39964 * 29**2 / length * 0.41644, rel=2e-5)


def test_unscreened_coulomb_energy_at_contact():
    energy = pair_energy(1, 1, 1e-4).sum().item()
    assert energy == pytest.approx(14.3996454785 / 1e-4, rel=1e-3)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_value_slope_and_curvature_end_together(first, second):
    end = 0.7 * (COVALENT_RADII[first] + COVALENT_RADII[second])
    for distance, limits in ((end, (0, 0, 0)), (1.5 * end, (0, 0, 0)), (end * (1 - 1e-5), (1e-11, 1e-6, 0.2))):
        d = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        energy = pair_energy(first, second, d).sum()
        (slope,) = torch.autograd.grad(energy, d, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, d)
        for value, limit in zip((energy, slope, curvature), limits, strict=True):
            assert abs(value.item()) <= limit * first * second


@pytest.mark.parametrize("name", ["H2", "N2", "CO", "HCN", "C2H2", "O2", "NO", "CO2", "CH4", "H2O", "P2", "CS"])
def test_bonds_feel_nothing(name):
    """Triple bonds, the shortest in units of the radii, among them."""
    atoms = molecule(name)
    distances = atoms.get_all_distances()
    source, target = np.nonzero(distances)
    ends = torch.from_numpy(source), torch.from_numpy(target)
    energies = zbl_energy(
        torch.from_numpy(atoms.numbers), *ends, torch.from_numpy(0.95 * distances[source, target]), CUTOFF
    )
    assert torch.equal(energies, torch.zeros_like(energies))


def test_falls_with_the_distance_everywhere():
    distances = torch.linspace(0.05, 1.84, 500, dtype=torch.float64)
    energies = torch.stack([pair_energy(29, 29, d).sum() for d in distances])
    assert (energies.diff() < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_heaviest_elements_as_close_as_the_graph_allows(dtype):
    d = torch.tensor(0.01, dtype=dtype, requires_grad=True)
    energy = pair_energy(96, 96, d, dtype).sum()
    assert energy.dtype == dtype
    (slope,) = torch.autograd.grad(energy, d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, d)
    assert 1e7 < energy.item() < 1.4e7
    assert slope.isfinite() and slope < 0
    assert curvature.isfinite() and curvature > 0


def test_repulsion_ends_at_a_shorter_cutoff():
    d = torch.tensor(2.999, dtype=torch.float64, requires_grad=True)
    caesium = pair_energy(55, 55, d).sum()
    assert caesium > 1e-4
    energy = pair_energy(55, 55, d, cutoff=3.0).sum()
    (slope,) = torch.autograd.grad(energy, d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, d)
    assert 0 < energy < 1e-8 and -1e-5 < slope < 0 and 0 < curvature < 1e-2
    assert pair_energy(55, 55, 3.0, cutoff=3.0).sum() == 0
    assert torch.equal(pair_energy(8, 29, 1.2, cutoff=3.0), pair_energy(8, 29, 1.2))


def test_first_and_second_derivatives_agree_with_finite_differences():
    d = torch.tensor([0.4, 0.9, 1.7], dtype=torch.float64, requires_grad=True)
    numbers, source, target = torch.tensor([29, 6, 8]), torch.tensor([1, 0, 1]), torch.tensor([0, 1, 2])
    assert torch.autograd.gradcheck(lambda r: zbl_energy(numbers, source, target, r, CUTOFF), d)
    assert torch.autograd.gradgradcheck(lambda r: zbl_energy(numbers, source, target, r, CUTOFF), d)


def test_each_atom_gets_half_of_its_pairs():
    """Three atoms in a row: the middle one has two pairs, and the far pair does not interact."""
    source, target = torch.tensor([1, 2, 0, 2, 0, 1]), torch.tensor([0, 0, 1, 1, 2, 2])
    distances = torch.tensor([1.0, 3.0, 1.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    energies = zbl_energy(torch.tensor([29, 29, 29]), source, target, distances, CUTOFF)
    near, far = independent_energy(29, 29, 1.0), independent_energy(29, 29, 2.0)
    expected = torch.tensor([near / 2, near / 2 + far / 2, far / 2], dtype=torch.float64)
    torch.testing.assert_close(energies, expected, rtol=1e-7, atol=0)


def test_atoms_without_neighbours():
    none = torch.zeros(0, dtype=torch.long)
    energies = zbl_energy(torch.tensor([1, 29]), none, none, torch.zeros(0), CUTOFF)
    assert torch.equal(energies, torch.zeros(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repulsion": "lj"}, "repulsion is 'lj', but must be 'zbl' or None"),
        ({"cutoff_envelope": None, "max_neighbors": 12}, "repulsion needs whole neighbourhoods, but max_neighbors is"),
        ({"max_num_elements": 98}, "knows covalent radii below atomic number 97 only"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(smooth_config(), **change)
