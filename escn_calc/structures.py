"""ASE ``Atoms`` → :class:`StructureBatch`: the only place where structures given by the user are checked.

Everything that can be judged without neighbours or a model is checked in :meth:`StructureBatch.from_atoms`; elements
are checked against a model in :func:`check_elements`; atoms that sit on top of each other are found where distances
are known, in :func:`escn_calc.graph.radius_graph`.
"""

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from ase.symbols import Symbols
from torch import Tensor

from escn_calc.errors import InputError

#: Largest coordinate or cell component (Å). Beyond it float64 resolves less than 1e-10 Å.
LARGEST_COORDINATE = 1.0e6
#: Smallest distance (Å) between neighbouring lattice planes of a periodic direction.
SMALLEST_PLANE_SPACING = 0.1
#: Keys of ``atoms.info`` for charge and spin, and their values for a neutral singlet. ``spin`` is in use both for the
#: number of unpaired electrons (0) and for the multiplicity (1).
CHARGE_AND_SPIN = {"charge": (0,), "total_charge": (0,), "spin": (0, 1), "spin_multiplicity": (1,)}


class UnusedInputWarning(UserWarning):
    """A structure carries information (charge, spin, magnetic moments) that the model does not use."""


class UnseenElementWarning(UserWarning):
    """A structure contains elements that the model did not see in training."""


