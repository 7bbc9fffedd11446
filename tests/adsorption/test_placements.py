"""Where adsorbates end up, and what a cell has no room for."""

import subprocess
import sys

import numpy as np
import pytest
from ase.build import fcc111
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from escn_calc.adsorption.adsorbates import adsorbate
from escn_calc.adsorption.contact import INTERSTITIAL_GAP
from escn_calc.adsorption.placements import place, placements
from escn_calc.adsorption.sites import unique_sites
from escn_calc.adsorption.slabs import user_slab
from escn_calc.errors import InputError
from tests.adsorption.crystals import one_slab


@pytest.fixture(scope="module")
def copper():
    return one_slab("Cu", "111")


def clearances(placement):
    """Distances between slab and adsorbate minus the sums of covalent radii, Å."""
    size = len(placement.slab.atoms)
    first, second, distances = neighbor_list("ijd", placement.atoms, 5.0)
    between = (first < size) & (second >= size)
    radii = covalent_radii[placement.atoms.numbers]
    return distances[between] - (radii[first] + radii[second])[between]


def same(one, other):
    return one.site == other.site and np.allclose(one.atoms.positions, other.atoms.positions, atol=1e-9)


@pytest.mark.parametrize("name", ["O", "CO", "OH", "HCOO", "CH3OH"])
def test_one_placement_for_each_unique_site(copper, name):
    made = placements(copper, adsorbate(name))
    assert [placement.site for placement in made] == ["ontop", "bridge", "fcc", "hcp"]
    for placement in made:
        size = len(copper.atoms)
        assert placement.atoms[:size] == copper.atoms
        assert placement.atoms.get_tags()[size:].tolist() == [2] * len(adsorbate(name).atoms)
        assert placement.atoms.constraints[0].index.tolist() == copper.atoms.constraints[0].index.tolist()
        assert placement.molecules == (tuple(range(size, len(placement.atoms))),)
        assert placement.adsorbate.name == name
        assert clearances(placement).min() == pytest.approx(INTERSTITIAL_GAP, abs=1e-6)


def test_heights_are_those_of_touching_spheres(copper):
    """On top, z = R; in a hollow at ρ = d/√3 from three atoms, z = (R² − ρ²)^½."""
    touch = covalent_radii[8] + covalent_radii[29] + INTERSTITIAL_GAP
    across = 3.61 / np.sqrt(2)
    expected = {"ontop": touch, "bridge": np.sqrt(touch**2 - across**2 / 4), "fcc": np.sqrt(touch**2 - across**2 / 3)}
    for placement in placements(copper, adsorbate("O")):
        height = placement.atoms.positions[-1, 2] - copper.atoms.positions[:, 2].max()
        assert height == pytest.approx(expected[placement.site.replace("hcp", "fcc")], abs=1e-6)


def test_binding_atoms_are_above_the_site(copper):
    for name in ("CO", "HCOO"):
        species = adsorbate(name)
        for site in unique_sites(copper):
            placement = place(copper, species, site, azimuth=40)
            there = placement.atoms.positions[len(copper.atoms) :][list(species.binding)].mean(axis=0)
            assert there[:2] == pytest.approx(site.position[:2], abs=1e-9)


def test_small_atoms_stay_above_wide_hollows():
    slab = one_slab("Au", "100")
    hollow = next(placement for placement in placements(slab, adsorbate("H")) if placement.site == "hollow")
    assert hollow.atoms.positions[-1, 2] - slab.atoms.positions[:, 2].max() == pytest.approx(0.5)


def test_slabs_that_point_anywhere(copper):
    """A turned slab, in a left-handed cell: the same distances, the same molecule and not its mirror image."""
    atoms = copper.atoms.copy()
    atoms.rotate(110, (1, 0.4, 0.2), rotate_cell=True)
    atoms.cell[:2] = atoms.cell[[1, 0]]
    turned = user_slab(atoms, "turned")
    for name in ("CH2OH", "N2H4"):
        species = adsorbate(name)
        one, other = placements(copper, species)[0], placements(turned, species)[0]
        size = len(atoms)
        assert clearances(other).min() == pytest.approx(clearances(one).min(), abs=1e-6)
        molecules = [species.atoms.positions, *(placement.atoms.positions[size:] for placement in (one, other))]
        volumes = [np.linalg.det(positions[1:4] - positions[0]) for positions in molecules]
        assert volumes == pytest.approx([volumes[0]] * 3, abs=1e-9)
        assert abs(volumes[0]) > 0.1


