"""The outcome of an evaluation."""

from dataclasses import dataclass

from escn_calc.evaluation.metrics import Comparison, Metrics
from escn_calc.evaluation.tables import ElementRow, GroupRow


@dataclass(frozen=True, eq=False)
class Report:
    """How good a model is on a set of labelled structures.

    Attributes
    ----------
    overall : metrics of all structures.
    elements : a row for each element, by atomic number.
    groups : a row for each group, worst first.
    comparisons : the structures one by one, in the order given.
    energy_reference : "as-is", "shift-per-group" or "fit-elements".
    element_shifts : symbol → eV per atom taken from the predictions; empty unless fitted.
    skipped : origins of structures left out because of elements the model does not take.
    notes : what a reader of the metrics must know.
    seconds : wall time of the evaluations.
    """

    overall: Metrics
    elements: tuple[ElementRow, ...]
    groups: tuple[GroupRow, ...]
    comparisons: tuple[Comparison, ...]
    energy_reference: str
    element_shifts: dict[str, float]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