@dataclass(frozen=True, eq=False)
class StructureBatch:
    """Several structures in one set of tensors, atoms of one structure after those of the other.

    Attributes
    ----------
    numbers : Tensor, (N,) int64
        Atomic numbers.
    positions : Tensor, (N, 3) float64
        Cartesian positions in Å, as given: not wrapped into the cell.
    cells : Tensor, (B, 3, 3) float64
        Cell vectors in Å, one per row. Rows of directions that are not periodic are replaced by unit vectors orthogonal
        to the others, so that no cell is singular; their offsets are always zero.
    pbc : Tensor, (B, 3) bool
        Periodic directions, per structure.
    natoms : Tensor, (B,) int64
        Atoms per structure, each at least 1.
    indices : Tensor, (B,) int64
        Where each structure stands in the list that was given: its number in messages.
    """

    numbers: Tensor
    positions: Tensor
    cells: Tensor
    pbc: Tensor
    natoms: Tensor
    indices: Tensor

    @classmethod
    def from_atoms(cls, structures: Sequence[Atoms], first_index: int = 0) -> "StructureBatch":
        """Check structures and copy them into one batch on the CPU.

        Parameters
        ----------
        structures : sequence of ase.Atoms
            May be empty. Never changed. Constraints, tags and velocities are ignored; charges and spins too, with one
            :class:`UnusedInputWarning` per process.
        first_index : int
            Number of the first structure in messages.

        Raises
        ------
        InputError
            Not ``Atoms``; no atoms; an atomic number outside 1…118; positions or cell NaN, infinite or beyond
            1e6 Å; cell vectors of periodic directions that are zero or (nearly) linearly dependent.
        """
        check_is_list(structures)
        for index, atoms in enumerate(structures, first_index):
            _check(index, atoms)
        if not structures:
            return cls(
                numbers=torch.zeros(0, dtype=torch.int64, device="cpu"),
                positions=torch.zeros(0, 3, dtype=torch.float64, device="cpu"),
                cells=torch.zeros(0, 3, 3, dtype=torch.float64, device="cpu"),
                pbc=torch.zeros(0, 3, dtype=torch.bool, device="cpu"),
                natoms=torch.zeros(0, dtype=torch.int64, device="cpu"),
                indices=torch.zeros(0, dtype=torch.int64, device="cpu"),
            )
        return cls(
            numbers=torch.from_numpy(np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64)),
            positions=torch.from_numpy(np.concatenate([atoms.positions for atoms in structures]).astype(np.float64)),
            cells=torch.from_numpy(np.stack([_completed_cell(atoms) for atoms in structures])),
            pbc=torch.from_numpy(np.stack([atoms.pbc for atoms in structures])),
            natoms=torch.tensor([len(atoms) for atoms in structures], dtype=torch.int64, device="cpu"),
            indices=torch.arange(first_index, first_index + len(structures), device="cpu"),
        )

    @classmethod
    def joined(cls, batches: Sequence["StructureBatch"]) -> "StructureBatch":
        """Put one or more batches on one device behind each other."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            **{field.name: torch.cat([getattr(batch, field.name) for batch in batches]) for field in fields(cls)}
        )

    @property
    def num_structures(self) -> int:
        """Number of structures B."""
        return len(self.natoms)

    @property
    def num_atoms(self) -> int:
        """Number of atoms N of all structures together."""
        return len(self.numbers)

    @property
    def structure_of_atom(self) -> Tensor:
        """Index of the structure each atom belongs to, (N,) int64."""
        indices = torch.arange(self.num_structures, device=self.natoms.device)
        return torch.repeat_interleave(indices, self.natoms, output_size=self.num_atoms)

    @property
    def first_atoms(self) -> Tensor:
        """Index of the first atom of each structure, (B,) int64."""
        return self.natoms.cumsum(0) - self.natoms

    def to(self, device: torch.device | str) -> "StructureBatch":
        """Return the batch with all tensors on ``device``."""
        return StructureBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def describe_structure(self, structure: int) -> str:
        """Name a structure of the batch for a message: ``structure 2 (CuO)``, counted from 0 in the list given."""
        first = int(self.first_atoms[structure])
        numbers = self.numbers[first : first + int(self.natoms[structure])]
        index = int(self.indices[structure])
        return f"structure {index} ({Symbols(numbers.cpu().numpy()).get_chemical_formula()})"

    def describe_atom(self, atom: int) -> str:
        """Name an atom of the batch for a message: ``atom 5 (Cu)``, counted from 0 in its own structure."""
        structure = int(self.structure_of_atom[atom])
        return f"atom {atom - int(self.first_atoms[structure])} ({chemical_symbols[int(self.numbers[atom])]})"


def check_elements(
    batch: StructureBatch, max_num_elements: int, known: frozenset[str] | None, refuse_unseen: bool
) -> None:
    """Refuse or report elements that a model cannot, or has not learned to, describe.

    Parameters
    ----------
    batch : StructureBatch
    max_num_elements : int
        Rows of the model's element table; it accepts atomic numbers below this.
    known : frozenset of str, or None
        Symbols of the elements seen in training; None if that is not known, then nothing more is checked.
    refuse_unseen : bool
        True: elements outside ``known`` are an error. False: one :class:`UnseenElementWarning` per set of elements and
        process.

    Raises
    ------
    InputError
        Names the structure, the first offending atom and what the model accepts.
    """
    too_heavy = batch.numbers >= max_num_elements
    if too_heavy.any():
        raise InputError(
            f"{_first_atom(batch, too_heavy)}: the model's element table ends at "
            f"{chemical_symbols[min(max_num_elements, len(chemical_symbols)) - 1]} (atomic number "
            f"{max_num_elements - 1}); remove the atom or use a model that covers its element"
        )
    if known is None:
        return
    unseen = ~_is_among(known).to(batch.numbers.device)[batch.numbers]
    if not unseen.any():
        return
    trained_on = " ".join(symbol for symbol in chemical_symbols if symbol in known)
    if refuse_unseen:
        raise InputError(
            f"{_first_atom(batch, unseen)}: the model was never trained on this element; it knows {trained_on}. "
            "Use a model trained on it"
        )
    symbols = " ".join(chemical_symbols[number] for number in batch.numbers[unseen].unique().tolist())
    _warn_once(
        f"the model was not trained on {symbols}; its results for structures with these elements are not to be trusted "
        f"(trained on {trained_on})",
        UnseenElementWarning,
    )


@cache
def _is_among(symbols: frozenset[str]) -> Tensor:
    """Whether each atomic number has one of some symbols, (119,) bool."""
    return torch.tensor([symbol in symbols for symbol in chemical_symbols], device="cpu")


def _first_atom(batch: StructureBatch, where: Tensor) -> str:
    atom = int(where.nonzero()[0])
    structure = int(batch.structure_of_atom[atom])
    return f"{batch.describe_atom(atom)} of {batch.describe_structure(structure)}"


@cache
def _warn_once(message: str, category: type[UserWarning]) -> None:
    warnings.warn(message, category, stacklevel=caller_level())


def caller_level() -> int:
    """Stack level, as seen by the calling function, of the innermost line that is neither this package's nor ASE's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("escn_calc", "ase"):
        frame, level = frame.f_back, level + 1
    return level


def check_is_list(structures: object) -> None:
    """Make sure that structures come in a list; an ``InputError`` says what was found instead."""
    if isinstance(structures, Atoms):
        raise InputError("expected a list of ase.Atoms, found one ase.Atoms object: pass [atoms]")
    if not isinstance(structures, Sequence):
        raise InputError(f"expected a list of ase.Atoms, found an object of type {type(structures).__name__}")


