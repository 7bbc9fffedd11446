"""The published values that trends are compared with: complete, plausible, and each with its source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

PUBLISHED = json.loads(
    (Path(__file__).parents[2] / "examples" / "screen_metals_literature.json").read_text(encoding="utf-8")
)
METALS = {"Cu", "Ag", "Au", "Pd", "Pt", "Rh", "Ir"}
ADSORBATES = {"H", "C", "N", "O", "CO", "OH"}
SAID = {"citation", "doi", "functional", "method", "coverage_ML", "site", "quantity", "reference", "seen_in"}


@pytest.mark.parametrize("name", PUBLISHED["sets"])
def test_every_set_says_where_it_is_from_and_what_it_is(name):
    one = PUBLISHED["sets"][name]
    assert not SAID - set(one)
    assert one["citation"] and one["seen_in"] and one["reference"]
    assert set(one["values"]) <= ADSORBATES
    for values in one["values"].values():
        assert set(values) <= METALS
        assert all(-9 < value < 4 for value in values.values())


def test_every_adsorbate_has_a_primary_set_that_covers_the_metals():
    assert set(PUBLISHED["primary"]) == ADSORBATES
    for adsorbate, name in PUBLISHED["primary"].items():
        missing = METALS - set(PUBLISHED["sets"][name]["values"][adsorbate])
        assert missing == ({"Ir"} if adsorbate == "CO" else set())


@pytest.mark.parametrize("adsorbate", sorted(ADSORBATES - {"N"}))
def test_sets_agree_in_trend(adsorbate):
    """A wrong sign or a swapped pair of metals would be seen: independent sets correlate with more than 0.93."""
    primary = PUBLISHED["sets"][PUBLISHED["primary"][adsorbate]]["values"][adsorbate]
    others = [one["values"][adsorbate] for one in PUBLISHED["sets"].values() if adsorbate in one["values"]]
    assert len(others) >= 2
    for other in others:
        metals = sorted(set(primary) & set(other))
        assert np.corrcoef([primary[one] for one in metals], [other[one] for one in metals])[0, 1] > 0.93
