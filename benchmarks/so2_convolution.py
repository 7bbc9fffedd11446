"""What the SO(2) form of an equivariant convolution costs next to the explicit tensor product, for L = 1 ... 10.

Run from the root of the repository: ``python -m benchmarks.so2_convolution``. Both forms compute the same messages from
the same path weights (:mod:`benchmarks.so2_forms`), mmax = L. For every L, in this order: the two are compared in
float64 and the run stops if they differ; multiply-adds are counted by torch while they run, and compared with formulas;
in float32, their times are taken turn by turn, and the peak of the memory that they allocate is followed, for messages
alone and with derivatives by features and weights. Harmonics and Wigner matrices are timed apart: a network makes them
once for all its layers. Exponents are slopes of least squares in log L.

The second part counts and times the first stage of the network's SO(2) maps on edges and on nodes
(:mod:`escn_calc.nn.node_side`).

Times are processor times, of one thread unless ``--threads`` says otherwise. Other work on the machine still takes
caches and memory away from them; the record keeps the load. ``--quick`` goes up to L = 4 and writes nothing.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.node_side import compare_first_stages
from benchmarks.so2_figure import draw
from benchmarks.so2_forms import Operations, Setting, operations_of_so2_form, operations_of_tensor_product
from escn_calc.bench.peak_memory import peak_memory
from escn_calc.records import versions, write_json

ROOT = Path(__file__).resolve().parents[1]
CPUINFO = Path("/proc/cpuinfo")
RESULT = ROOT / "benchmarks" / "results" / "so2-convolution.json"
FIGURE = ROOT / "docs" / "images" / "so2_convolution_cost.png"
DEGREES = range(1, 11)
#: Degrees from which on the exponents of times are fitted: below, calling many small operations takes most of the time.
FITTED_TIMES = range(5, 11)
#: Degrees at which the exponents of the formulas are close to those of their highest power.
ASYMPTOTIC = range(30, 61, 10)
CHECK_EDGES, TIMED_EDGES, CHANNELS = 8, 256, 16
TOLERANCE = 1e-12
FORMULAS = {"tensor product": operations_of_tensor_product, "SO(2) form": operations_of_so2_form}


def checked_operations(degree: int) -> tuple[float, dict[str, Operations]]:
    """Relative difference of the two forms in float64, and their multiply-adds, counted and as the formulas say."""
    setting = Setting.of(degree, CHECK_EDGES, CHANNELS, torch.float64)
    messages, operations = {}, {}
    for name, call in setting.calls().items():
        with FlopCounterMode(display=False) as counter:
            messages[name] = call().detach()
        operations[name] = FORMULAS[name](degree)
        counted = counter.get_total_flops() // 2
        expected = CHECK_EDGES * operations[name].total(CHANNELS)
        if counted != expected:
            raise SystemExit(f"L = {degree}, {name}: {counted} multiply-adds counted, {expected} by formula")
    theirs, ours = messages["tensor product"], messages["SO(2) form"]
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not difference < TOLERANCE:
        raise SystemExit(f"L = {degree}: the two forms differ by {difference:.1e}")
    return difference, operations


def side_by_side(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time of each call, turn by turn after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return seconds


def with_derivatives(setting: Setting, call: Callable[[], torch.Tensor]) -> Callable[[], object]:
    """Return a training step: messages and the derivatives by features and weights."""
    inputs = [setting.x, setting.product.weights, *setting.convolution.parameters()]

    def step() -> object:
        return torch.autograd.grad(call().square().sum(), inputs, allow_unused=True)

    return step


@torch.no_grad()
def quietly(call: Callable[[], object]) -> object:
    """Call without recording derivatives."""
    return call()


def row(degree: int, repeats: int) -> dict[str, Any]:
    """All measurements at one L."""
    difference, operations = checked_operations(degree)
    setting = Setting.of(degree, TIMED_EDGES, CHANNELS, torch.float32)
    setting.x.requires_grad_()
    calls = setting.calls()
    times = side_by_side({name: lambda call=call: quietly(call) for name, call in calls.items()}, repeats)
    preparing = side_by_side(setting.preparations(), repeats)
    ratios = [a / b for a, b in zip(times["tensor product"], times["SO(2) form"], strict=True)]
    forms = {
        name: {
            "operations_per_edge": operations[name].total(CHANNELS),
            "once_per_edge": operations[name].per_edge,
            "per_channel": operations[name].per_channel,
            "per_pair_of_channels": operations[name].per_pair,
            "seconds": statistics.median(times[name]),
            "fastest_seconds": min(times[name]),
            "preparation_seconds": statistics.median(preparing[name]),
            "peak_bytes": peak_memory(lambda call=call: quietly(call)),
            "peak_bytes_with_derivatives": peak_memory(with_derivatives(setting, call)),
        }
        for name, call in calls.items()
    }
    forms["tensor product"]["table_bytes"] = setting.product.table_bytes()
    return {"L": degree, "difference": difference, "forms": forms, "times_as_fast": statistics.median(ratios)}


def exponent(degrees: list[int], values: list[float]) -> float:
    """Slope of least squares of log(values) over log(degrees)."""
    return float(np.polyfit(np.log(degrees), np.log(values), 1)[0])


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Fitted exponents of both forms: operations, times and memory."""
    fitted: dict[str, dict[str, float]] = {}
    for name, formula in FORMULAS.items():
        own = {row["L"]: row["forms"][name] for row in rows}
        late = [degree for degree in own if degree in FITTED_TIMES] or list(own)
        far = [formula(degree) for degree in ASYMPTOTIC]

        def of(key: str, degrees: list[int], own: dict[int, Any] = own) -> float:
            return exponent(degrees, [own[degree][key] for degree in degrees])

        fitted[name] = {
            "operations": of("operations_per_edge", list(own)),
            "per_channel": of("per_channel", list(own)),
            "per_pair_of_channels": of("per_pair_of_channels", list(own)),
            "per_channel_asymptotic": exponent(list(ASYMPTOTIC), [part.per_channel for part in far]),
            "per_pair_of_channels_asymptotic": exponent(list(ASYMPTOTIC), [part.per_pair for part in far]),
            "seconds": of("fastest_seconds", late),
            "preparation_seconds": of("preparation_seconds", late),
            "peak_bytes": of("peak_bytes", late),
            "peak_bytes_with_derivatives": of("peak_bytes_with_derivatives", late),
        }
    coupling = [operations_of_tensor_product(degree).per_edge for degree in ASYMPTOTIC]
    fitted["tensor product"]["once_per_edge"] = exponent(
        [row["L"] for row in rows], [row["forms"]["tensor product"]["once_per_edge"] for row in rows]
    )
    fitted["tensor product"]["once_per_edge_asymptotic"] = exponent(list(ASYMPTOTIC), coupling)
    return fitted


