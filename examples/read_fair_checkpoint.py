"""Read a checkpoint in FAIR's layout, named on the command line, and evaluate a molecule with it."""

import sys
from pathlib import Path

from ase.build import molecule

from escn_calc import load_checkpoint, load_potential

SMALL_CHECKPOINT = Path(__file__).parents[1] / "tests/data/parity/l4m2/checkpoint.pt"  # random weights

path = Path(sys.argv[1]) if len(sys.argv) > 1 else SMALL_CHECKPOINT
checkpoint = load_checkpoint(path)
config = checkpoint.config
print(f"lmax {config.lmax_list}, mmax {config.mmax_list}, {config.num_layers} layers, cutoff {config.cutoff} Å")
print(f"{sum(tensor.numel() for tensor in checkpoint.state.values())} numbers, sha256 {checkpoint.card.sha256}")

potential = load_potential(path, dtype="float64")
(prediction,) = potential.evaluate([molecule("CH3OH")])
print(f"energy {prediction.energy:.6f} eV ({prediction.energy_kind})")
if prediction.forces is not None:
    print(f"forces (eV/Å)\n{prediction.forces}")
