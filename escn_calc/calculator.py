"""The ASE calculator: a thin shell around :class:`escn_calc.potential.Potential`.

It keeps what ASE expects of a calculator (cached results, JSON-able parameters, ASE's own exceptions) and leaves every
number to ``Potential.evaluate``. torch is imported when a model is first needed, not before.
"""

from __future__ import annotations

import threading
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)

from escn_calc.checkpoints import shipped_models
from escn_calc.checkpoints.catalogue import CATALOGUE, find_entry, suggest
from escn_calc.errors import CalculationError, InputError
from escn_calc.options import DEVICES, DTYPE_NAMES, FORCES, FRAMES, MATMULS, check_flag, check_option

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.graph.skin import SkinSearch
    from escn_calc.potential import Potential, Prediction

OPTION_VALUES: dict[str, tuple[str | None, ...]] = {
    "device": DEVICES,
    "dtype": DTYPE_NAMES,
    "matmul": MATMULS,
    "forces": (None, *FORCES),
    "frames": FRAMES,
}
GRADIENT_ONLY = ("stress", "stresses")
LOADING = ("model", *OPTION_VALUES, "checkpoint_layers")
"""Settings that ``load_potential`` takes; the others belong to the calculator."""
UNSAVED = ("_lock", "_potential", "_search")
"""What a pickle or copy does without."""


class StructureError(InputError, CalculatorSetupError):
    """A structure or setting the model cannot use, raised through ASE: our ``InputError`` and ASE's setup error."""


class EvaluationError(CalculationError, CalculationFailed):
    """An evaluation that failed, raised through ASE: our ``CalculationError`` and ASE's ``CalculationFailed``."""


