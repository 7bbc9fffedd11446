"""Screening campaigns: many adsorbates on many surfaces, from a YAML file to a database of results.

Public names are imported on first use. What results mean is in :mod:`escn_calc.screening.results`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from escn_calc.screening.config_file import CampaignFile, read_campaign
    from escn_calc.screening.dask_cluster import dask_client
    from escn_calc.screening.dask_engine import DaskEngine
    from escn_calc.screening.export import write_table
    from escn_calc.screening.local import LocalEngine
    from escn_calc.screening.run import Outcome, Prepared, prepare, run_campaign, work_of
    from escn_calc.screening.store import Store, open_store

__all__ = [
    "CampaignFile",
    "DaskEngine",
    "LocalEngine",
    "Outcome",
    "Prepared",
    "Store",
    "dask_client",
    "open_store",
    "prepare",
    "read_campaign",
    "run_campaign",
    "work_of",
    "write_table",
]

_HOMES = {
    "CampaignFile": "config_file",
    "DaskEngine": "dask_engine",
    "LocalEngine": "local",
    "Outcome": "run",
    "Prepared": "run",
    "Store": "store",
    "dask_client": "dask_cluster",
    "open_store": "store",
    "prepare": "run",
    "read_campaign": "config_file",
    "run_campaign": "run",
    "work_of": "run",
    "write_table": "export",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
