"""The published checkpoints: names, addresses and structures."""

import numpy as np
import pytest

from escn_calc.checkpoints.catalogue import (
    CATALOGUE,
    OC20_ELEMENTS,
    REFERENCE_STRUCTURES,
    find_entry,
    get_entry,
    suggest,
)
from escn_calc.errors import InputError


def test_six_entries_with_distinct_addresses_on_fairs_server():
    assert len(CATALOGUE) == 6
    assert len({entry.url for entry in CATALOGUE.values()}) == 6
    assert all(entry.url.startswith("https://dl.fbaipublicfiles.com/") for entry in CATALOGUE.values())
    assert all(name == entry.name for name, entry in CATALOGUE.items())


def test_names_ignore_case():
    assert find_entry("escn-s2ef-odac") is CATALOGUE["eSCN-S2EF-ODAC"]
    assert find_entry("escn") is None


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("eSCN-L6-M2-Lay12-OC20-2M", r"did you mean eSCN-L6-M2-Lay12-S2EF-OC20-2M or "),
        (
            "escn-l6-m2",
            r"did you mean eSCN-L6-M2-Lay12-S2EF-OC20-2M or eSCN-L6-M2-Lay12-S2EF-OC20-All\+MD\?$",
        ),
        ("zzz", "known are eSCN-L4-M2-Lay12-S2EF-OC20-2M, "),
    ],
)
def test_unknown_names_get_suggestions(name, match):
    with pytest.raises(InputError, match=match):
        get_entry(name)


def test_suggestions_keep_the_spelling():
    assert suggest("DEFALT", ["default", "other"]) == "did you mean default?"


def test_elements_of_oc20():
    assert len(OC20_ELEMENTS) == len(set(OC20_ELEMENTS)) == 56
    assert {"H", "C", "N", "O", "Pt", "Tc"} <= set(OC20_ELEMENTS)
    assert not {"F", "Mg", "Ba", "La", "I", "Br"} & set(OC20_ELEMENTS)


def test_every_reference_has_a_structure():
    references = [reference for entry in CATALOGUE.values() for reference in entry.references]
    assert len(references) == 4
    assert {reference.structure for reference in references} <= set(REFERENCE_STRUCTURES)
    assert all(reference.tolerance > 3 * (reference.spread or 0) for reference in references)


def test_reference_structures_are_the_documented_ones():
    slab = REFERENCE_STRUCTURES["Pt(111)+O"]()
    assert slab.get_chemical_formula() == "OPt20"
    assert slab.pbc.tolist() == [True, True, False]
    assert slab.positions[-1, 2] - slab.positions[:-1, 2].max() == pytest.approx(1.2)
    assert slab.cell.lengths()[0] == pytest.approx(2 * 3.92 / np.sqrt(2))

    relaxed = REFERENCE_STRUCTURES["Pt16O"]()
    assert relaxed.get_chemical_formula() == "OPt16"
    assert relaxed.pbc.all()
    oxygen_bonds = np.sort(relaxed.get_distances(16, range(16), mic=True))[:3]
    assert oxygen_bonds == pytest.approx([2.04] * 3, abs=0.02)

    methane = REFERENCE_STRUCTURES["CH4"]()
    assert not methane.pbc.any()
    assert np.abs(methane.positions[1:]) == pytest.approx(np.full((4, 3), 0.629118), abs=1e-6)
