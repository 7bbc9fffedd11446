"""The option matmul: which values are accepted where, what it changes, and that torch is left as it was."""

import json
from types import MappingProxyType

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from click.testing import CliRunner

from escn_calc import ESCNCalculator, load_potential
from escn_calc.bench import arithmetic
from escn_calc.checkpoints.native import write_native
from escn_calc.cli import main
from escn_calc.errors import InputError
from escn_calc.matmul import check_matmul
from tests.parity import checkpoint, structures

PROCESSOR = torch.cpu.get_capabilities()
has_bfloat16 = pytest.mark.skipif(
    not (PROCESSOR.get("avx512_bf16") or PROCESSOR.get("amx_bf16")), reason="needs AVX512-BF16 or AMX"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "l2m1"
    write_native(checkpoint("l2m1"), folder)
    return folder


def slab():
    return structures("l2m1")[0].atoms.copy()


def settings_of_torch():
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )


@has_bfloat16
@pytest.mark.filterwarnings("ignore::escn_calc.potential.TurningFramesWarning")
@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_bfloat16_is_close_to_float32_and_leaves_torch_alone(model, forces):
    atoms, before = slab(), settings_of_torch()
    exact, reduced = (
        load_potential(model, device="cpu", matmul=matmul, forces=forces).evaluate([atoms])[0]
        for matmul in ("full", "bfloat16")
    )
    assert settings_of_torch() == before
    assert reduced.energies.dtype == np.float64
    assert reduced.energy == pytest.approx(reduced.energies.sum(), abs=1e-12)
    change = np.abs(reduced.forces - exact.forces).max() / np.abs(exact.forces).max()
    assert 1e-5 < change < 0.05


@has_bfloat16
def test_calculator(model):
    atoms = slab()
    atoms.calc = ESCNCalculator(model, device="cpu", matmul="bfloat16")
    (expected,) = load_potential(model, device="cpu", matmul="bfloat16").evaluate([atoms])
    assert atoms.get_potential_energy() == expected.energy
    assert atoms.calc.todict()["matmul"] == atoms.calc.potential.matmul == "bfloat16"
    exact = atoms.calc.set(matmul="full")
    assert exact == {"matmul": "full"} and atoms.get_potential_energy() != expected.energy


@pytest.fixture
def labelled(tmp_path):
    atoms = slab()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    atoms.set_tags(2)
    atoms.write(tmp_path / "slab.extxyz")
    return str(tmp_path / "slab.extxyz")


@pytest.mark.parametrize("command", ["relax", "relax --index :", "md", "vibrations", "evaluate"])
def test_commands_pass_it_on(labelled, tmp_path, command):
    arguments = ["default", labelled] if command == "evaluate" else [labelled]
    words = [*command.split(), *arguments, "--device", "cpu", "--matmul", "tf32"]
    result = CliRunner().invoke(main, [*words, "--output-dir", str(tmp_path / "out")])
    assert result.exit_code == 1 and "matmul='tf32' was asked for" in " ".join(result.output.split())


@has_bfloat16
def test_record_of_a_run(model, labelled, tmp_path):
    words = ["relax", labelled, "--model", str(model), "--device", "cpu", "--steps", "0"]
    CliRunner().invoke(main, [*words, "--matmul", "bfloat16", "--output-dir", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "slab.json").read_text())
    assert record["settings"]["matmul"] == "bfloat16"


@has_bfloat16
def test_bench_compares_it_with_plain_float32(model, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic, "CPU_SIZE", 16)
    words = ["bench", labelled, "--model", str(model), "--device", "cpu", "--seconds", "0", "--batch", "1"]
    out = tmp_path / "speed.json"
    result = CliRunner().invoke(main, [*words, "--matmul", "bfloat16", "--json", str(out)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "products in bfloat16" in result.stdout
    largest = {row["against"]: row["relative_forces"] for row in json.loads(out.read_text())["differences"]["largest"]}
    assert largest.keys() == {"one by one", "float32", "float64"} and 1e-5 < largest["float32"] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matmul": "float16"}, "matmul is 'float16', but must be one of full, bfloat16, tf32"),
        ({"matmul": "bfloat16", "dtype": "float64"}, "dtype='float64'; use matmul='full', or dtype='float32'"),
        ({"matmul": "tf32"}, "device 'cpu' has no such products; use matmul='full'"),
    ],
    ids=["unknown", "float64", "tf32 on the CPU"],
)
def test_refused(model, options, message):
    with pytest.raises(InputError, match=message):
        load_potential(model, device="cpu", **options)


def test_a_processor_without_bfloat16_is_named(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType({"avx2": True, "cpu_name": "Old One"}))
    with pytest.raises(InputError, match=r"processor \(Old One\) has neither AVX512-BF16 nor AMX; use matmul='full'"):
        check_matmul("bfloat16", "cpu", "float32")


@pytest.mark.parametrize("matmul", ["bfloat16", "tf32"])
def test_a_gpu_without_such_products_is_named(monkeypatch, matmul):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(InputError, match=r"Tesla V100 \(compute capability 7\.0\)"):
        check_matmul(matmul, "cuda", "float32")


def test_an_apple_gpu_has_none():
    with pytest.raises(InputError, match="device 'mps' has no such products"):
        check_matmul("bfloat16", "mps", "float32")
