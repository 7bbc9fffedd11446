"""Order of the seven metals for each adsorbate against published energies, after ``escn screen screen_metals.yaml``.

    escn export runs/screen_metals/results.db -o screen_metals.csv
    python compare_with_literature.py screen_metals.csv

Energies of the campaign and of a published set have different references, so what is compared is their order over the
metals: Spearman's rank correlation with the primary set of ``screen_metals_literature.json``, where energies within
0.05 eV of one another count as equal.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

EQUAL_eV = 0.05


def ranks(energies: np.ndarray) -> np.ndarray:
    """How many energies (n,) each exceeds by more than ``EQUAL_eV``, equal ones counted half."""
    above = energies[:, None] - energies
    return (above > EQUAL_eV).sum(axis=1) + 0.5 * (abs(above) <= EQUAL_eV).sum(axis=1)


def best_energies(table: Path) -> dict[str, dict[str, float]]:
    """Adsorption energy (eV) of the best valid placement, by adsorbate and metal."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["best"] == "True":
                found[row["adsorbate"]][row["bulk"]] = float(row["energy_eV"])
    return found


def main() -> None:
    """Print the energies and the correlation of each adsorbate."""
    published = json.loads(Path(__file__).with_name("screen_metals_literature.json").read_text(encoding="utf-8"))
    for adsorbate, ours in best_energies(Path(sys.argv[1])).items():
        name = published["primary"][adsorbate]
        theirs = published["sets"][name]["values"][adsorbate]
        metals = [metal for metal in theirs if metal in ours]
        pair = [ranks(np.array([energies[metal] for metal in metals])) for energies in (ours, theirs)]
        print(f"{adsorbate}: rank correlation {np.corrcoef(pair)[0, 1]:.2f} over {len(metals)} metals with {name}")
        print("  " + ", ".join(f"{metal} {ours[metal]:.2f} ({theirs[metal]:.2f})" for metal in metals))


if __name__ == "__main__":
    main()
