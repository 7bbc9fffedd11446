"""The structures of a run: read, split by group, and checked against what is to be learnt from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from escn_calc.errors import InputError
from escn_calc.labels import DataSource, LabelKeys, LabelledFrame, file_hashes, read_frames
from escn_calc.training.config import DataSection, LossSection, SourceSection, TrainingConfig
from escn_calc.training.split import Split, refuse_leaks, split_by_fraction

LABELS = {"energy": "energies", "forces": "forces", "stress": "stresses of a periodic cell"}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Structures to learn from and to judge by, and the sha256 of every file by its path."""

    train: list[LabelledFrame]
    validation: list[LabelledFrame]
    hashes: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of structures and groups, as records and cards name them."""
        return {
            "training structures": len(self.train),
            "training groups": len({frame.group for frame in self.train}),
            "validation structures": len(self.validation),
            "validation groups": len({frame.group for frame in self.validation}),
        }


def read_data(config: TrainingConfig, progress: Callable[[int], None] | None = None) -> TrainingData:
    """Read all structures of a run.

    Parameters
    ----------
    config : the run.
    progress : called with the number of structures read so far, beginning anew for the validation files.

    Raises
    ------
    InputError
        A file cannot be read, a label is wrong or missing altogether, or a group or structure is on both sides.
    """
    section = config.data
    sources = _sources(section.train)
    others = _sources(section.validation)
    keys = LabelKeys(section.labels.energy, section.labels.forces, section.labels.stress)
    hashes = file_hashes([source for source in (*sources, *others) if source.path.is_file()])
    frames = read_frames(sources, keys, section.group_by, progress)
    split = _split(section, frames, config.seed, lambda: read_frames(others, keys, section.group_by, progress))
    require_labels(split.train, config.loss, "training")
    require_labels(split.validation, config.loss, "validation", all_kinds=False)
    return TrainingData(split.train, split.validation, hashes)


def require_labels(frames: Sequence[LabelledFrame], loss: LossSection, part: str, *, all_kinds: bool = True) -> None:
    """Make sure that every label with a weight in the loss is there, or any of them.

    Raises
    ------
    InputError
        A kind of label, or all of them, are missing in all structures.
    """
    wanted = [kind for kind in LABELS if getattr(loss, kind) > 0]
    missing = [kind for kind in wanted if all(getattr(frame, kind) is None for frame in frames)]
    if missing and (all_kinds or missing == wanted):
        words = " or ".join(LABELS[kind] for kind in missing)
        raise InputError(
            f"no {part} structure has {words}, but loss.{missing[0]} is above zero; name the labels under data.labels, "
            f"or set loss.{missing[0]}: 0"
        )


def _split(
    section: DataSection, frames: list[LabelledFrame], seed: int, read_validation: Callable[[], list[LabelledFrame]]
) -> Split:
    if section.validation_fraction is not None:
        return split_by_fraction(frames, section.validation_fraction, seed)
    validation = read_validation()
    refuse_leaks(frames, validation)
    return Split(frames, validation)


def _sources(sections: Sequence[SourceSection]) -> list[DataSource]:
    return [DataSource(section.path, section.index, section.repeat) for section in sections]
