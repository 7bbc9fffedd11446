"""What went wrong, or came out otherwise than meant, in the relaxation of adsorbates on a slab."""

from escn_calc.adsorption.anomalies.anomaly import NOTES, Anomaly, Kind
from escn_calc.adsorption.anomalies.find import find_anomalies
from escn_calc.adsorption.anomalies.stops import stop_on_anomalies
from escn_calc.adsorption.anomalies.thresholds import Thresholds

__all__ = ["NOTES", "Anomaly", "Kind", "Thresholds", "find_anomalies", "stop_on_anomalies"]
