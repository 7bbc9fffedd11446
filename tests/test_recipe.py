"""The recipe of the shipped model: structures by number, a split that never moves, labels in, a model folder out."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from escn_calc.convergence import RESIDUAL_METRIC
from escn_calc.potential import load_potential
from escn_calc.training import load_config, train
from tests.training.tiny import write_config

RECIPE = Path(__file__).parents[1] / "pretrained" / "recipe"


def labelled_slabs(count):
    for seed in range(count):
        slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
        slab.rattle(0.02, seed=seed)
        slab.calc = EMT()
        yield slab


def write_labels(folder):
    slabs = list(labelled_slabs(13))
    splits = ["train"] * 8 + ["valid"] * 2 + ["test"] * 3
    np.savez_compressed(
        folder / "chunk-00000.npz",
        natoms=np.array([len(slab) for slab in slabs]),
        numbers=np.concatenate([slab.numbers for slab in slabs]),
        positions=np.concatenate([slab.positions for slab in slabs]),
        cell=np.stack([slab.cell.array for slab in slabs]),
        pbc=np.stack([slab.pbc for slab in slabs]),
        energy=np.array([slab.get_potential_energy() for slab in slabs]),
        forces=np.concatenate([slab.get_forces() for slab in slabs]),
        group=np.array(["gas|CO"] + ["Cu111"] * 7 + ["Cu100"] * 2 + ["Cu111|O"] * 3),
        split=np.array(splits),
        kind=np.array(["gas"] + ["surface"] * 12),
        start=np.arange(13),
        seed=5,
    )
    return slabs


def run_recipe(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(RECIPE / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OTHER_GRIDS = 0.5
"""What rolls of the edge frames are said to change on the grids of the training; those that ship are measured anew."""


def with_metric(card, name, value):
    document = json.loads(card.read_text())
    document["card"]["metrics"][name] = value
    card.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A tiny network, trained on labels by the commands of the recipe and made into a model folder to ship."""
    folder = tmp_path_factory.mktemp("recipe")
    slabs = write_labels(folder)
    run_recipe("labels_to_extxyz.py", folder, "--out", folder / "data")
    data = {
        "train": "data/train.extxyz",
        "validation": "data/valid.extxyz",
        "validation_fraction": None,
        "group_by": "group",
    }
    config = write_config(folder, data=data, schedule={"epochs": 60}, card={"licence": "MIT", "energy_kind": "total"})
    train(load_config(config))
    with_metric(folder / "run" / "best" / "card.json", RESIDUAL_METRIC, OTHER_GRIDS)
    checked = folder / "checks" / "bulk"
    checked.mkdir(parents=True)
    (checked / "bulk.json").write_text(json.dumps({"largest_error_percent": 0.7}))
    options = ("--data", folder / "data", "--checks", folder / "checks", "--out", folder / "model")
    return folder / "model", run_recipe("ship.py", "--model", folder / "run" / "best", *options), slabs


def test_shipped_model_has_finer_grids_and_the_trained_weights(shipped):
    model, _, slabs = shipped
    finer, trained = load_potential(model, dtype="float64"), load_potential(model.parent / "run/best", dtype="float64")
    assert finer.config == replace(trained.config, resolution=30, edge_longitudes=15, num_sphere_samples=648)
    assert finer.card.metrics[RESIDUAL_METRIC] < 1e-7 < OTHER_GRIDS
    (one,), (other,) = finer.evaluate(slabs[:1]), trained.evaluate(slabs[:1])
    assert one.energy == pytest.approx(other.energy, abs=1e-3)
    assert one.energy != other.energy


