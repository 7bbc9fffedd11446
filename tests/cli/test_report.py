import shutil
import sqlite3
from contextlib import closing

import pytest
from ase.build import fcc111
from ase.db import connect
from click.testing import CliRunner

from escn_calc.cli import main
from escn_calc.cli.report import DEFAULT_STRUCTURES
from escn_calc.report.write import MOST_STRUCTURES
from tests.screening.campaigns import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The database of a campaign with known answers: Cu and Pt, H and O, four sites."""
    folder = tmp_path_factory.mktemp("campaign")
    run(folder)
    return folder / "out/results.db"


@pytest.fixture
def database(finished, tmp_path):
    return shutil.copy(finished, tmp_path / "results.db")


def report(*arguments):
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done


def remove_rows(database, keep):
    with connect(database) as found:
        found.delete([row.id for row in found.select() if not keep(row)])


def test_report_of_a_campaign(database, tmp_path):
    page = tmp_path / "page.html"
    done = report(database, "-o", page)
    assert done.exit_code == 0, done.output
    assert f"The report is {page}" in done.output
    text = page.read_text(encoding="utf-8")
    assert "<h1>campaign</h1>" in text and "O* on Pt(111)" in text and "Known" in text
    assert "½ H₂(g)" in text and "3Dmol" in text
    assert text.count('<article class="card"') == 4


def test_command_and_function_show_as_many_structures():
    assert DEFAULT_STRUCTURES == MOST_STRUCTURES


def test_page_is_beside_the_database_by_default(database):
    assert report(database, "--structures", 0).exit_code == 0
    assert database.with_suffix(".html").stat().st_size < 500_000


def test_a_page_is_not_replaced_unasked(database, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    done = report(database, "-o", page)
    assert done.exit_code == 1 and "exists; choose another --output, or give --overwrite" in done.output
    assert page.read_text() == "mine"
    assert report(database, "-o", page, "--overwrite").exit_code == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_database_is_never_replaced(database):
    before = database.read_bytes()
    done = report(database, "-o", database, "--overwrite")
    assert done.exit_code == 1 and "the page would replace the database" in done.output
    assert database.read_bytes() == before


def test_unfinished_campaign(database, tmp_path):
    remove_rows(database, lambda row: row.kind != "adslab" or row.surface == "Cu(111)")
    done = report(database)
    assert done.exit_code == 0 and "Note: The campaign is not finished" in done.output
    text = database.with_suffix(".html").read_text(encoding="utf-8")
    assert "Not done yet: 8 placements of 16." in text
    assert "O* on Pt(111): none of its 4 placements is done yet" in text


def test_campaign_without_a_finished_placement(database):
    remove_rows(database, lambda row: row.kind != "adslab")
    done = report(database)
    assert done.exit_code == 1 and "has no finished placement yet (0 of 16)" in done.output
    assert not database.with_suffix(".html").exists()


def test_clean_slab_is_missing(database):
    remove_rows(database, lambda row: row.name != "Cu(111)")
    assert report(database).exit_code == 0
    text = database.with_suffix(".html").read_text(encoding="utf-8")
    assert "2 systems of 4 without a result" in text and "has not been relaxed yet" in text


def test_bad_databases(tmp_path):
    done = report(tmp_path / "nothing.db")
    assert done.exit_code == 1 and "there is no database" in done.output
    (tmp_path / "text.db").write_text("energies: none\n" * 100)
    done = report(tmp_path / "text.db")
    assert done.exit_code == 1 and "text.db" in done.output and "Traceback" not in done.output
    with connect(tmp_path / "other.db") as other:
        other.write(fcc111("Cu", (1, 1, 2), vacuum=5.0))
    done = report(tmp_path / "other.db")
    assert done.exit_code == 1 and "is not a database that escn screen has made" in done.output
    with closing(sqlite3.connect(tmp_path / "empty.db")) as empty:
        empty.execute("create table something (number integer)")
        empty.commit()
    done = report(tmp_path / "empty.db")
    assert done.exit_code == 1 and "empty.db" in done.output
    assert [path.suffix for path in tmp_path.iterdir()] == [".db"] * 3


def test_folder_that_cannot_be_written_to(database, tmp_path):
    done = report(database, "-o", tmp_path / "nowhere" / "page.html")
    assert done.exit_code == 1 and "cannot write" in done.output and "No such file or directory" in done.output
