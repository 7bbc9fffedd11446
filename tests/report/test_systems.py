from dataclasses import replace

import numpy as np
import pytest

from escn_calc.report.caveats import caveats
from escn_calc.report.scaling import FEWEST_TO_FIT, fitted_line, relations
from escn_calc.report.systems import ranked, site_kind, systems_of
from escn_calc.report.tables import anomaly_table, overview, placement_rows, ranking_rows, site_table
from escn_calc.report.volcano import OOH_ABOVE_OH, volcanoes
from tests.report.synthetic import LOWEST, METALS, placement, some_campaign, some_results, sound_results

PLAN = some_campaign().planned_systems


def systems(results=None):
    return systems_of(some_results() if results is None else results, PLAN)


def system(surface, adsorbate, results=None):
    return next(one for one in systems(results) if (one.surface, one.adsorbate) == (surface, adsorbate))


def test_systems_are_those_of_the_plan_in_its_order():
    found = systems(some_results()[::-1])
    assert [(one.surface, one.adsorbate) for one in found] == [(row[0], row[1]) for row in PLAN]
    assert {len(one.placements) for one in found} == {4}


def test_best_placement_and_the_next_site():
    on_copper = system("Cu(111)", "CO")
    assert (on_copper.best.site, on_copper.next_site.site) == ("ontop", "fcc")
    assert [one.energy for one in on_copper.counted] == sorted(one.energy for one in on_copper.counted)


def test_next_site_is_of_another_kind():
    twice = [
        replace(placement("Cu", "O", "fcc"), site="fcc-1"),
        replace(placement("Cu", "O", "hcp"), site="fcc-2", best=False),
    ]
    assert system("Cu(111)", "O", twice).next_site is None


@pytest.mark.parametrize(
    ("site", "kind"),
    [("fcc", "fcc"), ("bridge-2", "bridge"), ("fcc/3", "fcc"), ("random-17", "random"), ("ontop-Pt", "ontop-Pt")],
)  # fmt: skip
def test_kind_of_site(site, kind):
    assert site_kind(replace(placement("Cu", "O", "fcc"), site=site)) == kind


def test_placements_that_left_their_site_are_no_longer_of_its_kind():
    bridge = next(one for one in some_results() if one.adsorbate == "H" and one.site == "bridge")
    assert site_kind(bridge) == "moved"
    assert site_kind(replace(bridge, final_site="hcp")) == "hcp"
    assert system("Cu(111)", "H").standing == "no warning"


def test_standing_and_remarks():
    assert system("Au(111)", "C").standing == "no result"
    assert system("Au(111)", "C").remarks == ("no placement counts: 4 reconstructed",)
    assert system("Rh(111)", "C").standing == "check"
    assert system("Rh(111)", "C").remarks == ("atom 14 (Rh) moved by 1.12 Å",)
    assert system("Cu(111)", "O").standing == "no warning"


def test_a_system_that_is_not_finished_says_so():
    some = [one for one in sound_results() if (one.surface, one.adsorbate, one.site) != ("Cu(111)", "O", "ontop")]
    none = [one for one in sound_results() if (one.surface, one.adsorbate) != ("Cu(111)", "O")]
    assert system("Cu(111)", "O", some).remarks == ("1 of 4 placements not done yet",)
    assert system("Cu(111)", "O", none).remarks == ("none of its 4 placements is done yet",)
    assert system("Cu(111)", "O", none).standing == "no result"


def test_a_single_placement_that_counts_is_doubtful():
    results = [
        replace(one, valid=False, state="step limit") if one.adsorbate == "O" and one.site != "fcc" else one
        for one in sound_results()
    ]
    assert system("Cu(111)", "O", results).remarks == ("only 1 of 4 placements counts; others: 3 step limit",)


def test_ranking_goes_from_strong_to_weak_within_an_adsorbate():
    rows = ranking_rows(systems(), {})
    of_carbon = [row for row in rows if row.adsorbate == "C*"]
    assert [row.surface for row in of_carbon] == [
        "Rh(111)", "Ir(111)", "Pd(111)", "Pt(111)", "Cu(111)", "Ag(111)", "Au(111)",
    ]  # fmt: skip
    assert [row.rank for row in of_carbon] == ["1", "2", "3", "4", "5", "6", ""]
    assert of_carbon[0].energy == "0.61"
    assert of_carbon[-1].energy == "" and of_carbon[-1].standing == "no result"
    assert [row.next_site for row in rows if row.adsorbate == "CO*" and row.surface == "Cu(111)"] == ["+0.09 fcc"]


