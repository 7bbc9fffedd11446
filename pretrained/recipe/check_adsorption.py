"""Adsorption energies of a model on unseen surface-adsorbate pairs, against its teacher.

Every pair of the test split (or the first ``--pairs``) is relaxed by the model from all sites that symmetry leaves
different. The teacher evaluates the relaxed structures as they are, and relaxes the favoured ones of the first
``--relaxed`` pairs itself. Both use the same fixed gas references, each from its own molecules: H2 for H, CH4 for C,
NH3 for N, H2O for O. Relaxed structures are kept in the output folder; a stopped check goes on from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from adsorption_pairs import Pair, clean_slab, starting_structures, state_of, unseen_pairs
from ase import Atoms
from ase.build import molecule
from building import METALS, make_adsorbate
from checks import Setting, kept, read_setting, write_result
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from escn_calc.relax import relax

FMAX, MOST_STEPS = 0.03, 250
SAME_ENERGY = 0.05
FEWEST_FOR_RANKS = 4
WORST_CASES = 12
GASES = ("H2", "CH4", "NH3", "H2O")


def relaxed(start: Atoms, setting: Setting, key: str) -> Atoms:
    """The structure relaxed by the model, with its results, and with key and convergence in ``info``."""
    result = relax(start, setting.calculator(), fmax=FMAX, steps=MOST_STEPS)
    result.atoms.info = {"key": key, "converged": result.converged}
    return result.atoms


def relax_gases(setting: Setting) -> list[Atoms]:
    """The reference molecules in a box."""
    boxes = [molecule(name, cell=[14.0, 15.0, 16.0], pbc=True) for name in GASES]
    for box in boxes:
        box.center()
    return kept(
        setting.out / "gases.extxyz",
        lambda: [relaxed(box, setting, name) for name, box in zip(GASES, boxes, strict=True)],
    )


def relax_slab(pair: Pair, setting: Setting) -> Atoms:
    """The clean slab of a pair."""
    start = clean_slab(pair.metals, pair.facet, setting.lattice)
    path = setting.out / "relaxed" / f"{pair.surface}.extxyz"
    return kept(path, lambda: [relaxed(start, setting, pair.surface)])[0]


def relax_sites(pair: Pair, slab: Atoms, setting: Setting) -> list[Atoms]:
    """The adsorbate relaxed from every site."""
    starts = starting_structures(slab, pair.adsorbate)
    path = setting.out / "relaxed" / f"{pair.surface}_{pair.adsorbate}.extxyz"
    return kept(path, lambda: [relaxed(start, setting, f"{pair.name}@{site}") for site, start in starts.items()])


def element_references(gases: list[Atoms]) -> dict[str, float]:
    """Energy of H, C, N and O (eV) from H2, CH4, NH3 and H2O."""
    energy = {atoms.info["key"]: atoms.get_potential_energy() for atoms in gases}
    hydrogen = energy["H2"] / 2
    return {
        "H": hydrogen,
        "C": energy["CH4"] - 4 * hydrogen,
        "N": energy["NH3"] - 3 * hydrogen,
        "O": energy["H2O"] - 2 * hydrogen,
    }


def adsorption_energy(covered: Atoms, slab: Atoms, adsorbate: str, references: dict[str, float]) -> float:
    """E(slab with adsorbate) - E(slab) - gas references, eV."""
    gas = sum(references[symbol] for symbol in make_adsorbate(adsorbate).symbols)
    return float(covered.get_potential_energy() - slab.get_potential_energy() - gas)


def compare(pair: Pair, ours: list[Atoms], teachers: list[Atoms], energies: Callable[[Atoms, Atoms], float]) -> dict:
    """One row of the table: favoured site and adsorption energies (eV), both on the model's structures."""
    states = [state_of(atoms, pair.adsorbate) for atoms in ours]
    usable = [number for number, state in enumerate(states) if state == "adsorbed"]
    row = {
        "pair": pair.name,
        "adsorbate": pair.adsorbate,
        "metals": list(pair.metals),
        "sites": len(ours),
        "broken": states.count("broken"),
        "desorbed": states.count("desorbed"),
        "not_converged": sum(not atoms.info["converged"] for atoms in ours),
    }
    if not usable:
        return row
    model_energies = {number: ours[number].get_potential_energy() for number in usable}
    teacher_energies = {number: teachers[number].get_potential_energy() for number in usable}
    favoured = min(model_energies, key=model_energies.get)
    teachers_favoured = min(teacher_energies, key=teacher_energies.get)
    model_energy, teacher_energy = energies(ours[favoured], teachers[favoured])
    return row | {
        "site": ours[favoured].info["key"].split("@")[1],
        "teacher_site": ours[teachers_favoured].info["key"].split("@")[1],
        "favoured_index": favoured,
        "model_eV": round(model_energy, 4),
        "teacher_eV": round(teacher_energy, 4),
        "error_eV": round(model_energy - teacher_energy, 4),
        "site_regret_eV": round(teacher_energies[favoured] - teacher_energies[teachers_favoured], 4),
    }


