"""Which devices multiply matrices with fewer bits."""

import platform

import torch

from escn_calc.errors import InputError

#: Instruction sets, as torch names them, with products of bfloat16 added in float32.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def check_matmul(matmul: str, device: str, dtype: str) -> None:
    """Make sure that products can be reduced as asked.

    Parameters
    ----------
    matmul : "full", "bfloat16" or "tf32".
    device : where to multiply: "cpu", "cuda" or "mps".
    dtype : of all other arithmetic.

    Raises
    ------
    InputError
        ``dtype`` is not float32, or the device does not have such products.
    """
    if matmul == "full":
        return
    if dtype != "float32":
        raise InputError(f"matmul={matmul!r} was asked for with dtype={dtype!r}; use matmul='full', or dtype='float32'")
    found = _lacking(matmul, device)
    if found is not None:
        raise InputError(f"matmul={matmul!r} was asked for, but {found}; use matmul='full'")


def _lacking(matmul: str, device: str) -> str | None:
    """Say what is missing; None if nothing is."""
    if device == "cuda":
        return _lacking_on_cuda(matmul)
    if device == "cpu" and matmul == "bfloat16":
        return _lacking_on_cpu()
    return f"device {device!r} has no such products"


def _lacking_on_cuda(matmul: str) -> str | None:
    native = torch.cuda.is_tf32_supported() if matmul == "tf32" else torch.cuda.is_bf16_supported(False)
    if native:
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor}) has no such products"


def _lacking_on_cpu() -> str | None:
    if not hasattr(torch.cpu, "get_capabilities"):
        return f"torch {torch.__version__} does not tell what this processor can do, as later ones do"
    capabilities = torch.cpu.get_capabilities()
    if any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS):
        return None
    processor = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return f"this processor ({processor}) has neither AVX512-BF16 nor AMX"
