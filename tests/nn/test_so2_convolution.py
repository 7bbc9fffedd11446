"""The theorem, an equivariant convolution is a set of SO(2) maps in the frame of the edge, and what follows from it."""

import pytest
import torch
from torch.autograd import gradcheck

from escn_calc.errors import InputError
from escn_calc.nn import EdgeRotation, SO2Convolution, so2_convolution, so2_weights
from escn_calc.nn import path_weights as paths_of
from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.rotations import SINGULAR_DIRECTION, edge_frames, rolled, wigner_d
from tests.nn.tensor_products import all_paths, tensor_product
from tests.tolerances import TENSOR_PRODUCT

CHANNELS = (3, 2)
NODES = 5


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_paths(lmax, channels=CHANNELS, seed=0, filter_lmax=None):
    paths = all_paths(lmax, filter_lmax)
    values = randn(len(paths), channels[1], channels[0], seed=seed)
    return dict(zip(paths, values, strict=True))


def make(lmax, mmax, paths, **options):
    convolution = SO2Convolution(lmax, mmax, *CHANNELS, **options).double().requires_grad_(False)
    convolution.load_path_weights(paths)
    return convolution


def graph(lmax, seed=1):
    """Features of a few nodes, all directed pairs, and the vectors from targets to sources."""
    x = randn(NODES, (lmax + 1) ** 2, CHANNELS[0], seed=seed)
    positions = randn(NODES, 3, seed=seed + 100)
    source, target = torch.nonzero(~torch.eye(NODES, dtype=torch.bool)).T
    return x, torch.stack((source, target)), positions[source] - positions[target]


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def explicit(x, edge_index, vectors, paths, lmax):
    """The tensor product of every edge, summed onto the targets."""
    source, target = edge_index
    messages = tensor_product(x[source], unit(vectors), paths, lmax)
    return messages.new_zeros(len(x), *messages.shape[1:]).index_add_(0, target, messages)


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def parity(x):
    """(-1)^l of every coefficient."""
    degrees = torch.arange(x.shape[1]).sqrt().floor().long()
    return (1 - 2 * (degrees % 2))[None, :, None] * x


# The theorem


@pytest.mark.parametrize("lmax", range(7))
def test_so2_maps_are_the_tensor_product(lmax):
    paths = random_paths(lmax)
    x, edge_index, vectors = graph(lmax)
    ours = make(lmax, lmax, paths)(x, edge_index, EdgeRotation.of(vectors, lmax))
    assert relative(ours, explicit(x, edge_index, vectors, paths, lmax)) < TENSOR_PRODUCT


@pytest.mark.parametrize(("lmax", "mmax"), [(3, 3), (6, 6), (6, 2), (4, 0)])
def test_any_so2_maps_are_a_tensor_product(lmax, mmax):
    """The converse, and truncation: the weights the convolution was made with, read back as paths."""
    torch.manual_seed(0)
    convolution = SO2Convolution(lmax, mmax, *CHANNELS).double().requires_grad_(False)
    x, edge_index, vectors = graph(lmax)
    ours = convolution(x, edge_index, EdgeRotation.of(vectors, lmax))
    assert relative(ours, explicit(x, edge_index, vectors, convolution.path_weights(), lmax)) < TENSOR_PRODUCT


@pytest.mark.parametrize("mmax", [0, 1, 2, 5])
def test_truncation_is_the_tensor_product_with_projected_path_weights(mmax):
    lmax = 5
    paths = random_paths(lmax)
    x, edge_index, vectors = graph(lmax)
    rotation = EdgeRotation.of(vectors, lmax)
    truncated = make(lmax, mmax, paths)(x, edge_index, rotation)
    projected = paths_of(so2_weights(paths, lmax, mmax))
    assert relative(truncated, explicit(x, edge_index, vectors, projected, lmax)) < TENSOR_PRODUCT
    assert relative(truncated, make(lmax, lmax, projected)(x, edge_index, rotation)) < TENSOR_PRODUCT
    whole = explicit(x, edge_index, vectors, paths, lmax)
    assert (relative(truncated, whole) < TENSOR_PRODUCT) == (mmax == lmax)


