"""Which tensor product a set of SO(2) maps is, and what it commutes with."""

import torch

from escn_calc.nn import EdgeRotation, SO2Convolution
from escn_calc.nn.rotations import edge_frames, wigner_d

torch.manual_seed(0)
lmax, channels = 2, 4
positions, x = torch.randn(5, 3).double(), torch.randn(5, (lmax + 1) ** 2, channels).double()
edges = torch.nonzero(~torch.eye(5, dtype=torch.bool)).T
vectors = positions[edges[0]] - positions[edges[1]]
rotation = EdgeRotation.of(vectors, lmax)
convolution = SO2Convolution(lmax, mmax=lmax, in_channels=channels, out_channels=channels).double()
convolution.requires_grad_(False)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


weights = convolution.path_weights()
print(f"{len(weights)} paths, h(2, 3, 1) of the first channels {weights[2, 3, 1][0, 0]:.6f}")
print(f"sum of the messages into node 0, l = 1: {convolution(x, edges, rotation)[0, 1:4, 0].numpy().round(6)}")

frame = edge_frames(torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64))
d = torch.block_diag(*[block[0] for block in wigner_d(frame, lmax)])
turned = convolution(d @ x, edges, EdgeRotation.of(vectors @ frame[0].T, lmax))
print(f"rotated: equal to 1e-12 {difference(turned, d @ convolution(x, edges, rotation)) < 1e-12}")

parity, inverse = torch.tensor([1, -1, -1, -1, 1, 1, 1, 1, 1])[:, None], EdgeRotation.of(-vectors, lmax)
for kept, name in ((weights, "all paths"), ({p: h for p, h in weights.items() if sum(p) % 2 == 0}, "even paths")):
    convolution.load_path_weights(kept)
    error = difference(convolution(parity * x, edges, inverse), parity * convolution(x, edges, rotation))
    print(f"inverted, {name}: differs by {error:.6f}")

convolution.load_path_weights({(1, 1, 1): torch.eye(channels)})
print(f"the cross product alone: W_i of m = 1 is {convolution.so2_weights().imaginary[0][0, 0, 0, 0]:.6f}")
