"""Train the small shipped model on the labels of `label.py`.

Run ``python train.py --labels labels --out training --minutes 113``. The learning rate follows the share of the time
that has passed, so the same command serves a fast and a slow machine; chunks that appear meanwhile join at the next
epoch. Stopped and started again with the same ``--out`` it goes on where it was. `export.py` makes the model of it.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from data import Batch, Sample, batches, fit_references, read_new_chunks
from torch import Tensor

from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.parameters import initialise

CONFIG = ESCNConfig(
    lmax_list=(3,),
    mmax_list=(2,),
    num_layers=3,
    sphere_channels=32,
    hidden_channels=64,
    edge_channels=64,
    cutoff=5.3,
    max_neighbors=0,
    max_num_elements=80,
    num_sphere_samples=128,
    distance_function="gaussian",
    basis_width_scalar=2.0,
    distance_resolution=0.05,
    resolution=12,
    edge_longitudes=7,
)
ENERGY_WEIGHT = 4.0
FORCE_WEIGHT = 1.0
PEAK_RATE, FINAL_RATE = 1.5e-3, 1e-5
WARM_UP_STEPS = 200
WEIGHT_DECAY = 1e-4
LARGEST_GRADIENT = 5.0
EMA_DECAY = 0.999
EDGES_PER_BATCH = 2500
MINUTES_BETWEEN_SAVES = 2.0
SEED = 0


@dataclass(frozen=True)
class Scale:
    """Constants of the labels: what the network's raw outputs are multiplied with and added to."""

    references: Tensor
    energy_std: float
    force_std: float

    @classmethod
    def of(cls, samples: list[Sample]) -> Scale:
        """Measure the spread of forces and of the energy per atom that the references leave."""
        references = fit_references(samples)
        residuals = torch.tensor(
            [(sample.energy - float(references[sample.numbers].sum())) / len(sample.numbers) for sample in samples]
        )
        forces = torch.cat([sample.forces for sample in samples])
        return cls(references, 1000.0 * float(residuals.square().mean().sqrt()), float(forces.square().mean().sqrt()))


def errors(network: ESCN, scale: Scale, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return energy errors per atom, (B,) eV, and force errors, (N, 3) eV/Å."""
    output = network(batch.numbers, batch.source, batch.target, batch.vectors)
    baseline = batch.per_structure(scale.references[batch.numbers])
    wanted = ((batch.energies - baseline) / batch.natoms).float()
    energy = scale.energy_std * batch.per_structure(output.node_energy) / batch.natoms
    return energy - wanted, scale.force_std * output.forces - batch.forces


def loss_of(energy_errors: Tensor, force_errors: Tensor) -> Tensor:
    """L1 of the energy per atom plus the mean length of the force error (the paper's losses)."""
    lengths = (force_errors.square().sum(-1) + 1e-12).sqrt()
    return ENERGY_WEIGHT * energy_errors.abs().mean() + FORCE_WEIGHT * lengths.mean()


def rate_at(share: float, step: int) -> float:
    """Learning rate: linear warm-up in steps, half a cosine in the share of the time."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE + (PEAK_RATE - FINAL_RATE) * cosine)


class Run:
    """Everything that must survive a stop: weights, their moving average, optimiser, progress."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.generator = torch.Generator().manual_seed(SEED)
        self.network = ESCN(CONFIG)
        initialise(self.network, self.generator)
        self.average = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            [weight for weight in self.network.parameters() if weight.requires_grad],
            lr=PEAK_RATE,
            weight_decay=WEIGHT_DECAY,
        )
        self.step, self.epoch, self.seconds, self.seen_samples = 0, 0, 0.0, 0

    def train_on(self, batch: Batch, share: float) -> Tensor:
        """One optimiser step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(share, self.step)
        loss = loss_of(*errors(self.network, self.scale, batch))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.step += 1
        self.seen_samples += len(batch.natoms)
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            for name, weight in self.network.named_parameters():
                self.average[name].lerp_(weight, 1 - decay)
        return loss.detach()

    def averaged(self) -> ESCN:
        """A copy of the network with the averaged weights."""
        network = ESCN(CONFIG)
        network.load_state_dict(self.network.state_dict() | self.average)
        return network

    def save(self, path: Path) -> None:
        """Write the run, complete or not at all."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "config": asdict(CONFIG),
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "references": self.scale.references,
                "energy_std": self.scale.energy_std,
                "force_std": self.scale.force_std,
                "step": self.step,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "seen_samples": self.seen_samples,
            },
            partial,
        )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Take up a run written by :meth:`save`."""
        saved = torch.load(path, weights_only=True)
        run = cls(Scale(saved["references"], saved["energy_std"], saved["force_std"]))
        run.network.load_state_dict(saved["network"])
        run.average = saved["average"]
        run.optimizer.load_state_dict(saved["optimizer"])
        run.generator.set_state(saved["generator"])
        for name in ("step", "epoch", "seconds", "seen_samples"):
            setattr(run, name, saved[name])
        return run


def evaluate(network: ESCN, scale: Scale, samples: list[Sample]) -> tuple[float, float]:
    """Return the mean absolute errors of the energy, eV/atom, and of the force components, eV/Å."""
    energy, force = [], []
    with torch.inference_mode():
        for batch in batches(samples, EDGES_PER_BATCH, None):
            energy_errors, force_errors = errors(network, scale, batch)
            energy.append(energy_errors.abs())
            force.append(force_errors.abs().flatten())
    return float(torch.cat(energy).mean()), float(torch.cat(force).mean())


def train(labels: Path, out: Path, minutes: float) -> None:
    """Train until the time is up."""
    seen: set[Path] = set()
    samples = read_new_chunks(labels, seen, "train", CONFIG.cutoff)
    validation_seen: set[Path] = set()
    validation = read_new_chunks(labels, validation_seen, "valid", CONFIG.cutoff)
    state = out / "run.pt"
    run = Run.load(state) if state.exists() else Run(Scale.of(samples))
    last_save = last = time.monotonic()
    log = out / "log.csv"
    if not log.exists():
        log.write_text(
            "minutes,step,epoch,train_samples,loss,validation_energy_eV_per_atom,validation_force_eV_per_A\n"
        )
    losses: list[Tensor] = []
    while run.seconds < 60 * minutes:
        for batch in batches(samples, EDGES_PER_BATCH, run.generator):
            losses.append(run.train_on(batch, run.seconds / (60 * minutes)))
            now = time.monotonic()
            run.seconds, last = run.seconds + now - last, now
            if now - last_save > 60 * MINUTES_BETWEEN_SAVES:
                run.save(state)
                energy, force = evaluate(run.averaged(), run.scale, validation[:: max(1, len(validation) // 150)])
                mean = float(torch.stack(losses).mean())
                line = (
                    f"{run.seconds / 60:.1f},{run.step},{run.epoch},{len(samples)},{mean:.4f},{energy:.4f},{force:.4f}"
                )
                with log.open("a") as file:
                    file.write(line + "\n")
                print(line, flush=True)
                losses, last_save = [], time.monotonic()
            if run.seconds >= 60 * minutes:
                break
        run.epoch += 1
        samples += read_new_chunks(labels, seen, "train", CONFIG.cutoff)
        validation += read_new_chunks(labels, validation_seen, "valid", CONFIG.cutoff)
    run.save(state)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the chunks of label.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the state of the run and its log")
    parser.add_argument("--minutes", type=float, required=True, help="time to train")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.labels, arguments.out, arguments.minutes)


if __name__ == "__main__":
    main()
