"""What the docs say of the cost: operations as they are counted, and their exponents."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.node_side import SHAPES, operations
from benchmarks.so2_convolution import ASYMPTOTIC, DEGREES, FORMULAS, checked_operations, exponent
from benchmarks.so2_forms import operations_of_so2_form, operations_of_tensor_product

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "so2-convolution.md"
RECORD = json.loads((ROOT / "benchmarks" / "results" / "so2-convolution.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_operations_counted_by_torch_are_those_of_the_formulas(degree):
    """The check stops the run where they differ, or where the two forms do."""
    difference, operations = checked_operations(degree)
    assert difference < 1e-12
    assert operations == {name: formula(degree) for name, formula in FORMULAS.items()}


def test_a_wrong_count_stops_the_run(monkeypatch):
    monkeypatch.setitem(FORMULAS, "SO(2) form", operations_of_tensor_product)
    with pytest.raises(SystemExit, match=r"L = 2, SO\(2\) form: \d+ multiply-adds counted, \d+ by formula"):
        checked_operations(2)


@pytest.mark.parametrize("degrees", [DEGREES, ASYMPTOTIC])
def test_so2_maps_and_rotations_grow_at_most_with_the_third_power(degrees):
    counts = [operations_of_so2_form(degree) for degree in degrees]
    assert exponent(list(degrees), [count.per_pair for count in counts]) <= 3
    assert exponent(list(degrees), [count.per_channel for count in counts]) <= 3


def test_the_tensor_product_grows_with_the_sixth_power():
    degrees = list(ASYMPTOTIC)
    counts = [operations_of_tensor_product(degree).per_edge for degree in degrees]
    assert exponent(degrees, counts) == pytest.approx(6, abs=0.15)


def test_the_table_of_the_docs():
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.M)
    assert len(rows) == 6
    for row in rows:
        degree, *numbers = (int(number.replace(",", "")) for number in row)
        theirs, ours = operations_of_tensor_product(degree), operations_of_so2_form(degree)
        assert numbers == [theirs.per_edge, theirs.per_channel, theirs.per_pair, ours.per_channel, ours.per_pair]
    for degrees, first in ((list(DEGREES), "1 … 10"), (list(ASYMPTOTIC), "30 … 60")):
        theirs = [operations_of_tensor_product(degree) for degree in degrees]
        ours = [operations_of_so2_form(degree) for degree in degrees]
        columns = [[part.per_edge for part in theirs], [part.per_channel for part in theirs]]
        columns += [[part.per_pair for part in theirs], [part.per_channel for part in ours]]
        columns += [[part.per_pair for part in ours]]
        numbers = " | ".join(f"{exponent(degrees, column):.2f}" for column in columns)
        assert f"| exponent, fitted over L = {first} | {numbers} |" in text


def test_the_measured_figures_of_the_docs():
    text, last = " ".join(PAGE.read_text(encoding="utf-8").split()), RECORD["rows"][-1]
    theirs, ours = last["forms"]["tensor product"], last["forms"]["SO(2) form"]
    fewer, memory = (theirs[key] / ours[key] for key in ("operations_per_edge", "peak_bytes_with_derivatives"))
    assert f"At L = 10 the SO(2) form takes {fewer:.1f} times fewer operations" in text
    assert f"and is {last['times_as_fast']:.1f} times as fast." in text
    assert f"needs {memory:.1f} times as much at L = 10" in text
    peaks = [{name: form["peak_bytes"] for name, form in row["forms"].items()} for row in RECORD["rows"]]
    assert all(peak["tensor product"] < peak["SO(2) form"] for peak in peaks)


def test_the_record_counts_what_the_formulas_say():
    for row in RECORD["rows"]:
        for name, formula in FORMULAS.items():
            assert row["forms"][name]["operations_per_edge"] == formula(row["L"]).total(RECORD["channels"])
    far = exponent(list(ASYMPTOTIC), [operations_of_tensor_product(degree).per_edge for degree in ASYMPTOTIC])
    assert RECORD["exponents"]["tensor product"]["once_per_edge_asymptotic"] == pytest.approx(far)


def test_the_table_of_the_docs_for_mixing_on_nodes():
    text = PAGE.read_text(encoding="utf-8")
    for shape, measured in zip(SHAPES, RECORD["first_stage"], strict=True):
        lmax, mmax, channels, hidden, neighbours = shape
        n, k = [lmax + 1 - m for m in range(mmax + 1)], [(lmax + 1) ** 2 - m * m for m in range(mmax + 1)]
        counts = operations(*shape)
        assert (
            f"| lmax {lmax}, mmax {mmax} | {channels}, {hidden}, {neighbours} | {n[0] + 4 * sum(n[1:])} C H "
            f"| {k[0] + 2 * sum(k[1:])} C H / k + {k[0] + 4 * sum(k[1:])} H | {counts['edges'] / counts['nodes']:.1f} "
            f"| {measured['operations_ratio']:.1f} | {measured['times_as_fast']:.1f} |"
        ) in text
