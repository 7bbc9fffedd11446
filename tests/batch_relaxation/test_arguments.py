"""What cannot be meant is refused before anything is evaluated."""

from __future__ import annotations

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from escn_calc import ESCNCalculator, relax_batch
from escn_calc.batch_relaxation import iter_relax_batch
from escn_calc.errors import InputError
from tests.batch_relaxation.emt_potential import EMTPotential, slabs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimizer": "FIRE2"},
            "optimizer FIRE2 asks for several evaluations a step, .*; choose one of BFGS, FI",
        ),
        ({"optimizer": "BFGSLineSearch"}, "or relax one by one with escn_calc.relax.relax"),
        ({"optimizer": "LBGFS"}, "unknown optimizer 'LBGFS'; did you mean"),
        ({"fmax": 0.0}, "fmax is 0.0 eV/Å; it must be a positive number"),
        ({"steps": -1}, "steps is -1; it must be 0 or more"),
        ({"cell": "half"}, "cell is 'half'; it must be one of fixed"),
        ({"pressure_GPa": 1.0}, "a cell that is 'fixed' has no volume that answers to it"),
        ({"max_active": 0}, "max_active is 0; it must be 1 or more"),
        ({"trajectories": ["a.traj"]}, "there are 1 trajectories for 2 structures; give one, or None, for each"),
        ({"trajectories": ["a.traj", "a.traj"]}, "two trajectories have the same path"),
    ],
)
@pytest.mark.parametrize("function", [relax_batch, iter_relax_batch])
def test_options_are_checked_before_anything_is_evaluated(function, options, message):
    potential = EMTPotential()
    with pytest.raises(InputError, match=message):
        function(slabs(2), potential, **options)
    assert potential.batches == []


def test_a_folder_for_trajectories_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    potential = EMTPotential()
    with pytest.raises(InputError, match=r"cannot make the folder '.*file': File exists"):
        relax_batch(slabs(1), potential, trajectories=tmp_path / "file")
    assert potential.batches == []


def test_optimizer_name_in_any_case():
    assert relax_batch(slabs(1), EMTPotential(), optimizer="fire", steps=1)[0].steps == 1


@pytest.mark.parametrize("structures", [bulk("Cu"), None, (atoms for atoms in slabs(1))])
def test_what_is_no_list(structures):
    with pytest.raises(InputError, match=r"expected a list of ase.Atoms, found (one ase.Atoms|an object of type)"):
        relax_batch(structures, EMTPotential())


@pytest.mark.parametrize("potential", ["default", None, EMT()])
def test_what_is_no_potential(potential):
    with pytest.raises(InputError, match=r"potential is .*; pass load_potential\(...\), or the .potential of an ESCNC"):
        relax_batch(slabs(1), potential)


def test_a_calculator_is_no_potential(loader):
    with pytest.raises(InputError, match="potential is ESCNCalculator"):
        relax_batch(slabs(1), ESCNCalculator())


def test_potentials_without_forces_or_stress():
    with pytest.raises(InputError, match=r"needs forces, .* has none; load it with forces='gradient'"):
        relax_batch(slabs(1), EMTPotential(forces=None))
    with pytest.raises(InputError, match=r"needs the stress, .* has none; load it with forces='gradient'"):
        relax_batch(slabs(1), EMTPotential(forces="direct"), cell="in-plane")
