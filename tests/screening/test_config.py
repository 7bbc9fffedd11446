"""The YAML file of a campaign: what it means, and that every mistake is named with file, line, key and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from escn_calc.adsorption.anomalies import Thresholds
from escn_calc.errors import InputError
from escn_calc.screening import CampaignFile, read_campaign

EXAMPLES = Path(__file__).parents[2] / "examples"

WHOLE = """\
out: runs/mine
database: postgresql://me@host/screening
model: {name: default, dtype: float64, forces: gradient}
bulks:
  - Cu
  - {source: Pt, a: 3.98, lattice: fixed}
surfaces:
  facets: [111, "0001", [1, 0, -1]]
  layers: 5
  supercell: [2, 2]
slabs: mine.xyz
lattice: isotropic
adsorbates:
  - OH
  - {source: glycine.xyz, name: glycine, binding: [3]}
  - {source: [CO, O]}
placements: {mode: heuristic, number: 20, seed: 7, coverage: [null, 0.25]}
relaxation: {optimizer: fire, fmax: 0.03, steps: 200}
references: {O: H2O - H2, H: -3.4}
anomalies: {stop: false, thresholds: {desorption: 5}}
"""

SHORT = """\
out: out
bulks: Cu
surfaces: {facets: 111}
adsorbates: H
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> CampaignFile:
        path = tmp_path / "campaign.yaml"
        path.write_text(text, encoding="utf-8")
        return read_campaign(path)

    return read


def test_whole_file(read, tmp_path):
    config = read(WHOLE).config
    assert config.out == tmp_path / "runs/mine"
    assert config.model.forces == "gradient"
    assert [bulk.source for bulk in config.bulks] == ["Cu", "Pt"] and config.bulks[1].lattice == "fixed"
    assert config.surfaces.facets == ("111", "0001", "1 0 -1") and config.surfaces.supercell == (2, 2)
    assert config.slabs[0].path == tmp_path / "mine.xyz"
    assert [adsorbate.source for adsorbate in config.adsorbates] == [("OH",), ("glycine.xyz",), ("CO", "O")]
    assert config.placements.coverage == (None, 0.25)
    assert config.relaxation.optimizer == "FIRE"
    assert (config.scheme.name, str(config.scheme.entries["H"])) == ("own", "-3.4 eV")
    assert config.thresholds == Thresholds(desorption=5) and not config.anomalies.stop


def test_short_file(read):
    config = read(SHORT).config
    assert config.model is None and config.lattice is None
    assert config.scheme.name == "oc20" and config.thresholds == Thresholds()
    assert config.placements.mode == "sites" and config.placements.coverage == (None,)


MISTAKES = {
    "unknown key": ("placments: {}", 5, r"placments: there is no such key; did you mean placements\?"),
    "unknown nested key": ("relaxation: {fmx: 1}", 5, r"relaxation\.fmx: there is no such key; did you mean fmax\?"),
    "unknown threshold": (
        "anomalies:\n  stop: true\n  thresholds: {desorbtion: 3}",
        7,
        r"anomalies\.thresholds\.desorbtion: there is no such key; did you mean desorption\?",
    ),
    "threshold out of range": ("anomalies: {thresholds: {stretch: 0.5}}", 5, r"threshold stretch is 0\.5; it must be"),
    "model and calculator": (
        "model: default\ncalculator: {factory: 'a:b', energy_kind: total}",
        6,
        "calculator: found both model and calculator; give one of them",
    ),
    "no kind of energy": ("calculator: {factory: 'a:b'}", 5, r"calculator\.energy_kind: this key is missing"),
    "no callable": ("calculator: {factory: EMT, energy_kind: total}", 5, r"calculator\.factory: found \"EMT\"; String"),
    "number with sites": ("placements: {number: 3}", 5, r"placements\.number: means nothing with mode: sites"),
    "seed with sites": ("placements:\n  seed: 1", 6, r"placements\.seed: means nothing with mode: sites"),
    "mode": ("placements: {mode: heuristc}", 5, r"placements\.mode: found \"heuristc\"; the value should be 'sites'"),
    "references": ("references: oc2", 5, "references: unknown reference scheme 'oc2'; did you mean 'oc20'"),
    "own reference": ("references: {O: H2O}", 5, r"references: the reference H2O\(g\) of O in the scheme"),
    "kind of references": ("references: 3", 5, "references: found 3; give the name of a reference scheme"),
    "optimizer": ("relaxation: {optimizer: GPMin}", 5, r"relaxation\.optimizer: optimizer GPMin asks for several"),
    "range": ("relaxation: {fmax: -1}", 5, r"relaxation\.fmax: found -1; the value should be greater than 0"),
    "not finite": ("relaxation: {fmax: .nan}", 5, r"relaxation\.fmax"),
    "precision": ("model: {dtype: float16}", 5, r"model\.dtype: found \"float16\"; the value should be 'float32'"),
    "database": ("database: mysql://host/name", 5, r"database: found \"mysql://host/name\"; String should match"),
    "twice": ("out: other", 5, "out: given twice, first in line 1"),
}


@pytest.mark.parametrize(("text", "line", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_an_addition(read, tmp_path, text, line, message):
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / 'campaign.yaml'))}:{line}: .*{message}"):
        read(SHORT + text + "\n")


CONTRADICTIONS = {
    "nothing to put on": ("bulks: Cu\nsurfaces: {facets: 111}\n", "", "found neither bulks nor slabs"),
    "no facets": ("surfaces: {facets: 111}\n", "", "surfaces: is missing: say which facets the slabs have"),
    "no bulks": ("bulks: Cu\n", "slabs: a.xyz\n", "3: surfaces: means nothing without bulks"),
    "no lattice": (
        "bulks: Cu\nsurfaces: {facets: 111}\n",
        "slabs: a.xyz\nlattice: full\n",
        "3: lattice: means nothing without bulks",
    ),
    "two sizes": (
        "{facets: 111}",
        "{facets: 111, supercell: [1, 1], minimum_width: 8}",
        r"3: surfaces\.supercell: fixes the size, which minimum_width",
    ),
    "lost zeros": ("facets: 111", "facets: 011", r"3: surfaces\.facets: facet 11: leading zeros are lost"),
    "nothing adsorbed": ("adsorbates: H", "adsorbates: []", "4: adsorbates: found"),
    "name of several": (
        "adsorbates: H",
        "adsorbates: {source: [H, O], name: x}",
        r"adsorbates\[0\]\.name: means nothing",
    ),
    "a number as name": ("bulks: Cu", "bulks: {source: Cu, name: '12'}", r"bulks\[0\]\.name: '12' cannot be a name"),
    "a truth value as name": ("bulks: Cu", "bulks: {source: Cu, name: 'True'}", "'True' cannot be a name"),
}


@pytest.mark.parametrize(("old", "new", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions(read, old, new, message):
    assert old in SHORT
    with pytest.raises(InputError, match=message):
        read(SHORT.replace(old, new))


@pytest.mark.parametrize(("name", "bulks", "adsorbates"), [("screen_metals", 7, 6), ("screen_small", 2, 2)])
def test_examples(name, bulks, adsorbates):
    config = read_campaign(EXAMPLES / f"{name}.yaml").config
    assert (len(config.bulks), len(config.adsorbates)) == (bulks, adsorbates)
    assert config.surfaces.facets == ("111",) and config.scheme.name == "oc20"


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read '.*none\.yaml': No such file"):
        read_campaign(Path(tmp_path / "none.yaml"))