class ESCNCalculator(Calculator):
    """Energies and forces of an eSCN model for ASE.

    The parameters can be written as JSON, so that results can be kept in ``.traj`` and ``.db`` files. The model is
    loaded when it is first needed and again after pickling, copying, or a change of parameters. Every calculator loads
    weights of its own: share one between the images of a chain or the structures of a screening, with
    ``allow_shared_calculator`` where ASE asks for it. One calculator may be used by several threads; their evaluations
    run one after the other.

    Parameters
    ----------
    model : str or Path
        ``"default"`` (the model shipped with the package), the name of a published checkpoint, or the path of a
        FAIR ``.pt`` file or of a folder in the native format. In a string, names come before paths; a ``Path`` is
        never a name. Paths are made absolute, so that they outlive a change of the working directory.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    dtype : str
        ``"float32"`` or ``"float64"``.
    matmul : str
        ``"full"``: products of matrices in ``dtype``. ``"bfloat16"`` or ``"tf32"``: faster and less accurate, see
        :func:`escn_calc.load_potential`.
    forces : str, optional
        ``"direct"``: those of the force head. ``"gradient"``: -dE/dx, for every model; they conserve energy in
        molecular dynamics and bring ``stress`` and ``stresses``. Default: what the model was trained with.
    frames : str
        ``"canonical"``: one definite frame for each edge, on the model's own grid. ``"converged"``: an edge grid
        refined until turning the frames changes the result by less than 5e-8 (relative). Where no grid of reasonable
        size reaches 1e-6, a ``FramesNotConvergedWarning`` says so when the model is loaded.
    skin : float
        Candidates for neighbours are found up to this distance in Å beyond the cutoff, and found again only after the
        atoms have moved so far that one could be missing. Edges and results are the same for every value; with 0 the
        search runs again whenever atoms have moved against each other.
    checkpoint_layers : bool, optional
        Less memory against more time for gradient forces, see :func:`escn_calc.load_potential`.

    Notes
    -----
    ``energy``, ``free_energy`` (equal to ``energy``) and ``energies`` (N,) are in eV, ``forces`` (N, 3) in eV/Å,
    ``stress`` (6,) and ``stresses`` (N, 6) in eV/Å³ in Voigt order xx, yy, zz, yz, xz, xy, positive under tension; the
    last two only with gradient forces and for structures whose cell has a volume. The model decides whether the energy
    is an adsorption energy or a total energy; its card says which: ``calculator.potential.card.energy_kind``. Initial
    charges, magnetic moments, tags, constraints and ``atoms.info`` do not enter and do not invalidate results.

    eSCN is equivariant under rotations, SO(3), and not under reflections, O(3): energies of a structure and of its
    mirror image may differ.

    Raises
    ------
    StructureError
        At evaluation: the model cannot use the structure (an ``InputError`` and ASE's ``CalculatorSetupError``).
    EvaluationError
        At evaluation: the result is not finite or memory ran out (a ``CalculationError`` and ASE's
        ``CalculationFailed``).
    InputError
        At construction: an option has a value it cannot have, or no model has that name or path.
    CheckpointError, DownloadError, InputError
        At the first evaluation: the model cannot be loaded.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012 (the type ASE prescribes)
    default_parameters = {  # noqa: RUF012 (the type ASE prescribes)
        "model": "default",
        "device": "auto",
        "dtype": "float32",
        "matmul": "full",
        "forces": None,
        "frames": "canonical",
        "skin": 0.5,
        "checkpoint_layers": None,
    }
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012 (the type ASE prescribes)
    discard_results_on_any_change = True
    nolabel = True

    def __init__(
        self,
        model: str | Path = "default",
        *,
        device: str = "auto",
        dtype: str = "float32",
        matmul: str = "full",
        forces: str | None = None,
        frames: str = "canonical",
        skin: float = 0.5,
        checkpoint_layers: bool | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._potential: Potential | None = None
        self._search: SkinSearch | None = None
        self._sha256: str | None = None
        super().__init__(
            model=model,
            device=device,
            dtype=dtype,
            matmul=matmul,
            forces=forces,
            frames=frames,
            skin=skin,
            checkpoint_layers=checkpoint_layers,
        )

    @property
    def potential(self) -> Potential:
        """The loaded model; loads it if that has not happened yet."""
        with self._lock:
            if self._potential is None:
                from escn_calc.graph.skin import SkinSearch
                from escn_calc.potential import load_potential

                self._potential = load_potential(**{name: self.parameters[name] for name in LOADING})
                self._search = SkinSearch(self.parameters["skin"])
                self._sha256 = self._potential.card.sha256
                self.implemented_properties = properties_of(self._potential)
            return self._potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate the model and put energy, per-atom energies and forces into ``results``.

        Parameters
        ----------
        atoms : Atoms, optional
            The structure (default: the one of the last call). It is not changed.
        properties : list of str, optional
            Properties that must be available (default: the energy). All that the model has are computed.
        system_changes : list of str
            Part of ASE's interface; every call is a full evaluation.
        """
        with self._lock:
            super().calculate(atoms, properties or ["energy"], system_changes)
            self.results = {}
            if self.atoms is None:
                raise StructureError("the calculator has no structure yet; pass atoms")
            potential = self.potential
            assert self._search is not None
            self._refuse_missing(properties or ["energy"])
            refuse_stress_without_volume(self.atoms, properties or [])
            try:
                (prediction,) = potential.evaluate([self.atoms], self._search)
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
        PropertyNotImplementedError
            ASE's own: the model does not have the property.
        """
        with self._lock:
            if allow_calculation:
                self._refuse_missing([name])
            return super().get_property(name, atoms, allow_calculation)

    def get_hessian(self, atoms: Atoms) -> np.ndarray:
        """Derivative of the forces, symmetrised, as saddle-point searches such as Sella ask for it.

        See :func:`escn_calc.hessian.full_hessian`: exact for gradient forces, by finite differences for direct ones.
        Atoms that ``FixAtoms`` holds do not move, their rows and columns are zero; other constraints are ignored.

        Returns
        -------
        ndarray (3N, 3N)
            Symmetric Hessian in eV/Å².
        """
        from escn_calc.hessian import full_hessian

        return full_hessian(atoms, self)

    def set(self, **settings: str | Path) -> dict[str, Any]:
        """Change settings, named as at construction; results and the loaded model are dropped.

        Returns
        -------
        dict
            The settings that have changed.

        Raises
        ------
        InputError
            No such setting, or a value that it cannot have; nothing is changed then.
        """
        unknown = sorted(settings.keys() - self.default_parameters.keys())
        if unknown:
            known = ", ".join(self.default_parameters)
            raise InputError(f"ESCNCalculator has no setting {', '.join(map(repr, unknown))}; the settings are {known}")
        _check_settings(settings)
        if "model" in settings:
            settings["model"] = _as_text(settings["model"])
        with self._lock:
            changed = super().set(**settings)
            if changed:
                self._potential = None
                self._search = None
                self._sha256 = None
                self.__dict__.pop("implemented_properties", None)
            return changed

    def reset(self) -> None:
        """Forget the last structure, its results and its neighbours; the model stays loaded."""
        with self._lock:
            super().reset()
            if self._search is not None:
                self._search.reset()

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """Return what identifies the calculation, as ASE stores it beside results.

        Parameters
        ----------
        skip_default : bool
            Leave out the settings that have their default value.

        Returns
        -------
        dict
            The settings, the version of the package, and once a model has been loaded the sha256 of its weights.
        """
        from escn_calc import __version__

        record = {**super().todict(skip_default=skip_default), "version": __version__}
        return record if self._sha256 is None else {**record, "sha256": self._sha256}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({settings})"

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the lock and the loaded model, which is loaded again when needed."""
        with self._lock:
            return {key: value for key, value in self.__dict__.items() if key not in UNSAVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied calculator."""
        self.__dict__.update(state, _lock=threading.RLock(), _potential=None, _search=None)

    def _get_name(self) -> str:
        return "escn"

    def _refuse_missing(self, properties: list[str]) -> None:
        if "implemented_properties" not in self.__dict__ and not set(GRADIENT_ONLY).isdisjoint(properties):
            _ = self.potential  # whether it has a stress is known once it is loaded
        missing = [name for name in properties if name not in self.implemented_properties]
        if missing:
            advice = "; stress needs forces='gradient'" if missing[0] in GRADIENT_ONLY else ""
            raise PropertyNotImplementedError(
                f"the model {self.parameters['model']!r} has no {', '.join(missing)}; "
                f"it provides {', '.join(self.implemented_properties)}{advice}"
            )


def refuse_stress_without_volume(atoms: Atoms, properties: list[str]) -> None:
    """Raise ASE's ``PropertyNotImplementedError`` if a stress is asked for that has no meaning."""
    if atoms.cell.rank < 3 and not set(GRADIENT_ONLY).isdisjoint(properties):
        raise PropertyNotImplementedError(
            f"{atoms.get_chemical_formula()} has no stress, because its cell {atoms.cell.lengths().tolist()} Å has no "
            "volume; give it three cell vectors"
        )


def _check_settings(settings: dict[str, Any]) -> None:
    for name in OPTION_VALUES.keys() & settings.keys():
        if settings[name] is not None or None not in OPTION_VALUES[name]:
            check_option(name, settings[name], tuple(filter(None, OPTION_VALUES[name])))
    skin = settings.get("skin", 0.0)
    if isinstance(skin, bool) or not (isinstance(skin, Real) and 0 <= float(skin) < np.inf):
        raise InputError(f"skin is {skin!r}; it must be a distance in Å, zero or more")
    check_flag("checkpoint_layers", settings.get("checkpoint_layers"))


def _as_text(model: object) -> str:
    """Write a model as text: a name as it is, the path of a file or folder as an absolute one.

    The order is that of :func:`escn_calc.checkpoints.load_checkpoint`: in a string, names come before paths.
    """
    if not isinstance(model, str | Path):
        raise InputError(f"model is {model!r}; it must be a name or the path of a model")
    shipped = shipped_models()
    if isinstance(model, str) and (model == "default" or model in shipped or find_entry(model)):
        return model
    path = Path(model).expanduser()
    if model != "" and path.exists():
        return str(path.absolute())
    if isinstance(model, Path) or len(path.parts) > 1:
        raise InputError(f"there is no model file or folder {str(model)!r}")
    raise InputError(f"there is no model {model!r}; {suggest(model, ['default', *shipped, *CATALOGUE])}")


def properties_of(potential: Potential) -> list[str]:
    """Name the properties that a model has, as ASE does."""
    absent: tuple[str, ...] = ()
    if potential.forces != "gradient":
        absent = GRADIENT_ONLY if potential.forces else ("forces", *GRADIENT_ONLY)
    return [name for name in ESCNCalculator.implemented_properties if name not in absent]


def ase_results(prediction: Prediction) -> dict[str, Any]:
    """Name the parts of a prediction as ASE does, in float64; those that are None are left out."""
    energy = float(prediction.energy)
    results = {"energy": energy, "free_energy": energy}
    arrays = {name: getattr(prediction, name) for name in ("energies", "forces", "stress", "stresses")}
    return results | {name: np.array(value, dtype=np.float64) for name, value in arrays.items() if value is not None}
