"""Make and relax the labelled cases of anomalies, and write their structures; takes minutes."""

from __future__ import annotations

from tests.adsorption.anomaly_cases import write_cases
from tests.adsorption.anomaly_made import made_cases
from tests.adsorption.anomaly_starts import EMT_STARTS, MODEL_STARTS, run

if __name__ == "__main__":
    write_cases([*made_cases(), *map(run, (*EMT_STARTS, *MODEL_STARTS))])