def errors_of(rows: list[dict]) -> dict[str, float | int | None]:
    """Number, mean error, mean and median absolute error (eV) and rank correlation of some rows, at least one."""
    model, teacher = (np.array([row[key] for row in rows]) for key in ("model_eV", "teacher_eV"))
    ranked = len(rows) >= FEWEST_FOR_RANKS
    return {
        "pairs": len(rows),
        "mean_error_eV": round(float((model - teacher).mean()), 4),
        "mae_eV": round(float(np.abs(model - teacher).mean()), 4),
        "median_error_eV": round(float(np.median(np.abs(model - teacher))), 4),
        "spearman": round(float(spearmanr(model, teacher).statistic), 3) if ranked else None,
    }


def summary(rows: list[dict]) -> dict:
    """The figures of the check."""
    done = [row for row in rows if "model_eV" in row]
    adsorbates = dict.fromkeys(row["adsorbate"] for row in done)
    agreeing = [row["site_regret_eV"] <= SAME_ENERGY for row in done]
    return {
        "all": errors_of(done),
        "per_number_of_metals": {
            number: errors_of([row for row in done if len(row["metals"]) == number])
            for number in sorted({len(row["metals"]) for row in done})
        },
        "favoured_site_within_0.05_eV": round(float(np.mean(agreeing)), 3),
        "per_adsorbate": {name: errors_of([row for row in done if row["adsorbate"] == name]) for name in adsorbates},
        "per_metal": {
            metal: errors_of([row for row in done if metal in row["metals"]])
            for metal in METALS
            if any(metal in row["metals"] for row in done)
        },
        "pairs_without_an_adsorbed_state": [row["pair"] for row in rows if "model_eV" not in row],
        "worst": [
            {key: row[key] for key in ("pair", "site", "model_eV", "teacher_eV", "error_eV")}
            for row in sorted(done, key=lambda row: -abs(row["error_eV"]))[:WORST_CASES]
        ],
    }


