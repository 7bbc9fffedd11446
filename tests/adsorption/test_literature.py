"""The published values that trends are compared with: complete, plausible, and each with its source."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_comparison_of_a_campaign(tmp_path):
    """Energies in the published order correlate by one; Cu first instead of fifth leaves 1 - 6 (16 + 4) / (7 * 48)."""
    values = PUBLISHED["sets"]["rmg-pbe-d3"]["values"]["H"]
    rows = [f"{metal},H,{energy + 2.5},{best}" for metal, energy in values.items() for best in (True, False)]
    table = tmp_path / "results.csv"
    script = Path(__file__).parents[2] / "examples" / "compare_with_literature.py"
    for swapped, expected in (({}, "1.00"), ({"Cu": "-2.93"}, "0.64")):
        changed = [row.replace(row.split(",")[2], swapped.get(row.split(",")[0], row.split(",")[2])) for row in rows]
        table.write_text("\n".join(["bulk,adsorbate,energy_eV,best", *changed]), encoding="utf-8")
        done = subprocess.run([sys.executable, script, table], capture_output=True, text=True, check=True)
        assert f"H: rank correlation {expected} over 7 metals with rmg-pbe-d3" in done.stdout
