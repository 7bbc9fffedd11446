"""Connecting to Dask workers, or starting some on this machine."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from escn_calc.errors import InputError
from escn_calc.screening.config import CalculatorSection, ModelSection

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local:"


@contextmanager
def dask_client(address: str, model: ModelSection | CalculatorSection) -> Iterator[Client]:
    """Connect to a scheduler, or start workers on this machine.

    Parameters
    ----------
    address : str
        ``"tcp://host:port"`` or another address of a scheduler, the path of its scheduler file (``*.json``), or
        ``"local:N"`` for N workers on this machine. They share its processors unless ``OMP_NUM_THREADS`` says
        otherwise, and have one CUDA device each if the model is to use them.
    model : ModelSection or CalculatorSection
        What they will load.

    Raises
    ------
    InputError
        Dask is not installed, there is no scheduler, or there are fewer devices than workers.
    """
    distributed = _distributed()
    with ExitStack() as stack:
        if address.startswith(LOCAL):
            workers = _number_of_workers(address)
            stack.enter_context(_environment_kept())
            cluster = stack.enter_context(_local_cluster(workers, _devices(model, workers)))
            client = stack.enter_context(distributed.Client(cluster))
            client.wait_for_workers(workers)
        else:
            where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
            try:
                client = stack.enter_context(distributed.Client(**where))
            except (OSError, ValueError) as error:
                raise InputError(f"there is no Dask scheduler at {address!r}: {error}") from error
        yield client


def check_address(address: str) -> None:
    """Make sure that an address can be one, and that Dask is there.

    Raises
    ------
    InputError
        It cannot, or Dask is not installed.
    """
    _distributed()
    if address.startswith(LOCAL):
        _number_of_workers(address)
    elif not address.endswith(".json") and not re.match(r"^\w+://.+", address):
        raise InputError(
            f"{address!r} is no address of Dask workers; give tcp://host:port of a scheduler, its scheduler file "
            "(*.json), or local:N for N workers on this machine"
        )


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what nannies write into the environment of this process for their workers to inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _local_cluster(workers: int, devices: list[str]) -> Any:
    distributed = _distributed()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    environments: list[dict[str, str]] = [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}] * workers
    if devices:
        environments = [
            {**environment, "CUDA_VISIBLE_DEVICES": device}
            for environment, device in zip(environments, devices, strict=False)
        ]
    options = {"nthreads": 1, "memory_limit": None, "silence_logs": logging.CRITICAL}
    return distributed.SpecCluster(
        scheduler={"cls": distributed.Scheduler, "options": {"dashboard": False, "port": 0, "host": "127.0.0.1"}},
        workers={
            number: {"cls": distributed.Nanny, "options": {**options, "env": environment}}
            for number, environment in enumerate(environments)
        },
        silence_logs=logging.CRITICAL,
    )


def _devices(model: ModelSection | CalculatorSection, workers: int) -> list[str]:
    """CUDA devices for workers on this machine; none if the model does not use them."""
    if isinstance(model, CalculatorSection) or model.device not in ("auto", "cuda"):
        return []
    import torch

    number = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number))))
    devices = visible.split(",")[:number]
    if number and workers > number:
        raise InputError(
            f"{LOCAL}{workers} asks for more workers than there are CUDA devices ({number}), and each needs its own"
        )
    return devices


def _number_of_workers(address: str) -> int:
    text = address.removeprefix(LOCAL)
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{address!r}: the number of workers is {text!r}; write for example local:2")
    return int(text)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(f"Dask workers need distributed ({error}); pip install 'escn-calc[screen]'") from error
    return distributed