def test_card_carries_the_measured_errors_and_checks(shipped):
    model, output, slabs = shipped
    potential = load_potential(model)
    metrics = potential.card.metrics
    errors = [
        np.abs(prediction.forces - slab.get_forces()).mean()
        for prediction, slab in zip(potential.evaluate(slabs[-3:]), slabs[-3:], strict=True)
    ]
    assert metrics["test split, structures"] == 3
    assert metrics["test split, force MAE, eV/Å"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert metrics["check_bulk.py, largest error of a lattice constant, %"] == 0.7
    assert metrics["validation force MAE, eV/Å"] > 0
    assert f"test split, force MAE, eV/Å: {metrics['test split, force MAE, eV/Å']}" in output
    assert potential.card.name == "model"
    assert potential.card.familiarity.elements.keys() == {"Cu"}
    assert (potential.card.familiarity.structures, potential.card.familiarity.limits_from) == (7, 2)


MODULES = (
    *("building", "starts", "near", "wide", "structures", "label", "labels_to_extxyz", "checks"),
    *("adsorption_pairs", "own"),
)
SCRIPTS = ("check_dissociation", "check_adsorption")
LATTICE = {"Cu": 3.63, "Ag": 4.15, "Au": 4.15, "Pd": 3.94, "Pt": 3.97, "Rh": 3.83, "Ir": 3.87}
WITH_NICKEL = {"Ni": 3.52, "Cu": 3.63}


@pytest.fixture(scope="module")
def recipe():
    """The modules of the recipe, which lie beside the scripts and not in a package."""
    sys.path.insert(0, str(RECIPE))
    known = set(sys.modules)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in (*MODULES, *SCRIPTS)})
    finally:
        sys.path.remove(str(RECIPE))
        for name in set(sys.modules) - known:
            if name in (*MODULES, *SCRIPTS):
                del sys.modules[name]


HELD_OUT = {
    "test": ("Ag-Ir110|C", "Au110|CH3", "Rh111", "Au100|OH", "Au-Pt111|CO2", "Rh110|CH2", "Ir110|H2", "gas|H2+O2"),
    "valid": ("Ag-Pd100|C", "Cu-Pt100|O", "Ag100|NH2", "Cu100|CH2", "Au211|OH", "Pd100|C", "gas|CO2+NH"),
    "train": ("Cu111|CO", "Ir211|NH", "Ir-Rh100", "Cu211|CO2", "Ag-Pd110|NH2", "Pd100|OH", "Au-Rh100|CH2"),
}


@pytest.mark.parametrize(("split", "group"), [(split, group) for split in HELD_OUT for group in HELD_OUT[split]])
def test_split_of_a_group_never_moves(recipe, split, group):
    assert recipe.starts.hashed_split(group) == split


@pytest.mark.parametrize(
    ("surface", "adsorbates", "split"),
    [
        ("Rh110", ("CH2", "O"), "test"),
        ("Au100", ("CH3", "NH3"), "valid"),
        ("Cu111", ("CO",), "train"),
        ("gas", ("OO",), "train"),
        ("gas", ("CuO",), "train"),
        ("Ag-Pt-bulk", (), "train"),
    ],
)
def test_coadsorbates_follow_their_most_secluded_pair_and_curves_always_train(recipe, surface, adsorbates, split):
    start = recipe.starts.Start(Atoms(), surface, adsorbates, recipe.structures.WIDE[0], 0)
    assert start.split == split


@pytest.mark.parametrize(
    ("kinds", "index", "kind", "group", "atoms", "sum_of_positions"),
    [
        ("near", 0, "surface", "Ag-Cu111", 19, 162.3473),
        ("near", 1, "bulk", "Au-bulk", 4, 13.5623),
        ("near", 2, "adsorbate", "Ir111|CO", 16, 127.1876),
        ("wide", 0, "path", "Au111|H", 17, 140.3794),
        ("wide", 2, "md", "Au111|NH3", 24, 231.7015),
        ("wide", 3, "eos", "Pt-bulk", 4, 14.5312),
    ],
)
def test_a_number_gives_the_same_structure_as_ever(recipe, kinds, index, kind, group, atoms, sum_of_positions):
    start = recipe.structures.draw_start(0, index, LATTICE, recipe.structures.KIND_SETS[kinds])
    assert (start.kind.name, start.group, len(start.atoms)) == (kind, group, atoms)
    assert np.abs(start.atoms.positions).sum() == pytest.approx(sum_of_positions, abs=1e-3)


