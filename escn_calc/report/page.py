"""The page: everything that is on it, put into the template."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from escn_calc import __version__
from escn_calc.report.caveats import caveats
from escn_calc.report.figures import placements_figure, relation_figure, volcano_figure
from escn_calc.report.methods import citations, paragraphs, settings_rows
from escn_calc.report.pictures import picture, viewer_elements, viewer_record
from escn_calc.report.scaling import FEWEST_TO_FIT, FEWEST_TO_PLOT, relations
from escn_calc.report.systems import System, by_adsorbate, ranked, systems_of
from escn_calc.report.tables import (
    SHADES,
    SiteTable,
    anomaly_table,
    overview,
    placement_rows,
    ranking_rows,
    reaction_rows,
    relation_rows,
    site_table,
    site_words,
)
from escn_calc.report.volcano import volcanoes
from escn_calc.report.wording import number, printable, species

if TYPE_CHECKING:
    from escn_calc.screening.results import Campaign, Result

MOST_RELATIONS_DRAWN = 24
MOST_PLACEMENTS_LISTED = 20_000


@dataclass(frozen=True)
class Plot:
    """A figure and the sentence under it."""

    svg: Markup
    words: str


@dataclass(frozen=True)
class Comparison:
    """All placements of one adsorbate: the plot, if there is an energy, and the sites side by side."""

    title: str
    plot: Plot | None
    sites: SiteTable


@dataclass(frozen=True)
class Card:
    """The best structure of a system, drawn from the side and from above."""

    anchor: str
    surface: str
    adsorbate: str
    energy: str
    site: str
    standing: str
    side: Markup
    top: Markup


def render(results: Sequence[Result], campaign: Campaign, *, structures: int) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    results : sequence of Result
        All placements of a campaign, in the order of its plan.
    campaign : Campaign
        What was run, and with what.
    structures : int
        Pictures and 3D views of at most so many best structures.
    """
    results, campaign = printable(list(results)), printable(campaign)
    systems = systems_of(results, campaign.planned_systems)
    drawn = _structures_to_draw(systems, structures)
    anchors = {system: f"structure-{index}" for index, system in enumerate(drawn)}
    found_relations, found_volcanoes = relations(systems), volcanoes(systems, campaign.scheme)
    placements = placement_rows(systems)
    relation_plots = [
        (relation, _plot(*relation_figure(relation, f"relation-{index}")))
        for index, relation in enumerate(found_relations[:MOST_RELATIONS_DRAWN])
    ]
    works = [work for volcano in found_volcanoes for work in volcano.citations]
    scripts = [_asset("report.js"), *([_asset("3Dmol-min.js", "vendor")] if drawn else [])]
    return _template().render(
        campaign=campaign,
        version=__version__,
        security=_security(scripts),
        style=Markup(_asset("report.css")),
        scripts=[Markup(script) for script in scripts],
        viewer=_json_for_script(_viewer(drawn)),
        systems=systems,
        placements_done=len(results),
        placements_counted=sum(result.valid for result in results),
        caveats=caveats(systems, campaign),
        overview=overview(systems),
        shades=range(SHADES),
        with_coverage=any(system.coverage is not None for system in systems),
        ranking=ranking_rows(systems, anchors),
        cards=[_card(system, anchor) for system, anchor in anchors.items()],
        systems_with_result=sum(system.best is not None for system in systems),
        comparisons=[_comparison(index, members) for index, (_, members) in enumerate(by_adsorbate(systems))],
        expected_relations=[plot for relation, plot in relation_plots if relation.same_atom],
        other_relations=[plot for relation, plot in relation_plots if not relation.same_atom],
        relation_rows=relation_rows(found_relations),
        fewest_to_plot=FEWEST_TO_PLOT,
        fewest_to_fit=FEWEST_TO_FIT,
        volcanoes=[
            (volcano.title, _plot(*volcano_figure(volcano, f"volcano-{index}")))
            for index, volcano in enumerate(found_volcanoes)
        ],
        anomalies=anomaly_table(systems),
        placements=placements[:MOST_PLACEMENTS_LISTED],
        placements_left_out=max(len(placements) - MOST_PLACEMENTS_LISTED, 0),
        paragraphs=paragraphs(systems, campaign),
        reactions=reaction_rows(systems),
        settings=settings_rows(campaign),
        citations=citations(campaign, scaling=bool(found_relations), viewer=bool(drawn), others=works),
        viewer_licence=_asset("3Dmol-LICENSE.txt", "vendor") if drawn else "",
    )


def _structures_to_draw(systems: Sequence[System], most: int) -> list[System]:
    """Choose best structures, the first of every adsorbate before the second of any; in the order of the ranking."""
    drawable = [(rank or 0, one) for rank, one in ranked(systems) if one.best is not None]
    chosen = {one for _, one in sorted(drawable, key=lambda ranked_one: ranked_one[0])[:most]}
    return [one for _, one in drawable if one in chosen]


def _card(system: System, anchor: str) -> Card:
    assert system.best is not None
    surface, adsorbate = system.surface, species((system.adsorbate, system.coverage))
    side = Markup(picture(system.best.atoms, "side", f"{adsorbate} on {surface}, from the side"))
    top = Markup(picture(system.best.atoms, "top", f"{adsorbate} on {surface}, from above"))
    energy, site = number(system.best.energy), site_words(system.best)
    return Card(anchor, surface, adsorbate, energy, site, system.standing, side, top)


def _comparison(index: int, members: Sequence[System]) -> Comparison:
    has_energies = any(system.best is not None for system in members)
    plot = _plot(*placements_figure(members, f"placements-{index}")) if has_energies else None
    return Comparison(species((members[0].adsorbate, members[0].coverage)), plot, site_table(members))


def _plot(svg: str, words: str) -> Plot:
    return Plot(Markup(svg), words)


def _viewer(drawn: Sequence[System]) -> dict[str, Any]:
    best = [(system, system.best) for system in drawn if system.best is not None]
    titles = [
        f"{species((system.adsorbate, system.coverage))} on {system.surface}, "
        f"{site_words(one)}, {number(one.energy)} eV"
        for system, one in best
    ]
    return {
        "structures": [viewer_record(one.atoms, title) for (_, one), title in zip(best, titles, strict=True)],
        "elements": viewer_elements([one.atoms for _, one in best]),
    }


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("escn_calc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _asset(name: str, folder: str = "static") -> str:
    return files("escn_calc.report").joinpath(folder, name).read_text(encoding="utf-8")


def _json_for_script(record: dict[str, Any]) -> Markup:
    """Write JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(record, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _security(scripts: Sequence[str]) -> str:
    """Return the policy of the page: nothing from a network, no script but those it came with."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
