"""Relaxations that end because their adsorbates are no longer what they were."""

import numpy as np
import pytest
from ase import Atoms

from escn_calc.adsorption.anomalies import Thresholds, find_anomalies, stop_on_anomalies
from escn_calc.batch_relaxation import relax_batch, stops
from escn_calc.errors import InputError
from escn_calc.relax_result import RelaxStep
from tests.adsorption.anomaly_made import CU, TOP, moved, on
from tests.adsorption.anomaly_starts import placed, slab
from tests.batch_relaxation.emt_potential import EMTPotential

CO = on(CU, ("CO", TOP, 1.85))
LEFT = moved(CO, [-1, -2], (0, 0, 4))
DESORBED = "desorbed: CO (atoms 27, 28) is more than 4 Å from the slab and from all that stands on it"


def words(callback, frames: list[Atoms], fmax: float = 1.0, index: int = 0) -> list[str | None]:
    return [callback(index, RelaxStep(number, 0.0, fmax), frame) for number, frame in enumerate(frames)]


def test_an_anomaly_must_last():
    assert words(stop_on_anomalies(), [CO, *[LEFT] * 5]) == [None] * 5 + [DESORBED]
    assert words(stop_on_anomalies(patience=2), [CO, LEFT, CO, LEFT, LEFT]) == [None] * 4 + [DESORBED]


def test_structures_are_not_confused_and_can_begin_anew():
    callback = stop_on_anomalies(patience=1)
    assert words(callback, [CO, CO], index=0) == [None, None]
    assert words(callback, [LEFT, LEFT], index=1) == [DESORBED, DESORBED]
    assert words(callback, [CO, LEFT], index=1) == [None, DESORBED]
    assert words(callback, [CO], index=0) == [None]


def test_what_does_not_end_a_relaxation():
    """Notes, and a slab in the making: only what would have to be thrown away is stopped."""
    callback = stop_on_anomalies(patience=1)
    higher, farther = moved(CO, [-1, -2], (0, 0, 1.5)), moved(CO, [-1, -2], (1.3, 0.7, 0))
    assert words(callback, [CO, higher, farther, moved(CO, [20], (0, 0, 0.9))]) == [None] * 4


def test_a_force_beyond_reason_ends_at_once():
    callback = stop_on_anomalies(Thresholds(force=30.0))
    assert words(callback, [CO], fmax=31.0) == ["exploded: the largest force is 31 eV/Å, above 30 eV/Å"]


def test_atoms_that_start_too_close_get_the_time_to_part():
    near = moved(CO, [-1], (0, 0, -0.7))
    assert words(stop_on_anomalies(), [near, near, CO, CO]) == [None] * 4
    assert words(stop_on_anomalies(), [near] * 5) == [None] * 4 + ["exploded: CO (atoms 27, 28) are 0.45 Å apart"]


def test_the_first_frame_is_kept_as_it_was():
    callback, atoms = stop_on_anomalies(patience=1), CO.copy()
    assert words(callback, [atoms]) == [None]
    atoms.positions[-2:] += [0, 0, 4]
    assert callback(0, RelaxStep(1, 0.0, 1.0), atoms) == DESORBED


def test_patience_without_sense():
    with pytest.raises(InputError, match="patience is 0 frames; it must be 1 or more"):
        stop_on_anomalies(patience=0)


def test_relaxations_end_early_and_the_last_frame_tells_the_same():
    """O2 falls apart on Pt(111) by EMT, O on Cu(111) does not move far."""
    pair, single = placed(slab("Pt"), "O2", "bridge", 1.8), placed(slab("Cu"), "O", "fcc", 1.3)
    plain = relax_batch([pair, single], EMTPotential(), fmax=0.05)
    early = relax_batch([pair, single], EMTPotential(), fmax=0.05, callbacks=[stop_on_anomalies()])
    assert [result.reason for result in early] == ["stopped", "converged"]
    assert early[0].steps < 0.7 * plain[0].steps
    assert early[0].message == "dissociated: O2 (atoms 12, 13) has come apart into O (atom 12) and O (atom 13)"
    for result in (plain[0], early[0]):
        (anomaly,) = find_anomalies(pair, result.atoms, reason=result.reason, fmax=result.fmax)
        assert anomaly.message == early[0].message
    np.testing.assert_array_equal(early[1].atoms.positions, plain[1].atoms.positions)


def test_limits_are_those_of_the_stops_for_any_structure():
    assert Thresholds().force == stops.EXPLOSION
    assert Thresholds().desorption == stops.DESORPTION
