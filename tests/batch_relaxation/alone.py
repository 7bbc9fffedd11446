"""What ``relax`` makes of a structure alone, and whether a result is the same."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from escn_calc.relax import RelaxResult, relax


def assert_same_end(result: RelaxResult, expected: RelaxResult) -> None:
    assert (result.reason, result.message, result.notes) == (expected.reason, expected.message, expected.notes)
    assert result.steps == expected.steps
    assert result.energy == pytest.approx(expected.energy, abs=1e-10)
    assert result.max_displacement == pytest.approx(expected.max_displacement, abs=1e-8)
    np.testing.assert_allclose(result.atoms.positions, expected.atoms.positions, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.atoms.get_forces(), expected.atoms.get_forces(), rtol=0, atol=1e-8)


def alone(atoms: Atoms, **options) -> RelaxResult:
    return relax(atoms, EMT(), **{"optimizer": "LBFGS", "fmax": 0.05} | options)