@pytest.fixture(scope="module")
def drawn(recipe):
    kinds = recipe.structures.KIND_SETS
    return [recipe.structures.draw_start(3, index, LATTICE, kinds[name]) for name in kinds for index in range(120)]


def test_every_kind_is_drawn_and_labels_count_as_announced(recipe, drawn):
    assert {start.kind.name for start in drawn} == set(recipe.structures.BUILDERS)
    series = {start.kind.name: len(start.series) for start in drawn if start.series}
    assert series == {kind.name: kind.series for kind in recipe.structures.WIDE if kind.series}
    assert all(300 <= start.temperature <= 1500 for start in drawn if start.kind.md_frames)


def test_structures_fit_the_padded_teacher(drawn):
    for start in drawn:
        for atoms in (start.atoms, *start.series):
            assert len(atoms) <= 48
            assert atoms.pbc.all()
            assert np.isfinite(atoms.positions).all()


def test_series_change_one_thing_along_the_way(drawn):
    for start in drawn:
        stages = [start.atoms, *start.series]
        if start.kind.name == "curve" and start.series:
            lengths = [atoms.get_distance(0, 1) for atoms in stages]
            assert lengths == sorted(lengths)
            assert lengths[0] < 2.2
            assert lengths[-1] > 5
        if start.kind.name == "eos":
            volumes = np.array([atoms.get_volume() for atoms in stages])
            assert (np.diff(volumes) > 0).all()
            assert 1.3 < volumes[-1] / volumes[0] < (1.1 / 0.9) ** 3 + 1e-9
        if start.kind.name == "path":
            assert len({str(atoms.symbols) for atoms in stages}) == 1


def test_no_oxygen_beside_nickel(recipe):
    kinds = recipe.structures.KIND_SETS
    for name in ("new-metal", "wide"):
        symbols = set()
        for index in range(150):
            start = recipe.structures.draw_start(0, index, WITH_NICKEL, kinds[name])
            for atoms in (start.atoms, *start.series):
                symbols |= set(atoms.symbols)
                assert not recipe.building.is_trapped(atoms), start.group
        assert {"Ni", "N", "C", "H"} <= symbols


def test_a_builder_that_falls_into_the_trap_is_caught(recipe, monkeypatch):
    def oxide(start, lattice, rng):
        return recipe.starts.Start(Atoms("NiO", [[0, 0, 0], [0, 0, 2]]), "Ni111", ("O",), start.kind, 0)

    monkeypatch.setattr(recipe.structures, "BUILDERS", dict.fromkeys(recipe.structures.BUILDERS, oxide))
    with pytest.raises(RuntimeError, match="has O beside one of"):
        recipe.structures.draw_start(0, 0, WITH_NICKEL, recipe.structures.NEW_METAL)


def label(recipe, folder, most):
    folder.mkdir(exist_ok=True)
    kinds = (*recipe.structures.WIDE[:1], *recipe.structures.WIDE[2:])
    recipe.label.run(EMT(), folder, 1.0, most, 2, kinds, ("Cu", "Pt"))
    chunks = [np.load(path, allow_pickle=False) for path in sorted(folder.glob("chunk-*.npz"))]
    return {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in chunks[0].files}


@pytest.fixture(scope="module")
def labels(recipe, tmp_path_factory):
    return label(recipe, tmp_path_factory.mktemp("labels"), 150)


def test_labels_of_a_stopped_run_go_on_where_it_was(recipe, labels, tmp_path):
    label(recipe, tmp_path, 60)
    resumed = label(recipe, tmp_path, 50)
    count = len(resumed["energy"])
    assert count > 60
    assert (resumed["start"] == labels["start"][:count]).all()
    assert resumed["energy"] == pytest.approx(labels["energy"][:count], abs=1e-8)
    with pytest.raises(SystemExit, match="was made with --seed 2, not 3"):
        recipe.label.resume(tmp_path, 3)


