"""How good a model is on labelled structures: OC20's metrics, tables, plots."""

from escn_calc.evaluation.evaluate import evaluate_model
from escn_calc.evaluation.metrics import Comparison, Metrics, compute_metrics
from escn_calc.evaluation.report import Report

__all__ = ["Comparison", "Metrics", "Report", "compute_metrics", "evaluate_model"]
