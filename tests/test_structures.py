"""What a batch contains, and every structure that is refused or reported."""

import itertools
import re
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from escn_calc import structures
from escn_calc.errors import InputError
from escn_calc.structures import StructureBatch, UnseenElementWarning, UnusedInputWarning, check_elements


@pytest.fixture(autouse=True)
def forget_earlier_warnings():
    structures._warn_once.cache_clear()


def batch_of(*atoms):
    return StructureBatch.from_atoms(list(atoms))


def test_contents():
    slab = fcc111("Cu", (1, 1, 3), vacuum=5)
    slab.positions += 100
    water = molecule("H2O")
    batch = batch_of(slab, water)
    assert batch.numbers.tolist() == [29, 29, 29, 8, 1, 1]
    assert batch.positions.numpy() == pytest.approx(np.concatenate([slab.positions, water.positions]), abs=0)
    assert batch.cells[0, :2].numpy() == pytest.approx(slab.cell.array[:2], abs=0)
    assert batch.pbc.tolist() == [[True, True, False], [False, False, False]]
    assert batch.natoms.tolist() == [3, 3]
    assert (batch.num_structures, batch.num_atoms) == (2, 6)
    assert batch.structure_of_atom.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.first_atoms.tolist() == [0, 3]
    dtypes = {name: getattr(batch, name).dtype for name in ("numbers", "positions", "cells", "pbc", "natoms")}
    assert dtypes == {"numbers": torch.int64, "positions": torch.float64, "cells": torch.float64, "pbc": torch.bool,
                      "natoms": torch.int64}  # fmt: skip
    with pytest.raises(FrozenInstanceError):
        batch.numbers = None


def test_empty_list_is_an_empty_batch():
    batch = batch_of()
    assert (batch.num_structures, batch.num_atoms) == (0, 0)
    assert batch.positions.shape == (0, 3)
    assert batch.cells.shape == (0, 3, 3)
    assert batch.structure_of_atom.tolist() == []


def test_to_moves_every_tensor():
    batch = batch_of(molecule("H2O")).to("meta")
    assert {getattr(batch, name).device.type for name in ("numbers", "positions", "cells", "pbc", "natoms")} == {"meta"}


def test_input_is_neither_changed_nor_shared():
    atoms = fcc111("Cu", (2, 2, 2), vacuum=5)
    atoms.set_constraint(FixAtoms([0]))
    atoms.positions -= 30
    before = atoms.copy()
    batch = batch_of(atoms, molecule("CH4"))
    alone = batch_of(atoms)
    batch.positions.zero_()
    for tensor in (alone.positions, alone.numbers, alone.cells, alone.pbc):
        tensor.zero_()
    assert atoms == before
    assert len(atoms.constraints) == 1


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_cells_are_completed_where_not_periodic(pbc):
    cell = np.array([[3.0, 0.2, 0.1], [-1.0, 4.0, 0.3], [0.5, 0.5, -6.0]])
    atoms = Atoms("Cu", cell=np.where(np.array(pbc)[:, None], cell, 0), pbc=pbc)
    completed = batch_of(atoms).cells[0].numpy()
    assert completed[list(pbc)] == pytest.approx(cell[list(pbc)], abs=0)
    assert abs(np.linalg.det(completed)) > 0.5
    other = np.flatnonzero(~np.array(pbc))
    assert np.linalg.norm(completed[other], axis=1) == pytest.approx(1.0)
    for row in other:
        assert np.delete(completed, row, 0) @ completed[row] == pytest.approx(0.0, abs=1e-12)


def test_vectors_along_open_directions_do_not_matter():
    atoms = Atoms("H", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 0]], pbc=(True, False, False))
    assert np.linalg.det(batch_of(atoms).cells[0].numpy()) == pytest.approx(3.0)
    assert len(batch_of(Atoms("H", cell=[[1, 1, 0], [1, 1, 0], [1, 1, 0]])).cells) == 1


def test_left_handed_cell_is_fine():
    cell = [[0, 4, 0], [4, 0, 0], [0, 0, 4]]
    assert batch_of(Atoms("Cu", cell=cell, pbc=True)).cells[0].tolist() == cell


def test_atom_and_structure_names():
    batch = batch_of(molecule("CH4"), bulk("Cu", cubic=True))
    assert batch.describe_structure(1) == "structure 1 (Cu4)"
    assert batch.describe_atom(6) == "atom 1 (Cu)"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (molecule("H2O"), "expected a list of ase.Atoms, found one ase.Atoms object: pass [atoms]"),
        (None, "expected a list of ase.Atoms, found an object of type NoneType"),
        ([molecule("H2O"), "POSCAR"], "structure 1 is of type str: expected ase.Atoms"),
        ([molecule("H2O"), Atoms()], "structure 1 has no atoms: remove it from the list"),
        ([Atoms("CuX")], "atom 1 of structure 0 has atomic number 0 (ASE dummy atom X): expected 1 to 118"),
        ([Atoms(numbers=[29, 119])], "atom 1 of structure 0 has atomic number 119: expected 1 to 118"),
        ([Atoms(numbers=[-1])], "atom 0 of structure 0 has atomic number -1: expected 1 to 118"),
    ],
)
def test_what_is_not_a_list_of_structures(argument, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        StructureBatch.from_atoms(argument)


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (2e6, "2e+06"), (1e300, "1e+300")]
)
def test_positions_that_are_not_usable(value, shown):
    atoms = molecule("H2O")
    atoms.positions[2] = [0, 1.5, value]
    message = f"atom 2 (H) of structure 1 (H2O) is at (0, 1.5, {shown}) Å: positions must be finite and within ±1e+06 Å"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        batch_of(bulk("Cu"), atoms)