def test_filters_of_low_degree_only():
    """The form most networks write down: l_f <= lmax."""
    lmax = 4
    paths = random_paths(lmax, filter_lmax=lmax)
    x, edge_index, vectors = graph(lmax)
    ours = make(lmax, lmax, paths)(x, edge_index, EdgeRotation.of(vectors, lmax))
    assert relative(ours, explicit(x, edge_index, vectors, paths, lmax)) < TENSOR_PRODUCT


def test_the_path_1_1_1_is_the_cross_product_with_the_edge():
    x, edge_index, vectors = graph(1)
    convolution = make(1, 1, {(1, 1, 1): torch.eye(2, 3, dtype=torch.float64)})
    ours = convolution.messages(x[edge_index[0]], EdgeRotation.of(vectors, 1))
    features = x[edge_index[0]][:, 1:, :2]
    cross = torch.linalg.cross(unit(vectors)[:, :, None].expand_as(features), features, dim=1)
    scale = (3 / (8 * torch.pi)) ** 0.5
    assert relative(ours[:, 1:], scale * cross) < TENSOR_PRODUCT
    assert ours[:, 0].abs().max() == 0


# e3nn, an implementation by others


def in_our_phases(path):
    """The weight of e3nn over ours: its 3j symbols have norm 1, and its real basis other phases."""
    l_in, l_filter, l_out = path
    return (-1) ** ((l_in + l_filter - l_out + 1) // 2) * (2 * l_out + 1) ** 0.5


@pytest.mark.parametrize(("lmax", "filter_lmax"), [(2, 4), (6, 11)])
def test_so2_maps_are_the_tensor_product_of_e3nn(lmax, filter_lmax):
    o3 = pytest.importorskip("e3nn.o3")
    paths = random_paths(lmax, filter_lmax=filter_lmax)
    x, edge_index, vectors = graph(lmax)
    features, directions = x[edge_index[0]], unit(vectors)
    theirs = torch.zeros(len(features), (lmax + 1) ** 2, CHANNELS[1], dtype=torch.float64)
    for path, weight in paths.items():
        l_in, l_filter, l_out = path
        coupling = o3.wigner_3j(*path, dtype=torch.float64)
        harmonics = o3.spherical_harmonics(l_filter, directions, normalize=False, normalization="integral")
        block = features[:, l_in**2 : (l_in + 1) ** 2]
        product = torch.einsum("abn,eac,eb->enc", coupling, block, harmonics) @ weight.T
        theirs[:, l_out**2 : (l_out + 1) ** 2] += in_our_phases(path) * product
    ours = make(lmax, lmax, paths).messages(features, EdgeRotation.of(vectors, lmax))
    assert relative(ours, theirs) < TENSOR_PRODUCT


@pytest.fixture
def float64_by_default():
    """The module of e3nn makes its constants in this type, whatever it is converted to later."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64_by_default")
def test_so2_maps_are_the_layer_of_e3nn():
    """Its ``TensorProduct`` module, weights and all."""
    o3 = pytest.importorskip("e3nn.o3")
    lmax = 2
    paths = random_paths(lmax)
    x, edge_index, vectors = graph(lmax)
    features = x[edge_index[0]]
    layer = o3.TensorProduct(
        o3.Irreps([(CHANNELS[0], (degree, 1)) for degree in range(lmax + 1)]),
        o3.Irreps([(1, (degree, 1)) for degree in range(2 * lmax + 1)]),
        o3.Irreps([(CHANNELS[1], (degree, 1)) for degree in range(lmax + 1)]),
        [(*path, "uvw", True) for path in paths],
        irrep_normalization="none",
        path_normalization="none",
    ).double()
    harmonics = o3.spherical_harmonics(list(range(2 * lmax + 1)), vectors, normalize=True, normalization="integral")
    weights = torch.cat([(in_our_phases(path) * weight).T.flatten() for path, weight in paths.items()])
    blocks = [features[:, degree**2 : (degree + 1) ** 2].transpose(1, 2).flatten(1) for degree in range(lmax + 1)]
    out = layer(torch.cat(blocks, dim=1), harmonics, weights)
    sizes = [CHANNELS[1] * (2 * degree + 1) for degree in range(lmax + 1)]
    parts = [part.unflatten(1, (CHANNELS[1], -1)).transpose(1, 2) for part in out.split(sizes, dim=1)]
    ours = make(lmax, lmax, paths).messages(features, EdgeRotation.of(vectors, lmax))
    assert relative(ours, torch.cat(parts, dim=1)) < TENSOR_PRODUCT


# Would these tests see a fault?


def sign_error(real, imaginary):
    return real[:, 0] + imaginary[:, 1], real[:, 1] + imaginary[:, 0]


def conjugated(real, imaginary):
    return real[:, 0] + imaginary[:, 1], real[:, 1] - imaginary[:, 0]


def broken(monkeypatch, fault):
    """Plant a fault: in the complex product, or the order of +m and -m on the way into the frame."""
    if fault == "swapped order":
        to_frame = EdgeRotation.to_frame
        monkeypatch.setattr(
            EdgeRotation, "to_frame", lambda self, x, mmax: [order.flip(1) for order in to_frame(self, x, mmax)]
        )
    else:
        product = {"sign error": sign_error, "conjugated": conjugated}[fault]
        monkeypatch.setattr(so2_convolution, "complex_product", product)


@pytest.mark.parametrize("fault", ["sign error", "conjugated", "swapped order"])
def test_a_planted_fault_breaks_the_theorem(monkeypatch, fault):
    lmax = 3
    paths = random_paths(lmax)
    x, edge_index, vectors = graph(lmax)
    broken(monkeypatch, fault)
    ours = make(lmax, lmax, paths)(x, edge_index, EdgeRotation.of(vectors, lmax))
    assert relative(ours, explicit(x, edge_index, vectors, paths, lmax)) > 0.1


@pytest.mark.parametrize(("fault", "seen"), [("sign error", True), ("swapped order", True), ("conjugated", False)])
def test_what_a_planted_fault_does_to_equivariance(monkeypatch, fault, seen):
    """A conjugated product is another equivariant map, that of the negative odd paths: only the theorem shows it."""
    broken(monkeypatch, fault)
    assert (rotation_error(3, 2) > 0.1) == seen
    if not seen:
        assert rotation_error(3, 2) < TENSOR_PRODUCT


# Equivariance


def rotation_error(lmax, mmax, edge_channels=None):
    convolution = make(lmax, mmax, random_paths(lmax), edge_channels=edge_channels)
    x, edge_index, vectors = graph(lmax)
    edge = None if edge_channels is None else randn(edge_index.shape[1], edge_channels, seed=8)
    turn = edge_frames(unit(randn(1, 3, seed=9)))
    turn = rolled(turn, torch.tensor([0.7], dtype=torch.float64))
    d = torch.block_diag(*[block[0] for block in wigner_d(turn, lmax)])
    plain = convolution(x, edge_index, EdgeRotation.of(vectors, lmax), edge)
    turned = convolution(d @ x, edge_index, EdgeRotation.of(vectors @ turn[0].T, lmax), edge)
    return relative(turned, d @ plain)


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (4, 4), (6, 6), (6, 2), (3, 0)])
@pytest.mark.parametrize("edge_channels", [None, 4])
def test_rotation(lmax, mmax, edge_channels):
    assert rotation_error(lmax, mmax, edge_channels) < TENSOR_PRODUCT


@pytest.mark.parametrize("mmax", [4, 2])
def test_inversion_is_exact_without_imaginary_maps(mmax):
    convolution = make(4, mmax, random_paths(4))
    for layer in convolution.imaginary:
        layer.weight.zero_()
    x, edge_index, vectors = graph(4)
    plain = convolution(x, edge_index, EdgeRotation.of(vectors, 4))
    inverted = convolution(parity(x), edge_index, EdgeRotation.of(-vectors, 4))
    assert relative(inverted, parity(plain)) < TENSOR_PRODUCT
    assert all(weight.abs().max() == 0 for path, weight in convolution.path_weights().items() if sum(path) % 2)


@pytest.mark.parametrize("mmax", [4, 2])
def test_odd_paths_break_inversion_and_nothing_else_does(mmax):
    """An inverted input gives the inverted output of the convolution with the imaginary maps reversed."""
    convolution = make(4, mmax, random_paths(4))
    x, edge_index, vectors = graph(4)
    plain = convolution(x, edge_index, EdgeRotation.of(vectors, 4))
    inverted = convolution(parity(x), edge_index, EdgeRotation.of(-vectors, 4))
    assert relative(inverted, parity(plain)) > 0.1
    for layer in convolution.imaginary:
        layer.weight.neg_()
    reversed_maps = convolution(x, edge_index, EdgeRotation.of(vectors, 4))
    assert relative(inverted, parity(reversed_maps)) < TENSOR_PRODUCT


def test_the_roll_of_the_frames_does_not_matter():
    convolution = make(5, 3, random_paths(5))
    x, edge_index, vectors = graph(5)
    frames = edge_frames(unit(vectors))
    angles = 6 * randn(len(vectors), seed=4)
    plain = convolution(x, edge_index, EdgeRotation(tuple(wigner_d(frames, 5))))
    turned = convolution(x, edge_index, EdgeRotation(tuple(wigner_d(rolled(frames, angles), 5))))
    assert relative(turned, plain) < TENSOR_PRODUCT


# Use


def test_an_edge_embedding_makes_path_weights_functions_of_the_edge():
    """The message of one edge is the tensor product with that edge's path weights."""
    lmax, mmax, width = 3, 2, 4
    convolution = make(lmax, mmax, random_paths(lmax), edge_channels=width)
    x, edge_index, vectors = graph(lmax)
    edge = randn(len(vectors), width, seed=6)
    messages = convolution.messages(x[edge_index[0]], EdgeRotation.of(vectors, lmax), edge)
    chosen = 7
    factors = convolution.scale(edge[chosen]).split([n * CHANNELS[0] for n in convolution.degrees])
    factors = [factor.view(1, -1, 1, CHANNELS[0]) for factor in factors]
    own = convolution.so2_weights()
    scaled = type(own)(
        tuple(table * factor for table, factor in zip(own.real, factors, strict=True)),
        tuple(table * factor for table, factor in zip(own.imaginary, factors[1:], strict=True)),
    )
    source = x[edge_index[0][chosen]][None]
    expected = tensor_product(source, unit(vectors[chosen : chosen + 1]), paths_of(scaled), lmax)
    assert relative(messages[chosen : chosen + 1], expected) < TENSOR_PRODUCT


def test_it_is_the_message_of_a_torch_geometric_layer():
    geometric = pytest.importorskip("torch_geometric.nn")

    class Layer(geometric.MessagePassing):
        def __init__(self, convolution):
            super().__init__(aggr="sum", node_dim=0)
            self.convolution = convolution

        def forward(self, x, edge_index, rotation):
            return self.propagate(edge_index, x=x, rotation=rotation)

        def message(self, x_j, rotation):
            return self.convolution.messages(x_j, rotation)

    convolution = make(2, 1, random_paths(2))
    x, edge_index, vectors = graph(2)
    rotation = EdgeRotation.of(vectors, 2)
    assert relative(Layer(convolution)(x, edge_index, rotation), convolution(x, edge_index, rotation)) < TENSOR_PRODUCT


def test_derivatives_by_features_vectors_and_weights():
    convolution = make(1, 1, random_paths(1)).requires_grad_(True)
    x, edge_index, vectors = graph(1)
    singular = torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)
    vectors = torch.cat((vectors[:3], 1.3 * unit(singular)[None] + 1e-9))
    edge_index = edge_index[:, :4]
    names = [name for name, _ in convolution.named_parameters()]

    def function(x, vectors, *weights):
        rotation = EdgeRotation.of(vectors, 1)
        return torch.func.functional_call(
            convolution, dict(zip(names, weights, strict=True)), (x, edge_index, rotation)
        )

    weights = [weight.detach().requires_grad_() for weight in convolution.parameters()]
    assert gradcheck(function, (x.requires_grad_(), vectors.requires_grad_(), *weights), eps=1e-6, atol=1e-6)


