"""Running campaigns: every result once, what is there is not done again, and nothing foreign is mixed in."""

from __future__ import annotations

import errno
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ase.db import connect
from ase.db.sqlite import SQLite3Database

from escn_calc.errors import CalculationError, InputError
from escn_calc.screening import open_store, prepare, run_campaign
from escn_calc.screening.relaxing import Ended, LostError
from escn_calc.screening.results import campaign as campaign_of
from escn_calc.screening.results import results
from tests.screening.calculators import GAS, adsorption_energy
from tests.screening.campaigns import KNOWN, campaign, local_engine, rows, run, settings

ADSORPTION = {"calculator": {**KNOWN["calculator"], "energy_kind": "adsorption", "arguments": {"kind": "adsorption"}}}
EMT = settings(
    calculator={"factory": "ase.calculators.emt:EMT", "energy_kind": "total"},
    lattice="isotropic",
    bulks=["Cu"],
    relaxation={"fmax": 0.1, "steps": 60},
)


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """Folder of a campaign with known answers."""
    folder = tmp_path_factory.mktemp("known")
    assert len(run(folder)) == 20
    return folder


def test_rows(known):
    store = open_store(known / "out/results.db")
    found = rows(store)
    assert {row.kind for row in found.values()} == {"gas", "slab", "adslab"}
    assert {row.state for row in found.values()} == {"converged"}
    row = next(row for row in found.values() if row.name == "Pt(111) O hcp")
    assert (row.surface, row.adsorbate, row.site, row.references) == ("Pt(111)", "O", "hcp", "oc20")
    assert row.data["versions"]["ase"] and row.data["settings"]["fmax"] == 0.05
    assert row.data["model"]["calculator"] == row.model_name == "tests.screening.calculators:Known"
    assert row.data["labels"]["miller"] == [1, 1, 1] and len(row.data["history"]["energy"]) == 1
    atoms = row.toatoms()
    assert atoms.get_tags().tolist() == [0, 1, 1, 2] and atoms.constraints[0].index.tolist() == [0]
    metadata = store.metadata()
    assert metadata["planned"] == {"bulk": 0, "gas": 2, "slab": 2, "adslab": 16}
    assert ["Pt(111)", "O", None, 4] in metadata["planned_systems"]
    assert sorted(path.name for path in (known / "out").iterdir()) == ["results.db"]


def test_both_kinds_of_models_give_the_same_energies(known, tmp_path):
    assert len(run(tmp_path, **ADSORPTION, references="oc20")) == 16
    from_totals, from_differences = (
        {(one.surface, one.adsorbate, one.site): one for one in results(open_store(folder / "out/results.db"))}
        for folder in (known, tmp_path)
    )
    assert from_totals.keys() == from_differences.keys() and len(from_totals) == 16
    for place, result in from_totals.items():
        assert result.energy == pytest.approx(from_differences[place].energy, abs=1e-9)
        assert result.energy == pytest.approx(adsorption_energy(result.atoms), abs=1e-9)
        assert (result.best, result.reaction) == (from_differences[place].best, from_differences[place].reaction)
    assert from_totals["Cu(111)", "O", "fcc"].reaction == "* + H2O(g) → O* + H2(g)"


def test_best_of_each_system(known):
    found = results(open_store(known / "out/results.db"))
    assert [result.system for result in found[::4]] == [
        (surface, what, None) for surface in ("Cu(111)", "Pt(111)") for what in ("H", "O")
    ]
    for first in range(0, 16, 4):
        system = found[first : first + 4]
        (best,) = (result for result in system if result.best)
        assert best.energy == min(result.energy for result in system if result.valid)


def test_what_results_have_in_common(known):
    about = campaign_of(open_store(known / "out/results.db"))
    assert (about.name, about.energy_kind, about.scheme) == ("campaign", "total", "oc20")
    assert about.reference_energies == {"H2": pytest.approx(GAS["H2"]), "H2O": pytest.approx(GAS["H2O"])}
    assert about.planned == about.done == {"bulk": 0, "gas": 2, "slab": 2, "adslab": 16}
    assert about.settings["fmax"] == 0.05 and about.settings["layers"] == 3 and about.failures == ()
    assert about.thresholds["desorption"] == 4.0 and "supercell" in about.config