def test_overview_is_darkest_where_binding_is_strongest():
    table = overview(systems())
    assert table.adsorbates == ("H*", "C*", "N*", "O*", "CO*", "OH*")
    cells = dict(table.rows)
    column = {surface: row[table.adsorbates.index("O*")] for surface, row in cells.items()}
    assert (column["Rh(111)"].shade, column["Au(111)"].shade) == (5, 0)
    assert cells["Au(111)"][1].energy == "" and cells["Au(111)"][1].shade is None


def test_sites_are_relative_to_the_best_and_say_why_one_is_missing():
    members = [one for one in systems() if one.adsorbate == "CO"]
    table = site_table(members)
    rows = {surface: (energy, cells) for surface, energy, cells in table.rows}
    assert table.kinds == ("ontop", "bridge", "fcc", "hcp")
    assert rows["Cu(111)"] == ("−0.71", ("+0.00", "+0.21", "+0.09", "+0.12"))
    assert rows["Ag(111)"][1][3] == "desorbed"


def test_placements_say_what_became_of_them():
    rows = {(row.surface, row.adsorbate, row.site): row for row in placement_rows(systems())}
    failed = rows["Pt(111)", "O*", "bridge"]
    assert failed.state == "failed" and not failed.counts and failed.energy == ""
    assert failed.remarks == ("an evaluation failed: forces are not finite",)
    assert rows["Au(111)", "CO*", "hcp"].remarks[0].startswith("desorbed: CO is 4.31 Å")
    assert rows["Cu(111)", "H*", "bridge, moved"].counts


def test_anomalies_are_counted_by_adsorbate():
    table = anomaly_table(systems())
    rows = {kind: (dict(zip(table.adsorbates, counts, strict=True)), total) for kind, counts, total in table.rows}
    assert rows["migrated"] == ({"H*": 7, "C*": 0, "N*": 0, "O*": 0, "CO*": 0, "OH*": 0}, 7)
    assert rows["reconstructed"][1] == 4 and rows["desorbed"][0]["CO*"] == 2


def titles(found, campaign):
    return [caveat.title for caveat in caveats(found, campaign)]


def test_warnings_of_a_sound_campaign():
    assert titles(systems(sound_results()), replace(some_campaign(), model_not_for="")) == []


def test_warnings_name_what_is_wrong():
    campaign = replace(
        some_campaign(),
        done={"bulk": 7, "gas": 3, "slab": 7, "adslab": 160},
        failures=(("N2", "N2 has not converged (step limit)"),),
        model_elements=("Cu", "H"),
        energy_kind="unknown",
    )
    assert titles(systems(), campaign) == [
        "The campaign is not finished",
        "Calculations that energies depend on have failed",
        "1 system of 42 without a result",
        "1 energy of 42 to be checked",
        "Elements that the model was not trained on",
        "It is not known what the energies of the model are",
        "Limits of the model",
    ]
    unfinished, failed = caveats(systems(), campaign)[:2]
    assert "1 gas molecule of 4, 8 placements of 168" in unfinished.text
    assert failed.cases == ("N2: N2 has not converged (step limit)",)


def test_many_anomalies_are_a_warning():
    assert "Many relaxations went wrong" not in titles(systems(), some_campaign())
    wrong = next(one.anomalies for one in some_results() if one.anomalies and one.anomalies[0].disqualifies)
    gone = [replace(one, anomalies=wrong) if number % 4 == 0 else one for number, one in enumerate(sound_results())]
    assert "Many relaxations went wrong" in titles(systems(gone), some_campaign())


def test_line_through_exact_points():
    x = np.array([0.0, 1.0, 2.0, 4.0])
    line = fitted_line(x, 0.5 * x - 1.25)
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((0.5, -1.25, 1.0))
    assert line.mae == pytest.approx(0.0, abs=1e-12)


def test_figures_of_merit_of_a_line():
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0, 3.0])
    line = fitted_line(x, y)
    residuals = y - (0.8 * x + 0.3)
    assert (line.slope, line.intercept) == pytest.approx((0.8, 0.3))
    assert line.mae == pytest.approx(np.abs(residuals).mean())
    assert line.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


@pytest.mark.parametrize(
    ("x", "y"), [((0, 1, 2), (0, 1, 2)), ((1, 1, 1, 1), (0, 1, 2, 3)), ((0, 1, 2, 3), (5, 5, 5, 5))]
)
def test_no_line_where_it_has_no_meaning(x, y):
    assert fitted_line(np.array(x, dtype=float), np.array(y, dtype=float)) is None