def test_what_it_learns_can_be_read_as_path_weights():
    """A tensor product of other weights is fitted; the weights come back."""
    paths = random_paths(1)
    torch.manual_seed(2)
    convolution = SO2Convolution(1, 1, *CHANNELS).double()
    x, edge_index, vectors = graph(1)
    features, rotation = x[edge_index[0]], EdgeRotation.of(vectors, 1)
    wanted = tensor_product(features, unit(vectors), paths, 1)
    optimiser = torch.optim.LBFGS(convolution.parameters(), max_iter=200, tolerance_grad=1e-14, tolerance_change=0)

    def closure():
        optimiser.zero_grad()
        loss = (convolution.messages(features, rotation) - wanted).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    found = convolution.path_weights()
    assert max((found[path] - weight).abs().max().item() for path, weight in paths.items()) < 1e-5


def test_float32():
    paths = random_paths(6)
    x, edge_index, vectors = graph(6)
    ours = make(6, 6, paths).float()(x.float(), edge_index, EdgeRotation.of(vectors.float(), 6))
    assert ours.dtype == torch.float32
    assert relative(ours, explicit(x, edge_index, vectors, paths, 6)) < 1e-5


def test_no_edges_and_a_node_without_edges():
    convolution = make(2, 1, random_paths(2))
    x, edge_index, vectors = graph(2)
    none = convolution(x, edge_index[:, :0], EdgeRotation.of(vectors[:0], 2))
    assert torch.equal(none, torch.zeros(NODES, 9, CHANNELS[1], dtype=torch.float64))
    kept = edge_index[1] != 3
    some = convolution(x, edge_index[:, kept], EdgeRotation.of(vectors[kept], 2))
    assert some[3].abs().max() == 0 and some[2].abs().max() > 0


