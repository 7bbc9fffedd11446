"""Reading the YAML file of a training run: every mistake is named with file, line and key before any work."""

from __future__ import annotations

from pathlib import Path

from escn_calc.checkpoints import find_entry, shipped_models
from escn_calc.training.config import TrainingConfig
from escn_calc.yaml_config import validated
from escn_calc.yaml_file import read_yaml


def load_config(path: str | Path) -> TrainingConfig:
    """Read the YAML file of a training run.

    Parameters
    ----------
    path : str or Path
        The file; relative paths in it are relative to its folder.

    Returns
    -------
    TrainingConfig

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, or asks for something that cannot be; the message begins with file, line
        and key.
    """
    file = read_yaml(Path(path))
    config = validated(file, TrainingConfig, derived=("regress_forces",))
    return _with_start_from(file.path.absolute().parent, config)


def _with_start_from(folder: Path, config: TrainingConfig) -> TrainingConfig:
    """Take a start that is there as a file or folder beside the YAML file for a path; a name stays a name."""
    start = config.model.start
    if start is None or start in ("default", *shipped_models()) or find_entry(start) is not None:
        return config
    path = folder / Path(start).expanduser()
    if not path.exists():
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"start": str(path)})})
