"""The reference's side of benchmarks/training.py: the training loop of fairchem-core 1.10 on the batches of a folder.

Run by an interpreter that has fairchem-core 1.10 and none of this package:

PYTHON -m benchmarks.training_reference FOLDER THREADS

The loop is ``OCPTrainer.train`` itself with fairchem's loss, metrics, optimiser, clipping and averaged weights. What
the trainer otherwise makes from a configuration file and a data base is put in directly. Packages that fairchem imports
at the top of its files, but that nothing here uses, may be missing.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

# isort: off
import benchmarks.fairchem_packages  # noqa: F401  (before fairchem)
from fairchem.core.models.escn.escn import eSCN
from fairchem.core.modules.evaluator import Evaluator
from fairchem.core.modules.loss import DDPLoss
from fairchem.core.modules.normalization.normalizer import Normalizer
from fairchem.core.trainers.ocp_trainer import OCPTrainer

# isort: on
from benchmarks.training_worker import Answer, Orders, PacedBatches, read_arrays, read_setting


class Model(eSCN):
    """The reference's network, whose random frames can be replaced by given ones."""

    fixed_frames = False

    def forward(self, data: Batch) -> dict[str, Tensor]:
        """Remember the frames of the batch."""
        self.frames = data.frames
        outputs: dict[str, Tensor] = super().forward(data)
        return outputs

    def _init_edge_rot_mat(self, *graph: Any) -> Tensor:
        return self.frames if self.fixed_frames else super()._init_edge_rot_mat(*graph)


class Sampler:
    """What the trainer asks of a sampler."""

    def set_epoch_and_start_iteration(self, epoch: int, start: int) -> None:
        """The batches go round and round, so that there is no position."""


def read_batch(path: Path) -> Batch:
    """Return a batch with the fields of OC20, its graph included."""
    fields = {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
    floats = {name: fields[name].float() for name in ("pos", "cell", "cell_offsets", "energy", "forces", "frames")}
    kept = {name: fields[name] for name in ("atomic_numbers", "natoms", "batch", "edge_index")}
    neighbors = torch.bincount(fields["batch"][fields["edge_index"][1]], minlength=len(fields["natoms"]))
    return Batch(**kept, **floats, neighbors=neighbors, fixed=torch.zeros(len(fields["batch"])))


def make_model(folder: Path, config: dict[str, Any]) -> Model:
    """Return the network with the weights of the folder."""
    model = Model(use_pbc=True, otf_graph=False, **config)
    state = {name: torch.from_numpy(array) for name, array in read_arrays(folder / "weights.npz").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    shared = [name for name in missing if name.endswith("edge_block.distance_expansion.offset")]
    if unexpected or shared != missing:
        raise SystemExit(f"the reference has other weights: missing {missing}, unexpected {unexpected}")
    return model


def make_trainer(model: Model, setting: dict[str, Any]) -> OCPTrainer:
    """Return fairchem's trainer for a model and the settings of a folder."""
    trainer = OCPTrainer.__new__(OCPTrainer)
    trainer.name, trainer.is_debug, trainer.logger, trainer.scaler = "s2ef", True, None, None
    trainer.device, trainer.model, trainer.step = torch.device("cpu"), model, 0
    trainer.config = {
        "optim": {
            "optimizer": "AdamW",
            "optimizer_params": {"weight_decay": setting["weight_decay"], "amsgrad": True},
            "lr_initial": setting["learning_rate"],
            "clip_grad_norm": setting["clip"],
            "ema_decay": setting["ema"],
            "scheduler": "Null",
            "max_epochs": 1,
        },
        "cmd": {"print_every": 100},
        "task": {},
        "logger": None,
    }
    trainer.output_targets = {
        "energy": {"level": "system"},
        "forces": {"level": "atom", "train_on_free_atoms": False, "eval_on_free_atoms": False},
    }
    trainer.loss_functions = [
        ("energy", {"fn": DDPLoss("mae", "mean"), "coefficient": setting["energy_weight"]}),
        ("forces", {"fn": DDPLoss("l2mae", "mean"), "coefficient": setting["force_weight"]}),
    ]
    trainer.normalizers = {
        "energy": Normalizer(mean=setting["mean"], rmsd=setting["std"]),
        "forces": Normalizer(mean=0.0, rmsd=setting["std"]),
    }
    trainer.elementrefs = {}
    trainer.evaluator, trainer.evaluation_metrics = Evaluator("s2ef"), {"primary_metric": "forces_mae"}
    trainer.train_sampler, trainer.val_loader = Sampler(), None
    trainer.load_optimizer()
    trainer.load_extras()
    return trainer


def evaluate(trainer: OCPTrainer, batch: Batch) -> Answer:
    """Energies (eV), forces (eV/Å), loss and length of its gradient; no weight is changed."""
    out = trainer._forward(batch)
    loss = trainer._compute_loss(out, batch)
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    physical = {name: trainer._denorm_preds(name, values.detach(), batch) for name, values in out.items()}
    return {
        "energies": physical["energy"].flatten().tolist(),
        "forces": physical["forces"].tolist(),
        "loss": loss.item(),
        "gradient": torch.stack([gradient.norm() for gradient in gradients]).norm().item(),
    }


def main() -> None:
    """Train as ordered; the orders ``fixed`` and ``random`` change the frames."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    orders = Orders()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    setting = read_setting(folder)
    model = make_model(folder, setting["config"])
    batches = [read_batch(path) for path in sorted(folder.glob("batch-*.npz"))]
    trainer = make_trainer(model, setting)

    def change_frames(order: str) -> None:
        model.fixed_frames = order == "fixed"

    trainer.train_loader = PacedBatches(orders, batches, lambda batch: evaluate(trainer, batch), change_frames)
    orders.answer({"torch": torch.__version__, "fairchem-core": version("fairchem-core")})
    trainer.train()


if __name__ == "__main__":
    main()