def test_the_state_is_the_maps_and_nothing_else():
    convolution = SO2Convolution(3, 1, 4, 5, edge_channels=6)
    shapes = {name: tuple(value.shape) for name, value in convolution.state_dict().items()}
    assert shapes == {
        "real.0.weight": (20, 16),
        "real.1.weight": (15, 12),
        "imaginary.0.weight": (15, 12),
        "scale.weight": (28, 6),
        "scale.bias": (28,),
    }


def test_a_rotation_goes_there_and_back():
    x, edge_index, vectors = graph(4)
    rotation = EdgeRotation.of(vectors, 4)
    features = x[edge_index[0]]
    orders = rotation.to_frame(features, 4)
    assert [tuple(order.shape[1:]) for order in orders] == [(1, 5, 3), (2, 4, 3), (2, 3, 3), (2, 2, 3), (2, 1, 3)]
    assert relative(rotation.from_frame(orders), features) < TENSOR_PRODUCT
    aligned = rotation.to_frame(solid_harmonics(unit(vectors), 4)[..., None], 4)
    assert all(order.abs().max() < 1e-14 for order in aligned[1:])


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (float("nan"), 1.0, 0.0), (float("inf"), 0.0, 0.0)])
def test_an_edge_without_direction_is_refused(vector):
    vectors = torch.tensor([(1.0, 0.0, 0.0), vector])
    with pytest.raises(InputError, match=r"edge 1 has the vector \[.*\], which has no direction"):
        EdgeRotation.of(vectors, 2)


