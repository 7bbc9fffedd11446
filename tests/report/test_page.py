import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from ase import Atoms

from escn_calc.errors import InputError
from escn_calc.report import page, warnings_of, write_report
from escn_calc.report.figures import names_without_common_facet
from escn_calc.report.page import render
from escn_calc.report.pictures import WINDOW, picture, surroundings, viewer_record
from escn_calc.report.wording import number, printable, species, typeset
from tests.report.synthetic import METALS, anomaly, placement, some_campaign, some_results, structure

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;$\\frac{1}{0}$_{{7*7}}\u202e\x00'\""
VOID = {"meta", "link", "input", "img", "br", "hr"}


class Elements(HTMLParser):
    """Collects elements, their attributes and the text outside of scripts; fails on elements that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.names, self.attributes, self.texts, self._open = [], [], [], []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)


def few_results():
    return [one for one in some_results() if one.bulk in ("Cu", "Au", "Rh") and one.adsorbate in ("H", "CO")]


@pytest.fixture(scope="module")
def html():
    return render(some_results(), some_campaign(), structures=6)


def test_page_is_well_formed_and_shows_every_section(html):
    elements = Elements(html)
    ids = [value for name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for section in ("warnings", "overview", "ranking", "structures", "sites", "scaling", "volcano", "methods"):
        assert section in ids
    linked = {value[1:] for name, value in elements.attributes if name == "href" and value.startswith("#")}
    assert linked <= set(ids)


def test_page_refers_to_nothing_outside(html):
    elements = Elements(html)
    outside = [
        (name, value) for name, value in elements.attributes if name in ("src", "href", "srcset", "action", "data")
    ]
    assert {value for _, value in outside if not value.startswith("#")} == {"data:,"}
    assert "url(http" not in html and "@import" not in html


def test_scripts_are_allowed_one_by_one(html):
    policy = next(value for name, value in Elements(html).attributes if name == "content" and "default-src" in value)
    sources = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert sources["default-src"] == "'none'"
    assert sources["script-src"].count("'sha256-") == 2 and "unsafe" not in sources["script-src"]


def test_page_of_42_systems_is_small():
    assert len(render(some_results(), some_campaign(), structures=120).encode()) < 3e6


def test_numbers_methods_and_citations_are_there(html):
    text = " ".join(Elements(html).texts)
    assert "41 of 42" in text and "C* on Au(111)" in text
    assert "3c9f" * 16 in text and "fmax" in text and "0.05 eV/Å" in text
    assert "LBFGS until no force was larger than 0.05 eV/Å, in at most 200 steps" in text
    assert "doi:10.1103/PhysRevLett.99.016105" in text and "* + H₂O(g) → OH* + ½ H₂(g)" in text
    assert "3Dmol.js incorporates code from GLmol" in text


def test_nothing_from_the_database_becomes_markup():
    hostile = [
        replace(
            one, surface=f"{one.surface}{HOSTILE}", adsorbate=f"{one.adsorbate}{HOSTILE}", site=f"{one.site}{HOSTILE}",
            state=HOSTILE if one.state == "failed" else one.state, failure=HOSTILE, doubts=(HOSTILE,),
            reaction=HOSTILE, anomalies=(*one.anomalies, anomaly("migrated", HOSTILE), anomaly(HOSTILE, HOSTILE)),
        )
        for one in few_results()
    ]  # fmt: skip
    campaign = replace(
        some_campaign(), name=HOSTILE, model=HOSTILE, model_citation=HOSTILE, model_not_for=HOSTILE,
        scheme_words=HOSTILE, settings={HOSTILE: HOSTILE}, config=HOSTILE, versions={HOSTILE: HOSTILE},
        failures=((HOSTILE, HOSTILE),),
        thresholds={HOSTILE: 1.0}, reference_energies={HOSTILE: 1.0}, planned_systems=(),
    )  # fmt: skip
    html = render(hostile, campaign, structures=2)
    elements = Elements(html)
    assert elements.names.count("script") == 3
    assert "img" not in elements.names
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "49" not in re.sub(r"[^{}\d]", "", "".join(text for text in elements.texts if "7*7" in text))
    assert "\u202e" not in html and "\x00" not in html


def test_data_of_the_viewer_cannot_end_its_script(html):
    record = page._json_for_script({"title": "</script><!--"})
    assert "<" not in record and json.loads(record) == {"title": "</script><!--"}
    (data,) = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html)
    record = json.loads(data)
    assert [one["title"] for one in record["structures"]][:1] == ["H* on Pd(111), fcc, −0.45 eV"]
    assert record["structures"][0]["xyz"].startswith('17\nLattice="5.')
    assert record["structures"][0]["repeats"] == [2, 2]
    assert set(record["elements"]) >= {"Pd", "H"}


def test_first_structures_are_the_strongest_of_every_adsorbate(html):
    shown = re.findall(r'<article class="card" id="structure-\d+">\s*<h3>(.*?)</h3>', html)
    strongest = {"H": "Pd", "C": "Rh", "N": "Rh", "O": "Rh", "CO": "Pd", "OH": "Rh"}
    assert shown == [f"{adsorbate}* on {metal}(111)" for adsorbate, metal in strongest.items()]
    assert "6 of 41 best structures are shown" in html


def test_without_structures_the_viewer_is_left_out():
    html = render(few_results(), some_campaign(), structures=0)
    assert "$3Dmol" in html and "3Dmol-min" not in html and len(html) < 600_000
    assert 'id="viewer"' not in html


def test_unfinished_campaign_says_what_is_missing():
    campaign = replace(some_campaign(), done={"bulk": 7, "gas": 4, "slab": 7, "adslab": 72})
    text = " ".join(Elements(render(few_results(), campaign, structures=0)).texts)
    assert "The campaign is not finished" in text and "96 placements of 168" in text
    assert "H* on Ag(111): none of its 4 placements is done yet" in text
    assert warnings_of(few_results(), campaign)[0] == "The campaign is not finished"


def test_results_without_a_single_energy_are_a_page_too():
    nothing = [replace(one, energy=None, valid=False, best=False, why_no_energy="no slab") for one in few_results()]
    text = " ".join(Elements(render(nothing, some_campaign(), structures=9)).texts)
    assert "42 systems of 42 without a result" in text and "no slab" in text
    assert "There are none to show: it takes two adsorbates" in text
    assert "There are none to show: it takes H*" in text


def test_models_of_adsorption_energies_are_described_as_such():
    campaign = replace(some_campaign(), energy_kind="adsorption", energy_reference="slab and gas references of OC20")
    text = " ".join(Elements(render(few_results(), campaign, structures=0)).texts)
    assert "nothing was subtracted again" in text and "slab and gas references of OC20." in text
    assert "E(clean slab)" not in text


def test_what_was_not_looked_for_is_said():
    campaign = replace(some_campaign(), knows_what_is_familiar=False)
    assert "that is not available for escn-small-fcc" in render(few_results(), campaign, structures=0)
    assert "that is not available" not in render(few_results(), some_campaign(), structures=0)


def test_thousands_of_rows():
    many = [
        replace(placement("Cu", "O", "fcc"), surface=f"M{index}(111)", site=f"random-{copy}", best=copy == 0)
        for index in range(1000)
        for copy in range(5)
    ]
    html = render(many, replace(some_campaign(), planned_systems=()), structures=10)
    assert html.count("<tr") > 6000 and len(html) < 5e6
    assert "Only the 40 strongest of 1000 surfaces are drawn" in html


def test_file_is_written_complete_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")
    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InputError, match=r"cannot write .*report\.html.*No space left"):
            write_report(few_results(), some_campaign(), path, structures=0)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    write_report(few_results(), some_campaign(), path, structures=0)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_same_results_make_the_same_page():
    assert render(few_results(), some_campaign(), structures=2) == render(few_results(), some_campaign(), structures=2)


def test_nothing_to_report(tmp_path):
    with pytest.raises(InputError, match=r"'metals' has no finished placement yet \(0 of 168\).*escn screen"):
        write_report([], some_campaign(), tmp_path / "report.html")
    with pytest.raises(InputError, match="structures is -1; it must be 0 or more"):
        write_report(few_results(), some_campaign(), tmp_path / "report.html", structures=-1)
    assert not list(tmp_path.iterdir())


def test_names_lose_their_facet_only_if_it_is_common():
    assert names_without_common_facet(["Cu(111)", "Ag(111)"]) == ["Cu", "Ag"]
    assert names_without_common_facet(["Cu(111)", "Cu(100)"]) == ["Cu(111)", "Cu(100)"]
    assert names_without_common_facet(["Cu(111)", "Ag(100)"]) == ["Cu(111)", "Ag(100)"]
    assert names_without_common_facet(["my slab", "other"]) == ["my slab", "other"]


def test_words():
    assert (number(-1.234), number(None), number(0.5, 3)) == ("−1.23", "–", "0.500")
    assert (species(("NH3", None)), species(("*OH", 0.25)), species(("2O", None))) == ("NH₃*", "OH*, 0.25 ML", "2O*")
    assert typeset("* + H2O(g) → OH* + 1/2 H2(g)") == "* + H₂O(g) → OH* + ½ H₂(g)"
    assert printable({"a\x1b": ("b\u202e", [1, "c\n"])}) == {"a\ufffd": ("b\ufffd", [1, "c\n"])}


def test_surroundings_are_periodic_and_centred_on_the_adsorbate():
    atoms = structure("Cu", "O", "fcc")
    numbers, positions, centre = surroundings(atoms)
    assert centre == pytest.approx(atoms.positions[-1, :2])
    oxygens = positions[numbers == 8]
    assert np.abs(oxygens[:, :2]).min(axis=0) == pytest.approx([0, 0], abs=1e-9)
    spacing = np.linalg.norm(atoms.cell[0])
    distances = np.linalg.norm(oxygens[:, None, :2] - oxygens[None, :, :2], axis=-1)
    assert distances[distances > 0.1].min() == pytest.approx(spacing)
    assert np.abs(positions[:, :2]).max() < WINDOW / 2 + 1
    shifted = atoms.copy()
    shifted.positions += [1.3, -0.4, 0.0]
    assert np.sort(surroundings(shifted)[1], axis=0) == pytest.approx(np.sort(positions, axis=0))


def test_no_copies_where_a_structure_is_not_periodic():
    atoms = Atoms("CuO", [[0, 0, 0], [0, 0, 1.8]], tags=[1, 2])
    assert len(surroundings(atoms)[0]) == 2
    assert picture(atoms, "top", "O").count("<circle") == 2
    assert "Lattice" not in viewer_record(atoms, "O")["xyz"]


@pytest.mark.parametrize("metal", METALS)
def test_nearest_atoms_are_drawn_last(metal):
    drawn = picture(structure(metal, "O", "fcc"), "top", "<O>")
    colours = re.findall(r'fill="(#\w+)"', drawn)
    assert colours[-1] == "#ff0d0d"
    assert 'aria-label="&lt;O&gt;"' in drawn
