"""Direct against gradient forces of the stored test models, and what edge frames do to the gradient.

Run from the root of the repository: ``python -m benchmarks.forces``. The weights are random and amplified, so direct
and gradient forces need not agree at all; what the table shows is how each kind behaves. Structure: Cu(111) with CO in
a skewed cell, no neighbour near the cutoff or the cap. Forces in eV/Å, root mean square of a component unless said
otherwise, float64.
"""

import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
from ase.io import read

from escn_calc.convergence import FramesNotConvergedWarning
from escn_calc.potential import Potential, TurningFramesWarning
from tests.finite_differences import cross, triclinic_slab
from tests.parity import MODELS, checkpoint

HEADINGS = (
    "model",
    "gradient",
    "direct - gradient",
    "net direct force",
    "net gradient force",
    "canonical - converged gradient",
    "rotation, gradient",
)


def row(model: str) -> tuple[object, ...]:
    """One line of the table."""
    stored = checkpoint(model)
    atoms = triclinic_slab(stored.config.cutoff, stored.config.max_neighbors)
    options = {"device": "cpu", "dtype": "float64", "forces": "gradient"}
    converged = Potential(stored, frames="converged", **options)
    found = converged.force_consistency(atoms)
    (fine,) = converged.evaluate([atoms])
    (coarse,) = Potential(stored, frames="canonical", **options).evaluate([atoms])
    frames = np.sqrt(np.mean(np.square(coarse.forces - fine.forces)))
    return (
        f"`{model}`",
        f"{found.gradient_size:.3f}",
        f"{found.direct_error:.3f}",
        f"{found.net_direct_force:.3f}",
        f"{found.net_gradient_force:.0e}",
        f"{frames:.1e}",
        f"{found.rotation_forces:.1e}",
    )


def cost_of_the_gradient(model: str, repeats: int = 7) -> tuple[float, float]:
    """Time of gradient forces, and of those with layers computed again, over that of direct forces, float32."""
    atoms = read(Path(__file__).parents[1] / "examples" / "co_on_cu111.xyz")
    kinds = ({"forces": "direct"}, {"forces": "gradient"}, {"forces": "gradient", "checkpoint_layers": True})
    options = {"device": "cpu", "dtype": "float32", "frames": "canonical"}
    potentials = [Potential(checkpoint(model), **options, **kind) for kind in kinds]
    times = np.empty((repeats, len(kinds)))
    for repeat in range(repeats):
        for number, potential in enumerate(potentials):
            start = perf_counter()
            potential.evaluate([atoms])
            times[repeat, number] = perf_counter() - start
    direct, gradient, recomputed = np.median(times[1:], axis=0)
    return gradient / direct, recomputed / direct


def near_the_singular_direction(model: str) -> list[tuple[float, float, float]]:
    """Largest gradient force on an atom whose edge lies at an angle from the singular direction, for both frames."""
    atoms = cross()
    options = {"device": "cpu", "dtype": "float64", "forces": "gradient"}
    potentials = [Potential(checkpoint(model), frames=frames, **options) for frames in ("canonical", "converged")]
    aside = np.cross(atoms.positions[7], [0.0, 0.0, 1.0])
    aside *= np.linalg.norm(atoms.positions[7]) / np.linalg.norm(aside)
    found = []
    for angle in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        turned = atoms.copy()
        turned.positions[7] += angle * aside
        largest = [np.abs(potential.evaluate([turned])[0].forces).max() for potential in potentials]
        found.append((angle, *largest))
    return found


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore", FramesNotConvergedWarning)
    warnings.simplefilter("ignore", TurningFramesWarning)
    gradient, recomputed = cost_of_the_gradient("l6m2")
    print(
        f"l6m2: gradient forces take {gradient:.1f} times as long as direct ones, {recomputed:.1f} with recomputed "
        "layers\n"
    )
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + "---|" * len(HEADINGS))
    for model in MODELS:
        print("| " + " | ".join(map(str, row(model))) + " |", flush=True)
    print("\nl6m2: angle from the singular direction (rad), largest gradient force with canonical and converged frames")
    for angle, canonical, converged in near_the_singular_direction("l6m2"):
        print(f"| {angle:.0e} | {canonical:.4g} | {converged:.4g} |")


if __name__ == "__main__":
    main()
