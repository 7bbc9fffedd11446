"""What a figure was measured on."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

CPU_INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Name of the processor, as well as the system knows it."""
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_name() -> str:
    """Name of the GPU if there is one, else of the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()


def machine_record(device: str) -> dict[str, Any]:
    """Name, threads, processors and load of the machine, as values that JSON can hold."""
    return {
        "name": machine_name() if device == "cuda" else processor_name(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