def test_what_does_not_fit_is_refused():
    x, edge_index, vectors = graph(2)
    rotation = EdgeRotation.of(vectors, 2)
    with pytest.raises(InputError, match=r"lmax=2, mmax=3 violates 0 <= mmax <= lmax"):
        SO2Convolution(2, 3, 1, 1)
    convolution = make(2, 2, random_paths(2))
    with pytest.raises(InputError, match=r"features have the shape \(20, 4, 3\), expected \(…, 9, 3\)"):
        convolution(x[:, :4], edge_index, rotation)
    with pytest.raises(InputError, match=r"the rotation goes up to degree 1, this convolution to 2"):
        convolution(x, edge_index, EdgeRotation.of(vectors, 1))
    with pytest.raises(InputError, match=r"there are features of 20 edges, and the rotation of 1"):
        convolution(x, edge_index, EdgeRotation.of(vectors[:1], 2))
    with pytest.raises(InputError, match=r"this convolution needs no edge embedding, as edge_channels says"):
        convolution(x, edge_index, rotation, randn(len(vectors), 4, seed=0))
    with pytest.raises(InputError, match=r"this convolution needs an edge embedding"):
        make(2, 2, random_paths(2), edge_channels=4)(x, edge_index, rotation)
    with pytest.raises(InputError, match=r"path weights have the shape \(3, 2\), this convolution needs \(2, 3\)"):
        convolution.load_path_weights({(0, 0, 0): torch.zeros(3, 2)})