def _check(index: int, atoms: object) -> None:
    if not isinstance(atoms, Atoms):
        raise InputError(f"structure {index} is of type {type(atoms).__name__}: expected ase.Atoms")
    if len(atoms) == 0:
        raise InputError(f"structure {index} has no atoms: remove it from the list")
    _check_numbers(index, atoms.numbers)
    _check_positions(index, atoms)
    _check_cell(index, atoms)
    _warn_about_charge_and_spin(atoms)


def _check_numbers(index: int, numbers: np.ndarray) -> None:
    wrong = (numbers < 1) | (numbers >= len(chemical_symbols))
    if wrong.any():
        atom = int(wrong.argmax())
        raise InputError(
            f"atom {atom} of structure {index} has atomic number {numbers[atom]}"
            f"{' (ASE dummy atom X)' if numbers[atom] == 0 else ''}: expected 1 to {len(chemical_symbols) - 1}"
        )


def _check_positions(index: int, atoms: Atoms) -> None:
    usable = (np.abs(atoms.positions) <= LARGEST_COORDINATE).all(axis=1)
    if not usable.all():
        atom = int((~usable).argmax())
        raise InputError(
            f"atom {atom} ({atoms.symbols[atom]}) of {_name(index, atoms)} is at "
            f"{_components(atoms.positions[atom])} Å: positions must be finite and within ±{LARGEST_COORDINATE:.0e} Å"
        )


def _check_cell(index: int, atoms: Atoms) -> None:
    cell = atoms.cell.array
    usable = (np.abs(cell) <= LARGEST_COORDINATE).all(axis=1)
    if not usable.all():
        vector = int((~usable).argmax())
        raise InputError(
            f"cell vector {vector} of {_name(index, atoms)} is {_components(cell[vector])} Å: "
            f"cells must be finite and within ±{LARGEST_COORDINATE:.0e} Å"
        )
    zero = atoms.pbc & ~cell.any(axis=1)
    if zero.any():
        vector = int(zero.argmax())
        raise InputError(
            f"cell vector {vector} of {_name(index, atoms)} is zero although the structure is periodic along it "
            f"(pbc {_flags(atoms)}): set the cell, or pbc False in that direction"
        )
    periodic = cell[atoms.pbc]
    spacing = _smallest_plane_spacing(periodic)
    if spacing < SMALLEST_PLANE_SPACING:
        raise InputError(
            f"the cell of {_name(index, atoms)} is singular or nearly so: its periodic vectors "
            f"{'; '.join(map(_components, periodic))} Å have lattice planes only {spacing:.2g} Å apart "
            f"(at least {SMALLEST_PLANE_SPACING} Å needed): correct the cell, or reduce it if it is only very skewed"
        )


def _smallest_plane_spacing(vectors: np.ndarray) -> float:
    """Smallest height (Å) of the parallelepiped spanned by 0 to 3 row vectors; 0 if linearly dependent."""
    if len(vectors) == 0:
        return math.inf
    if np.linalg.matrix_rank(vectors) < len(vectors):
        return 0.0
    return float(1.0 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max())


def _completed_cell(atoms: Atoms) -> np.ndarray:
    periodic = atoms.pbc[:, None]
    completed = complete_cell(np.where(periodic, atoms.cell.array, 0.0))
    return np.where(periodic, atoms.cell.array, completed)


def _warn_about_charge_and_spin(atoms: Atoms) -> None:
    carried = {
        "initial charges": atoms.get_initial_charges(),
        "initial magnetic moments": atoms.get_initial_magnetic_moments(),
    }
    names = [name for name, values in carried.items() if values.any()]
    names += [
        f"info[{key!r}]"
        for key, neutral in CHARGE_AND_SPIN.items()
        if atoms.info.get(key) is not None and not np.isin(atoms.info[key], neutral).all()
    ]
    for name in names:
        _warn_once(f"{name}: not used, eSCN has no input for charge or spin", UnusedInputWarning)


def _name(index: int, atoms: Atoms) -> str:
    return f"structure {index} ({atoms.get_chemical_formula()})"


def _components(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{component:g}" for component in vector) + ")"


def _flags(atoms: Atoms) -> str:
    return "".join("FT"[int(flag)] for flag in atoms.pbc)
