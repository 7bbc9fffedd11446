"""Small FAIR files to take apart: each test changes one thing of a sound file and says what must happen."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PARITY = Path(__file__).parents[1] / "data" / "parity"


def load_content(name: str) -> dict:
    """Return the raw content of the stored FAIR file ``name``."""
    return torch.load(PARITY / name / "checkpoint.pt", map_location="cpu", weights_only=True)


@pytest.fixture
def parity() -> Path:
    return PARITY


@pytest.fixture
def content() -> dict:
    """A file of the old trainer: two layers, lmax 2, mmax 1, keys ``module.module.*``."""
    return load_content("l2m1")


@pytest.fixture
def hydra() -> dict:
    return load_content("hydra")


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    """Write an object with torch.save and return the path."""

    def write(obj: object, name: str = "model.pt") -> Path:
        torch.save(obj, tmp_path / name)
        return tmp_path / name

    return write
