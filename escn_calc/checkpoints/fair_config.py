"""From the configuration inside a FAIR checkpoint to an :class:`ESCNConfig`, for all three file layouts.

=============================  =================================================  ======================
layout                         where the network is described                     weight keys
=============================  =================================================  ======================
trainer of 2020-2023           ``model`` (str) and ``model_attributes``           as in the class
flat, 2024 on                  ``model`` (dict with ``name``)                     as in the class
hydra, 2024 on                 ``model.backbone`` and ``model.heads``             ``backbone.*``,
                                                                                  ``output_heads.<name>.*``
=============================  =================================================  ======================

An option that is not listed here is an error: a network that silently lacks a feature it was trained with
returns wrong numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from escn_calc.errors import CheckpointError
from escn_calc.nn.config import ESCNConfig

FLAT_NAMES = ("escn", "escnbackbone", "escn_backbone")
EXPORT_NAMES = ("escn_export", "escn_exportable")
ENERGY_HEADS = ("escn_energy_head",)
FORCE_HEADS = ("escn_force_head",)

INTEGERS = (
    "num_layers",
    "sphere_channels",
    "hidden_channels",
    "edge_channels",
    "max_neighbors",
    "max_num_elements",
    "num_sphere_samples",
)
NUMBERS = ("cutoff", "basis_width_scalar", "distance_resolution")

IRRELEVANT = frozenset(
    {
        "name",
        "model",
        "num_atoms",
        "bond_feat_dim",
        "num_targets",
        "otf_graph",
        "use_pbc_single",
        "show_timing_info",
        "activation_checkpoint",
        "compile",
        "export",
    }
)
"""Options without influence on the numbers: the graph is always built here, from the structure's own pbc."""

REQUIRED_VALUES = {
    "use_pbc": (True, "the model was trained without periodic images"),
    "rescale_grid": (False, "the model was trained with rescaled grid matrices"),
    "enforce_max_neighbors_strictly": (True, "the model was trained with whole shells of neighbours"),
    "direct_forces": (True, "the model's forces are gradients of its energy"),
}
"""Options that would change the numbers: the one value this package reproduces, and why another is refused."""

EXPORT_DEFAULTS = {"max_neighbors": 300, "max_num_elements": 100, "lmax": 4, "mmax": 2}


@dataclass(frozen=True)
class ModelDescription:
    """The network a FAIR file describes.

    Attributes
    ----------
    config : its hyperparameters.
    prefixes : (found, wanted) beginnings of weight keys; a key that begins with none of the found ones is foreign.
    """

    config: ESCNConfig
    prefixes: tuple[tuple[str, str], ...]


def describe_model(config: Mapping[str, object]) -> ModelDescription:
    """Read the network's hyperparameters from the ``config`` entry of a FAIR checkpoint.

    Raises
    ------
    CheckpointError
        If the model is not an eSCN, an option is unknown, has the wrong type, or changes the mathematics.
    """
    model = config.get("model")
    if isinstance(model, str):
        options = config.get("model_attributes")
        return _describe_flat(model, _as_mapping(options, "config['model_attributes']"))
    model = _as_mapping(model, "config['model']")
    if "backbone" in model or "heads" in model:
        return _describe_hydra(model)
    return _describe_flat(str(model.get("name")), model)


def _describe_flat(name: str, options: Mapping[str, object]) -> ModelDescription:
    return ModelDescription(_parse_options(name, options), (("", ""),))


def _describe_hydra(model: Mapping[str, object]) -> ModelDescription:
    backbone = _as_mapping(model.get("backbone"), "config['model']['backbone']")
    heads = _as_mapping(model.get("heads"), "config['model']['heads']")
    prefixes = [("backbone.", "")]
    reduce, has_forces, has_energy = "sum", False, False
    for head_name, options in heads.items():
        head = _as_mapping(options, f"head {head_name!r}")
        kind = _class_name(str(head.get("module")))
        if foreign := sorted(set(head) - {"module", "reduce"}):
            raise CheckpointError(f"head {head_name!r} has the unknown option {foreign[0]}")
        prefix = f"output_heads.{head_name}."
        if kind in ENERGY_HEADS and not has_energy:
            has_energy, reduce = True, str(head.get("reduce", "sum"))
            prefixes.append((prefix + "energy_block.", "energy_block."))
        elif kind in FORCE_HEADS and not has_forces:
            has_forces = True
            prefixes.append((prefix + "force_block.", "force_block."))
        else:
            raise CheckpointError(
                f"head {head_name!r} is {head.get('module')!r}; known are one energy and one force head of eSCN"
            )
    if not has_energy:
        raise CheckpointError(f"the hydra model has no energy head, its heads are {sorted(heads)}")
    options = {**backbone, "regress_forces": has_forces}
    config = _parse_options(str(backbone.get("model")), options, energy_reduce=reduce)
    return ModelDescription(config, tuple(prefixes))


def _parse_options(name: str, options: Mapping[str, object], energy_reduce: str = "sum") -> ESCNConfig:
    kind = _class_name(name)
    if kind in EXPORT_NAMES:
        options = _from_export(options)
    elif kind not in FLAT_NAMES:
        raise CheckpointError(
            f"the file holds a model of type {name!r}, which is not eSCN; only eSCN can be evaluated here"
        )
    values: dict[str, object] = {"energy_reduce": energy_reduce}
    for key, value in options.items():
        if key in REQUIRED_VALUES:
            _require_value(key, value)
        elif key not in IRRELEVANT:
            values[key] = _checked(key, value)
    return ESCNConfig(**values)  # type: ignore[arg-type]


def _from_export(options: Mapping[str, object]) -> dict[str, object]:
    """Translate the scalar options of the exportable variant, which always predicts forces."""
    merged = {**EXPORT_DEFAULTS, **options, "regress_forces": True}
    lmax, mmax = merged.pop("lmax"), merged.pop("mmax")
    return {**merged, "lmax_list": [lmax], "mmax_list": [mmax]}


def _require_value(key: str, value: object) -> None:
    wanted, reason = REQUIRED_VALUES[key]
    if value is not None and value is not wanted:
        raise CheckpointError(f"option {key} is {value!r}: {reason}, which this package does not reproduce")


def _checked(key: str, value: object) -> object:
    """Return ``value`` if its type is what the option needs."""
    match value:
        case bool():
            valid = key == "regress_forces"
        case int():
            valid = key in INTEGERS or key in NUMBERS or key == "resolution"
        case float():
            valid = key in NUMBERS
        case str():
            valid = key == "distance_function"
        case list() | tuple():
            valid = key in ("lmax_list", "mmax_list") and all(type(item) is int for item in value)
        case _:
            valid = value is None and key == "resolution"
    if valid:
        return value
    known = (*INTEGERS, *NUMBERS, "regress_forces", "resolution", "distance_function", "lmax_list", "mmax_list")
    if key in known:
        raise CheckpointError(
            f"option {key} has the value {value!r} of type {type(value).__name__}, which it cannot have"
        )
    raise CheckpointError(
        f"option {key} (value {value!r}) is not known to eSCN; the network may compute something else"
    )


def _class_name(name: str) -> str:
    """Reduce a registered name or an import path to a bare lower-case name."""
    return name.rsplit(".", 1)[-1].lower()


def _as_mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise CheckpointError(
            f"{where} is {type(value).__name__}, expected a mapping: not the layout of a FAIR checkpoint"
        )
    return value
