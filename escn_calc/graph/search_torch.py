"""Neighbour search in plain torch operations: all structures of a batch at once, on any device.

1. Every atom is repeated in the ⌈radius / plane spacing⌉ cells to each side along periodic directions; images further
   than the radius from the box around the structure's atoms are dropped.
2. The images are sorted into cubic bins at least as wide as the radius. The third bin index runs fastest, so the 27
   bins around a centre are 9 contiguous ranges of the sorted images.
3. Each centre is compared with the images of its 9 ranges, a bounded number of comparisons at a time.
"""

import torch
from torch import Tensor

from escn_calc.graph.pairs import Pairs, WrappedPositions, boxes, row_times_matrix
from escn_calc.structures import StructureBatch

#: Comparisons of a centre with an image done at a time.
_CHUNK = 4_000_000
#: Bins along one direction at most, so that bin numbers of large batches fit in 64 bits.
_MOST_BINS = 2**16


def search_torch(batch: StructureBatch, wrapped: WrappedPositions, radius: float, centres: Tensor) -> Pairs:
    """Find all pairs within a radius around chosen atoms; same arguments and result as :func:`search.search_vesin`."""
    wanted = centres.nonzero().squeeze(1)
    if len(wanted) == 0:
        return Pairs(wanted, wanted, wanted.new_zeros(0, 3))
    structure = batch.structure_of_atom
    low, high = boxes(batch, wrapped.positions)
    atom, offsets, images = _images(batch, wrapped.positions, radius, low - radius, high + radius)

    width = torch.clamp((high - low).amax(1) / _MOST_BINS, min=radius)
    origin = low - 2 * width[:, None]
    num_bins = ((high - low) / width[:, None]).floor().to(torch.int64) + 5
    first_bin = num_bins.prod(1).cumsum(0) - num_bins.prod(1)

    def bin_index(positions: Tensor, of: Tensor) -> Tensor:
        return ((positions - origin[of]) / width[of, None]).floor().to(torch.int64)

    def bin_number(index: Tensor, of: Tensor) -> Tensor:
        x, y, z = index.unbind(-1)
        _, ny, nz = num_bins[of].unbind(-1)
        return first_bin[of] + (x * ny + y) * nz + z

    image_bins, order = torch.sort(bin_number(bin_index(images, structure[atom]), structure[atom]))
    atom, offsets, images = atom[order], offsets[order], images[order]

    columns = torch.cartesian_prod(*[torch.arange(-1, 2, device=wanted.device)] * 2)
    columns = torch.cat([columns, columns.new_zeros(9, 1)], 1)
    of = structure[wanted, None].expand(-1, 9)
    middle = bin_number(bin_index(wrapped.positions[wanted], structure[wanted])[:, None] + columns, of)
    first = torch.searchsorted(image_bins, middle - 1)
    count = torch.searchsorted(image_bins, middle + 1, right=True) - first

    found_target, found_image = [], []
    for some in _chunks(count.sum(1)):
        centre, image = _comparisons(wanted[some], first[some], count[some])
        near = (images[image] - wrapped.positions[centre]).square().sum(1) <= radius**2
        itself = (atom[image] == centre) & ~offsets[image].any(1)
        keep = near & ~itself
        found_target.append(centre[keep])
        found_image.append(image[keep])
    image = torch.cat(found_image)
    return Pairs(atom[image], torch.cat(found_target), offsets[image])


def _images(
    batch: StructureBatch, positions: Tensor, radius: float, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Periodic images between two corners: their atom (G,), their cell (G, 3) int64, their positions (G, 3)."""
    structure = batch.structure_of_atom
    plane_spacings = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(batch.cells), dim=1)
    repeats = torch.where(batch.pbc, (radius / plane_spacings + 1e-6).ceil().to(torch.int64), 0)
    cells_per_direction = 2 * repeats + 1

    counts = cells_per_direction.prod(1)[structure]
    atom = torch.repeat_interleave(torch.arange(len(structure), device=structure.device), counts)
    number = torch.arange(len(atom), device=structure.device) - (counts.cumsum(0) - counts)[atom]
    of = structure[atom]
    _, n1, n2 = cells_per_direction[of].unbind(1)
    offsets = torch.stack([number // (n1 * n2), number // n2 % n1, number % n2], 1) - repeats[of]
    images = positions[atom] + row_times_matrix(offsets.to(positions.dtype), batch.cells[of])

    inside = ((images >= low[of]) & (images <= high[of])).all(1)
    return atom[inside], offsets[inside], images[inside]


def _chunks(counts: Tensor) -> list[Tensor]:
    """Split centres into index tensors with about ``_CHUNK`` comparisons each."""
    chunk = counts.cumsum(0) // _CHUNK
    _, sizes = torch.unique_consecutive(chunk, return_counts=True)
    return list(torch.arange(len(counts), device=counts.device).split(sizes.tolist()))


def _comparisons(centres: Tensor, first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Write out ranges of images (C, 9) as pairs (centre, image), each (P,)."""
    first, count = first.flatten(), count.flatten()
    range_of = torch.repeat_interleave(torch.arange(len(first), device=first.device), count)
    place = torch.arange(len(range_of), device=first.device) - (count.cumsum(0) - count)[range_of]
    return centres.repeat_interleave(9)[range_of], first[range_of] + place
