"""Our side of benchmarks/training.py: ``escn_calc.training.loop.fit`` on the batches of a folder.

python -m benchmarks.training_ours FOLDER direct|gradient THREADS
"""

import sys
from pathlib import Path

import torch
from torch_geometric.data import Batch

from benchmarks.training_worker import Answer, Orders, PacedBatches, read_arrays, read_setting
from escn_calc.checkpoints.card import Normalizers
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.training.distributed import World
from escn_calc.training.loop import FitSettings, fit
from escn_calc.training.objective import LossWeights, Objective, label_counts, trainable
from escn_calc.training.optimisation import Optimisation, OptimiserSettings, Schedule


class Loader(PacedBatches[Batch]):
    """What :func:`fit` asks of a loader."""

    @property
    def batch_sampler(self) -> "Loader":
        """Where the position is set."""
        return self

    def set_position(self, epoch: int, batch: int) -> None:
        """The batches go round and round, so that there is no position."""

    def batches_in(self, epoch: int) -> int:
        """Number of batches."""
        return len(self)


def read_batch(path: Path) -> Batch:
    """Return a batch with the fields of :mod:`escn_calc.training.graphs`."""
    fields = {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
    structures, atoms = len(fields["natoms"]), len(fields["atomic_numbers"])
    return Batch(
        **fields,
        has_energy=torch.ones(structures, dtype=torch.bool),
        has_forces=torch.ones(atoms, dtype=torch.bool),
        has_stress=torch.zeros(structures, dtype=torch.bool),
        stress=torch.zeros(structures, 3, 3),
    )


def evaluate(objective: Objective, batch: Batch) -> Answer:
    """Energies (eV), forces (eV/Å), loss and length of its gradient; no weight is changed."""
    counts = label_counts(batch)
    inputs = objective.inputs(batch, counts)
    predicted = objective.predict(inputs)
    loss = objective(batch, counts).total
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    gradient = torch.nn.utils.get_total_norm(torch.autograd.grad(loss, weights, materialize_grads=True))
    return {
        "energies": (predicted.energies - inputs.energies + batch.energy).tolist(),
        "forces": predicted.forces.tolist(),
        "loss": loss.item(),
        "gradient": gradient.item(),
    }


def main() -> None:
    """Train as ordered."""
    folder, forces, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    orders = Orders()
    torch.set_num_threads(threads)
    setting = read_setting(folder)
    network = ESCN(ESCNConfig(**setting["config"]))
    network.load_state_dict({name: torch.from_numpy(a) for name, a in read_arrays(folder / "weights.npz").items()})
    mean, std = setting["mean"], setting["std"]
    objective = Objective(
        trainable(network),
        Normalizers(energy_mean=mean, energy_std=std, force_std=std),
        None,
        LossWeights(setting["energy_weight"] / std, setting["force_weight"] / std),
        "gradient" if forces == "gradient" else "direct",
    )
    optimiser = OptimiserSettings(
        setting["learning_rate"], setting["weight_decay"], clip=setting["clip"], ema=setting["ema"]
    )
    batches = [read_batch(path) for path in sorted(folder.glob("batch-*.npz"))]
    loader = Loader(orders, batches, lambda batch: evaluate(objective, batch))
    orders.answer({"torch": torch.__version__, "parameters": sum(p.numel() for p in network.parameters())})
    optimisation = Optimisation(network, optimiser, Schedule(epochs=1, final=1.0))
    world = World(rank=0, size=1, device=torch.device("cpu"))
    fit(objective, loader, loader, optimisation, FitSettings(epochs=1), world)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
