"""Fixtures shared by all tests, and the measured figures printed at the end of a run."""

import os
from collections.abc import Callable

import pytest

from tests.toy_potential import loader

__all__ = ["loader"]

FIGURE = "measured figure"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def record_figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Call with a name and a value to have both printed in the summary of the run."""
    return lambda name, value: record_property(FIGURE, f"{name}: {value}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    reports = (report for status in ("passed", "failed") for report in terminalreporter.getreports(status))
    called = (report for report in reports if report.when == "call")
    figures = [value for report in called for name, value in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("measured figures")
        for figure in figures:
            terminalreporter.write_line(figure)
