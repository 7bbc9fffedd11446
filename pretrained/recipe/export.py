"""Make the shipped model folder of a training run, with errors measured on unseen surface-adsorbate pairs.

Run ``python export.py --run training/run.pt --labels labels --out ../escn-small-fcc``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from data import Sample, read_new_chunks
from train import CONFIG, Run, evaluate

from escn_calc.checkpoints import Checkpoint, ModelCard, Normalizers, write_native
from escn_calc.convergence import with_converged_longitudes
from escn_calc.nn import ESCN

ELEMENTS = ("H", "C", "N", "O", "Cu", "Rh", "Pd", "Ag", "Ir", "Pt", "Au")
NEAR_EQUILIBRIUM = 1.0


def metrics_of(network: ESCN, run: Run, test: list[Sample]) -> dict[str, float | str]:
    """The figures of the card."""
    calm = [sample for sample in test if sample.forces.norm(dim=-1).max() < NEAR_EQUILIBRIUM]
    energy, force = evaluate(network, run.scale, test)
    calm_energy, calm_force = evaluate(network, run.scale, calm)
    return {
        "test structures": len(test),
        "test groups (surface x adsorbate, none in training)": len({sample.group for sample in test}),
        "energy MAE, eV/atom": round(energy, 4),
        "force MAE, eV/Å": round(force, 4),
        "mean |force component| of the labels, eV/Å": round(
            float(torch.cat([sample.forces for sample in test]).abs().mean()), 4
        ),
        f"structures with all forces below {NEAR_EQUILIBRIUM:g} eV/Å": len(calm),
        "their energy MAE, eV/atom": round(calm_energy, 4),
        "their force MAE, eV/Å": round(calm_force, 4),
        "training": f"{run.step} steps, {run.seen_samples} structures drawn, {run.seconds / 60:.0f} minutes",
        "measured by": "pretrained/recipe/export.py",
    }


def checkpoint_of(
    run: Run, network: ESCN, metrics: dict[str, float | str], train_samples: int, name: str
) -> Checkpoint:
    """The run as a model with its card."""
    card = ModelCard(
        name=name,
        sha256="",
        licence="MIT",
        elements=ELEMENTS,
        cutoff=CONFIG.cutoff,
        energy_kind="total",
        energy_reference=(
            "total energy as the teacher Nequix-OMat-1 gives it, i.e. PBE with the settings and "
            "pseudopotentials of OMat24; only differences at equal composition have a meaning"
        ),
        training_data=(
            f"{train_samples} structures of fcc metals (Cu Ag Au Pd Pt Rh Ir) and their alloys with H C N O, labelled "
            "with Nequix-OMat-1 (MIT; trained on OMat24, CC-BY-4.0); made by pretrained/recipe"
        ),
        citation="Passaro & Zitnick 2023, arXiv 2302.03655 (architecture); escn-calc (weights)",
        forces="direct",
        refuse_unseen_elements=True,
        metrics=metrics,
        not_for=(
            "published numbers, adsorption energies better than several tenths of an eV, other elements, oxides, "
            "gas-phase chemistry, equations of state and elastic constants (the energy jumps at the cutoff), long or "
            "hot molecular dynamics (forces are not the gradient of the energy), magnetism, charged systems"
        ),
        config={},
    )
    constants = Normalizers(energy_std=run.scale.energy_std, force_std=run.scale.force_std)
    checkpoint = Checkpoint(CONFIG, network.state_dict(), constants, run.scale.references, card)
    return with_converged_longitudes(checkpoint)


def main() -> None:
    """Read the command line, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run.pt of train.py")
    parser.add_argument("--labels", type=Path, required=True, help="folder with the chunks of label.py")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write; a model there is replaced")
    arguments = parser.parse_args()
    run = Run.load(arguments.run)
    network = run.averaged().requires_grad_(False)
    test = read_new_chunks(arguments.labels, set(), "test", CONFIG.cutoff)
    train_samples = read_new_chunks(arguments.labels, set(), "train", CONFIG.cutoff)
    metrics = metrics_of(network, run, test)
    for name, value in metrics.items():
        print(f"{name}: {value}")
    checkpoint = checkpoint_of(run, network, metrics, len(train_samples), arguments.out.name)
    write_native(checkpoint, arguments.out, overwrite=True)


if __name__ == "__main__":
    main()
