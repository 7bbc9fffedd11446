"""OC20's metrics, by the names and definitions of its evaluator (arXiv 2010.09990; fairchem-core 1.10).

With dE the error of the energy of a structure and dF that of the force on a counted atom:

    energy_mae                      mean of |dE| over structures
    energy_within_threshold         EwT, share of structures with |dE| < 0.02 eV
    forces_mae                      mean of |dF_x|, |dF_y|, |dF_z| over all counted atoms together; forcesx_mae alone
    forces_cosine_similarity        mean of F·F' / (|F| |F'|) over counted atoms; 0 where one of the two vanishes
    forces_magnitude_error          mean of ||F'| - |F||
    energy_forces_within_threshold  EFwT, share of structures with |dE| < 0.02 eV and each |dF_x,y,z| < 0.03 eV/Å

Ours: the energy error per atom, and AEwT. We know of no published definition of AEwT; it is formed here like ADwT,
as the mean of EwT over the thresholds 0.01, 0.011 … 0.499 eV, over relaxed structures, the only ones it applies to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENERGY_THRESHOLD = 0.02
FORCE_THRESHOLD = 0.03
AVERAGED_THRESHOLDS = 0.001 * np.arange(10, 500)
"""eV, those of OC20's ADwT in Å."""
RELAXED_FMAX = 0.05
"""eV/Å. Largest labelled force on counted atoms of a structure that counts as relaxed, OC20's threshold of FbT."""
SMALLEST_NORM = 1e-8
"""eV/Å. Below it a force has no direction; torch's ``cosine_similarity`` has the same bound."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A structure with its labels and what a model says about it; None for what one of the two does not have.

    Attributes
    ----------
    origin, group : where the structure comes from, and which group it belongs to.
    numbers : (N,) atomic numbers.
    counted : (N,) bool, atoms whose forces count.
    energy, predicted_energy : eV. The prediction is None where the energy is not to be compared.
    forces, predicted_forces : (N, 3) eV/Å.
    stress, predicted_stress : (6,) eV/Å³, Voigt order xx, yy, zz, yz, xz, xy.
    """

    origin: str
    group: str
    numbers: np.ndarray
    counted: np.ndarray
    energy: float | None
    predicted_energy: float | None
    forces: np.ndarray | None
    predicted_forces: np.ndarray | None
    stress: np.ndarray | None
    predicted_stress: np.ndarray | None

    @property
    def energy_error(self) -> float | None:
        """Prediction minus label, eV."""
        if self.energy is None or self.predicted_energy is None:
            return None
        return self.predicted_energy - self.energy

    @property
    def energy_error_per_atom(self) -> float | None:
        """Prediction minus label, eV/atom."""
        return None if self.energy_error is None else self.energy_error / len(self.numbers)

    @property
    def has_forces(self) -> bool:
        """Whether there are forces to compare."""
        return self.forces is not None and self.predicted_forces is not None and bool(self.counted.any())

    @property
    def labelled_forces(self) -> np.ndarray:
        """Labels of the counted atoms, (n, 3) eV/Å; empty if there is nothing to compare."""
        return self.forces[self.counted] if self.has_forces and self.forces is not None else np.empty((0, 3))

    @property
    def modelled_forces(self) -> np.ndarray:
        """Predictions for the counted atoms, (n, 3) eV/Å; empty if there is nothing to compare."""
        predicted = self.predicted_forces
        return predicted[self.counted] if self.has_forces and predicted is not None else np.empty((0, 3))

    @property
    def force_errors(self) -> np.ndarray:
        """Predictions minus labels of the counted atoms, (n, 3) eV/Å."""
        return self.modelled_forces - self.labelled_forces

    @property
    def stress_error(self) -> np.ndarray | None:
        """Prediction minus label, (6,) eV/Å³."""
        if self.stress is None or self.predicted_stress is None:
            return None
        return self.predicted_stress - self.stress

    @property
    def is_relaxed(self) -> bool:
        """Whether the labelled forces on counted atoms are all small."""
        return self.has_forces and bool((np.linalg.norm(self.labelled_forces, axis=1) < RELAXED_FMAX).all())


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of structures, as defined above; None where there was nothing to compare.

    Attributes
    ----------
    structures : structures in the set.
    structures_with_energy, relaxed_structures, atoms_with_forces, structures_with_stress : how many were compared.
    energy_mae, energy_mean_error : eV. The mean error has a sign: prediction minus label.
    energy_mae_per_atom : eV/atom.
    energy_within_threshold, average_energy_within_threshold, energy_forces_within_threshold : shares, 0 to 1.
    forces_mae, forcesx_mae, forcesy_mae, forcesz_mae, forces_magnitude_error : eV/Å.
    forces_cosine_similarity : -1 to 1.
    forces_mean_absolute_label : eV/Å, mean size of a labelled component: the MAE of a model that predicts zero.
    stress_mae : eV/Å³, over the six components.
    """

    structures: int
    structures_with_energy: int
    relaxed_structures: int
    atoms_with_forces: int
    structures_with_stress: int
    energy_mae: float | None
    energy_mae_per_atom: float | None
    energy_mean_error: float | None
    energy_within_threshold: float | None
    average_energy_within_threshold: float | None
    energy_forces_within_threshold: float | None
    forces_mae: float | None
    forcesx_mae: float | None
    forcesy_mae: float | None
    forcesz_mae: float | None
    forces_cosine_similarity: float | None
    forces_magnitude_error: float | None
    forces_mean_absolute_label: float | None
    stress_mae: float | None


UNITS = {
    "energy_mae": "eV",
    "energy_mae_per_atom": "eV/atom",
    "energy_mean_error": "eV",
    "forces_mae": "eV/Å",
    "forcesx_mae": "eV/Å",
    "forcesy_mae": "eV/Å",
    "forcesz_mae": "eV/Å",
    "forces_magnitude_error": "eV/Å",
    "forces_mean_absolute_label": "eV/Å",
    "stress_mae": "eV/Å³",
}
"""Units of the metrics that have one."""


def compute_metrics(comparisons: Sequence[Comparison]) -> Metrics:
    """Compute all metrics of a set of structures.

    Parameters
    ----------
    comparisons : sequence of Comparison
        May be empty.
    """
    energy_errors = _energy_errors(comparisons)
    relaxed = [comparison for comparison in comparisons if comparison.is_relaxed]
    relaxed_errors = _energy_errors(relaxed)
    labels = np.concatenate([np.empty((0, 3)), *(comparison.labelled_forces for comparison in comparisons)])
    predictions = np.concatenate([np.empty((0, 3)), *(comparison.modelled_forces for comparison in comparisons)])
    force_errors = np.abs(predictions - labels)
    stress_errors = [error for comparison in comparisons if (error := comparison.stress_error) is not None]
    return Metrics(
        structures=len(comparisons),
        structures_with_energy=len(energy_errors),
        relaxed_structures=len(relaxed_errors),
        atoms_with_forces=len(labels),
        structures_with_stress=len(stress_errors),
        energy_mae=_mean(np.abs(energy_errors)),
        energy_mae_per_atom=_mean(np.abs(_energy_errors_per_atom(comparisons))),
        energy_mean_error=_mean(energy_errors),
        energy_within_threshold=_mean(np.abs(energy_errors) < ENERGY_THRESHOLD),
        average_energy_within_threshold=_mean(np.abs(relaxed_errors)[:, None] < AVERAGED_THRESHOLDS),
        energy_forces_within_threshold=_mean(_within_both_thresholds(comparisons)),
        forces_mae=_mean(force_errors),
        forcesx_mae=_mean(force_errors[:, 0]),
        forcesy_mae=_mean(force_errors[:, 1]),
        forcesz_mae=_mean(force_errors[:, 2]),
        forces_cosine_similarity=_mean(_cosines(predictions, labels)),
        forces_magnitude_error=_mean(np.abs(np.linalg.norm(predictions, axis=1) - np.linalg.norm(labels, axis=1))),
        forces_mean_absolute_label=_mean(np.abs(labels)),
        stress_mae=_mean(np.abs(stress_errors)),
    )


def _energy_errors(comparisons: Sequence[Comparison]) -> np.ndarray:
    return np.array([error for comparison in comparisons if (error := comparison.energy_error) is not None])


def _energy_errors_per_atom(comparisons: Sequence[Comparison]) -> np.ndarray:
    return np.array([error for comparison in comparisons if (error := comparison.energy_error_per_atom) is not None])


def _within_both_thresholds(comparisons: Sequence[Comparison]) -> np.ndarray:
    return np.array(
        [
            abs(error) < ENERGY_THRESHOLD and bool((np.abs(comparison.force_errors) < FORCE_THRESHOLD).all())
            for comparison in comparisons
            if comparison.has_forces and (error := comparison.energy_error) is not None
        ]
    )


def _cosines(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = (_directions(predictions) * _directions(labels)).sum(axis=1)
    return cosines


def _directions(forces: np.ndarray) -> np.ndarray:
    return forces / np.maximum(np.linalg.norm(forces, axis=1, keepdims=True), SMALLEST_NORM)


def _mean(values: np.ndarray | list[np.ndarray]) -> float | None:
    return float(np.mean(values)) if np.size(values) else None
