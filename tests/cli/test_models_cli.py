"""``escn models``: what users see, with a small file in the place of a published one."""

import re
import sys
from dataclasses import asdict, dataclass, replace
from types import ModuleType

import pytest
from click.testing import CliRunner

from escn_calc.checkpoints import read_fair, read_native, write_native
from escn_calc.checkpoints.catalogue import CATALOGUE, REFERENCE_STRUCTURES, ReferenceEnergy
from escn_calc.cli import main
from escn_calc.convergence import RESIDUAL_METRIC
from tests.checkpoints.conftest import PARITY

NAME = "eSCN-S2EF-ODAC"
FILE = PARITY / "l2m1" / "checkpoint.pt"


def run(*arguments):
    result = CliRunner().invoke(main, ["models", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache in which a small file stands for the published one, whose entry has the small one's shape."""
    monkeypatch.setitem(CATALOGUE, NAME, replace(CATALOGUE[NAME], config=asdict(read_fair(FILE).config)))
    (tmp_path / f"{NAME}.pt").write_bytes(FILE.read_bytes())
    return tmp_path


@dataclass
class FakePotential:
    energies: dict[str, float]

    def evaluate(self, structures):
        by_formula = {REFERENCE_STRUCTURES[key]().get_chemical_formula(): key for key in self.energies}
        return [
            type("Prediction", (), {"energy": self.energies[by_formula[atoms.get_chemical_formula()]]})
            for atoms in structures
        ]


@pytest.fixture
def potential(monkeypatch):
    """Energies that the model shall give, and the digests of the checkpoints it was made of."""
    energies, asked = {}, []

    def make(checkpoint, **options):
        assert options == {"device": "cpu", "dtype": "float32", "frames": "canonical"}
        asked.append(checkpoint.card.sha256)
        return FakePotential(energies)

    module = ModuleType("escn_calc.potential")
    module.Potential = make
    monkeypatch.setitem(sys.modules, "escn_calc.potential", module)
    return energies, asked


@pytest.fixture
def references(monkeypatch):
    values = (
        ReferenceEnergy("CH4", -2.0, None, 1, 0.01, "a tutorial"),
        ReferenceEnergy("Pt(111)+O", 1.7, 0.003, 10, 0.04, "a page"),
    )
    monkeypatch.setitem(CATALOGUE, NAME, replace(CATALOGUE[NAME], references=values))


def test_list_shows_all_published_models():
    code, output = run("list")
    assert code == 0
    assert all(name in output for name in CATALOGUE)
    assert "lmax 6, mmax 3, 20 layers" in output


def test_list_shows_shipped_models_first(monkeypatch, tmp_path):
    write_native(read_fair(FILE), tmp_path / "escn-small-fcc")
    monkeypatch.setattr("escn_calc.cli.models.shipped_models", lambda: {"escn-small-fcc": tmp_path / "escn-small-fcc"})
    code, output = run("list")
    assert code == 0
    assert output.index("escn-small-fcc (default)") < output.index("eSCN-L4")
    code, output = run("show", "default")
    assert code == 0
    assert "evaluated with a warning" in output


def test_show_published(cache):
    code, output = run("show", NAME.lower(), "--cache-dir", cache / "empty")
    assert code == 0
    assert "minus that of the empty framework" in output
    assert "(not fetched yet)" in output
    assert "elements │ not known" in output
    assert "none yet: recorded at the first fetch" in output
    code, output = run("show", "eSCN-L6-M3-Lay20-S2EF-OC20-All+MD")
    assert "0.0139; EFwT, val ID: 6.64 %" in output
    assert "Au Hg Tl Pb Bi" in output


def test_show_a_file():
    code, output = run("show", FILE)
    assert code == 0
    assert "energy kind │ unknown" in output
    assert "trained with code version a2f7d8552" in output


def test_show_unknown():
    code, output = run("show", "eSCN-S2EF-ODAX")
    assert code == 1
    assert "did you mean eSCN-S2EF-ODAC" in output


def test_fetch_prints_path_and_digest_and_finds_damage(cache):
    code, output = run("fetch", NAME, "--cache-dir", cache, "--offline")
    assert code == 0
    assert re.search(r"eSCN-S2EF-ODAC\.pt sha256 [0-9a-f]{64}", output)
    with (cache / f"{NAME}.pt").open("ab") as stream:
        stream.write(b"x")
    code, output = run("fetch", NAME, "--cache-dir", cache, "--offline")
    assert code == 1
    assert "remove the file and fetch it again" in output


def test_fetch_offline_without_file(tmp_path):
    code, output = run("fetch", NAME, "--cache-dir", tmp_path, "--offline")
    assert code == 1
    assert "is not in the cache and offline mode is on" in output


def test_fetch_with_a_mirror_that_is_none(tmp_path):
    code, output = run("fetch", NAME, "--cache-dir", tmp_path, "--mirror", "ftp://x")
    assert code == 1
    assert "the mirror 'ftp://x' is not an http or https address" in output


def test_convert(tmp_path):
    code, output = run("convert", FILE, tmp_path / "native")
    assert code == 0
    card = read_native(tmp_path / "native").card
    assert f"energy kind unknown, sha256 {card.sha256}" in output
    assert 5 < card.converged_longitudes <= 33
    assert card.metrics[RESIDUAL_METRIC] < 1e-2
    code, output = run("convert", FILE, tmp_path / "native")
    assert code == 1
    assert "exists and is not empty" in output
    assert run("convert", FILE, tmp_path / "native", "--overwrite")[0] == 0


def test_convert_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "page.pt").write_text("<html>")
    code, output = run("convert", tmp_path / "page.pt", tmp_path / "native")
    assert code == 1
    assert "is an HTML or XML page" in output
    assert not (tmp_path / "native").exists()


def test_verify_refuses_another_network(cache, potential, monkeypatch):
    monkeypatch.setitem(CATALOGUE, NAME, replace(CATALOGUE[NAME], config={"num_layers": 3}))
    code, output = run("verify", NAME, "--cache-dir", cache, "--offline")
    assert code == 1
    assert f"its configuration is not that of the published {NAME}" in output


def test_verify_refuses_bytes_that_changed_since_they_were_fetched(cache, potential):
    assert run("fetch", NAME, "--cache-dir", cache, "--offline")[0] == 0
    (cache / f"{NAME}.pt").write_bytes((PARITY / "l4m2" / "checkpoint.pt").read_bytes())
    code, output = run("verify", NAME, "--cache-dir", cache, "--offline")
    assert code == 1
    assert "sha256" in output


def test_verify_within_tolerance(cache, potential, references):
    energies, asked = potential
    energies |= {"CH4": -2.009, "Pt(111)+O": 1.739}
    code, output = run("verify", NAME, "--cache-dir", cache, "--offline")
    assert code == 0
    assert asked == [read_fair(FILE).card.sha256]
    assert "CH4 │ -2.0090 │ -2.0000 (n = 1) │ 0.01 │ ok │ a tutorial" in output
    assert "1.7390 │ 1.7000 ± 0.0030 (n = 10) │ 0.04 │ ok │ a page" in output


@pytest.mark.parametrize("energy", [-2.011, -1.989, float("nan")])
def test_verify_outside_tolerance_fails(cache, potential, references, energy):
    potential[0].update({"CH4": energy, "Pt(111)+O": 1.7})
    code, output = run("verify", NAME, "--cache-dir", cache, "--offline")
    assert code == 1
    assert "differs" in output
    assert "does not reproduce the published energy of CH4" in output


def test_verify_without_published_energies(cache, potential):
    code, output = run("verify", NAME, "--cache-dir", cache, "--offline")
    assert code == 0
    assert "no energy computed with it has been published" in output


def test_every_command_has_help():
    for command in ((), ("list",), ("show",), ("fetch",), ("convert",), ("verify",)):
        code, output = run(*command, "--help")
        assert code == 0
        assert "Usage:" in output
