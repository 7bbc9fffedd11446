"""What is checked before the first structure is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from escn_calc.cell_relaxation import Cell
from escn_calc.errors import InputError
from escn_calc.options import check_potential
from escn_calc.relax import optimizer_name

if TYPE_CHECKING:
    from escn_calc.potential import Potential

BATCH_OPTIMIZERS = ("BFGS", "FIRE", "LBFGS", "MDMin", "RFO")
"""Optimisers of ASE that ask for one evaluation a step; those with a line search ask for more."""


def batch_optimizer(name: str) -> str:
    """Return the name of one of ``BATCH_OPTIMIZERS`` as ASE writes it."""
    exact = optimizer_name(name)
    if exact not in BATCH_OPTIMIZERS:
        raise InputError(
            f"optimizer {exact} asks for several evaluations a step, so its structures cannot be evaluated together; "
            f"choose one of {', '.join(BATCH_OPTIMIZERS)}, or relax one by one with escn_calc.relax.relax"
        )
    return exact


def check_max_active(max_active: int | None) -> None:
    """Refuse to relax no structure at a time."""
    if max_active is not None and max_active < 1:
        raise InputError(f"max_active is {max_active}; it must be 1 or more")


def check_can_relax(potential: Potential, cell: Cell) -> None:
    """Refuse a potential without the forces, or the stress, that are needed."""
    check_potential(potential)
    if potential.forces is None:
        raise InputError(f"a relaxation needs forces, and {potential!r} has none; load it with forces='gradient'")
    if cell != "fixed" and potential.forces != "gradient":
        raise InputError(
            f"a relaxation of the cell needs the stress, and {potential!r} has none; load it with forces='gradient'"
        )


def trajectory_paths(trajectories: str | Path | Sequence[str | Path | None] | None, count: int) -> list[Path | None]:
    """One trajectory file, or None, for each structure; folders are made."""
    if trajectories is None:
        return [None] * count
    if isinstance(trajectories, str | Path):
        width = len(str(count - 1))
        paths: list[Path | None] = [Path(trajectories) / f"{index:0{width}d}.traj" for index in range(count)]
    else:
        paths = [None if path is None else Path(path) for path in trajectories]
    given = [path for path in paths if path is not None]
    if len(paths) != count:
        raise InputError(f"there are {len(paths)} trajectories for {count} structures; give one, or None, for each")
    if len(set(given)) < len(given):
        raise InputError("two trajectories have the same path; give each structure a file of its own")
    for folder in {path.parent for path in given}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}") from error
    return paths
