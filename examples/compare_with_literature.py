"""Order of the seven metals for each adsorbate against published energies, after ``escn screen screen_metals.yaml``.

    escn export runs/screen_metals/results.db -o screen_metals.csv
    python compare_with_literature.py screen_metals.csv

References differ, so what is compared is Spearman's rank correlation with the primary set of
``screen_metals_literature.json``; energies within 0.05 eV of one another count as equal.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np


def ranks(energies: list[float]) -> np.ndarray:
    """How many energies (n,) each exceeds by more than 0.05 eV, equal ones counted half."""
    above = np.subtract.outer(energies, energies)
    return (above > 0.05).sum(axis=1) + 0.5 * (abs(above) <= 0.05).sum(axis=1)


best: dict[str, dict[str, float]] = defaultdict(dict)
for row in csv.DictReader(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()):
    if row["best"] == "True":
        best[row["adsorbate"]][row["bulk"]] = float(row["energy_eV"])

published = json.loads(Path(__file__).with_name("screen_metals_literature.json").read_text(encoding="utf-8"))
for adsorbate, ours in best.items():
    name = published["primary"][adsorbate]
    theirs = published["sets"][name]["values"][adsorbate]
    metals = [metal for metal in theirs if metal in ours]
    both = [ranks([energies[metal] for metal in metals]) for energies in (ours, theirs)]
    print(f"{adsorbate}: rank correlation {np.corrcoef(both)[0, 1]:.2f} over {len(metals)} metals with {name}")
    print("  " + ", ".join(f"{metal} {ours[metal]:.2f} ({theirs[metal]:.2f})" for metal in metals))