@pytest.mark.parametrize("name", ["CO", "HCOO"])
def test_heuristic_stays_on_sites_and_upright(copper, name):
    species = adsorbate(name)
    made = placements(copper, species, mode="heuristic", number=24, seed=5)
    assert [placement.site.split("/")[0] for placement in made[:4]] == ["ontop", "bridge", "fcc", "hcp"]
    assert len({placement.site for placement in made}) == len(made)
    size = len(copper.atoms)
    up = np.array([0, 0, 1.0])
    for placement in made:
        assert clearances(placement).min() == pytest.approx(INTERSTITIAL_GAP, abs=1e-6)
        positions = placement.atoms.positions[size:]
        away = species.atoms.positions[-1] - species.atoms.positions[list(species.binding)].mean(axis=0)
        turned = positions[-1] - positions[list(species.binding)].mean(axis=0)
        assert turned @ up / np.linalg.norm(away) >= np.cos(np.pi / 9) - 1e-9
    tilts = [placement.atoms.positions[-1, 2] for placement in made]
    assert np.std(tilts) > 0.01


def test_heuristic_atoms_leave_the_unique_sites_only(copper):
    made = placements(copper, adsorbate("H"), mode="heuristic", number=40)
    assert [placement.site for placement in made] == ["ontop/0", "bridge/1", "fcc/2", "hcp/3"]


def test_random_covers_the_cell_and_all_orientations(copper):
    made = placements(copper, adsorbate("CO"), mode="random", number=200, seed=1)
    assert len(made) > 180
    assert made[0].site == "random-0"
    size = len(copper.atoms)
    axes, points = [], []
    for placement in made:
        assert clearances(placement).min() >= INTERSTITIAL_GAP - 1e-6
        carbon, oxygen = placement.atoms.positions[size:]
        axes.append((oxygen - carbon) / np.linalg.norm(oxygen - carbon))
        points.append(placement.atoms.get_scaled_positions()[size:, :2].mean(axis=0))
    assert np.abs(np.mean(axes, axis=0)).max() < 0.15  # 3 standard errors of a uniform direction are 0.12
    assert np.mean(np.square(axes), axis=0) == pytest.approx([1 / 3] * 3, abs=0.08)
    quadrants = np.histogram2d(*np.array(points).T, bins=2, range=[[0, 1], [0, 1]])[0]
    assert quadrants.min() > 25


@pytest.mark.parametrize("mode", ["heuristic", "random"])
def test_seeds(copper, mode):
    few = placements(copper, adsorbate("OH"), mode=mode, number=6, seed=3)
    many = placements(copper, adsorbate("OH"), mode=mode, number=12, seed=3)
    assert all(same(one, other) for one, other in zip(few, many, strict=False))
    assert len(many) > len(few)
    other_seed = placements(copper, adsorbate("OH"), mode=mode, number=6, seed=4)
    assert not any(same(one, other) for one, other in zip(few, other_seed, strict=False))


def test_global_random_numbers_are_left_alone(copper):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    placements(copper, adsorbate("OH"), mode="random", number=3)
    assert np.array_equal(before, np.random.get_state()[1])


def test_nothing_given_is_changed(copper):
    before, species = copper.atoms.copy(), adsorbate("OH")
    atoms = species.atoms.copy()
    placements(copper, species, mode="random", number=3)
    assert copper.atoms == before
    assert species.atoms == atoms


def test_adsorbate_larger_than_the_cell():
    small = one_slab("Cu", "111", supercell=(1, 1))
    with pytest.raises(
        InputError, match=r"Cu\(111\): CH4O is too large for the cell: it comes within .* Å of its own image"
    ):
        placements(small, adsorbate("CH3OH"))
    with pytest.raises(InputError, match=r"too large for the cell.*200 random attempts"):
        placements(small, adsorbate("C2H4"), mode="heuristic", number=2)
    assert len(placements(small, adsorbate("O"))) == 4
    assert len(placements(small, adsorbate("CO"))) == 4


def test_vacuum_too_small_for_the_adsorbate():
    slab = one_slab("Cu", "111", vacuum=6.0)
    with pytest.raises(InputError, match=r"only \d\.\d Å between the top of CO and the slab above; raise the"):
        placements(slab, adsorbate("CO"))
    atoms = fcc111("Cu", (3, 3, 4), vacuum=3)
    assert not atoms.pbc[2]
    assert len(placements(user_slab(atoms, "open"), adsorbate("CO"))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "everywhere"}, "mode 'everywhere' is unknown; give one of sites, heuristic, random"),
        ({"number": 5}, "leave number out"),
        ({"mode": "random", "number": 0}, "number is 0; it must be a whole number of at least 1"),
        ({"mode": "random", "number": 2.5}, "number is 2.5; it must be a whole number"),
        ({"mode": "heuristic", "seed": -1}, "seed is -1; it must be a whole number of at least 0"),
    ],
)
def test_contradictions(copper, options, message):
    with pytest.raises(InputError, match=message):
        placements(copper, adsorbate("O"), **options)
    with pytest.raises(InputError, match="no adsorbate"):
        placements(copper, [])


def test_import_is_light():
    code = (
        "import sys, escn_calc.adsorption.placements; "
        "assert not {'torch', 'pymatgen', 'spglib', 'matplotlib'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
