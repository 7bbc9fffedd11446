"""A model in memory, and the strict check that its weights fit the network its configuration describes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from escn_calc.checkpoints.card import ModelCard, Normalizers
from escn_calc.errors import CheckpointError
from escn_calc.nn.config import ESCNConfig

Shape = tuple[int, ...]
NUM_ELEMENT_REFERENCES = 119
NAMES_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything needed to build a network and give its outputs a meaning.

    Attributes
    ----------
    config : hyperparameters.
    state : weights by FAIR's flat key, on the CPU, in the dtype they were stored in. Derived tensors
        (:func:`derived_shapes`) are present only if the file had them.
    normalizers : constants of the linear map from network units to eV and eV/Å.
    element_references : (119,) float64 eV, indexed by atomic number and added per atom; None if there are none.
    card : provenance.
    """

    config: ESCNConfig
    state: dict[str, Tensor]
    normalizers: Normalizers
    element_references: Tensor | None
    card: ModelCard

    def __post_init__(self) -> None:
        validate_state(self.state, self.config)
        if self.card.forces == "direct" and not self.config.regress_forces:
            raise CheckpointError("the card speaks of direct forces, but the configuration has no force head")
        if self.element_references is None:
            return
        if tuple(self.element_references.shape) != (NUM_ELEMENT_REFERENCES,):
            raise CheckpointError(
                f"element references have shape {tuple(self.element_references.shape)}, "
                f"expected ({NUM_ELEMENT_REFERENCES},): one energy per atomic number"
            )
        _require_finite("element references", self.element_references)


def plain_config(config: ESCNConfig) -> dict[str, bool | int | float | str | list[int] | None]:
    """Return the hyperparameters as JSON can hold them, for a card."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def expected_shapes(config: ESCNConfig) -> dict[str, Shape]:
    """Name and shape of every tensor that carries what the network has learned."""
    shapes: dict[str, Shape] = {"sphere_embedding.weight": (config.max_num_elements, config.all_channels)}
    if config.distance_function == "silu":
        shapes |= _linear("distance_expansion.fc1", config.num_distances, 2)
    for layer in range(config.num_layers):
        shapes |= _layer_shapes(f"layer_blocks.{layer}", config)
    shapes |= _head_shapes("energy_block", config)
    if config.regress_forces:
        shapes |= _head_shapes("force_block", config)
    return shapes


def derived_shapes(config: ESCNConfig) -> dict[str, Shape]:
    """Name and shape of the tensors that follow from the configuration: a file may hold them or not.

    Where a file has them its float32 values are used, because the published weights were trained with them. The output
    points of resolved grids are not among them: they are always computed.
    """
    shapes: dict[str, Shape] = {}
    if not config.resolved:
        points = config.num_sphere_samples
        shapes["sphere_points"] = (points, 3)
        for resolution, lmax in enumerate(config.lmax_list):
            shapes[f"sphharm_weights.{resolution}"] = (points, (lmax + 1) ** 2)
    if config.distance_function != "silu":
        shapes["distance_expansion.offset"] = (config.num_distances,)
    return shapes


def validate_state(state: Mapping[str, Tensor], config: ESCNConfig) -> None:
    """Check that ``state`` is exactly what ``config`` asks for.

    Raises
    ------
    CheckpointError
        Naming the missing and unexpected keys, or the key with its expected and found shape, its dtype if that
        is not a floating-point type, or the number of values that are not finite.
    """
    required, derived = expected_shapes(config), derived_shapes(config)
    missing = [key for key in required if key not in state]
    unexpected = [key for key in state if key not in required and key not in derived]
    if missing or unexpected:
        raise CheckpointError(
            f"weights do not fit the configuration: missing {_listed(missing)}; unexpected {_listed(unexpected)}"
        )
    for key, tensor in state.items():
        expected = required.get(key) or derived[key]
        if tuple(tensor.shape) != expected:
            raise CheckpointError(f"{key} has shape {tuple(tensor.shape)}, the configuration asks for {expected}")
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(f"{key} has dtype {tensor.dtype}, expected a floating-point type")
        _require_finite(key, tensor)


def _layer_shapes(prefix: str, config: ESCNConfig) -> dict[str, Shape]:
    edge, channels = config.edge_channels, config.all_channels
    edge_block = f"{prefix}.message_block.edge_block"
    shapes = {
        **_linear(f"{edge_block}.fc1_dist", edge, config.num_distances),
        f"{edge_block}.source_embedding.weight": (config.max_num_elements, edge),
        f"{edge_block}.target_embedding.weight": (config.max_num_elements, edge),
        **_linear(f"{edge_block}.fc1_edge_attr", edge, edge),
        f"{prefix}.fc1_sphere.weight": (channels, 2 * channels),
        f"{prefix}.fc2_sphere.weight": (channels, channels),
        f"{prefix}.fc3_sphere.weight": (channels, channels),
    }
    for side in ("source", "target"):
        shapes |= _so2_shapes(f"{prefix}.message_block.so2_block_{side}", config)
    return shapes


def _so2_shapes(prefix: str, config: ESCNConfig) -> dict[str, Shape]:
    hidden = config.hidden_channels
    shapes: dict[str, Shape] = {}
    for m, width in _order_widths(config):
        if m == 0:
            shapes |= _linear(f"{prefix}.fc1_dist0", hidden, config.edge_channels)
            shapes |= {f"{prefix}.fc1_m0.weight": (hidden, width), f"{prefix}.fc2_m0.weight": (width, hidden)}
            continue
        block = f"{prefix}.so2_conv.{m - 1}"
        shapes |= _linear(f"{block}.fc1_dist", 2 * hidden, config.edge_channels)
        for part in ("r", "i"):
            shapes |= {f"{block}.fc1_{part}.weight": (hidden, width), f"{block}.fc2_{part}.weight": (width, hidden)}
    return shapes


def _order_widths(config: ESCNConfig) -> Iterator[tuple[int, int]]:
    """Yield each order m with the number of its coefficients, all degrees and resolutions, times channels."""
    resolutions = list(zip(config.lmax_list, config.mmax_list, strict=True))
    for m in range(max(config.mmax_list) + 1):
        degrees = sum(lmax - m + 1 for lmax, mmax in resolutions if mmax >= m)
        yield m, degrees * config.sphere_channels


def _head_shapes(prefix: str, config: ESCNConfig) -> dict[str, Shape]:
    channels = config.all_channels
    return {
        **_linear(f"{prefix}.fc1", channels, channels),
        **_linear(f"{prefix}.fc2", channels, channels),
        f"{prefix}.fc3.weight": (1, channels),
    }


def _linear(prefix: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{prefix}.weight": (rows, columns), f"{prefix}.bias": (rows,)}


def _listed(keys: list[str]) -> str:
    if not keys:
        return "none"
    more = f" and {len(keys) - NAMES_SHOWN} more" if len(keys) > NAMES_SHOWN else ""
    return ", ".join(sorted(keys)[:NAMES_SHOWN]) + more


def _require_finite(key: str, tensor: Tensor) -> None:
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise CheckpointError(
            f"{key} holds {bad} values that are NaN or infinite: the file is damaged or training diverged"
        )
