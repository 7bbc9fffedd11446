"""The options that commands with a model and a structure share, so that they read and mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from escn_calc.options import DEVICES, DTYPE_NAMES, FORCES, FRAMES, MATMULS

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """Add ``--model`` and the options of :func:`evaluation_options`."""
    return _with_options(
        evaluation_options(command),
        click.option(
            "--model",
            default="default",
            show_default=True,
            help="'default' (shipped with the package), the name of a published checkpoint (see 'escn models list'), "
            "or the path of a model.",
        ),
    )


def evaluation_options(command: Command) -> Command:
    """Add ``--device``, ``--dtype``, ``--matmul``, ``--forces`` and ``--frames``."""
    return _with_options(
        command,
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="auto: CUDA if there is one, else the CPU.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(DTYPE_NAMES),
            default="float32",
            show_default=True,
            help="Precision of the model's arithmetic.",
        ),
        click.option(
            "--matmul",
            type=click.Choice(MATMULS),
            default="full",
            show_default=True,
            help="full: products of matrices have the precision of --dtype. bfloat16 (recent CPUs, CUDA), tf32 (CUDA): "
            "those of the layers have fewer bits: faster for large models; with bfloat16 forces are off by about 1 %.",
        ),
        click.option(
            "--forces",
            type=click.Choice(FORCES),
            help="direct: the model's force head, fast. gradient: minus the gradient of the energy, conservative and "
            "with stress.  [default: what the model was trained for]",
        ),
        click.option(
            "--frames",
            type=click.Choice(FRAMES),
            default="canonical",
            show_default=True,
            help="canonical: the model's own grid. converged: a finer grid, on which edge frames matter "
            "less than 5e-8 (relative) where the model allows it (slower).",
        ),
    )


def structure_options(command: Command) -> Command:
    """Add ``--fix-tags``, ``--fix-below-height`` and ``--index``."""
    return fixing_options(
        _with_options(
            command,
            click.option(
                "--index",
                type=int,
                default=-1,
                show_default=True,
                help="Which structure of a file with several: 0 is the first, -1 the last.",
            ),
        )
    )


def fixing_options(command: Command) -> Command:
    """Add ``--fix-tags`` and ``--fix-below-height``."""
    return _with_options(
        command,
        click.option(
            "--fix-tags",
            type=int,
            multiple=True,
            metavar="TAG",
            help="Fix the atoms with this tag (in OC20 files, 0 is the subsurface). Can be given several times.",
        ),
        click.option(
            "--fix-below-height",
            type=float,
            metavar="ANGSTROM",
            help="Fix the atoms less than this many Å above the lowest atom, measured along the surface normal "
            "(perpendicular to the first two cell vectors; z without a cell).",
        ),
    )


def output_options(folder: str) -> Callable[[Command], Command]:
    """Add ``--output-dir``, whose default is called ``folder`` in the help, and ``--overwrite``."""
    return lambda command: _with_options(
        command,
        click.option(
            "--output-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help=f"Folder for the results.  [default: runs/{folder}, NAME being the structure file without its suffix]",
        ),
        click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the output folder."),
    )


def _with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
