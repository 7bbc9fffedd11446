"""The ASE calculator whose evaluations wait for those of others."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from escn_calc.calculator import (
    ESCNCalculator,
    EvaluationError,
    StructureError,
    ase_results,
    properties_of,
    refuse_stress_without_volume,
)
from escn_calc.collector.gathering import Collector
from escn_calc.errors import CalculationError, ESCNError, InputError, without_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from escn_calc.potential import Prediction

SETTINGS = ("device", "dtype", "matmul", "forces", "frames")
"""Settings of the potential that its calculators report."""


class SharedPotential:
    """A potential as one of several users sees it: its evaluations are batched with theirs.

    Parameters
    ----------
    collector : Collector
        Gathers the requests.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._member = collector.join()
        self.forces = collector.potential.forces

    def evaluate(self, structures: list[Atoms]) -> list[Prediction]:
        """Evaluate structures together with those of others; see :meth:`escn_calc.potential.Potential.evaluate`."""
        return without_errors(self._collector.evaluate(self._member, structures))

    def retire(self) -> None:
        """Tell the others not to wait for this user any more."""
        self._collector.retire(self._member)

    def hessian(self, atoms: Atoms, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Differentiate the energy twice, alone; see :meth:`escn_calc.potential.Potential.hessian`."""
        with self._collector.device_lock:
            return self._collector.potential.hessian(atoms, indices)


class BatchedCalculator(Calculator):
    """A calculator of :func:`escn_calc.batched`, for one run: an optimiser, dynamics, or an image of a chain.

    Outwards it is an ASE calculator as :class:`escn_calc.ESCNCalculator` is: the same properties, units, errors and
    cached results; ``get_hessian`` and :func:`escn_calc.vibrations.vibrations` work, and share their batches with the
    other runs. After the ``with`` block its results can still be read. A deep copy is a calculator of its own, for
    another run. It cannot be pickled, and its model cannot be changed.

    Parameters
    ----------
    collector : Collector
        Gathers the requests of all runs.

    Attributes
    ----------
    potential : SharedPotential
        The model, shared with the other runs.
    """

    implemented_properties = ESCNCalculator.implemented_properties
    ignored_changes = ESCNCalculator.ignored_changes
    discard_results_on_any_change = True
    nolabel = True

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self._collector = collector
        self._lock = threading.RLock()
        self._card = collector.potential.card
        self.potential = SharedPotential(collector)
        self.parameters.update(model=self._card.name, **{name: getattr(collector.potential, name) for name in SETTINGS})
        self.implemented_properties = properties_of(collector.potential)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Wait for the other runs, evaluate all together, and put everything the model has into ``results``.

        Parameters
        ----------
        atoms : Atoms, optional
            The structure (default: the one of the last call). It is not changed.
        properties : list of str, optional
            Properties that must be available (default: the energy).
        system_changes : list of str
            Part of ASE's interface; every call is a full evaluation.

        Raises
        ------
        StructureError, EvaluationError, PropertyNotImplementedError
            As :class:`escn_calc.ESCNCalculator`, for this structure alone.
        """
        with self._lock:
            super().calculate(atoms, properties or ["energy"], system_changes)
            self.results = {}
            if self.atoms is None:
                raise StructureError("the calculator has no structure yet; pass atoms")
            refuse_stress_without_volume(self.atoms, properties or [])
            try:
                (prediction,) = self.potential.evaluate([self.atoms])
            except InputError as error:
                raise StructureError(str(error)) from error
            except CalculationError as error:
                raise EvaluationError(str(error)) from error
            self.results = ase_results(prediction)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return one property, from the last evaluation if the structure has not changed since.

        Parameters
        ----------
        name : str
            One of ``implemented_properties``.
        atoms : Atoms, optional
            The structure (default: the one of the last call).
        allow_calculation : bool
            If false, return None instead of evaluating the model.

        Raises
        ------
        StructureError, EvaluationError, PropertyNotImplementedError
            As :meth:`calculate`.
        """
        with self._lock:
            try:
                return super().get_property(name, atoms, allow_calculation)
            except (ESCNError, PropertyNotImplementedError) as error:
                self._collector.remember(error)
                raise

    def get_hessian(self, atoms: Atoms) -> np.ndarray:
        """Derivative of the forces, (3N, 3N) in eV/Å²; see :meth:`escn_calc.ESCNCalculator.get_hessian`."""
        from escn_calc.hessian import full_hessian

        return full_hessian(atoms, self)

    def set(self, **settings: object) -> dict[str, Any]:
        """Refuse settings: the model belongs to all runs.

        Raises
        ------
        InputError
            There is a setting.
        """
        if settings:
            raise InputError(
                f"{', '.join(settings)} cannot be set: batched calculators share one model; load another with "
                "load_potential and give it to batched()"
            )
        return {}

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """Return what identifies the calculation: the settings, the version of the package, the sha256 of the model."""
        from escn_calc import __version__

        return {**self.parameters, "version": __version__, "sha256": self._card.sha256}

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchedCalculator:
        """Return a calculator for another run, which knows the results of this one."""
        other = BatchedCalculator(self._collector)
        with self._lock:
            other.atoms = copy.deepcopy(self.atoms, memo)
            other.results = copy.deepcopy(self.results, memo)
        return other

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: what it waits for is in this process."""
        raise InputError(
            "a batched calculator belongs to the threads of one process and cannot be pickled; "
            "give another process an ESCNCalculator"
        )

    def _get_name(self) -> str:
        return "escn"
