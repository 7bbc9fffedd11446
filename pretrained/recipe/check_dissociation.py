"""Bond curves of diatomic molecules, 0.4 to 6 Å, of a model against its teacher.

A curve is sound if it has no other minimum than the bond (deeper than `SHALLOWEST`) and rises all the way inwards from
it: what the figures `holes` and `inward_fall_eV` state. The teacher itself saturates at very short distances, and is
compared only where it rises too.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from checks import Setting, read_setting, write_result
from matplotlib.figure import Figure

MOLECULES = (("H", "H"), ("O", "O"), ("N", "N"), ("C", "O"), ("N", "O"), ("O", "H"), ("C", "H"), ("N", "H"))
DISTANCES = np.round(np.concatenate([np.arange(0.4, 2.0, 0.04), np.arange(2.0, 6.01, 0.1)]), 3)
SHALLOWEST = 0.05
COMPARED = (0.8, 3.0)
BOX = 20.0
SHORTEST_BOND = 0.6
BOND_WINDOW = 0.25


def pair(symbols: tuple[str, str], distance: float) -> Atoms:
    """Two atoms off the axes of a box."""
    direction = np.array([0.36, 0.48, 0.8])
    atoms = Atoms(symbols, [np.zeros(3), distance * direction], cell=[BOX] * 3, pbc=True)
    atoms.center()
    atoms.info["key"] = f"{''.join(symbols)}@{distance}"
    return atoms


def minima(energies: np.ndarray) -> list[int]:
    """Indices of inner minima that lie more than `SHALLOWEST` (eV) below the highest point on either side."""
    found = []
    for index in range(1, len(energies) - 1):
        if energies[index] > energies[index - 1] or energies[index] >= energies[index + 1]:
            continue
        walls = []
        for side in (energies[:index][::-1], energies[index + 1 :]):
            lower = np.flatnonzero(side < energies[index])
            reach = side[: lower[0]] if len(lower) else side
            walls.append(float(reach.max()) - energies[index])
        if min(walls) > SHALLOWEST:
            found.append(index)
    return found


def figures_of(energies: np.ndarray, expected: float) -> dict[str, float | list[float]]:
    """Bond length (Å), depth against 6 Å, other minima and the largest fall of the energy on the way inwards (eV).

    The bond is the lowest point within `BOND_WINDOW` of the expected length (Å).
    """
    valleys = minima(energies)
    bond = int(np.argmin(np.where(np.abs(DISTANCES - expected) < BOND_WINDOW, energies, np.inf)))
    inwards = energies[: bond + 1][::-1]
    return {
        "bond_A": float(DISTANCES[bond]),
        "depth_eV": round(float(energies[-1] - energies[bond]), 3),
        "holes": [float(DISTANCES[index]) for index in valleys if index != bond],
        "inward_fall_eV": round(float(np.max(np.maximum.accumulate(inwards) - inwards)), 4),
        "highest_eV": round(float(energies[0] - energies[bond]), 2),
        "hump_eV": round(float(max(0.0, energies[bond:].max() - energies[-1])), 3),
    }


def is_sound(figures: dict[str, float | list[float]]) -> bool:
    """Whether the bond is the only minimum and the way inwards leads up."""
    return not figures["holes"] and figures["inward_fall_eV"] <= SHALLOWEST


def run(setting: Setting) -> None:
    """Evaluate, compare, write."""
    calculator = setting.calculator("float64")
    structures = [pair(symbols, distance) for symbols in MOLECULES for distance in DISTANCES]
    shape = (len(MOLECULES), len(DISTANCES))
    model = np.array([calculator.get_potential_energy(atoms) for atoms in structures]).reshape(shape)
    answers = setting.teacher_results("dissociation", structures)
    teacher = np.array([atoms.get_potential_energy() for atoms in answers]).reshape(shape)

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    result = {}
    inside = (COMPARED[0] <= DISTANCES) & (COMPARED[1] >= DISTANCES)
    for axes, symbols, ours, theirs in zip(figure.subplots(2, 4).flat, MOLECULES, model, teacher, strict=True):
        name = "".join(symbols)
        bond = float(DISTANCES[np.argmin(np.where(DISTANCES > SHORTEST_BOND, theirs, np.inf))])
        result[name] = {
            "model": figures_of(ours, bond),
            "teacher": figures_of(theirs, bond),
            f"mae_{COMPARED[0]}_to_{COMPARED[1]}_A_eV": round(float(np.abs(ours - theirs)[inside].mean()), 4),
        }
        lowest = theirs.min()
        axes.plot(DISTANCES, theirs - lowest, "k-", lw=1.5, label="teacher")
        axes.plot(DISTANCES, ours - lowest, "C1--", lw=1.5, label="model")
        axes.set(title=name, ylim=(-1.5, 16), xlabel="distance, Å", ylabel="energy, eV")
        axes.label_outer()
    figure.axes[0].legend()
    sound = {name: is_sound(row["model"]) for name, row in result.items()}
    write_result(setting, "dissociation", {"sound": sound, "curves": result}, figure)
    print(sound)


if __name__ == "__main__":
    run(read_setting(__doc__)[0])
