"""``escn models``: what users see, with a small file in the place of a published one."""

import io
import re
import sys
from dataclasses import asdict, dataclass, replace
from types import ModuleType

import pytest
from click.testing import CliRunner
from rich.console import Console

from escn_calc.checkpoints import DEFAULT_MODEL, read_fair, read_native, write_native
from escn_calc.checkpoints.catalogue import CATALOGUE, REFERENCE_STRUCTURES, ReferenceEnergy
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli import main
from escn_calc.cli import models as models_cli
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


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A shipped model with figures of every type and much to say about its training data."""
    folder, checkpoint = tmp_path / "pretrained" / DEFAULT_MODEL, read_fair(FILE)
    figures = {"test structures": 263, "test groups": 83.0, "force MAE, eV/Å": 0.2949, "training": "9 steps, 9 minutes"}
    update = {"metrics": figures, "training_data": "4333 structures of fcc metals (Cu Ag Au), labelled with a teacher"}
    write_native(replace(checkpoint, card=checkpoint.card.model_copy(update=update)), folder)
    monkeypatch.setattr(models_cli, "shipped_models", lambda: {DEFAULT_MODEL: folder})


def overview(width):
    console = Console(width=width, file=io.StringIO())
    console.print(models_cli._overview())
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 200])
def test_list_never_cuts_a_name(shipped, width):
    text = overview(width)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in [*CATALOGUE, f"{DEFAULT_MODEL} (default)"])


def test_list_fits_a_terminal_of_80_columns(shipped):
    text = overview(80)
    assert text.count("│ adsorption │") == len(CATALOGUE)
    assert text.count("│ direct") == len(CATALOGUE)
    assert all(word in text for word in ("structures", "layers", "All+MD", "ODAC23"))


def test_list_says_shortly_what_a_shipped_model_was_trained_on(shipped):
    assert "│ 4333 structures of fcc metals … │ unknown" in overview(200)


def test_show_lists_figures_one_a_line_under_their_names(shipped):
    code, output = run("show", "default")
    assert code == 0
    figures = output.partition("figures │ ")[2].partition("not for")[0].split(" │ │ │ ")
    assert figures[:3] == ["test structures: 263", "test groups: 83", "force MAE, eV/Å: 0.2949"]
    assert figures[3].startswith("training: 9 steps, 9 minutes")
    assert "errors" not in output


def test_show_published(cache):
    code, output = run("show", NAME.lower(), "--cache-dir", cache / "empty")
    assert code == 0
    assert "minus that of the empty framework" in output
    assert "(not fetched yet)" in output
    assert "elements │ not known" in output
    assert "none yet: recorded at the first fetch" in output
    code, output = run("show", "eSCN-L6-M3-Lay20-S2EF-OC20-All+MD")
    assert "force MAE, val ID (eV/Å): 0.0139 │ │ │ EFwT, val ID: 6.64 %" in output
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


def test_fetch_of_a_shipped_model_has_nothing_to_do(tmp_path):
    for name in ("default", DEFAULT_MODEL):
        code, output = run("fetch", name, "--cache-dir", tmp_path / "cache", "--offline")
        assert (code, output) == (0, f"{name} is included with the package, nothing to fetch ")
    assert not (tmp_path / "cache").exists()


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
    assert card.source_sha256 == file_sha256(FILE)
    assert card.name == "checkpoint"
    assert f"converted from sha256 │ {file_sha256(FILE)}" in run("show", tmp_path / "native")[1]
    assert 5 < card.converged_longitudes <= 33
    assert card.metrics[RESIDUAL_METRIC] < 1e-2
    code, output = run("convert", FILE, tmp_path / "native")
    assert code == 1
    assert "exists and is not empty; choose another folder, or replace" in output
    assert "--overwrite" in output
    assert run("convert", FILE, tmp_path / "native", "--overwrite")[0] == 0


def test_convert_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "page.pt").write_text("<html>")
    code, output = run("convert", tmp_path / "page.pt", tmp_path / "native")
    assert code == 1
    assert "is an HTML or XML page" in output
    assert not (tmp_path / "native").exists()


def test_convert_takes_what_the_file_cannot_say(tmp_path):
    options = ("--energy-kind", "total", "--energy-reference", "PBE, my settings", "--name", "mine")
    code, output = run("convert", FILE, tmp_path / "native", *options)
    assert code == 0
    assert ": mine, energy kind total" in output
    card = read_native(tmp_path / "native").card
    assert (card.name, card.energy_kind, card.energy_reference) == ("mine", "total", "PBE, my settings")
    assert "stated by whoever converted the file" in card.notes[-1]


def test_convert_takes_a_published_name_and_keeps_what_is_known(cache, tmp_path):
    code, output = run("convert", NAME.lower(), tmp_path / "native", "--cache-dir", cache, "--offline")
    assert code == 0, output
    card, training = read_native(tmp_path / "native").card, CATALOGUE[NAME].training_set
    assert (card.name, card.energy_kind, card.energy_reference) == (NAME, "adsorption", training.energy_reference)
    assert (card.elements, card.licence, card.citation) == (training.elements, training.licence, training.citation)
    assert card.source_sha256 == file_sha256(FILE)
    assert not any("stated by" in note for note in card.notes)


@pytest.mark.parametrize("option", [("--energy-kind", "total"), ("--energy-reference", "x")])
def test_convert_does_not_contradict_what_is_known(cache, tmp_path, option):
    code, output = run("convert", NAME, tmp_path / "native", "--cache-dir", cache, "--offline", *option)
    assert code == 1
    assert f"{NAME} is known to give adsorption energies; leave out --energy-kind and --energy-reference" in output
    assert not (tmp_path / "native").exists()


def test_convert_refuses_a_native_model(tmp_path):
    write_native(read_fair(FILE), tmp_path / "nat")
    for source in ("default", tmp_path / "nat", tmp_path / "nat" / "model.safetensors"):
        code, output = run("convert", source, tmp_path / "other")
        assert code == 1
        assert f"{source} is already in the native format" in output


def test_convert_of_an_unknown_name_suggests(tmp_path):
    code, output = run("convert", "eSCN-L6-M2", tmp_path / "native")
    assert code == 1
    assert "did you mean eSCN-L6-M2-Lay12-S2EF-OC20-2M or eSCN-L6-M2-Lay12-S2EF-OC20-All+MD?" in output


def test_verify_refuses_what_has_no_published_energies(tmp_path):
    for name in ("default", DEFAULT_MODEL, tmp_path, FILE):
        code, output = run("verify", name, "--cache-dir", tmp_path, "--offline")
        assert code == 1
        assert f"{name} is not a published model: only those have published energies to verify against" in output


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
    assert "no energy is published to compare with" in output
    assert potential[1] == []


def test_every_command_has_help():
    for command in ((), ("list",), ("show",), ("fetch",), ("convert",), ("verify",)):
        code, output = run(*command, "--help")
        assert code == 0
        assert "Usage:" in output
