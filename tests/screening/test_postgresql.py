"""Campaigns on a PostgreSQL server that the tests start."""

from __future__ import annotations

import pytest

from escn_calc.ase_database import DatabaseServer
from escn_calc.errors import InputError
from escn_calc.screening import open_store, prepare
from escn_calc.screening.results import results
from tests.screening.campaigns import campaign, rows, run


def test_names_do_not_tell_passwords():
    for url, name in (
        ("postgresql://me:secret@host:5432/db", "'postgresql://host:5432/db'"),
        ("postgresql://me:secret@/db?host=/tmp/x", "'postgresql:///db?host=/tmp/x'"),
        ("postgresql:///db?password=secret&user=me", "'postgresql:///db?user=me'"),
    ):
        assert DatabaseServer(url).name == name


@pytest.mark.postgresql
def test_the_same_as_in_a_file(postgresql_url, tmp_path):
    with pytest.raises(InputError, match="there is no database 'postgresql:///postgres"):
        open_store(postgresql_url)
    (tmp_path / "file").mkdir()
    run(tmp_path / "file")
    assert len(run(tmp_path, database=postgresql_url)) == 20
    assert run(tmp_path, database=postgresql_url) == []
    in_file, on_server = open_store(tmp_path / "file/out/results.db"), open_store(postgresql_url)
    first, second = rows(in_file), rows(on_server)
    assert first.keys() == second.keys()
    for key, row in first.items():
        assert row.key_value_pairs.keys() == second[key].key_value_pairs.keys()
        assert row.data["labels"] == second[key].data["labels"] and row.energy == second[key].energy
        assert row.toatoms() == second[key].toatoms()
    assert [(one.key, one.energy, one.best) for one in results(in_file)] == [
        (one.key, one.energy, one.best) for one in results(on_server)
    ]

    with pytest.raises(
        InputError, match=r"postgresql:///postgres\?host=.*' belongs to another run \(relaxation fmax: 0.05"
    ):
        prepare(campaign(tmp_path, database=postgresql_url, relaxation={"fmax": 0.04}))
    prepared = prepare(campaign(tmp_path, database=postgresql_url))
    with (
        prepared.store.locked(),
        pytest.raises(InputError, match="another process writes 'postgresql:") as refused,
        prepared.store.locked(),
    ):
        pass
    assert "secret" not in str(refused.value)
    with prepared.store.locked():  # it is free again
        pass


def test_no_server(tmp_path):
    pytest.importorskip("ase_db_backends")
    with pytest.raises(
        InputError, match=r"cannot use the database 'postgresql:///db\?host=/nowhere': connection to server"
    ):
        prepare(campaign(tmp_path, database="postgresql:///db?host=/nowhere"))
