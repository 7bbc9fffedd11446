"""Moving coefficients between nodes and edge frames: gather and rotate; rotate back and sum."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.incidence import Incidence
from escn_calc.nn.layout import EdgeLayout, kept_coefficients
from escn_calc.nn.rotations import kept_wigner, wigner_d


@dataclass(frozen=True, eq=False)
class Edges:
    """Everything the layers need to know about the edges of one call.

    Attributes
    ----------
    source, target : the two ends.
    wigner : per resolution (E, M_i, K_i), rows m-major, |m| <= mmax.
    """

    source: Incidence
    target: Incidence
    layout: EdgeLayout
    wigner: list[Tensor]
    channels: int

    @classmethod
    def of(
        cls, config: ESCNConfig, layout: EdgeLayout, num_nodes: int, source: Tensor, target: Tensor, frames: Tensor
    ) -> "Edges":
        """Compute the Wigner matrices of ``frames`` (E, 3, 3) and lay the edges out for the layers."""
        matrices = wigner_d(frames, max(config.lmax_list))
        wigner = [
            kept_wigner(matrices[: lmax + 1], kept_coefficients(lmax, mmax))
            for lmax, mmax in zip(config.lmax_list, config.mmax_list, strict=True)
        ]
        ends = Incidence(source, num_nodes), Incidence(target, num_nodes)
        return cls(*ends, layout, wigner, config.sphere_channels)

    def part(self, which: slice) -> "Edges":
        """Return some of the edges, between the same nodes."""
        source, target = (Incidence(end.nodes[which], end.num_nodes) for end in (self.source, self.target))
        return Edges(source, target, self.layout, [rows[which] for rows in self.wigner], self.channels)

    def to_frame(self, x: Tensor, end: Incidence) -> Tensor:
        """Rotate node features into the edge frames.

        Parameters
        ----------
        x : (N, K, C_all) l-major; resolution i owns channels i C ... (i+1) C.
        end : the end of the edges whose node is taken, ``source`` or ``target``.

        Returns
        -------
        (E, M, C) joint m-major order.
        """
        parts = []
        for rows, features in zip(self.wigner, x.split(self.channels, dim=-1), strict=True):
            parts.append(rows @ end.take(features[:, : rows.shape[-1]]))
        joint = torch.cat(parts, dim=1)
        return joint if self.layout.order is None else joint[:, self.layout.order]

    def by_resolution(self, z: Tensor) -> tuple[Tensor, ...]:
        """Split joint m-major edge features into (E, M_i, C) per resolution."""
        ordered = z if self.layout.inverse is None else z[:, self.layout.inverse]
        return ordered.split(self.layout.resolution_sizes, dim=1)

    def to_nodes(self, parts: list[Tensor]) -> Tensor:
        """Rotate edge features back and sum them over the edges into each node.

        Parameters
        ----------
        parts : per resolution (E, M_i, C).

        Returns
        -------
        (N, K, C_all) l-major, zero where a resolution has no coefficient.
        """
        sums = []
        for rows, part in zip(self.wigner, parts, strict=True):
            sums.append(self.target.sum((rows.transpose(1, 2) @ part).to(rows.dtype)))
        size = max(total.shape[1] for total in sums)
        return torch.cat([F.pad(total, (0, 0, 0, size - total.shape[1])) for total in sums], dim=-1)
