"""What the commands that leave results behind share: guarded result files, and the parts of a record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from escn_calc.calculator import ESCNCalculator


@dataclass(frozen=True)
class ResultFiles:
    """Paths of everything a command writes into one folder; a subclass has a field for each."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All the files."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def folder(self) -> Path:
        """The folder of all the files."""
        return self.paths[0].parent

    def check(self, source: Path, *, replace: bool) -> None:
        """Make sure that neither the structure file nor a result of another run would be lost.

        Parameters
        ----------
        source : Path
            File with the structure of the run.
        replace : bool
            Whether existing results may be changed.

        Raises
        ------
        InputError
            One of the files is ``source``, or it exists and ``replace`` is false.
        """
        existing = [path for path in self.paths if path.exists()]
        for path in existing:
            if source.exists() and path.samefile(source):
                raise InputError(
                    f"the result {str(path)!r} would replace the structure file {str(source)!r}; "
                    "choose another --output-dir"
                )
        if existing and not replace:
            raise InputError(f"{str(existing[0])!r} exists; choose another --output-dir, or give --overwrite")

    def make_room(self, *, keep_old: bool = False) -> None:
        """Make the folder, and remove the files of an earlier run, so that results of two runs never mix.

        Raises
        ------
        InputError
            The folder cannot be made or changed.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in () if keep_old else self.paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to the folder {str(self.folder)!r}: {error.strerror}") from error


def settings_record(settings: dict[str, Any]) -> dict[str, Any]:
    """Sort the settings of a command by name and turn paths into text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in sorted(settings.items())}


def model_record(calculator: ESCNCalculator) -> dict[str, str | None]:
    """Say which model a calculator has and how it is evaluated."""
    potential = calculator.potential
    card = potential.card
    return {
        "name": card.name,
        "sha256": card.sha256,
        "energy_kind": card.energy_kind,
        "energy_reference": card.energy_reference,
        "forces_kind": potential.forces,
        "device": str(potential.device),
    }


def energy_words(kind: str) -> str:
    """Name a kind of energy for people."""
    return {"adsorption": "adsorption energy", "total": "total energy"}.get(kind, "energy (kind unknown)")
