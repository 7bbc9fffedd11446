"""The teacher as a calculator of ASE; needs the packages `nequix` and `jax`."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from matscipy.neighbours import neighbour_list
from nequix.data import atomic_numbers_to_indices
from nequix.model import load_model

EDGE_CAPACITIES = (64, 256, 512, 640, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 2560, 3200, 4096)
NODE_CAPACITY = 48


class Teacher(Calculator):
    """ASE calculator of the teacher that compiles once per edge capacity instead of once per structure.

    Parameters
    ----------
    path
        Weights in the format of the `nequix` package.
    cache
        Folder that keeps compiled functions for the next run.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, path: Path, cache: Path) -> None:
        super().__init__()
        jax.config.update("jax_compilation_cache_dir", str(cache.resolve()))
        self.model, config = load_model(str(path), False)
        self.cutoff = config["cutoff"]
        self.species = atomic_numbers_to_indices(config["atomic_numbers"])
        self.evaluate = jax.jit(self.node_energies_and_forces)

    def node_energies_and_forces(
        self, positions: jax.Array, species: jax.Array, senders: jax.Array, receivers: jax.Array, offsets: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Energies of all nodes (N,), eV, and forces (N, 3), eV/Å."""

        def total(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
            vectors = positions[senders] - positions[receivers] + offsets
            energies = self.model.node_energies(vectors, species, senders, receivers)[:, 0]
            return jnp.sum(energies), energies

        gradient, energies = jax.grad(total, has_aux=True)(positions)
        return energies, -gradient

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Evaluate one structure, padded with nodes out of reach of each other."""
        super().calculate(atoms, properties, system_changes)
        count = len(atoms)
        receivers, senders, shifts = neighbour_list(
            "ijS", positions=atoms.positions, cell=atoms.cell[:], pbc=atoms.pbc, cutoff=self.cutoff
        )
        capacity = next(size for size in EDGE_CAPACITIES if size >= len(senders))
        missing = capacity - len(senders)
        beyond = np.broadcast_to([2.0 * self.cutoff, 0.0, 0.0], (missing, 3))
        nodes = ((0, NODE_CAPACITY - count), (0, 0))
        energies, forces = self.evaluate(
            np.pad(atoms.positions, nodes).astype(np.float32),
            np.pad([self.species[number] for number in atoms.numbers], nodes[0]).astype(np.int32),
            np.pad(senders, (0, missing), constant_values=NODE_CAPACITY - 1).astype(np.int32),
            np.pad(receivers, (0, missing), constant_values=NODE_CAPACITY - 1).astype(np.int32),
            np.concatenate([shifts @ atoms.cell[:], beyond]).astype(np.float32),
        )
        self.results["energy"] = float(np.asarray(energies, np.float64)[:count].sum())
        self.results["forces"] = np.asarray(forces, np.float64)[:count]
