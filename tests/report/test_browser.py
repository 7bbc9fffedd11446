"""The page in a real browser; needs the Python package playwright, and Chromium or Chrome."""

import shutil
from dataclasses import replace

import pytest

from escn_calc.report import write_report
from tests.report.synthetic import some_campaign, some_results

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 300_000
"""On a machine that is busy otherwise."""
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the path")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=path, args=SOFTWARE_WEBGL, timeout=PATIENCE_MS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    hostile = "<img src='http://example.org/x.png' onerror='document.title=1'>"
    results = [
        replace(one, doubts=(*one.doubts, hostile) if one.site == "hcp" else one.doubts) for one in some_results()
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(results, some_campaign(), path)
    return path


@pytest.fixture
def page(browser, report):
    """The open page; afterwards there must have been no error, no message and no request but the one for the file."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE_MS)
    said, requested = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: requested.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert said == []
    assert {url.split("#")[0] for url in requested} == {report.as_uri()}


def column(page, table, number):
    cells = page.locator(f"#{table} tbody tr:not(.folded) td:nth-child({number})").all_inner_texts()
    return [cell.strip() for cell in cells]


def energies(page):
    return [None if cell == "" else float(cell.replace("−", "-")) for cell in column(page, "ranking-table", 4)]


def test_page_opens_and_shows_what_was_found(page):
    assert page.title() == "metals – adsorption energies"
    assert page.locator("#warnings h2").inner_text() == "Before you use these numbers"
    assert page.locator("#overview-table tbody tr").count() == 7
    assert page.locator("svg.plot").count() == 6 + 15 + 2


def test_headings_sort_up_and_down_with_gaps_last(page):
    heading = page.locator("#ranking-table th", has_text="ΔE")
    heading.locator("button").click()
    found = energies(page)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert found[:-1] == sorted(found[:-1]) and found[-1] is None and found[0] == -1.88
    heading.locator("button").click()
    found = energies(page)
    assert heading.get_attribute("aria-sort") == "descending"
    assert found[:-1] == sorted(found[:-1], reverse=True) and found[-1] is None


def test_filter_and_fold(page):
    tools = page.locator("#placements .tools")
    assert "50 of 168 rows shown" in tools.inner_text()
    tools.get_by_role("button").click()
    assert len(column(page, "placement-table", 1)) == 168
    tools.get_by_role("searchbox").fill("Au(111) desorbed")
    assert column(page, "placement-table", 1) == ["Au(111)"]
    assert "1 of 168 rows shown" in tools.inner_text()


def test_viewer_draws_the_structure_that_is_asked_for(page):
    assert page.locator("#viewer-canvas canvas").count() == 0
    page.locator("#viewer").scroll_into_view_if_needed()
    page.locator("#viewer-canvas[data-shown='0'] canvas").wait_for()
    assert page.locator("#viewer-note").inner_text() == "Drag to turn, scroll or pinch to zoom."
    first = page.locator("#viewer-canvas").screenshot()
    page.locator("#structure-5 button.show").click()
    page.locator("#viewer-canvas[data-shown='5'] canvas").wait_for()
    side = page.locator("#viewer-canvas").screenshot()
    page.locator("#viewer [data-view=top]").click()
    top = page.locator("#viewer-canvas").screenshot()
    page.locator("#viewer-repeat").click()
    assert len({first, side, top, page.locator("#viewer-canvas").screenshot()}) == 4
    assert min(map(len, (first, side, top))) > 5000


def test_link_of_the_ranking_unfolds_its_picture(page):
    assert page.locator("#cards .card:visible").count() == 12
    page.locator("#ranking-table tbody tr:nth-child(42) a").click()
    page.locator("#structure-40").wait_for()
    assert page.locator("#cards .card:visible").count() == 41


def test_phone_scrolls_only_up_and_down(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_print_shows_the_whole_ranking_and_no_controls(page):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    assert page.locator("#ranking-table tbody tr:visible").count() == 42
    assert page.locator("nav").is_hidden() and page.locator("#viewer").is_hidden()
    assert page.locator("#cards .card:visible").count() == 41


def test_without_scripts_everything_but_the_viewer_is_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(report.as_uri())
    assert page.locator("#placement-table tbody tr").count() == 168
    assert page.locator("#viewer-note").inner_text().startswith("The 3D view needs scripts")
    context.close()


def test_without_webgl_the_page_says_so(browser, report):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(report.as_uri())
    page.locator("#viewer").scroll_into_view_if_needed()
    page.get_by_text("This browser has no WebGL").wait_for()
    page.close()
