"""Atoms whose surroundings a model does not know."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from pydantic import ValidationError

from escn_calc.adsorption.anomalies import find_anomalies
from escn_calc.checkpoints import load_checkpoint, read_native, write_native
from escn_calc.checkpoints.card import ModelCard
from escn_calc.errors import BatchError, CheckpointError, InputError
from escn_calc.familiarity import Cloud, Familiarity, UnfamiliarAtom, fit_familiarity, unfamiliar_atoms
from escn_calc.potential import Potential, load_potential

PRETRAINED = Path(__file__).parents[1] / "pretrained"
UNKNOWN_SHARE = 0.02
"""Of held-out structures of the kind in the training data, at most."""

SHARE_OF_FEW = 0.06
"""The same for limits and a share that 50 structures each give."""


class Drawn:
    """Stands for a potential: the features of an atom are its position, twice as wide along z for O."""

    def __init__(self, familiarity: Familiarity | None = None) -> None:
        self.card = SimpleNamespace(familiarity=familiarity)

    def descriptors(self, structures: list[Atoms]) -> list[np.ndarray]:
        return [atoms.positions for atoms in structures]


def drawn(count: int, seed: int, symbols: str = "CO2") -> list[Atoms]:
    """Atoms at normally distributed places; C about the origin, O about (5, 0, 0) with a longer axis."""
    rng = np.random.default_rng(seed)
    structures = [Atoms(symbols, rng.normal(size=(len(Atoms(symbols)), 3))) for _ in range(count)]
    for atoms in structures:
        atoms.positions[atoms.symbols == "O"] = atoms.positions[atoms.symbols == "O"] * [1, 1, 4] + [5, 0, 0]
    return structures


@pytest.fixture(scope="module")
def known() -> Familiarity:
    return fit_familiarity(Drawn(), drawn(4000, 0), drawn(1000, 1))


def test_distance_is_that_of_mahalanobis(known):
    """One, two ... widths away from the mean along each axis, over the root of three dimensions."""
    along_x = known.elements["O"].distances(np.array([[5.0, 0, 0], [7, 0, 0], [5, 0, 8], [5, 0, -8]]))
    np.testing.assert_allclose(along_x, np.array([0, 2, 2, 2]) / 3**0.5, atol=0.05)
    far = known.elements["C"].distances(np.array([[5.0, 0, 0]]))
    assert far == pytest.approx(5 / 3**0.5, rel=0.05)


def test_limits_leave_the_share_that_was_asked_for(known):
    assert (known.structures, known.limits_from) == (4000, 1000)
    assert known.share == pytest.approx(0.01, abs=0.002)
    flagged = np.mean([bool(one) for one in unfamiliar_atoms(Drawn(known), drawn(2000, 2))])
    assert flagged == pytest.approx(0.01, abs=0.008)


def test_atoms_beyond_the_limit_are_named(known):
    ordinary, odd = Atoms("CO2", [[0, 0, 0], [5, 0, 1], [5, 1, 0]]), Atoms("OCO", [[5, 0, 40], [8, 0, 0], [5, 0, 8]])
    calm, found = unfamiliar_atoms(Drawn(known), [ordinary, odd])
    assert calm == ()
    assert [atom.index for atom in found] == [0, 1]
    assert found[0] == UnfamiliarAtom(0, pytest.approx(10 / 3**0.5, rel=0.05), known.elements["O"].limit)


def test_all_atoms_of_an_element_with_few_are_unfamiliar():
    some = fit_familiarity(Drawn(), [*drawn(100, 0), *drawn(3, 3, "N")], [*drawn(100, 1), *drawn(3, 4, "N")])
    assert set(some.elements) == {"C", "O"}
    (found,) = unfamiliar_atoms(Drawn(some), [Atoms("CN", [[0.0, 0, 0], [0, 0, 0]])])
    assert found == (UnfamiliarAtom(1, None, None),)
    cyanide = Atoms("CN", [[0, 0, 0], [0, 0, 1.2]])
    (anomaly,) = find_anomalies(cyanide, cyanide, unfamiliar=found)
    assert anomaly.message.endswith("the model's training data have too few atoms of N to know its surroundings")
    assert not anomaly.disqualifies


def test_not_available():
    assert unfamiliar_atoms(Drawn(None), drawn(2, 0)) is None


def test_what_cannot_be_fitted():
    with pytest.raises(InputError, match="0 structures to describe and 2 to set limits on: both need some"):
        fit_familiarity(Drawn(), [], drawn(2, 0))
    with pytest.raises(InputError, match="share is 1; it must lie between 0 and 1"):
        fit_familiarity(Drawn(), drawn(2, 0), drawn(2, 0), share=1)
    with pytest.raises(InputError, match="no element has 6 atoms in the structures to describe and 20 in those"):
        fit_familiarity(Drawn(), drawn(2, 0), drawn(100, 0))


def test_cards_carry_it(known, tmp_path):
    checkpoint = load_checkpoint("default")
    shipped = checkpoint.card.model_copy(update={"familiarity": None})
    assert "familiarity" not in shipped.model_dump(exclude_defaults=True)
    card = checkpoint.card.model_copy(update={"familiarity": known})
    write_native(SimpleNamespace(**(vars(checkpoint) | {"card": card})), tmp_path / "model")
    assert read_native(tmp_path / "model").card.familiarity == known
    text = (tmp_path / "model" / "card.json").read_text(encoding="utf-8")
    (tmp_path / "model" / "card.json").write_text(
        text.replace('"limit": ', '"limit": "far", "was": '), encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match=r"card\.json: card\.familiarity\.elements\.C\.limit"):
        read_native(tmp_path / "model")


@pytest.mark.parametrize("shape", ["", "AAAA", "AAAAAAAA", "no base64", "AADAfwAAgD8="])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValidationError):
        Cloud(atoms=3, limit=1.0, shape=shape)


def test_cards_of_other_models_have_none():
    fields = ModelCard.model_fields
    assert fields["familiarity"].default is None


@pytest.fixture(scope="module")
def potential() -> Potential:
    return load_potential(device="cpu")


def test_descriptors_belong_to_the_atoms(potential):
    """They follow the atoms when these are counted otherwise, and stay when the structure turns or others join."""
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    slab += Atoms("CO", slab.positions[-1] + [[0, 0, 1.85], [0, 0, 3.0]])
    (own,) = potential.descriptors([slab])
    assert own.shape == (5, potential.config.all_channels)
    order = [3, 0, 4, 2, 1]
    other, permuted, turned = potential.descriptors([bulk("Pt"), slab[order], _turned(slab)])
    assert other.shape == (1, potential.config.all_channels)
    np.testing.assert_allclose(permuted, own[order], atol=1e-4 * np.abs(own).max())
    np.testing.assert_allclose(turned, own, atol=0.02 * np.abs(own).max())
    assert np.abs(own[0] - own[2]).max() > 0.05 * np.abs(own).max()


def _turned(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.rotate(37, (1, 2, 3), rotate_cell=True)
    return copy


def test_descriptors_of_what_cannot_be_evaluated(potential):
    with pytest.raises(InputError, match=r"atom 0 \(Fe\)"):
        potential.descriptors([Atoms("Fe")])
    with pytest.raises(BatchError, match=r"1 of 2 structures failed: .*atom 0 \(Fe\)") as caught:
        potential.descriptors([bulk("Cu"), Atoms("Fe")])
    assert caught.value.results[0].shape == (1, potential.config.all_channels)


def labelled(kind: str | None = None, split: str | None = None, most_chunks: int | None = None) -> list[Atoms]:
    """Structures of a kind and split among the labels that the shipped model was trained with."""
    sys.path.insert(0, str(PRETRAINED / "recipe"))
    try:
        from labels_to_extxyz import read_chunk, stays_behind
    finally:
        sys.path.pop(0)
    chunks = sorted((PRETRAINED / "labels" / "near-0").glob("chunk-*.npz"))[:most_chunks]
    return [
        atoms
        for chunk in chunks
        for of, atoms in read_chunk(chunk)
        if split in (None, of) and kind in (None, atoms.info["kind"]) and not stays_behind(atoms)
    ]


def on_copper(symbols: str, *places: tuple[float, float, float]) -> Atoms:
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
    return slab + Atoms(symbols, slab.positions[-1] + np.array(places))


def absurd() -> dict[str, Atoms]:
    """Bond lengths and neighbours that no label has."""
    squeezed = on_copper("CO", (0, 0, 1.85), (0, 0, 3.0))
    squeezed.set_cell(squeezed.cell * 0.85, scale_atoms=True)
    return {
        "short C-O": on_copper("CO", (0, 0, 1.85), (0, 0, 2.65)),
        "short Cu-O": on_copper("O", (0, 0, 1.3)),
        "all distances at 85 %": squeezed,
        "diamond": bulk("C", "diamond", a=3.57, cubic=True),
    }


def share_unfamiliar(potential: Potential, known: Familiarity, structures: list[Atoms]) -> float:
    features = potential.descriptors(structures)
    found = [known.unfamiliar(atoms.numbers, own) for atoms, own in zip(structures, features, strict=True)]
    return float(np.mean([bool(one) for one in found]))


def check(potential: Potential, training, validation, held_out, most: float, record_figure, name: str) -> None:
    known = fit_familiarity(potential, training, validation)
    share = share_unfamiliar(potential, known, held_out)
    strange = absurd()
    flagged = {what: share_unfamiliar(potential, known, [atoms]) == 1 for what, atoms in strange.items()}
    record_figure(
        f"unfamiliar atoms, {name}",
        f"{len(training)} + {len(validation)} structures: {share:.1%} of {len(held_out)} held-out ones; "
        f"{sum(flagged.values())} of {len(flagged)} absurd ones; {len(known.model_dump_json()) / 1e3:.0f} kB",
    )
    assert share <= most
    assert all(flagged.values()), flagged


def test_absurd_structures_are_flagged_and_held_out_ones_are_not(potential, record_figure):
    frames = labelled("co111", most_chunks=5)
    order = np.random.default_rng(0).permutation(len(frames))
    training, validation, held_out = ([frames[i] for i in part] for part in np.split(order[:200], [100, 150]))
    check(potential, training, validation, held_out, SHARE_OF_FEW, record_figure, "CO on (111)")


@pytest.mark.slow
def test_all_kinds_of_labels(potential, record_figure):
    """Surfaces and adsorbates of the test split have not been seen together in training."""
    frames = labelled(split="train")
    order = np.random.default_rng(0).permutation(len(frames))
    training, limits = ([frames[i] for i in part] for part in np.split(order[:2200], [1200]))
    held_out = [*labelled(split="valid")[::2], *labelled(split="test")[::2]]
    check(potential, training, limits, held_out, UNKNOWN_SHARE, record_figure, "all kinds")