def test_labels_are_energies_and_forces_of_the_stored_structures(labels):
    ends = labels["natoms"].cumsum()
    for index in range(0, len(ends), 12):
        span = slice(ends[index] - labels["natoms"][index], ends[index])
        cell, pbc = labels["cell"][index], labels["pbc"][index]
        atoms = Atoms(labels["numbers"][span], labels["positions"][span], cell=cell, pbc=pbc, calculator=EMT())
        assert atoms.get_potential_energy() == pytest.approx(labels["energy"][index], abs=1e-8)
        assert atoms.get_forces() == pytest.approx(labels["forces"][span], abs=1e-5)


def test_hot_frames_move_on_and_stay_within_limits(labels):
    hot = labels["kind"] == "md"
    ends = labels["natoms"].cumsum()
    chains = {int(start) for start in labels["start"][hot]}
    assert len(chains) >= 2
    for chain in chains:
        frames = np.flatnonzero(labels["start"] == chain)
        last, before = (labels["positions"][ends[i] - labels["natoms"][i] : ends[i]] for i in (frames[-1], frames[-2]))
        assert 0.01 < np.abs(last - before).max() < 1.5
    assert np.linalg.norm(labels["forces"], axis=1).max() <= 100


def test_labels_become_files_for_training(tmp_path):
    slabs = write_labels(tmp_path)
    output = run_recipe("labels_to_extxyz.py", tmp_path, "--out", tmp_path / "data")
    frames = {name: read(tmp_path / "data" / f"{name}.extxyz", ":") for name in ("train", "train-gas", "valid", "test")}
    assert {name: len(part) for name, part in frames.items()} == {"train": 7, "train-gas": 1, "valid": 2, "test": 3}
    last = frames["test"][-1]
    assert last.info == {"group": "Cu111|O", "kind": "surface", "chain": "5-12"}
    assert last.get_potential_energy() == pytest.approx(slabs[-1].get_potential_energy(), abs=1e-8)
    assert last.get_forces() == pytest.approx(slabs[-1].get_forces(), abs=1e-6)
    assert last.positions == pytest.approx(slabs[-1].positions, abs=1e-7)
    assert output.splitlines()[-1].split() == ["all", "7", "1", "2", "3"]


def test_frames_with_extreme_forces_stay_behind(tmp_path):
    write_labels(tmp_path)
    (chunk,) = tmp_path.glob("chunk-*.npz")
    with np.load(chunk) as stored:
        arrays = dict(stored)
    arrays["forces"][-1] = [30.0, 30.0, 0.0]
    np.savez(chunk, **arrays)
    output = run_recipe("labels_to_extxyz.py", tmp_path, "--out", tmp_path / "data")
    assert output.splitlines()[-1].split() == ["all", "7", "1", "2", "2"]


@pytest.mark.parametrize(
    ("group", "atoms", "stays"),
    [
        ("gas|Pt", Atoms("Pt"), True),
        ("gas|PdPt", Atoms("PdPt", positions=[[0, 0, 0], [0, 0, 2.5]]), True),
        ("gas|CuH", Atoms("CuH", positions=[[0, 0, 0], [0, 0, 1.5]]), True),
        ("gas|CO", Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]]), False),
        ("gas|H2O", Atoms("OH2", positions=[[0, 0, 0], [0, 0, 1], [0, 1, 0]]), False),
        ("Pt-bulk", Atoms("Pt"), False),
        ("Pd-Pt-bulk", Atoms("PdPt", positions=[[0, 0, 0], [0, 0, 2.5]]), False),
    ],
)
def test_atoms_and_metal_pairs_in_vacuum_stay_behind(recipe, group, atoms, stays):
    atoms.info["group"] = group
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    assert recipe.labels_to_extxyz.stays_behind(atoms) is stays


def test_folder_without_labels_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, str(RECIPE / "labels_to_extxyz.py"), str(tmp_path), "--out", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{tmp_path} has no chunk-*.npz" in done.stderr
    assert not (tmp_path / "data").exists()


def test_checked_pairs_are_all_held_out(recipe):
    pairs = recipe.adsorption_pairs.unseen_pairs()
    assert len(pairs) >= 60
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert {recipe.starts.hashed_split(pair.name) for pair in pairs} == {"test"}
    assert len({pair.adsorbate for pair in pairs[:12]}) == 12


