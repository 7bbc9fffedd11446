"""Draw aligned_frame.png, the picture of docs/so2-convolution.md: ``python docs/images/aligned_frame.py``."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from escn_calc.nn import EdgeRotation, SO2Convolution
from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.layout import node_index
from escn_calc.nn.rotations import edge_frames

LMAX = 3
EDGE = torch.tensor([[0.8, 0.48, -0.36]], dtype=torch.float64)


def shape(directions: torch.Tensor) -> torch.Tensor:
    """A function of directions that is not symmetric about anything: the features of an atom, (P,)."""
    coefficients = torch.randn((LMAX + 1) ** 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return solid_harmonics(directions, LMAX) @ coefficients


def draw_features(axes: Axes, frame: torch.Tensor, title: str) -> None:
    """Draw the features as a coloured sphere with the edge, turned by ``frame``, and the axes x and y, which stay."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, 61), np.linspace(0, 2 * np.pi, 121), indexing="ij")
    points = np.stack((np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)), axis=-1)
    values = shape(torch.from_numpy(points).reshape(-1, 3) @ frame).view(polar.shape).numpy()
    colours = colormaps["RdBu_r"](0.5 + 0.5 * values / abs(values).max())
    axes.plot_surface(*upright(points), facecolors=colours, rstride=1, cstride=1, antialiased=False, shade=False)
    for name, axis in (("x", np.array([1.0, 0, 0])), ("y", np.array([0, 1.0, 0]))):
        axes.plot(*upright(np.outer((1.0, 1.5), axis)), color="grey", lw=1)
        axes.text(*upright(1.45 * axis), f"{name} ", color="grey", ha="right", va="bottom")
    edge = (frame @ EDGE[0]).numpy()
    axes.quiver(*upright(edge), *upright(0.6 * edge), color="black", lw=2.5, arrow_length_ratio=0.35)
    axes.set_title(title, size=10)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=0.85)
    axes.set_axis_off()
    axes.view_init(18, 30)


def upright(points: np.ndarray) -> np.ndarray:
    """Put x, y and z (..., 3) where matplotlib has y, z and x, (3, ...)."""
    return np.moveaxis(points[..., [2, 0, 1]], -1, 0)


def draw_map(axes: Axes, matrix: torch.Tensor, order: list[int], title: str, borders: list[int]) -> None:
    """Draw the sizes of the entries of the map from features to message, rows and columns in ``order``."""
    sizes = matrix[order][:, order].abs().numpy()
    axes.imshow(sizes / sizes.max(), cmap="Greys", vmin=0, vmax=0.6)
    for border in borders:
        axes.axhline(border - 0.5, color="tab:blue", lw=0.8)
        axes.axvline(border - 0.5, color="tab:blue", lw=0.8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, size=10)


def main() -> None:
    """Draw."""
    torch.manual_seed(1)
    (frame,) = edge_frames(EDGE)
    convolution = SO2Convolution(LMAX, LMAX, 1, 1).double().requires_grad_(False)
    units = torch.eye((LMAX + 1) ** 2, dtype=torch.float64)[:, :, None]

    def matrix(edge: torch.Tensor) -> torch.Tensor:
        return convolution.messages(units, EdgeRotation.of(edge.expand(len(units), 3), LMAX))[..., 0].T

    aligned = matrix(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    by_degree = list(range(len(units)))
    by_order = node_index(LMAX, LMAX)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    spaces = [figure.add_subplot(1, 4, place, projection="3d") for place in (1, 3)]
    maps = [figure.add_subplot(1, 4, place) for place in (2, 4)]
    draw_features(spaces[0], torch.eye(3, dtype=torch.float64), "features and edge as they lie")
    draw_map(maps[0], matrix(EDGE), by_degree, "features → message\nby degree l = 0, 1, 2, 3", [1, 4, 9])
    draw_features(spaces[1], frame, "turned together:\nthe edge is the y axis")
    orders = [LMAX + 1 + 2 * sum(LMAX + 1 - other for other in range(1, m)) for m in range(1, LMAX + 1)]
    draw_map(maps[1], aligned, by_order, "features → message\nby order |m| = 0, 1, 2, 3", orders)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