def plot(rows: list[dict], mae: float) -> Figure:
    """Adsorption energies of the model over those of the teacher."""
    figure = Figure(figsize=(5.4, 5.0))
    axes = figure.subplots()
    done = [row for row in rows if "model_eV" in row]
    for number, name in enumerate(dict.fromkeys(row["adsorbate"] for row in done)):
        points = [(row["teacher_eV"], row["model_eV"]) for row in done if row["adsorbate"] == name]
        marker = "os"[number // 10]
        axes.plot(*zip(*points, strict=True), marker, color=f"C{number % 10}", ms=5, alpha=0.8, label=name)
    ends = [min(min(axes.get_xlim()), min(axes.get_ylim())), max(max(axes.get_xlim()), max(axes.get_ylim()))]
    axes.plot(ends, ends, "k-", lw=0.8, zorder=0)
    axes.set(
        xlabel="teacher, eV", ylabel="model, eV", title=f"Adsorption on {len(done)} unseen pairs: MAE {mae:.2f} eV"
    )
    axes.set_aspect("equal")
    axes.legend(fontsize=7, ncols=2)
    return figure


def run(setting: Setting, pairs: list[Pair], most_relaxed: int) -> None:
    """Relax, ask the teacher, compare, write."""
    (setting.out / "relaxed").mkdir(exist_ok=True)
    gases = relax_gases(setting)
    slabs: dict[str, Atoms] = {}
    sites: dict[str, list[Atoms]] = {}
    for number, pair in enumerate(pairs, 1):
        slabs[pair.surface] = relax_slab(pair, setting)
        sites[pair.name] = relax_sites(pair, slabs[pair.surface], setting)
        print(f"{number} of {len(pairs)}: {pair.name}, {len(sites[pair.name])} sites relaxed", flush=True)

    asked = [*gases, *slabs.values(), *(atoms for atoms_of_pair in sites.values() for atoms in atoms_of_pair)]
    answers = {atoms.info["key"]: atoms for atoms in setting.teacher_results("adsorption", asked)}
    ours, teachers = element_references(gases), element_references([answers[atoms.info["key"]] for atoms in gases])

    rows = []
    for pair in pairs:

        def energies(covered: Atoms, same: Atoms, pair: Pair = pair) -> tuple[float, float]:
            model = adsorption_energy(covered, slabs[pair.surface], pair.adsorbate, ours)
            return model, adsorption_energy(same, answers[pair.surface], pair.adsorbate, teachers)

        rows.append(
            compare(pair, sites[pair.name], [answers[atoms.info["key"]] for atoms in sites[pair.name]], energies)
        )

    relaxed_rows = relax_by_teacher(setting, pairs[:most_relaxed], rows, sites, slabs, answers, teachers)
    result = summary(rows)
    if relaxed_rows:
        result["teacher_relaxed"] = errors_of(relaxed_rows) | {"rows": relaxed_rows}
    result["references"] = "H2, CH4, NH3, H2O of each"
    write_result(setting, "adsorption", result | {"rows": rows}, plot(rows, result["all"]["mae_eV"]))
    print({key: result[key] for key in ("all", "favoured_site_within_0.05_eV", "worst")})


def relax_by_teacher(
    setting: Setting,
    pairs: list[Pair],
    rows: list[dict],
    sites: dict[str, list[Atoms]],
    slabs: dict[str, Atoms],
    answers: dict[str, Atoms],
    references: dict[str, float],
) -> list[dict]:
    """Rows of the first pairs with the adsorption energy after the teacher's own relaxation of slab and favourite."""
    chosen = [(pair, row) for pair, row in zip(pairs, rows, strict=False) if "model_eV" in row]
    if not chosen:
        return []
    favourites = {pair.name: sites[pair.name][row["favoured_index"]] for pair, row in chosen}
    bare = {pair.surface: slabs[pair.surface] for pair, _ in chosen}
    results = setting.teacher_results("adsorption-relaxed", [*bare.values(), *favourites.values()], relax=True)
    relaxed_ones = {atoms.info["key"]: atoms for atoms in results}
    new_rows = []
    for pair, row in chosen:
        covered = relaxed_ones[favourites[pair.name].info["key"]]
        energy = adsorption_energy(covered, relaxed_ones[pair.surface], pair.adsorbate, references)
        changed = {
            "teacher_eV": round(energy, 4),
            "error_eV": round(row["model_eV"] - energy, 4),
            "single_point_teacher_eV": row["teacher_eV"],
            "moved_A": round(float(np.abs(covered.positions - favourites[pair.name].positions).max()), 3),
        }
        new_rows.append(row | changed)
    return new_rows


def main() -> None:
    """Read the command line and check."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--pairs", type=int, help="only the first pairs, in turn by adsorbate (default: all)")
    options.add_argument("--relaxed", type=int, default=24, help="pairs the teacher relaxes too (default 24)")
    setting, arguments = read_setting(__doc__, options)
    run(setting, unseen_pairs()[: arguments.pairs], arguments.relaxed)


if __name__ == "__main__":
    main()
