"""``escn vibrations``: vibrational modes, zero-point energy and harmonic free energy of an adsorbate."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.model_options import model_options, output_options, structure_options
from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.cli.vibrations_outputs import VibrationFiles, mode_table, summary_table, write_results
from escn_calc.constraints import free_indices
from escn_calc.errors import InputError
from escn_calc.hessian import METHODS, check_displacement
from escn_calc.records import versions
from escn_calc.structure_input import fix_atoms, read_structure
from escn_calc.vibrations import HarmonicFreeEnergy, Vibrations, adsorbate_indices, check_temperature
from escn_calc.vibrations import vibrations as compute_vibrations

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms


@click.command(
    epilog="Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted with Ctrl-C, 143 with SIGTERM.",
)
@click.argument("structure", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--atoms",
    "selection",
    default="adsorbate",
    show_default=True,
    metavar="WHICH",
    help="Atoms that move, all others are held where they are. adsorbate: those with tag 2, as in OC20 files. "
    "free: all that are not fixed. Or their indices, the first is 0: 36,37.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="autograd: exact second derivatives of the energy. finite-difference: central differences of the forces. "
    "auto: autograd with gradient forces, else finite differences.",
)
@click.option(
    "--displacement",
    type=float,
    default=0.01,
    show_default=True,
    metavar="ANGSTROM",
    help="Step of the finite differences in Å.",
)
@click.option(
    "--temperature",
    "temperatures",
    type=float,
    multiple=True,
    default=(298.15,),
    show_default=True,
    metavar="KELVIN",
    help="Temperature of the free energy in K. Can be given several times.",
)
@click.option(
    "--lowest",
    type=click.FloatRange(min=0, min_open=True),
    default=50.0,
    show_default=True,
    metavar="CM-1",
    help="In the free energy, lower frequencies count as this one, in cm⁻¹.",
)
@structure_options
@output_options("NAME")
@click.pass_context
def vibrations(
    ctx: click.Context,
    structure: Path,
    model: str,
    device: str,
    dtype: str,
    matmul: str,
    forces: str | None,
    frames: str,
    selection: str,
    method: str,
    displacement: float,
    temperatures: tuple[float, ...],
    lowest: float,
    fix_tags: tuple[int, ...],
    fix_below_height: float | None,
    index: int,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Vibrational modes of the relaxed structure in the file STRUCTURE, by default of its adsorbate.

    STRUCTURE is any file that ASE can read (extxyz, POSCAR, CIF, .traj, ...), relaxed with the same model and the same
    kind of forces: 'escn relax' writes one. The Hessian of gradient forces (--forces gradient) is symmetric; that of
    direct forces is made so, and its asymmetry is reported.

    Results, in the output folder: NAME_modes.extxyz (the atoms moving along one mode after the other, for 'ase gui'),
    NAME_hessian.json (read it with ase.vibrations.VibrationsData.read) and NAME_vibrations.json (what was run, modes in
    cm⁻¹, energies in eV, entropies in eV/K).
    """
    name = structure.stem
    files = VibrationFiles.in_folder(output_dir or Path("runs") / name, name)
    files.check(structure, replace=overwrite)
    check_displacement(displacement)
    for temperature in temperatures:
        check_temperature(temperature)
    atoms = fix_atoms(read_structure(structure, index), fix_tags, fix_below_height)
    moving = _select(atoms, selection)
    source = {"file": str(structure), "sha256": file_sha256(structure)}
    calculator = ESCNCalculator(model, device=device, dtype=dtype, matmul=matmul, forces=forces, frames=frames)
    with Console(stderr=True, highlight=False).status("Loading the model") as status:
        card = calculator.potential.card
        status.update("Evaluating the structure and its derivatives")
        result = compute_vibrations(
            atoms,
            calculator,
            moving,
            method=method,
            displacement=displacement,
            lowest_cm1=lowest,
            progress=lambda done, total: status.update(f"Displaced structures: {done} of {total}"),
        )
    has_real_modes = result.frequencies_cm1.size > 0
    free_energies = tuple(map(result.free_energy, temperatures)) if has_real_modes else ()
    write_results(result, files, _record(ctx.params, source, calculator, result, free_energies))
    console = Console(highlight=False)
    console.print(mode_table(result))
    console.print(summary_table(result, card, free_energies))
    click.echo(f"Results are in {files.record.parent}/")


def _select(atoms: Atoms, selection: str) -> np.ndarray | list[int]:
    if selection == "adsorbate":
        return adsorbate_indices(atoms)
    if selection == "free":
        return free_indices(atoms)
    try:
        return [int(word) for word in selection.split(",")]
    except ValueError as error:
        raise InputError(
            f"--atoms is {selection!r}; it must be adsorbate, free, or indices with commas between them: 36,37"
        ) from error


def _record(
    settings: dict[str, Any],
    source: dict[str, str],
    calculator: ESCNCalculator,
    result: Vibrations,
    free_energies: tuple[HarmonicFreeEnergy, ...],
) -> dict[str, Any]:
    """Collect what was run and what came out, as values that JSON can hold."""
    return {
        "command": "escn vibrations",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "structure": source,
        "settings": settings_record(settings),
        "model": model_record(calculator),
        "versions": versions(),
        "result": {
            "atoms": result.data.get_indices().tolist(),
            "method": result.method,
            "notes": list(result.notes),
            "energy_eV": result.energy,
            "fmax_eV_per_angstrom": result.fmax,
            "hessian_asymmetry": result.asymmetry,
            "frequencies_per_cm": result.frequencies_cm1.tolist(),
            "imaginary_frequencies_per_cm": result.imaginary_cm1.tolist(),
            "zero_point_energy_eV": result.zero_point_energy,
            "free_energies": [_free_energy_record(found) for found in free_energies],
        },
    }


def _free_energy_record(found: HarmonicFreeEnergy) -> dict[str, float]:
    units = {"temperature_K": "", "internal_energy": "_eV", "entropy": "_eV_per_K", "free_energy": "_eV"}
    return {f"{name}{units[name]}": value for name, value in asdict(found).items()}
