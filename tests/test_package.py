"""What `import escn_calc` costs and brings, and what the installed distribution declares."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ase.calculators.calculator import external_calculators, get_calculator_class

import escn_calc

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = "torch", "torch_geometric", "pymatgen", "matplotlib", "scipy", "pydantic", "safetensors", "rich"


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_import_is_fast():
    """The fastest of five imports, each in its own process, so that a busy machine does not decide."""
    code = "import time; start = time.perf_counter(); import escn_calc; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(5)) < 0.6


@pytest.mark.parametrize(
    "code",
    [
        "import escn_calc",
        "import escn_calc; escn_calc.ESCNCalculator('default').todict()",
        "import escn_calc.relax",
        "import escn_calc.cli",
        "import escn_calc._ase_plugin",
    ],
)
def test_nothing_heavy_is_imported(code):
    needed = {"import escn_calc.cli": "rich", "import escn_calc._ase_plugin": "scipy"}  # scipy: by ASE's plugin module
    heavy = set(HEAVY) - {needed.get(code)}
    assert python(f"{code}\nimport sys\nprint(sorted({heavy!r} & set(sys.modules)))").strip() == "[]"


def test_import_changes_no_global_setting():
    code = (
        "import os, warnings, random, numpy\n"
        "def state(): return dict(os.environ), list(warnings.filters), random.getstate(), numpy.geterr(), os.getcwd()\n"
        "import ase.calculators.calculator\n"
        "before = state()\n"
        "import escn_calc\n"
        "print(state() == before)"
    )
    assert python(code).strip() == "True"


@pytest.mark.parametrize("name", escn_calc.__all__)
def test_public_names(name):
    value = getattr(escn_calc, name)
    assert value.__name__ == name
    assert name in dir(escn_calc)
    assert name == "ESCNCalculator" or value is getattr(importlib.import_module(escn_calc._HOME[name]), name)


def test_lazy_names_are_complete():
    assert set(escn_calc._HOME) | {"ESCNCalculator"} == set(escn_calc.__all__)
    assert sorted(escn_calc.__all__) == escn_calc.__all__


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'escn_calc' has no attribute 'ESCNCalculater'"):
        escn_calc.ESCNCalculater  # noqa: B018


def test_calculator_is_registered_once():
    assert get_calculator_class("escn") is escn_calc.ESCNCalculator
    code = (
        "import importlib, escn_calc\nfirst = escn_calc.ESCNCalculator\nimportlib.reload(escn_calc)\n"
        "from ase.calculators.calculator import get_calculator_class\nprint(get_calculator_class('escn') is first)"
    )
    assert python(code).strip() == "True"


def test_name_that_another_package_has_registered_stays():
    code = (
        "from ase.calculators.calculator import register_calculator_class, get_calculator_class\n"
        "register_calculator_class('escn', int)\nimport escn_calc\nprint(get_calculator_class('escn'))"
    )
    assert python(code).strip() == "<class 'int'>"
    assert external_calculators["escn"] is escn_calc.ESCNCalculator


def test_ase_plugin():
    module = importlib.import_module(PROJECT["entry-points"]["ase.plugins"]["escn"])
    (plugin,) = module.__ase_plugins__
    assert plugin.name == "escn"
    assert plugin.implementation is escn_calc.ESCNCalculator
    assert "arXiv:2302.03655" in plugin.citation


def test_ase_plugin_with_an_older_ase():
    code = (
        "import sys\nsys.modules['ase._4.plugins.plugin'] = None\n"
        "import escn_calc._ase_plugin as plugin\nprint(plugin.__ase_plugins__)"
    )
    assert python(code).strip() == "set()"


def test_command_entry_point():
    module, function = PROJECT["scripts"]["escn"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_version_is_the_one_of_the_changelog():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == escn_calc.__version__


def test_constraints_hold_every_dependency():
    constrained = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    extras = PROJECT["optional-dependencies"]
    tested = [
        requirement for extra in ("test", "parquet", "postgresql", "screen", "docs") for requirement in extras[extra]
    ]
    for requirement in [*PROJECT["dependencies"], *tested]:
        if requirement.startswith("escn-calc["):
            continue
        name, lowest = requirement.split(">=")
        assert name in constrained
        assert _numbers(lowest) <= _numbers(constrained[name])


def test_errors_survive_pickling():
    from escn_calc.calculator import EvaluationError, StructureError

    for error in (EvaluationError("the energy is nan"), StructureError("atom 0 is He")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and str(back) == str(error)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