def test_sites_of_a_close_packed_surface(recipe):
    slab = recipe.adsorption_pairs.clean_slab(("Cu",), "111", LATTICE)
    assert len(slab.constraints[0].index) == 8
    starts = recipe.adsorption_pairs.starting_structures(slab, "CO")
    assert sorted(starts) == ["bridge-1", "hollow-1", "hollow-2", "ontop-1"]
    heights = {
        site: atoms[atoms.symbols == "C"].positions[0, 2] - slab.positions[:, 2].max() for site, atoms in starts.items()
    }
    assert heights["ontop-1"] > heights["bridge-1"] > heights["hollow-1"]


def test_broken_and_desorbed_adsorbates_are_told_apart(recipe):
    slab = recipe.adsorption_pairs.clean_slab(("Cu",), "111", LATTICE)
    adsorbed = recipe.adsorption_pairs.starting_structures(slab, "CO")["ontop-1"]
    broken, desorbed = adsorbed.copy(), adsorbed.copy()
    oxygen = [atom.index for atom in adsorbed if atom.symbol == "O"]
    broken.positions[oxygen, 2] += 1.0
    desorbed.positions[-2:, 2] += 2.0
    states = [recipe.adsorption_pairs.state_of(atoms, "CO") for atoms in (adsorbed, broken, desorbed)]
    assert states == ["adsorbed", "broken", "desorbed"]


def test_a_hole_in_a_bond_curve_is_found(recipe):
    check = recipe.check_dissociation
    r = check.DISTANCES
    morse = 6 * (1 - np.exp(-2.2 * (r - 1.2))) ** 2
    sound = check.figures_of(morse, 1.2)
    assert (sound["bond_A"], sound["holes"], sound["inward_fall_eV"]) == (1.2, [], 0.0)
    assert sound["depth_eV"] == pytest.approx(6, abs=0.01)
    with_hole = check.figures_of(morse - 2 * np.exp(-(((r - 3.5) / 0.3) ** 2)), 1.2)
    assert with_hole["holes"] == [3.5]
    collapsing = check.figures_of(morse - 150 * np.exp(-(((r - 0.4) / 0.15) ** 2)), 1.2)
    assert collapsing["bond_A"] == 1.2
    assert collapsing["inward_fall_eV"] > 5
    assert not check.is_sound(collapsing)
    assert not check.is_sound(with_hole)
    assert check.is_sound(sound)


def test_adsorption_figures_from_rows(recipe):
    rows = [
        {"pair": f"{metal}111|O", "adsorbate": "O", "metals": [metal], "site": "a", "model_eV": model,
         "teacher_eV": teacher, "error_eV": model - teacher, "site_regret_eV": regret}
        for metal, model, teacher, regret in (
            ("Cu", 1.0, 1.1, 0.0), ("Ag", 2.0, 2.3, 0.2), ("Pd", 1.5, 1.2, 0.04), ("Pt", 1.6, 1.3, 0.0)
        )
    ]  # fmt: skip
    result = recipe.check_adsorption.summary([*rows, {"pair": "Au111|O", "adsorbate": "O", "metals": ["Au"]}])
    assert result["all"]["mae_eV"] == pytest.approx(0.25)
    assert result["all"]["mean_error_eV"] == pytest.approx(0.05)
    assert result["per_adsorbate"]["O"]["spearman"] == pytest.approx(1.0)
    assert result["per_metal"]["Ag"]["spearman"] is None
    assert result["favoured_site_within_0.05_eV"] == 0.75
    assert result["pairs_without_an_adsorbed_state"] == ["Au111|O"]
    assert result["worst"][0]["pair"] in ("Ag111|O", "Pd111|O", "Pt111|O")


STAND_IN_TEACHER = """
import sys
from ase.calculators.emt import EMT
from ase.io import read, write
source, target = sys.argv[sys.argv.index("--teacher") + 2 :][:2]
frames = read(source, ":")
for frame in frames:
    frame.calc = EMT()
    frame.get_forces()
write(target, frames, format="extxyz")
"""


