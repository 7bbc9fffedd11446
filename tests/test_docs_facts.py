"""What the docs list is what the package has: public names, commands, models, published and measured figures."""

import importlib
import importlib.util
import json
import re
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from escn_calc.checkpoints import DEFAULT_MODEL
from escn_calc.checkpoints.catalogue import CATALOGUE
from escn_calc.cli import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = (
    "escn_calc",
    "escn_calc.adsorption.anomalies",
    "escn_calc.batch_relaxation",
    "escn_calc.checkpoints",
    "escn_calc.collector",
    "escn_calc.evaluation",
    "escn_calc.graph",
    "escn_calc.md",
    "escn_calc.nn",
    "escn_calc.report",
    "escn_calc.screening",
    "escn_calc.training",
)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Cells of all tables of a page, without the heads."""
    found = [re.split(r"(?<!\\)\|", line.strip("|\n")) for line in re.findall(r"^\|.*\|$", text, re.M)]
    return [[cell.strip() for cell in row] for row in found]


def objects(names: set[str]) -> set[int]:
    """Identities of the objects with these names: one object may have several."""
    return {id(getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])) for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_have_a_page(package):
    directives = set(re.findall(r"^::: ([\w.]+)$", "\n".join(map(page, api_pages())), re.M))
    if package in directives:
        return
    public = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    documented = objects({name for name in directives if name not in PACKAGES})
    assert {name for name in public if not objects({name}) <= documented} - whole_packages(directives) == set()


def whole_packages(directives: set[str]) -> set[str]:
    """Public names, as ``escn_calc`` has them, that pages of whole packages show."""
    shown = [importlib.import_module(name).__all__ for name in directives & set(PACKAGES)]
    return {f"escn_calc.{name}" for names in shown for name in names}


def api_pages() -> list[str]:
    return [str(path.relative_to(DOCS)) for path in sorted((DOCS / "api").glob("*.md"))]


def test_every_command_has_a_page():
    assert {path.stem for path in (DOCS / "commands").glob("*.md")} == {*SUBCOMMANDS, "index"}
    assert set(re.findall(r"`escn (\w+)`", page("commands/index.md"))) == set(SUBCOMMANDS)


def test_every_model_has_its_energy():
    table = {row[0]: row[1] for row in rows(page("energies.md")) if row[0].startswith("`")}
    assert table.pop(f"`default` (`{DEFAULT_MODEL}`)") == "total"
    assert {name.strip("`") for name in table} == set(CATALOGUE)
    for name, kind in table.items():
        assert kind.startswith(CATALOGUE[name.strip("`")].training_set.energy_kind)


def test_published_errors_are_those_of_the_catalogue():
    table = {row[0].strip("`"): row[1:] for row in rows(page("accuracy.md")) if row[0].startswith("`eSCN")}
    expected = {
        name: [f"{entry.metrics['force MAE, val ID (eV/Å)']:.4f}", entry.metrics["EFwT, val ID"]]
        for name, entry in CATALOGUE.items()
        if entry.metrics
    }
    assert table == expected


@pytest.mark.parametrize(
    ("result", "network", "forces"),
    [("small", "4 layers", "direct"), ("small", "4 layers", "gradient"), ("L6-M2", "12 layers", "direct")],
)
def test_training_speed_is_what_was_measured(result, network, forces):
    (row,) = [row for row in rows(page("speed.md")) if row[0].startswith(network) and row[1] == forces]
    path = ROOT / f"benchmarks/results/training-throughput-xeon-{result}.json"
    measured = {line["name"]: line for line in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    ours = measured[f"ours, {forces} forces"]
    seconds = ours["processor_seconds_per_step"]
    assert float(row[2]) == pytest.approx(ours["structures_per_second"], rel=5e-3)
    assert row[3] == f"{statistics.median(seconds):.2f} s"
    if forces == "direct":
        reference = measured["reference, direct forces"]["processor_seconds_per_step"]
        ratio = statistics.median(theirs / own for theirs, own in zip(reference, seconds, strict=True))
        assert row[4] == f"{ratio:.2f} times as much"


@pytest.fixture
def docstrings(monkeypatch):
    """Return the extension of griffe, which need not be installed for what is tested."""
    monkeypatch.setitem(sys.modules, "griffe", SimpleNamespace(Extension=object, Object=object))
    spec = importlib.util.spec_from_file_location("docstrings", DOCS / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DOCSTRING = """Words : with a colon.

Parameters
----------
cutoff : Å, inclusive; as
    in the paper.
fmax, smax : float
    Limits.
atoms : sequence of Atoms or None, optional
    The structures.
edges : Tensor, (E, 2) int64
    Pairs of them.
nodes : (N, 3) positions in Å, as
    in ASE.

Returns
-------
list of Prediction, in order,
    one for each.

Raises
------
InputError
    A value : is wrong.
"""

DESCRIBED = """Words : with a colon.

Parameters
----------
cutoff
    Å, inclusive; as
    in the paper.
fmax, smax : float
    Limits.
atoms : sequence of Atoms or None, optional
    The structures.
edges : Tensor, (E, 2) int64
    Pairs of them.
nodes
    (N, 3) positions in Å, as
    in ASE.

Returns
-------
:
    list of Prediction, in order,
    one for each.

Raises
------
InputError
    A value : is wrong.
"""


def test_prose_in_the_place_of_a_type_becomes_the_description(docstrings):
    assert docstrings.described(DOCSTRING) == DESCRIBED


def test_returned_types_stay(docstrings):
    text = "Do.\n\nReturns\n-------\nRelaxResult\n    The end.\n"
    assert docstrings.described(text) == text


def test_roles_become_links(docstrings):
    link = '<autoref identifier="escn_calc.relax.relax" optional><code>escn_calc.relax.relax</code></autoref>'
    assert docstrings.linked("see :func:`escn_calc.relax.relax`.") == f"see {link}."
