"""The NVIDIA driver's library (NVML), loaded when first asked for. Not verified on hardware."""

from __future__ import annotations

import importlib
from typing import Any

NO_DRIVER = "No NVIDIA driver was found."
NO_GPU = "The NVIDIA driver is here, but no GPU."


def library() -> Any:
    """``pynvml`` (of the package nvidia-ml-py)."""
    return importlib.import_module("pynvml")


def why_absent(nvml: Any) -> str | None:
    """Why there is nothing to sample: no driver, or no device; None where a GPU is."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return NO_DRIVER
    try:
        return None if nvml.nvmlDeviceGetCount() else NO_GPU
    except nvml.NVMLError:
        return NO_GPU
    finally:
        nvml.nvmlShutdown()
