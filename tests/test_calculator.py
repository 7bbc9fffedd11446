"""The calculator keeps ASE's contract: caching, parameters, files, copies, threads and exceptions."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import (
    CalculationFailed,
    CalculatorSetupError,
    PropertyNotImplementedError,
    get_calculator_class,
)
from ase.db import connect
from ase.io import read, write
from ase.optimize import BFGS

from escn_calc import ESCNCalculator, __version__
from escn_calc.errors import CalculationError, ESCNError, InputError
from escn_calc.structures import UnusedInputWarning, _warn_once
from tests.toy_potential import SHA256, ToyPotential


@pytest.fixture
def atoms() -> Atoms:
    structure = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    structure.rattle(0.05, seed=3)
    structure.info.clear()
    return structure


def test_results_have_the_types_that_ase_requires(loader, atoms):
    calculator = ESCNCalculator()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert type(energy) is float
    assert set(calculator.results) == {"energy", "free_energy", "energies", "forces"}
    assert atoms.get_potential_energy(force_consistent=True) == energy
    for name, shape in (("energies", (8,)), ("forces", (8, 3))):
        value = calculator.results[name]
        assert type(value) is np.ndarray
        assert value.dtype == np.float64
        assert value.shape == shape
        assert value.flags.c_contiguous and value.flags.owndata
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, abs=1e-5)
    calculator.export_properties()


def test_parameters_reach_the_loader_as_strings(loader, atoms, tmp_path):
    weights = tmp_path / "other.pt"
    weights.touch()
    settings = {"device": "cpu", "dtype": "float64", "matmul": "full", "forces": "gradient", "frames": "converged"}
    atoms.calc = ESCNCalculator(weights, **settings, checkpoint_layers=True, skin=0.25)
    atoms.get_potential_energy()
    assert loader.requests == [{"model": str(weights), **settings, "checkpoint_layers": True}]
    assert json.loads(json.dumps(atoms.calc.parameters)) == {**loader.requests[0], "skin": 0.25}


def test_a_relative_path_stays_valid_in_another_folder(loader, tmp_path, monkeypatch):
    """Whatever its form; after a change of folder, a copy or a pickle loads the model that was meant."""
    (tmp_path / "other.pt").touch()
    (tmp_path / "nat").mkdir()
    monkeypatch.chdir(tmp_path)
    for model in ("other.pt", "./other.pt", "nat", Path("nat")):
        calculator = ESCNCalculator()
        calculator.set(model=model)
        made = ESCNCalculator(model)
        monkeypatch.chdir("/")
        for known in (made, calculator, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert known.parameters["model"] == str(tmp_path / Path(model).name)
        assert calculator.set(model=made.parameters["model"]) == {}
        monkeypatch.chdir(tmp_path)


def test_names_come_before_paths_as_at_loading(loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("default", "other", "escn-l6-m2-lay12-s2ef-oc20-2m"):
        Path(name).mkdir()
        assert ESCNCalculator(name).parameters["model"] == name
        assert ESCNCalculator(Path(name)).parameters["model"] == str(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": None}, "model is None; it must be a name or the path of a model"),
        ({"model": 3}, "model is 3; it must be a name or the path of a model"),
        ({"model": "defualt"}, "there is no model 'defualt'; did you mean default"),
        (
            {"model": "eSCN-L6-M2-Lay12-S2EF-OC20-3M"},
            "there is no model .*; did you mean eSCN-L6-M2-Lay12-S2EF-OC20-2M",
        ),
        ({"model": ""}, "there is no model ''; "),
        ({"model": "missing/other.pt"}, "there is no model file or folder 'missing/other.pt'"),
        ({"model": Path("default")}, "there is no model file or folder 'default'"),
        ({"device": "gpu"}, "device is 'gpu', but must be one of auto, cpu, cuda, mps"),
        ({"device": torch.device("cpu")}, "device is device.*, but must be one of auto"),
        ({"dtype": torch.float64}, "dtype is torch.float64, but must be one of float32, float64"),
        ({"frames": "random"}, "frames is 'random', but must be one of canonical, converged"),
        ({"forces": "autograd"}, "forces is 'autograd', but must be one of direct, gradient"),
        ({"skin": -0.1}, "skin is -0.1; it must be a distance in Å, zero or more"),
        ({"skin": float("nan")}, "skin is nan; it must be a distance"),
        ({"skin": "0.5"}, "skin is '0.5'; it must be a distance"),
        ({"skin": True}, "skin is True; it must be a distance"),
        ({"checkpoint_layers": "auto"}, "checkpoint_layers is 'auto'; it must be True, False or None"),
    ],
)
def test_bad_values_are_refused_at_once_and_change_nothing(loader, atoms, settings, message):
    with pytest.raises(InputError, match=message):
        ESCNCalculator(**settings)
    atoms.calc = ESCNCalculator("other")
    energy = atoms.get_potential_energy()
    before = dict(atoms.calc.parameters)
    with pytest.raises(InputError, match=message):
        atoms.calc.set(**settings)
    assert atoms.calc.parameters == before and atoms.calc.results["energy"] == energy


def test_repr_shows_the_settings(loader):
    shown = (
        "ESCNCalculator(model='default', device='auto', dtype='float32', matmul='full', forces=None, "
        "frames='canonical', skin=0.5, checkpoint_layers=None)"
    )
    assert repr(ESCNCalculator()) == shown
    assert repr(eval(shown)) == shown


def test_nothing_is_loaded_before_it_is_needed(loader, tmp_path):
    weights = tmp_path / "damaged.pt"
    weights.touch()
    calculator = ESCNCalculator(weights)
    assert loader.requests == []
    with pytest.raises(InputError, match=r"unknown model .*damaged\.pt'; did you mean 'default'"):
        calculator.get_potential_energy(bulk("Cu"))


def test_every_property_comes_from_one_evaluation(loader, atoms):
    atoms.calc = ESCNCalculator()
    atoms.get_forces(), atoms.get_potential_energy(), atoms.get_potential_energies()
    assert loader.potentials[0].calls == 1


@pytest.mark.parametrize("change", ["positions", "numbers", "cell", "pbc"])
def test_a_changed_structure_is_evaluated_again(loader, atoms, change):
    atoms.calc = ESCNCalculator()
    before = atoms.get_potential_energy()
    assert not atoms.calc.calculation_required(atoms, ["energy", "forces"])
    if change == "positions":
        atoms.positions[0, 2] += 1e-3
    elif change == "numbers":
        atoms.numbers[0] = 79
    elif change == "cell":
        atoms.cell[0, 0] += 0.1
    else:
        atoms.pbc = False
    assert atoms.calc.calculation_required(atoms, ["energy"])
    assert atoms.get_potential_energy() != before
    assert loader.potentials[0].calls == 2


def test_what_the_model_does_not_see_does_not_invalidate(loader, atoms):
    atoms.calc = ESCNCalculator()
    atoms.get_forces()
    atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    atoms.set_tags(7)
    atoms.info["note"] = "changed"
    assert not atoms.calc.calculation_required(atoms, ["energy", "forces"])
    atoms.get_forces()
    assert loader.potentials[0].calls == 1


def test_returned_arrays_are_copies(loader, atoms):
    atoms.calc = ESCNCalculator()
    forces = atoms.get_forces()
    expected = forces.copy()
    forces[:] = np.nan
    np.testing.assert_array_equal(atoms.get_forces(), expected)


def test_the_structure_is_not_changed(loader, atoms):
    atoms.positions += 40.0
    atoms.info["note"] = "kept"
    before = copy.deepcopy(atoms)
    atoms.calc = ESCNCalculator()
    atoms.get_forces()
    assert atoms == before
    assert atoms.arrays.keys() == before.arrays.keys()
    assert atoms.info == before.info


def test_set_model_drops_results_and_loads_the_other_model(loader, atoms):
    atoms.calc = ESCNCalculator()
    before = atoms.get_potential_energy()
    assert atoms.calc.set(model="other") == {"model": "other"}
    assert atoms.calc.results == {}
    assert "sha256" not in atoms.calc.todict()
    assert atoms.get_potential_energy() == pytest.approx(before + 1.0, abs=1e-5)
    assert atoms.calc.todict()["sha256"] == SHA256["other"]


def test_set_without_a_change_keeps_results(loader, atoms):
    atoms.calc = ESCNCalculator()
    atoms.get_potential_energy()
    assert atoms.calc.set(dtype="float32") == {}
    assert atoms.calc.results
    assert len(loader.requests) == 1


def test_unknown_setting_is_named(loader):
    with pytest.raises(
        InputError, match="no setting 'modle'; the settings are model, device, dtype, matmul, forces, frames, skin"
    ):
        ESCNCalculator().set(modle="other")
    with pytest.raises(TypeError, match="cutoff"):
        ESCNCalculator(cutoff=3.0)


def test_reset_forgets_results_and_keeps_the_model(loader, atoms):
    atoms.calc = ESCNCalculator()
    energy = atoms.get_potential_energy()
    atoms.calc.reset()
    assert atoms.calc.results == {} and atoms.calc.atoms is None
    assert atoms.get_potential_energy() == energy
    assert len(loader.requests) == 1


def test_energy_only_model_has_no_forces(loader, atoms):
    calculator = ESCNCalculator("energy-only")
    with pytest.raises(
        PropertyNotImplementedError, match="'energy-only' has no forces; it provides energy, free_energy"
    ):
        calculator.get_forces(atoms)
    assert calculator.implemented_properties == ["energy", "free_energy", "energies"]
    assert np.isfinite(calculator.get_potential_energy(atoms))
    assert set(calculator.results) == {"energy", "free_energy", "energies"}
    calculator.set(model="default")
    assert calculator.get_forces(atoms).shape == (8, 3)
    assert calculator.implemented_properties == ["energy", "free_energy", "energies", "forces"]
    calculator.set(forces="gradient")
    assert calculator.get_stress(atoms).shape == (6,)
    assert calculator.implemented_properties == ESCNCalculator.implemented_properties


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db"])
def test_writing_a_structure_neither_loads_nor_needs_the_model(loader, atoms, tmp_path, suffix):
    atoms.calc = ESCNCalculator()
    write(tmp_path / f"before.{suffix}", atoms)
    assert loader.requests == []
    atoms.get_forces()
    copies = [copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))]
    loader.requests.clear()
    for number, other in enumerate(copies):
        write(tmp_path / f"{number}.{suffix}", other)
        assert read(tmp_path / f"{number}.{suffix}").get_potential_energy() == pytest.approx(
            atoms.get_potential_energy()
        )
    assert loader.requests == []


def test_the_skin_reaches_the_search(loader, atoms, monkeypatch):
    searches = []
    original = ToyPotential.evaluate

    def evaluate(self, structures, search):
        searches.append(search)
        return original(self, structures, search)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    atoms.calc = ESCNCalculator(skin=np.float32(0.25))
    for _ in range(2):
        atoms.positions += 0.01
        atoms.get_forces()
    first, second = searches
    assert first is second and first.skin == 0.25
    atoms.calc.set(skin=1.0)
    atoms.get_forces()
    assert searches[-1].skin == 1.0


def test_reset_forgets_the_neighbours(loader, atoms, monkeypatch):
    atoms.calc = ESCNCalculator()
    atoms.get_forces()
    forgotten = []
    monkeypatch.setattr(type(atoms.calc._search), "reset", lambda self: forgotten.append(self))
    atoms.calc.reset()
    assert forgotten == [atoms.calc._search]


def test_stress_comes_with_gradient_forces_only(loader, atoms):
    atoms.calc = ESCNCalculator()
    with pytest.raises(PropertyNotImplementedError, match=r"has no stress; .*; stress needs forces='gradient'"):
        atoms.get_stress()
    atoms.calc.set(forces="gradient")
    assert atoms.get_stress().shape == (6,) and atoms.get_stresses().shape == (8, 6)
    molecule_without_cell = molecule("CO")
    molecule_without_cell.calc = atoms.calc
    molecule_without_cell.get_forces()
    calls = loader.potentials[-1].calls
    with pytest.raises(PropertyNotImplementedError, match=r"CO has no stress, because its cell .* has no volume"):
        molecule_without_cell.get_stress()
    assert loader.potentials[-1].calls == calls


@pytest.mark.parametrize("ask", ["get_dipole_moment", "get_magnetic_moments", "get_charges"])
def test_missing_properties_raise_the_exception_of_ase(loader, atoms, ask):
    atoms.calc = ESCNCalculator()
    with pytest.raises(PropertyNotImplementedError, match=r"model 'default' has no .*; it provides energy"):
        getattr(atoms, ask)()
    assert loader.requests == []


def test_bad_structure_is_our_error_and_that_of_ase(loader):
    atoms = Atoms("He", calculator=ESCNCalculator())
    with pytest.raises(InputError, match="atom 0 is He, which the model does not know") as caught:
        atoms.get_potential_energy()
    assert isinstance(caught.value, CalculatorSetupError)
    assert isinstance(caught.value, ESCNError)


def test_failed_evaluation_is_our_error_and_that_of_ase(loader, atoms):
    atoms.calc = ESCNCalculator()
    atoms.get_potential_energy()
    atoms.positions[0] = 1000.0
    with pytest.raises(CalculationError, match="the energy is nan") as caught:
        atoms.get_potential_energy()
    assert isinstance(caught.value, CalculationFailed)
    assert atoms.calc.results == {}
    with pytest.raises(CalculationError, match="the energy is nan"):
        atoms.get_potential_energy()


def test_no_results_of_an_earlier_structure_stay_after_a_failure(loader, atoms):
    calculator = ESCNCalculator()
    calculator.calculate(atoms)
    atoms.positions[0] = 1000.0
    with pytest.raises(CalculationError, match="the energy is nan"):
        calculator.calculate(atoms)
    assert calculator.results == {}


def test_calculate_without_a_structure(loader):
    with pytest.raises(InputError, match="the calculator has no structure yet"):
        ESCNCalculator().calculate()


def test_calculate_can_be_called_directly(loader, atoms):
    calculator = ESCNCalculator()
    calculator.calculate(atoms)
    assert set(calculator.results) == {"energy", "free_energy", "energies", "forces"}
    with pytest.raises(PropertyNotImplementedError, match="no stress"):
        calculator.calculate(atoms, ["energy", "stress"])


def test_record_of_the_calculation(loader, atoms):
    calculator = ESCNCalculator(dtype="float64")
    settings = {**ESCNCalculator.default_parameters, "dtype": "float64"}
    assert calculator.todict() == {**settings, "version": __version__}
    assert calculator.todict(skip_default=True) == {"dtype": "float64", "version": __version__}
    calculator.get_potential_energy(atoms)
    assert calculator.todict() == {**settings, "version": __version__, "sha256": SHA256["default"]}
    assert calculator.name == "escn"


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db", "json"])
def test_round_trip_through_files(loader, atoms, tmp_path, suffix):
    atoms.calc = ESCNCalculator()
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    path = tmp_path / f"structure.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(path, atoms)
    back = read(path)
    assert back.get_potential_energy() == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(back.get_forces(), forces, atol=1e-7)
    assert atoms.calc.calculation_required(back, ["energy"]) is (suffix == "extxyz")
    if suffix == "traj":
        assert back.calc.name == "escn"
        assert back.calc.parameters["sha256"] == SHA256["default"]
    if suffix in ("db", "json"):
        row = connect(path).get(1)
        assert row.calculator == "escn"
        assert row.calculator_parameters == atoms.calc.todict()


def test_deepcopy_keeps_results_and_loads_its_own_model(loader, atoms):
    atoms.calc = ESCNCalculator("other")
    energy = atoms.get_potential_energy()
    clone = copy.deepcopy(atoms)
    assert clone.calc is not atoms.calc
    assert clone.get_potential_energy() == energy
    assert len(loader.requests) == 1
    clone.positions[0, 2] += 0.1
    assert clone.get_potential_energy() != energy
    assert [request["model"] for request in loader.requests] == ["other", "other"]
    assert atoms.get_potential_energy() == energy


def test_pickle_drops_the_model(loader, atoms):
    calculator = ESCNCalculator("energy-only")
    energy = calculator.get_potential_energy(atoms)
    data = pickle.dumps(calculator)
    assert b"ToyPotential" not in data
    back = pickle.loads(data)
    assert back.todict() == calculator.todict()
    assert back.implemented_properties == ["energy", "free_energy", "energies"]
    assert back.get_potential_energy(atoms) == energy
    assert back.get_potential_energy(molecule("CO")) != energy
    assert len(loader.requests) == 2


def test_threads_share_one_calculator(loader, monkeypatch):
    """Every thread gets the energy of its own structure, and the model is loaded once."""
    original = ToyPotential.evaluate

    def slow_evaluate(self, structures, search):
        time.sleep(0.002)
        return original(self, structures, search)

    monkeypatch.setattr(ToyPotential, "evaluate", slow_evaluate)
    structures = [bulk("Cu", a=3.4 + 0.02 * number) for number in range(16)]
    expected = [ESCNCalculator().get_potential_energy(structure) for structure in structures]
    loader.requests.clear()
    shared = ESCNCalculator()
    start = threading.Barrier(8)

    def energies(worker: int) -> list[tuple[int, float]]:
        start.wait()
        mine = range(worker, 16, 8)
        return [(number, shared.get_potential_energy(structures[number])) for number in mine for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        found = [pair for result in pool.map(energies, range(8)) for pair in result]
    assert len(found) == 80
    assert all(energy == expected[number] for number, energy in found)
    assert len(loader.requests) == 1


def test_optimiser_of_ase_runs_with_it(loader, atoms):
    atoms.calc = ESCNCalculator()
    with BFGS(atoms, logfile=None) as search:
        assert search.run(fmax=0.05, steps=100)


def test_registered_with_ase(loader):
    assert get_calculator_class("escn") is ESCNCalculator


@pytest.fixture(scope="module")
def trained() -> ESCNCalculator:
    """A real network with random weights, small enough for many evaluations."""
    return ESCNCalculator(Path(__file__).parent / "data/parity/l2m1/checkpoint.pt", device="cpu")


def test_real_network_is_the_same_to_the_last_bit(trained, atoms):
    """Repeated, copied, pickled, in threads and whatever the global seed and default dtype: always the same numbers."""
    forces, energy = trained.get_forces(atoms), trained.get_potential_energy(atoms)
    assert energy == pytest.approx(trained.get_potential_energies(atoms).sum(), rel=1e-12)
    before = torch.get_default_dtype(), torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    try:
        others = [copy.deepcopy(trained), pickle.loads(pickle.dumps(trained)), trained]
        for other in others:
            other.reset()
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda other: (other.get_forces(atoms), other.get_potential_energy(atoms)), others))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before[0])
        torch.random.set_rng_state(before[1])
    for other_forces, other_energy in found:
        np.testing.assert_array_equal(other_forces, forces)
        assert other_energy == energy


def test_real_network_keeps_the_contract(trained, atoms, tmp_path):
    before = atoms.copy()
    atoms.calc = trained
    assert type(atoms.get_potential_energy()) is float
    for name in ("energies", "forces"):
        assert trained.results[name].dtype == np.float64 and type(trained.results[name]) is np.ndarray
    assert atoms == before
    path = tmp_path / "frame.traj"
    write(path, atoms)
    assert read(path).calc.parameters == trained.todict()
    assert trained.todict()["sha256"] == hashlib.sha256(Path(trained.parameters["model"]).read_bytes()).hexdigest()
    with pytest.raises(PropertyNotImplementedError, match="has no stress"):
        atoms.get_stress()


@pytest.mark.parametrize("ask", ["get_potential_energy", "get_forces"])
def test_warnings_point_at_the_line_that_asked(trained, ask):
    _warn_once.cache_clear()
    trained.reset()
    charged = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.2]], info={"charge": 1}, calculator=trained)
    with pytest.warns(UnusedInputWarning, match=r"info\['charge'\]: not used") as caught:
        getattr(charged, ask)()
    assert caught[0].filename == __file__


def test_real_network_refuses_bad_structures(trained):
    for structure, message in (
        (Atoms(), "no atoms"),
        (Atoms("CO", positions=[[0, 0, 0], [np.nan, 0, 0]]), "nan"),
        (Atoms("CO"), "atom 0 .* atom 1|overlap"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            trained.get_potential_energy(structure)
        assert isinstance(caught.value, CalculatorSetupError)
