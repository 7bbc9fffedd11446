"""eSCN checkpoints as ASE calculators: energies and forces of slabs, adsorbates and crystals.

Public names are imported on first use, so that ``import escn_calc`` loads neither torch nor pymatgen nor matplotlib.
The one side effect of the import is that ASE learns the calculator name ``escn``:
``ase.calculators.calculator.get_calculator_class("escn")``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ase.calculators.calculator import external_calculators, register_calculator_class

from escn_calc.calculator import ESCNCalculator

if TYPE_CHECKING:
    from escn_calc.batch_relaxation import relax_batch
    from escn_calc.checkpoints import Checkpoint, ModelCard, load_checkpoint
    from escn_calc.collector import batched, run_each
    from escn_calc.consistency import ForceConsistency
    from escn_calc.errors import BatchError, CalculationError, CheckpointError, DownloadError, ESCNError, InputError
    from escn_calc.md import MDResult, run_md
    from escn_calc.potential import Potential, Prediction, load_potential

__version__ = "0.1.0"

__all__ = [
    "BatchError",
    "CalculationError",
    "Checkpoint",
    "CheckpointError",
    "DownloadError",
    "ESCNCalculator",
    "ESCNError",
    "ForceConsistency",
    "InputError",
    "MDResult",
    "ModelCard",
    "Potential",
    "Prediction",
    "batched",
    "load_checkpoint",
    "load_potential",
    "relax_batch",
    "run_each",
    "run_md",
]

_HOME = {
    "BatchError": "escn_calc.errors",
    "CalculationError": "escn_calc.errors",
    "Checkpoint": "escn_calc.checkpoints",
    "CheckpointError": "escn_calc.errors",
    "DownloadError": "escn_calc.errors",
    "ESCNError": "escn_calc.errors",
    "ForceConsistency": "escn_calc.consistency",
    "InputError": "escn_calc.errors",
    "MDResult": "escn_calc.md",
    "ModelCard": "escn_calc.checkpoints",
    "Potential": "escn_calc.potential",
    "Prediction": "escn_calc.potential",
    "batched": "escn_calc.collector",
    "load_checkpoint": "escn_calc.checkpoints",
    "load_potential": "escn_calc.potential",
    "relax_batch": "escn_calc.batch_relaxation",
    "run_each": "escn_calc.collector",
    "run_md": "escn_calc.md",
}


def __getattr__(name: str) -> object:
    """Import the module that defines a public name when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'escn_calc' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})


if "escn" not in external_calculators:
    register_calculator_class("escn", ESCNCalculator)
