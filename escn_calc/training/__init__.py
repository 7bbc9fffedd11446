"""Training of networks on labelled structures, from a YAML file to models with cards."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from escn_calc.training.config import TrainingConfig
    from escn_calc.training.config_file import load_config
    from escn_calc.training.run import TrainingResult, train

__all__ = ["TrainingConfig", "TrainingResult", "load_config", "train"]

_HOMES = {"TrainingConfig": "config", "TrainingResult": "run", "load_config": "config_file", "train": "run"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