@pytest.fixture
def setting(recipe, tmp_path, monkeypatch):
    (tmp_path / "teacher_energies.py").write_text(STAND_IN_TEACHER)
    monkeypatch.setattr(recipe.checks, "HERE", tmp_path)
    (tmp_path / "out").mkdir()
    return recipe.checks.Setting("default", tmp_path / "out", Path("none.nqx"), Path(sys.executable), LATTICE)


def test_teacher_is_asked_again_only_when_structures_changed(recipe, setting, monkeypatch):
    slabs = list(labelled_slabs(2))
    for number, slab in enumerate(slabs):
        slab.info["key"] = f"slab {number}"
    energies = [slab.get_potential_energy() for slab in slabs]
    calls = []
    run = subprocess.run
    monkeypatch.setattr(recipe.checks.subprocess, "run", lambda *a, **k: (calls.append(1), run(*a, **k)))
    for _ in range(2):
        answers = setting.teacher_results("slabs", slabs)
        assert [atoms.info["key"] for atoms in answers] == ["slab 0", "slab 1"]
        assert [atoms.get_potential_energy() for atoms in answers] == pytest.approx(energies, abs=1e-6)
    assert len(calls) == 1
    slabs[0].rattle(0.1, seed=9)
    assert setting.teacher_results("slabs", slabs)[0].get_potential_energy() != pytest.approx(energies[0], abs=1e-3)
    assert len(calls) == 2


def test_finished_structures_are_not_made_again(recipe, tmp_path):
    path = tmp_path / "slab.extxyz"
    first = recipe.checks.kept(path, lambda: list(labelled_slabs(1)))
    again = recipe.checks.kept(path, lambda: pytest.fail("made twice"))
    assert (again[0].positions == first[0].positions).all()
    assert [file.name for file in tmp_path.iterdir()] == ["slab.extxyz"]


def test_relaxations_to_label_are_drawn_by_number_and_never_from_the_test_split(recipe):
    starts = [recipe.own.draw_own_start(8, index, LATTICE) for index in range(60)]
    assert "test" not in {start.split for start in starts}
    again = recipe.own.draw_own_start(8, 17, LATTICE)
    assert again.group == starts[17].group
    np.testing.assert_array_equal(again.atoms.positions, starts[17].atoms.positions)
    metals = [set(start.atoms.get_chemical_symbols()) & set(recipe.building.METALS) for start in starts]
    assert 0.5 < np.mean([len(kinds) == 2 for kinds in metals]) < 0.9
    assert 0.02 < np.mean([not start.adsorbates for start in starts]) < 0.25


def test_frames_of_relaxations_by_the_model_get_labels_chunk_after_chunk(recipe, setting, monkeypatch):
    """The second call goes on after the first chunk; frames are steps of the model's way down, labelled after."""
    monkeypatch.setattr(recipe.own, "STARTS_PER_CHUNK", 2)
    monkeypatch.setattr(recipe.own, "MOST_STEPS", 3)
    monkeypatch.setattr(recipe.own, "is_sound", lambda frame, references: True)
    drawn = []

    def draw(seed, index, lattice):
        drawn.append(index)
        slab = next(labelled_slabs(1)).copy()
        slab.rattle(0.1, seed=index)
        return recipe.starts.Start(slab, "Cu111", (), recipe.own.KIND, 0)

    monkeypatch.setattr(recipe.own, "draw_own_start", draw)
    recipe.own.run(setting, {}, 8, 2)
    recipe.own.run(setting, {}, 8, 3)
    assert drawn == [0, 1, 2]
    chunks = [list(recipe.labels_to_extxyz.read_chunk(setting.out / f"chunk-0000{number}.npz")) for number in (0, 1)]
    assert [len(chunk) for chunk in chunks] == [8, 4]
    path = [atoms for _, atoms in chunks[1]]
    model = load_potential("default").evaluate(path)
    assert model[-1].energy < model[0].energy
    for atoms in path:
        free = atoms.copy()
        free.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(free.get_potential_energy(), abs=1e-4)
