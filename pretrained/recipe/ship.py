"""Make the model folder that ships of a finished training: on finer sphere grids, with its errors in the card.

Run ``python ship.py --model runs/anneal/best --data data-all --checks checks --out ../escn-small-fcc``.

Training takes coarse grids for speed; their error averages out over the structures. On the finer ones of ``GRIDS`` the
same weights give energies that keep their value when a structure turns. The card gets the errors on the
test split, what is found in the folder of the checks, each with the command that prints it, and what the model has seen
of each element (``escn_calc.familiarity``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from escn_calc import load_potential
from escn_calc.checkpoints import read_native, write_native
from escn_calc.convergence import with_converged_longitudes
from escn_calc.evaluation.evaluate import evaluate_model
from escn_calc.evaluation.metrics import Comparison, compute_metrics
from escn_calc.familiarity import Familiarity, fit_familiarity
from escn_calc.labels import DataSource, LabelKeys, read_frames
from escn_calc.training.start import with_grids

GRIDS = {"resolution": 30, "edge_longitudes": 15, "num_sphere_samples": 648}
NEAR_EQUILIBRIUM = 1.0
DESCRIBED, LIMITS_FROM = 3000, 1000
Figures = dict[str, int | float | str]


def errors(comparisons: Sequence[Comparison], what: str) -> Figures:
    """Errors of some structures, each entry named after them."""
    metrics = compute_metrics(comparisons)
    return {
        f"{what}, structures": len(comparisons),
        f"{what}, energy MAE, eV/atom": round(metrics.energy_mae_per_atom, 4),
        f"{what}, force MAE, eV/Å": round(metrics.forces_mae, 4),
        f"{what}, force cosine": round(metrics.forces_cosine_similarity, 4),
    }


def errors_on_test_split(model: Path, test: Path) -> Figures:
    """Errors on the test split, and on its structures near equilibrium."""
    frames = read_frames([DataSource(test)], LabelKeys(), "group")
    report = evaluate_model(load_potential(model), frames)
    calm = [one for one in report.comparisons if np.linalg.norm(one.forces, axis=1).max() < NEAR_EQUILIBRIUM]
    forces = np.abs(np.concatenate([one.forces for one in report.comparisons]))
    return {
        "test split": "measured by pretrained/recipe/ship.py",
        "test split, groups (surface x adsorbate, none in training)": len(report.groups),
        "test split, mean |force component| of the labels, eV/Å": round(float(forces.mean()), 4),
        **errors(report.comparisons, "test split"),
        **errors(calm, f"test split with all forces below {NEAR_EQUILIBRIUM:g} eV/Å"),
    }


def what_it_has_seen(model: Path, data: Path) -> Familiarity:
    """Surroundings in structures of the training split, with limits from the validation split; drawn at random."""
    rng = np.random.default_rng(0)

    def draw(split: str, count: int) -> list[Atoms]:
        frames = read(data / f"{split}.extxyz", ":")
        return [frames[index] for index in rng.permutation(len(frames))[:count]]

    return fit_familiarity(load_potential(model), draw("train", DESCRIBED), draw("valid", LIMITS_FROM))


def check_figures(folder: Path) -> Figures:
    """The main figures of the checks that have been run, each named after the command that prints it."""
    figures: Figures = {}
    for name, pick in MAIN_FIGURES.items():
        path = folder / name / f"{name}.json"
        if path.exists():
            figures |= {f"check_{name}.py, {key}": value for key, value in pick(json.loads(path.read_text())).items()}
    return figures


def of_adsorption(result: dict[str, Any]) -> Figures:
    """Figures of ``check_adsorption.py``."""
    return {
        "unseen pairs": result["all"]["pairs"],
        "adsorption energy MAE, eV": result["all"]["mae_eV"],
        "favoured site within 0.05 eV, share of the pairs": result["favoured_site_within_0.05_eV"],
    }


def of_dynamics(result: dict[str, Any]) -> Figures:
    """Figures of ``check_dynamics.py``."""
    drifts = [run["drift_meV_per_atom_per_ps"] for run in result["runs"].values() if "drift_meV_per_atom_per_ps" in run]
    return {"drift at constant energy, meV/atom/ps": max(map(abs, drifts))} if drifts else {}


MAIN_FIGURES: dict[str, Callable[[dict[str, Any]], Figures]] = {
    "adsorption": of_adsorption,
    "bulk": lambda result: {"largest error of a lattice constant, %": result["largest_error_percent"]},
    "dynamics": of_dynamics,
    "rotation": lambda result: {f"largest energy error of {result['rotations']} rotations, meV": result["largest_meV"]},
}


def main() -> None:
    """Read the command line, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder that escn train has written")
    parser.add_argument("--data", type=Path, required=True, help="folder that labels_to_extxyz.py has written")
    parser.add_argument("--checks", type=Path, help="folder with the folders of the checks, if they have been run")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write; a model there is replaced")
    arguments = parser.parse_args()
    finer = with_converged_longitudes(with_grids(read_native(arguments.model), GRIDS))
    write_native(finer, arguments.out, overwrite=True)
    figures = errors_on_test_split(arguments.out, arguments.data / "test.extxyz")
    if arguments.checks is not None:
        figures |= check_figures(arguments.checks)
    for name, value in figures.items():
        print(f"{name}: {value}")
    known = what_it_has_seen(arguments.out, arguments.data)
    entries = {"name": arguments.out.name, "metrics": finer.card.metrics | figures, "familiarity": known}
    card = finer.card.model_copy(update=entries)
    write_native(replace(finer, card=card), arguments.out, overwrite=True)


if __name__ == "__main__":
    main()
