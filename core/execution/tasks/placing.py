"""Inputs go where the model is, in the numbers that its weights have."""

from __future__ import annotations

from typing import Any


def placed(value: Any, model: Any, device: str) -> Any:
    """A tensor on the device, one with fractions in the dtype of the model's first weights (passes may have changed that).

    What is no tensor stays as it is.
    """
    if not hasattr(value, "is_floating_point"):
        return value
    if not value.is_floating_point():
        return value.to(device)
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), value.dtype)
    return value.to(device, dtype)