@pytest.fixture
def copied(known, tmp_path) -> Path:
    """Folder with a copy of the finished campaign."""
    shutil.copytree(known, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_only_what_is_missing_is_done(copied):
    assert run(copied) == []
    before = rows(open_store(copied / "out/results.db"))
    added = run(copied, adsorbates=["H", "O", "CO"], bulks=["Cu", "Pt", "Al"])
    assert sorted({name.split()[0] for name in added}) == ["Al(111)", "CO", "Cu(111)", "Pt(111)"]
    assert not any(name.startswith(("Cu", "Pt")) and " CO " not in name for name in added)
    after = rows(open_store(copied / "out/results.db"))
    assert all(after[key].unique_id == row.unique_id and after[key].mtime == row.mtime for key, row in before.items())
    assert len(open_store(copied / "out/results.db").metadata()["runs"]) == 3


OTHERS = {
    "model": ({"calculator": {**KNOWN["calculator"], "arguments": {"seconds": 0.001}}}, "model arguments: {} there, "),
    "settings": ({"relaxation": {"fmax": 0.04}}, "relaxation fmax: 0.05 there, 0.04 here"),
    "slabs": ({"surfaces": {**KNOWN["surfaces"], "layers": 4}}, "surfaces layers: 3 there, 4 here"),
    "references": ({"references": {"H": -1.0, "O": -2.0}}, "references .*there"),
    "placements": ({"placements": {"mode": "random", "number": 2}}, "placements mode: 'sites' there, 'random' here"),
    "anomalies": ({"anomalies": {"stop": False}}, "anomalies stop: True there, False here"),
    "bulk": (
        {"bulks": [{"source": "Cu", "a": 3.7}]},
        "the bulk Cu is not the same as in '.*results.db'; give it another",
    ),
}


@pytest.mark.parametrize(("changes", "message"), OTHERS.values(), ids=OTHERS)
def test_other_settings_are_refused_before_any_work(copied, changes, message):
    before = (copied / "out/results.db").read_bytes()
    with pytest.raises(InputError, match=message):
        prepare(campaign(copied, **changes))
    assert (copied / "out/results.db").read_bytes() == before


def test_other_databases_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with connect(tmp_path / "out/results.db") as database:
        database.write(campaign_atoms())
    with pytest.raises(InputError, match=r"results.db' is not a database that escn screen has made"):
        prepare(campaign(tmp_path))
    (tmp_path / "out/results.db").write_text("a text")
    with pytest.raises(InputError, match=r"results.db': file is not a database"):
        prepare(campaign(tmp_path))
    with pytest.raises(InputError, match=r"there is no database '.*none.db'"):
        open_store(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def campaign_atoms():
    from ase import Atoms

    return Atoms("H")


def test_a_database_has_one_writer(copied):
    prepared = prepare(campaign(copied))
    with prepared.store.locked(), pytest.raises(InputError, match=r"another process writes '.*'; wait until it ends"):
        run_campaign(prepared, local_engine(prepared))


def test_a_failure_costs_only_itself(tmp_path):
    calculator = {**KNOWN["calculator"], "arguments": {"fails_for": "O", "fails_unless": str(tmp_path / "licence")}}
    assert len(run(tmp_path, calculator=calculator)) == 20
    store = open_store(tmp_path / "out/results.db")
    failed = [row for row in rows(store).values() if row.state == "failed"]
    assert len(failed) == 9  # eight placements and a molecule
    assert failed[0].failure == "H2O: RuntimeError: no convergence with O"
    assert {result.adsorbate for result in results(store) if result.valid} == {"H"}
    reasons = {result.why_no_energy for result in results(store) if not result.valid}
    assert reasons == {"it could not be evaluated"}
    assert campaign_of(store).failures == (("H2O", f"H2O has not converged (failed: {failed[0].failure})"),)
    assert run(tmp_path, calculator=calculator) == []
    (tmp_path / "licence").touch()
    assert len(run(tmp_path, calculator=calculator, retry=True)) == 9
    assert {row.state for row in rows(store).values()} == {"converged"}
    assert all(result.valid for result in results(store))


def test_lattices_relax_first(tmp_path):
    done = run(tmp_path, EMT)
    assert done[0] == "Cu" and done.index("Cu(111)") < done.index("Cu(111) H fcc")
    store = open_store(tmp_path / "out/results.db")
    found = rows(store)
    relaxed = next(row for row in found.values() if row.kind == "bulk").toatoms()
    slab = next(row for row in found.values() if row.kind == "slab").toatoms()
    assert slab.cell.lengths()[0] == pytest.approx(relaxed.cell.lengths()[0] / 2**0.5, abs=1e-6)
    assert relaxed.cell.lengths()[0] != pytest.approx(3.61, abs=1e-3)
    assert all(result.energy is not None for result in results(store))
    assert run(tmp_path, EMT) == []


def test_a_lattice_that_does_not_converge_ends_the_campaign(tmp_path):
    with pytest.raises(CalculationError, match=r"the lattice of Cu has not converged \(step limit\), so no slabs can"):
        run(tmp_path, settings(EMT, relaxation={"steps": 1, "smax": 1e-9}))
    assert len(rows(open_store(tmp_path / "out/results.db"))) == 1


def test_relaxations_that_relax_to_the_same(tmp_path):
    run(tmp_path, settings(EMT, adsorbates=["O"], lattice="fixed", surfaces={**EMT["surfaces"], "free_layers": 1}))
    found = results(open_store(tmp_path / "out/results.db"))
    keys = {result.key for result in found}
    for result in found:
        assert result.duplicate_of is None or (result.duplicate_of in keys and not result.best)


class LosingEngine:
    """Loses every fourth task."""

    words, workers = "nowhere", 1

    def __init__(self, engine) -> None:
        self._engine = engine

    def relax(self, tasks):
        for number, ended in enumerate(self._engine.relax(tasks)):
            yield Ended(ended.task, LostError("its workers died"), {}) if number % 4 == 3 else ended


def test_lost_tasks_are_done_by_the_next_run(tmp_path):
    prepared = prepare(campaign(tmp_path))
    outcome = run_campaign(prepared, LosingEngine(local_engine(prepared)))
    assert len(outcome.lost) == 5 and len(outcome.finished) == 15
    assert len(rows(prepared.store)) == 15
    assert sorted(run(tmp_path)) == sorted(outcome.lost)


def check_same(path: Path, known: Path) -> None:
    """Each task once, with the same state and energy as in the undisturbed run, in a sound file."""
    found, expected = (
        {key: (row.state, row.energy) for key, row in rows(open_store(database)).items()}
        for database in (path, known / "out/results.db")
    )
    assert found == expected
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_full_disk_at_a_random_write(tmp_path, known, monkeypatch):
    """What was stored stays, the error is clear, and going on gives what an undisturbed run gives."""
    chance = random.Random(1)
    original = SQLite3Database._write
    stored: dict = {}
    for _ in range(4):
        last = chance.randint(1, 6)
        calls = 0

        def write(self, *arguments):
            nonlocal calls
            calls += 1
            identifier = original(self, *arguments)
            if calls > last:  # noqa: B023
                raise sqlite3.OperationalError("database or disk is full")
            return identifier

        monkeypatch.setattr(SQLite3Database, "_write", write)
        try:
            run(tmp_path)
        except InputError as error:
            assert str(error) == f"cannot use the database '{tmp_path}/out/results.db': database or disk is full"
        found = rows(open_store(tmp_path / "out/results.db"))
        assert len(found) == min(len(stored) + last, 20)
        assert all(found[key].unique_id == unique_id for key, unique_id in stored.items())
        stored = {key: row.unique_id for key, row in found.items()}
    monkeypatch.setattr(SQLite3Database, "_write", original)
    run(tmp_path)
    check_same(tmp_path / "out/results.db", known)


def test_no_space_for_the_database_itself(tmp_path, monkeypatch):
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("escn_calc.records.os.fsync", no_space)
    with pytest.raises(InputError, match=r"cannot write '.*results.db': No space left on device"):
        run(tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_small_disk(small_disk, known, tmp_path):
    """A disk that somebody else fills at a random moment, again and again."""
    chance = random.Random(4)
    filler, database = small_disk / "filler", small_disk / "out/results.db"
    stored: dict[str, str] = {}
    for _ in range(4):
        last = len(stored) + chance.randint(1, 4)
        done = len(stored)

        def fill(ended: Ended) -> None:
            nonlocal done
            done += 1
            if done == last:  # noqa: B023
                filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096 * chance.randint(0, 3)))

        prepared = prepare(campaign(tmp_path, out=str(small_disk / "out")))
        with pytest.raises(
            InputError, match=r"cannot use the database '.*': (database or disk is full|disk I/O error)"
        ):
            run_campaign(prepared, local_engine(prepared), kept=fill)
        found = rows(open_store(database))
        assert len(found) == last
        assert all(found[key].unique_id == unique_id for key, unique_id in stored.items())
        stored = {key: row.unique_id for key, row in found.items()}
        filler.unlink()
    run(tmp_path, out=str(small_disk / "out"))
    check_same(database, known)