def processor() -> str:
    """Name of the processor."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(record: dict[str, Any]) -> None:
    """Print the tables of the docs page."""
    print("| L | operations, tensor product | SO(2) form | ratio | time ratio | memory ratio | with derivatives |")
    print("|---|---|---|---|---|---|---|")
    for row in record["rows"]:
        theirs, ours = row["forms"]["tensor product"], row["forms"]["SO(2) form"]
        ratios = [
            theirs[key] / ours[key] for key in ("operations_per_edge", "peak_bytes", "peak_bytes_with_derivatives")
        ]
        print(
            f"| {row['L']} | {theirs['operations_per_edge']:,} | {ours['operations_per_edge']:,} | {ratios[0]:.1f} | "
            f"{row['times_as_fast']:.1f} | {ratios[1]:.1f} | {ratios[2]:.1f} |"
        )
    for name, fitted in record["exponents"].items():
        print(f"\nexponents, {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in fitted.items()))
    print("\nfirst stage of the SO(2) maps, edges over nodes:")
    for part in record["first_stage"]:
        print(
            f"lmax {part['lmax']} mmax {part['mmax']}, {part['neighbours']} neighbours: operations "
            f"{part['operations_ratio']:.2f}, time {part['times_as_fast']:.2f}"
        )


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11, help="times each form is timed (default 11)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--quick", action="store_true", help="L = 1 ... 4, three repeats, nothing written")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    repeats = 3 if arguments.quick else arguments.repeats
    rows = []
    for degree in DEGREES[:4] if arguments.quick else DEGREES:
        rows.append(row(degree, repeats))
        print(f"L = {degree}: difference {rows[-1]['difference']:.1e}", flush=True)
    record = {
        "machine": processor(),
        "load_average": os.getloadavg()[0],
        "threads": arguments.threads,
        "versions": versions(),
        "edges": TIMED_EDGES,
        "channels": CHANNELS,
        "dtype": "float32",
        "repeats": repeats,
        "rows": rows,
        "exponents": exponents(rows),
        "first_stage": compare_first_stages(repeats, side_by_side),
    }
    show(record)
    if not arguments.quick:
        write_json(RESULT, record)
        draw(record, FIGURE)


if __name__ == "__main__":
    main()