def test_relations_that_are_expected_come_first_and_have_the_atom_as_x():
    found = relations(systems())
    assert [(one.x[0], one.y[0]) for one in found if one.same_atom] == [("C", "CO"), ("O", "OH")]
    assert [one.same_atom for one in found[:3]] == [True, True, False]
    assert len(found) == 15


def test_relations_go_by_the_atom_that_binds_not_by_the_name():
    renamed = {"CO": "CH3O", "OH": "OCCO", "N": "HCOO"}
    results = [replace(one, adsorbate=renamed.get(one.adsorbate, one.adsorbate)) for one in sound_results()]
    expected = {(one.x[0], one.y[0]) for one in relations(systems_of(results, ())) if one.same_atom}
    assert expected == {("O", "CH3O"), ("O", "HCOO"), ("C", "OCCO")}


def test_relations_leave_out_surfaces_without_a_result():
    carbon_monoxide, oxygen = relations(systems())[:2]
    assert "Au(111)" not in [first.surface for first, _ in carbon_monoxide.pairs]
    assert len(oxygen.pairs) == 7 >= FEWEST_TO_FIT
    x, y = np.array(LOWEST["O"]), np.array(LOWEST["OH"])
    assert (oxygen.line.slope, oxygen.line.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))


def test_relations_of_different_coverages_are_kept_apart():
    sparse = [replace(one, coverage=0.25) for one in sound_results() if one.adsorbate in ("O", "OH")]
    found = relations(systems_of([*sound_results(), *sparse], PLAN))
    assert (("O", 0.25), ("OH", 0.25)) in [(one.x, one.y) for one in found]
    assert {len(one.pairs) for one in found} == {7}


def test_hydrogen_volcano():
    hydrogen, _ = volcanoes(systems(sound_results()), "oc20")
    points = {point.surface: point for point in hydrogen.points}
    assert points["Pt(111)"].x == pytest.approx(-0.38 + 0.24)
    assert points["Pt(111)"].y == pytest.approx(-0.14)
    assert points["Au(111)"].y == pytest.approx(-0.59)
    for point in hydrogen.points:
        assert hydrogen.height(point.x) == pytest.approx(point.y)


def test_oxygen_volcano():
    _, oxygen = volcanoes(systems(sound_results()), "oc20")
    points = {point.surface: point for point in oxygen.points}
    hydroxide, atom = 0.98 + 0.35, 1.41 + 0.05
    steps = (4.92 - hydroxide - OOH_ABOVE_OH, hydroxide + OOH_ABOVE_OH - atom, atom - hydroxide, hydroxide)
    assert points["Pt(111)"].x == pytest.approx(hydroxide)
    assert points["Pt(111)"].y == pytest.approx(min(steps))
    assert oxygen.height(oxygen.peak) == pytest.approx(0.86)
    assert all(point.y <= oxygen.height(point.x) + 1e-9 for point in oxygen.points)
    assert (
        "ΔG(OH*) is ΔE(OH*) + 0.35 eV, ΔG(O*) is ΔE(O*) + 0.05 eV, ΔG(OOH*) is taken as ΔG(OH*) + 3.2 eV"
        in oxygen.words
    )


def test_oxygen_volcano_uses_ooh_where_it_was_calculated():
    peroxide = [
        replace(one, adsorbate="OOH", energy=4.0, best=one.site == "fcc", key=f"{one.key}OOH")
        for one in sound_results()
        if one.adsorbate == "OH"
    ]
    _, oxygen = volcanoes(systems_of([*sound_results(), *peroxide], PLAN), "oc20")
    point = next(one for one in oxygen.points if one.surface == "Rh(111)")
    assert "ΔG(OOH*) is ΔE(OOH*) + 0.40 eV, a value in general use without a known source" in oxygen.words
    assert point.y == pytest.approx(min(4.92 - 4.4, 4.4 - 0.36, 0.36 - 0.40, 0.40))


def test_no_volcano_without_its_energies_or_with_other_references():
    assert volcanoes(systems(), "molecules") == []
    only_carbon = [one for one in sound_results() if one.adsorbate == "C"]
    assert volcanoes(systems_of(only_carbon, ()), "oc20") == []
    assert len(ranked(systems_of(only_carbon, ()))) == len(METALS)
