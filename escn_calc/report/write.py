"""Write the report of a campaign to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from escn_calc.errors import InputError
from escn_calc.records import write_atomically
from escn_calc.report.caveats import caveats
from escn_calc.report.page import render
from escn_calc.report.systems import systems_of

if TYPE_CHECKING:
    from escn_calc.screening.results import Campaign, Result

MOST_STRUCTURES = 120
"""By default, pictures and 3D views of so many best structures; each adds about 20 kB."""


def write_report(
    results: Sequence[Result], campaign: Campaign, path: Path, *, structures: int = MOST_STRUCTURES
) -> None:
    """Write one HTML page about a campaign, complete or not at all.

    Parameters
    ----------
    results : sequence of Result
        All placements, as ``escn_calc.screening.results`` gives them.
    campaign : Campaign
        What was run, and with what.
    path : Path
        The file; replaced if it exists.
    structures : int
        Pictures and 3D views of at most so many best structures, the strongest binding of every adsorbate first.

    Raises
    ------
    InputError
        There is no placement to report on, ``structures`` is negative, or the file cannot be written.
    """
    if structures < 0:
        raise InputError(f"structures is {structures}; it must be 0 or more")
    if not results:
        planned = campaign.planned.get("adslab", 0)
        raise InputError(
            f"the campaign {campaign.name!r} has no finished placement yet (0 of {planned}): there is nothing to "
            "report; run it with 'escn screen', then report again"
        )
    text = render(results, campaign, structures=structures)
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def warnings_of(results: Sequence[Result], campaign: Campaign) -> list[str]:
    """Return the titles of the warnings on the page, the gravest first."""
    return [caveat.title for caveat in caveats(systems_of(results, campaign.planned_systems), campaign)]
