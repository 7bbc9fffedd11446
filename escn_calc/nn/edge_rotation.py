"""Rotating node features into the frame of each edge and back, degree by degree.

In the frame F of an edge its direction u is the polar axis, F u = +y, and the coefficients of degree l there are
D^l(F) x^(l) (:mod:`escn_calc.nn.rotations`). Only rows |m| <= mmax are computed. One rotation serves all convolutions
of a call.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.errors import InputError
from escn_calc.nn.rotations import carried_frames, edge_frames, wigner_d


@dataclass(frozen=True, eq=False)
class EdgeRotation:
    """The rotations that align every edge with the polar axis.

    Attributes
    ----------
    wigner : D^l(F) for l = 0 ... lmax, (E, 2l+1, 2l+1) each.
    """

    wigner: tuple[Tensor, ...]

    @classmethod
    def of(cls, vectors: Tensor, lmax: int) -> "EdgeRotation":
        """Return the rotations of ``vectors``, differentiable any number of times.

        The roll of the frames about their edges is left out of the derivatives: what is computed between
        :meth:`to_frame` and :meth:`from_frame` must commute with it, as all SO(2) maps do.

        Parameters
        ----------
        vectors : (E, 3), of any length but zero; the filter of the convolution is Y(vectors / |vectors|).
        lmax : highest degree.

        Raises
        ------
        InputError
            A vector has no direction.
        """
        lengths = vectors.norm(dim=-1, keepdim=True)
        nowhere = torch.nonzero(~((lengths > 0) & lengths.isfinite()).squeeze(-1)).flatten()
        if len(nowhere):
            edge = int(nowhere[0])
            raise InputError(
                f"edge {edge} has the vector {vectors[edge].tolist()}, which has no direction; "
                "leave edges of length zero out"
            )
        directions = vectors / lengths
        frames = carried_frames(edge_frames(directions), directions)
        return cls(tuple(wigner_d(frames, lmax)))

    @property
    def lmax(self) -> int:
        """Highest degree."""
        return len(self.wigner) - 1

    @property
    def edges(self) -> int:
        """Number of edges."""
        return len(self.wigner[0])

    def to_frame(self, x: Tensor, mmax: int) -> list[Tensor]:
        """Rotate features into the frames of their edges.

        Parameters
        ----------
        x : (E, (lmax+1)^2, C), one set of l-major coefficients per edge.
        mmax : highest order that is kept.

        Returns
        -------
        list
            For m = 0 ... mmax the coefficients of degrees l = m ... lmax: (E, 1, lmax+1, C) for m = 0, and
            (E, 2, lmax+1-m, C) for m > 0, +m before -m.
        """
        kept = [min(degree, mmax) for degree in range(self.lmax + 1)]
        rotated = [
            d[:, degree - rows : degree + rows + 1] @ x[:, degree**2 : (degree + 1) ** 2]
            for degree, (d, rows) in enumerate(zip(self.wigner, kept, strict=True))
        ]

        def of_order(m: int) -> Tensor:
            return torch.stack([rotated[degree][:, kept[degree] + m] for degree in range(abs(m), self.lmax + 1)], dim=1)

        return [of_order(0)[:, None]] + [torch.stack((of_order(m), of_order(-m)), dim=1) for m in range(1, mmax + 1)]

    def from_frame(self, orders: list[Tensor]) -> Tensor:
        """Rotate features back: the transpose of :meth:`to_frame`, (E, (lmax+1)^2, C)."""
        mmax = len(orders) - 1
        parts = []
        for degree, d in enumerate(self.wigner):
            rows = min(degree, mmax)
            aligned = [orders[abs(m)][:, int(m < 0), degree - abs(m)] for m in range(-rows, rows + 1)]
            back = d[:, degree - rows : degree + rows + 1].transpose(1, 2)
            parts.append(back @ torch.stack(aligned, dim=1))
        return torch.cat(parts, dim=1)
