"""The report of a screening campaign: one page that needs no network. Reads the results, recomputes nothing."""

from escn_calc.report.write import warnings_of, write_report

__all__ = ["warnings_of", "write_report"]
