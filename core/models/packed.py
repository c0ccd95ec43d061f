"""Weights that files hold packed (GPTQ, AWQ, bitsandbytes, compressed-tensors, fp8): how many numbers they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from core.models.json_file import part

_PACKED = (".qweight", ".weight_packed")
_BESIDE = (
    *(".scales", ".qzeros", ".g_idx", ".perm", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB"),
    *(".weight_format", ".weight_scale", ".weight_scale_inv", ".weight_shape", ".weight_zero_point", ".weight_g_idx"),
    *(".input_scale", ".output_scale", ".k_scale", ".v_scale", ".weight_global_scale", ".input_global_scale"),
)
"""Tensors that say what the packed ones mean, and are no weights themselves."""

_USUAL_BITS = 4


def quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of how its weights are packed; empty where they are not."""
    return part(config, "quantization_config") or part(config, "compression_config")


def told(settings: Mapping[str, Any]) -> str:
    """For people: ``GPTQ 4-bit``; only the method where the config names no number of bits."""
    method = str(settings.get("quant_method") or settings.get("method") or "packed")[:40].upper()
    several = settings.get("bits") or settings.get("w_bit") or settings.get("weight_bits")
    bits = (
        several if type(several) is int else 4 if settings.get("load_in_4bit") else 8 if settings.get("load_in_8bit") else None
    )
    return f"{method} {bits}-bit" if bits else method


def numbers(name: str, dtype: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> int | None:
    """How many weights one tensor of a packed model stands for; None where it is no packed one.

    Args:
        name: of the tensor.
        dtype: as safetensors calls it.
        shape: of the tensor.
        settings: of ``quantization``.

    Returns:
        A 32-bit number of GPTQ, AWQ or compressed-tensors holds 32 / bits weights, a byte of bitsandbytes' 4 bits two.
    """
    if not settings:
        return None
    if name.endswith(_BESIDE) or ".quant_state." in name or name.endswith(".quant_state"):
        return 0
    if name.endswith(_PACKED):
        held = {"I32": 32, "U32": 32, "I64": 64, "U8": 8, "I8": 8}.get(dtype, 32)
        return prod(shape) * held // _bits(settings)
    if dtype == "U8" and settings.get("load_in_4bit"):
        return prod(shape) * 2
    return None


def _bits(settings: Mapping[str, Any]) -> int:
    groups = part(settings, "config_groups")
    weights = part(next((one for one in groups.values() if isinstance(one, dict)), {}), "weights")
    found = settings.get("bits") or settings.get("w_bit") or weights.get("num_bits")
    return found if type(found) is int and 1 <= found <= 8 else _USUAL_BITS
