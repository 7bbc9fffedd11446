"""Several molecules on one slab."""

import numpy as np
import pytest

from escn_calc.adsorption.adsorbates import adsorbate
from escn_calc.adsorption.coverage import copies
from escn_calc.adsorption.placements import placements
from escn_calc.errors import InputError
from tests.adsorption.crystals import one_slab

NEAREST = 3.61 / np.sqrt(2)


def between_molecules(placement):
    """Shortest distance between atoms of different molecules, images included."""
    atoms = placement.atoms
    return min(
        atoms.get_distances(i, list(other), mic=True).min()
        for molecule in placement.molecules
        for other in placement.molecules
        if other != molecule
        for i in molecule
    )


@pytest.mark.parametrize(
    ("supercell", "coverage", "number", "distance"),
    [((3, 3), 1 / 3, 3, np.sqrt(3)), ((2, 2), 0.5, 2, 1.0), ((4, 4), 0.25, 4, 2.0), ((2, 2), 1.0, 4, 1.0),
     ((2, 4), 0.25, 2, 2.0)],
)  # fmt: skip
def test_oxygen_overlayers_are_as_open_as_they_can_be(supercell, coverage, number, distance):
    """On fcc(111): (√3×√3) at 1/3, rows at 1/2, p(2×2) at 1/4 and (1×1) at one monolayer."""
    slab = one_slab("Cu", "111", supercell=supercell)
    made = placements(slab, adsorbate("O"), coverage=coverage)
    fcc = next(placement for placement in made if placement.site == "fcc")
    assert len(fcc.molecules) == number == len(fcc.atoms) - len(slab.atoms)
    assert between_molecules(fcc) == pytest.approx(distance * NEAREST, abs=1e-6)
    heights = fcc.atoms.positions[len(slab.atoms) :, 2]
    assert np.ptp(heights) < 1e-6
    assert fcc.adsorbate.name == f"{number}O"
    assert [placement.site for placement in made if placement.site in ("ontop", "fcc", "hcp")] == [
        "ontop",
        "fcc",
        "hcp",
    ]


def test_different_adsorbates_in_all_combinations_of_sites():
    slab = one_slab("Cu", "111", supercell=(3, 3))
    made = placements(slab, [adsorbate("O"), adsorbate("CO")])
    assert len(made) == 16
    assert {placement.adsorbate.name for placement in made} == {"O+CO"}
    assert made[1].site == "ontop+bridge"
    assert len(made[0].adsorbate.atoms) == 3
    assert made[0].adsorbate.binding == (0, 1)
    assert [len(molecule) for molecule in made[0].molecules] == [1, 2]
    assert all(between_molecules(placement) > 2.5 for placement in made)


@pytest.mark.parametrize("mode", ["heuristic", "random"])
def test_drawn_molecules_keep_apart(mode):
    slab = one_slab("Cu", "111", supercell=(3, 3))
    made = placements(slab, [adsorbate("OH")] * 3, mode=mode, number=10)
    assert len(made) == 10
    for placement in made:
        assert placement.adsorbate.name == "3OH"
        assert between_molecules(placement) > 1.5 * 2 * 0.31
        indices = np.concatenate(placement.molecules)
        assert indices.tolist() == list(range(len(slab.atoms), len(placement.atoms)))


def test_copies():
    slab = one_slab("Cu", "211", supercell=(2, 1))
    assert copies(slab, 0.5) == 3  # six exposed atoms: edge, terrace and foot of the step
    assert copies(one_slab("Cu", "111", supercell=(3, 3)), 0.333) == 3


def test_coverages_that_the_cell_cannot_have():
    slab = one_slab("Cu", "111", supercell=(3, 3))
    with pytest.raises(
        InputError, match=r"0.3 monolayers is 2.70 molecules on 9 .* possible are 2/9 = 0.222 and 3/9 = 0.333"
    ):
        placements(slab, adsorbate("O"), coverage=0.3)
    with pytest.raises(InputError, match=r"possible are 1/9 = 0.111, or another supercell"):
        placements(slab, adsorbate("O"), coverage=0.05)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="it must be positive"):
            placements(slab, adsorbate("O"), coverage=wrong)
    with pytest.raises(InputError, match="a coverage is that of one adsorbate"):
        placements(slab, [adsorbate("O"), adsorbate("CO")], coverage=1)
    with pytest.raises(InputError, match=r"no room for \d+ molecules: .* take a larger supercell, or fewer"):
        placements(slab, adsorbate("O"), coverage=4.0)
