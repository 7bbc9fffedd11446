"""Lattice constants and bulk moduli of the fcc metals, of a model against its teacher.

The lattice constant is where ``escn relax --cell isotropic`` ends, from 2 % too long. Bulk moduli of both are fits of
a cubic polynomial in the inverse length to energies at `STRAINS`.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.eos import EquationOfState
from ase.units import GPa
from checks import Setting, read_setting, write_result
from matplotlib.figure import Figure

from escn_calc.relax import relax

START = 1.02
STRAINS = np.linspace(-0.025, 0.025, 9)
FMAX, SMAX, MOST_STEPS = 0.01, 0.0002, 200


def crystals(metal: str, constant: float) -> list[Atoms]:
    """Primitive cells around a cubic lattice constant (Å)."""
    cells = [bulk(metal, "fcc", a=constant * (1 + strain)) for strain in STRAINS]
    for cell, strain in zip(cells, STRAINS, strict=True):
        cell.info["key"] = f"{metal}@{strain:.5f}"
    return cells


def fitted(cells: list[Atoms], energies: list[float]) -> tuple[float, float] | tuple[None, None]:
    """Cubic lattice constant (Å) and bulk modulus (GPa); nothing where the energies have no minimum."""
    try:
        volume, _, modulus = EquationOfState([cell.get_volume() for cell in cells], energies).fit()
    except ValueError:
        return None, None
    return round(float((4 * volume) ** (1 / 3)), 4), round(float(modulus / GPa), 1)


def run(setting: Setting) -> None:
    """Relax, fit, compare, write."""
    calculator = setting.calculator("float64", "gradient")
    structures = {metal: crystals(metal, constant) for metal, constant in setting.lattice.items()}
    answers = setting.teacher_results("bulk", [cell for cells in structures.values() for cell in cells])
    teacher_energies = {cell.info["key"]: cell.get_potential_energy() for cell in answers}

    rows = {}
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    for axes, (metal, cells) in zip(figure.subplots(1, len(structures)), structures.items(), strict=True):
        start = bulk(metal, "fcc", a=START * setting.lattice[metal])
        result = relax(start, calculator, fmax=FMAX, steps=MOST_STEPS, cell="isotropic", smax=SMAX)
        constant = float((4 * result.atoms.get_volume()) ** (1 / 3))
        energies = [calculator.get_potential_energy(cell) for cell in cells]
        theirs = [teacher_energies[cell.info["key"]] for cell in cells]
        fit, modulus = fitted(cells, energies)
        teacher_constant, teacher_modulus = fitted(cells, theirs)
        rows[metal] = {
            "model_A": round(constant, 4),
            "teacher_A": teacher_constant,
            "error_percent": round(100 * (constant / teacher_constant - 1), 3),
            "converged": result.converged,
            "model_fit_A": fit,
            "model_bulk_modulus_GPa": modulus,
            "teacher_bulk_modulus_GPa": teacher_modulus,
        }
        print(metal, rows[metal], flush=True)
        lengths = setting.lattice[metal] * (1 + STRAINS)
        axes.plot(lengths, np.array(theirs) - min(theirs), "k-", label="teacher")
        axes.plot(lengths, np.array(energies) - min(energies), "C1--", label="model")
        axes.set(title=metal, xlabel="a, Å")
    figure.axes[0].set_ylabel("energy above the lowest, eV/atom")
    figure.axes[0].legend()
    largest = max(abs(row["error_percent"]) for row in rows.values())
    write_result(setting, "bulk", {"largest_error_percent": largest, "metals": rows}, figure)


if __name__ == "__main__":
    run(read_setting(__doc__)[0])