@pytest.mark.parametrize("pbc", [True, False])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (1e7, "1e+07")])
def test_cells_that_are_not_usable(pbc, value, shown):
    atoms = Atoms("Cu", cell=[[4, 0, 0], [0, value, 0], [0, 0, 4]], pbc=pbc)
    message = f"cell vector 1 of structure 0 (Cu) is (0, {shown}, 0) Å: cells must be finite and within ±1e+06 Å"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        batch_of(atoms)


@pytest.mark.parametrize(
    ("cell", "vector", "pbc"),
    [([4, 4, 0], 2, "TTT"), ([0, 0, 0], 0, "TTT"), ([4, 0, 0], 1, "FTT"), ([0, 5, 5], 0, "TTF")],
)
def test_zero_vector_along_a_periodic_direction(cell, vector, pbc):
    atoms = Atoms("CuO", positions=[[0, 0, 0], [1, 1, 1]], cell=cell, pbc=[flag == "T" for flag in pbc])
    message = (
        f"cell vector {vector} of structure 0 (CuO) is zero although the structure is periodic along it (pbc {pbc}): "
        "set the cell, or pbc False in that direction"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        batch_of(atoms)


@pytest.mark.parametrize(
    ("cell", "pbc", "spacing"),
    [
        ([[4, 0, 0], [8, 0, 0], [0, 0, 4]], True, "0"),
        ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], True, "0"),
        ([[4, 0, 0], [4, 1e-3, 0], [0, 0, 4]], (True, True, False), "0.001"),
        ([[4, 0, 0], [0, 0.05, 0], [0, 0, 4]], (False, True, False), "0.05"),
    ],
)
def test_singular_and_nearly_singular_cells(cell, pbc, spacing):
    message = (
        r"^the cell of structure 0 \(Cu\) is singular or nearly so: its periodic vectors \(.*\) Å have "
        rf"lattice planes only {spacing} Å apart \(at least 0\.1 Å needed\): correct the cell, "
        "or reduce it if it is only very skewed$"
    )
    with pytest.raises(InputError, match=message):
        batch_of(Atoms("Cu", cell=cell, pbc=pbc))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda atoms: atoms.set_initial_charges([1, 0, 0]), "initial charges"),
        (lambda atoms: atoms.set_initial_magnetic_moments([0, 0, 2]), "initial magnetic moments"),
        (lambda atoms: atoms.set_initial_magnetic_moments(np.ones((3, 3))), "initial magnetic moments"),
        (lambda atoms: atoms.info.update(charge=-1), "info['charge']"),
        (lambda atoms: atoms.info.update(spin=2), "info['spin']"),
        (lambda atoms: atoms.info.update(total_charge=1.0), "info['total_charge']"),
        (lambda atoms: atoms.info.update(spin_multiplicity=3), "info['spin_multiplicity']"),
        (lambda atoms: atoms.info.update(charge="unknown"), "info['charge']"),
    ],
)
def test_charge_and_spin_are_reported_once(change, name):
    atoms = molecule("H2O")
    change(atoms)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batch_of(atoms, atoms)
        batch_of(atoms)
    assert [warning.category for warning in caught] == [UnusedInputWarning]
    assert str(caught[0].message) == f"{name}: not used, eSCN has no input for charge or spin"
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "info",
    [
        {"charge": 0, "spin": None},
        {"charge": 0, "spin": 1},
        {"charge": 0.0, "spin": np.int64(0)},
        {"total_charge": 0, "spin_multiplicity": 1},
    ],
)
def test_a_neutral_singlet_is_silent(info):
    atoms = molecule("H2O")
    atoms.set_initial_charges([0, 0, 0])
    atoms.set_initial_magnetic_moments([0, 0, 0])
    atoms.info.update(info)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch_of(atoms)


def test_elements_beyond_the_table():
    batch = batch_of(molecule("H2O"), Atoms("CuUO2"))
    check_elements(batch, 93, None, True)
    message = (
        "atom 1 (U) of structure 1 (CuO2U): the model's element table ends at Ac (atomic number 89); remove the "
        "atom or use a model that covers its element"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_elements(batch, 90, None, False)
    with pytest.raises(InputError, match="ends at U"):
        check_elements(batch_of(Atoms("Np")), 93, None, False)


def test_unseen_elements_are_refused():
    batch = batch_of(bulk("Cu"), molecule("CO"), molecule("SO2"))
    check_elements(batch, 90, frozenset({"Cu", "C", "O", "S"}), True)
    message = (
        "atom 0 (S) of structure 2 (O2S): the model was never trained on this element; it knows C O Cu. "
        "Use a model trained on it"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_elements(batch, 90, frozenset({"Cu", "C", "O"}), True)


def test_unseen_elements_are_reported_once_per_set():
    known = frozenset({"H", "O"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            check_elements(batch_of(molecule("SO2"), molecule("CO")), 90, known, False)
            check_elements(batch_of(molecule("CO")), 90, known, False)
        check_elements(batch_of(molecule("H2O")), 90, known, False)
        check_elements(batch_of(), 90, known, False)
    assert [warning.category for warning in caught] == [UnseenElementWarning] * 2
    assert str(caught[0].message) == (
        "the model was not trained on C S; its results for structures with these elements are not to be trusted "
        "(trained on H O)"
    )
    assert "not trained on C;" in str(caught[1].message)
