"""The files and the tables that ``escn vibrations`` leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escn_calc.cli.outputs import ResultFiles, energy_words
from escn_calc.records import write_atomically, write_json

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.vibrations import HarmonicFreeEnergy, Vibrations

FRAMES_OF_A_MODE = 16
LARGEST_DISPLACEMENT_SHOWN = 0.3
"""Å. An amplitude for the eye; that of the motion itself depends on the temperature."""


@dataclass(frozen=True)
class VibrationFiles(ResultFiles):
    """Paths of everything one calculation of vibrations writes."""

    modes: Path
    hessian: Path
    record: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> VibrationFiles:
        """Name the files after the structure, so that they can lie beside those of its relaxation."""
        return cls(
            modes=folder / f"{name}_modes.extxyz",
            hessian=folder / f"{name}_hessian.json",
            record=folder / f"{name}_vibrations.json",
        )


def write_results(result: Vibrations, files: VibrationFiles, record: dict[str, Any]) -> None:
    """Write modes, Hessian and record, each complete or not at all.

    Parameters
    ----------
    result : Vibrations
        Modes and what belongs to them.
    files : VibrationFiles
        Where to write; files of an earlier run are removed first.
    record : dict
        What was run and what came out; written as JSON.

    Raises
    ------
    InputError
        A file cannot be written; the message names it.
    """
    from ase.io import jsonio, write

    files.make_room()
    write_atomically(files.modes, lambda path: write(path, animated_modes(result), format="extxyz"))
    write_atomically(files.hessian, lambda path: jsonio.write_json(path, result.data))
    write_json(files.record, record)


def animated_modes(result: Vibrations) -> list[Atoms]:
    """Let the atoms move along one mode after the other, for one period each.

    Returns
    -------
    list of Atoms
        16 frames for each mode, whose largest displacement is 0.3 Å. ``info`` holds ``mode`` (the first is 0),
        ``frequency_cm1`` and ``imaginary``.
    """
    frames = []
    frequencies = result.data.get_frequencies()
    for number, displacements in enumerate(result.data.get_modes(all_atoms=True)):
        frequency = complex(frequencies[number])
        amplitude = LARGEST_DISPLACEMENT_SHOWN / np.linalg.norm(displacements, axis=1).max()
        for phase in np.linspace(0, 2 * np.pi, FRAMES_OF_A_MODE, endpoint=False):
            frame = result.data.get_atoms()
            frame.positions += amplitude * np.sin(phase) * displacements
            frame.info = {"mode": number, "frequency_cm1": abs(frequency), "imaginary": frequency.imag != 0}
            frames.append(frame)
    return frames


def mode_table(result: Vibrations) -> Table:
    """List all modes in the order of ``NAME_modes.extxyz``, imaginary ones first and marked with an i."""
    from rich.table import Table

    table = Table(title="Modes", title_justify="left")
    for heading in ("mode", "cm⁻¹", "meV"):
        table.add_column(heading, justify="right")
    data = result.data
    for number, (frequency, energy) in enumerate(zip(data.get_frequencies(), data.get_energies(), strict=True)):
        mark = "i" if frequency.imag else ""
        table.add_row(str(number), f"{abs(frequency):.1f}{mark}", f"{1000 * abs(energy):.2f}{mark}")
    return table


def summary_table(result: Vibrations, card: ModelCard, free_energies: tuple[HarmonicFreeEnergy, ...]) -> Table:
    """Lay out the result for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Vibrations", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for note in result.notes:
        table.add_row("[yellow]warning[/yellow]", f"[yellow]{escape(note)}[/yellow]")
    atoms, moving = result.data.get_atoms(), result.data.get_indices()
    names = ", ".join(f"{atoms.symbols[atom]} {atom}" for atom in moving)
    table.add_row("atoms that move", f"{len(moving)} of {len(atoms)}: {names}")
    table.add_row(energy_words(card.energy_kind), f"{result.energy:.6f} eV (without vibrations)")
    table.add_row("energy reference", escape(card.energy_reference))
    table.add_row("zero-point energy", f"{result.zero_point_energy:.4f} eV")
    for found in free_energies:
        table.add_row(
            f"at {found.temperature_K:g} K",
            f"F {found.free_energy:+.4f} eV, U {found.internal_energy:.4f} eV, S {1000 * found.entropy:.4f} meV/K "
            "(of the vibrations)",
        )
    table.add_row("largest force", f"{result.fmax:.4f} eV/Å (on atoms that move)")
    table.add_row("Hessian", f"{result.method}, asymmetry {result.asymmetry:.1e}")
    table.add_row("model", escape(card.name))
    table.add_row("model sha256", card.sha256)
    return table
