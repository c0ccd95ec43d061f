"""Device memory: what torch's allocator holds on an accelerator, over time. Not verified on hardware."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from profilers.trace import Recorder

NO_TORCH = "Torch is not loaded, so no accelerator is in use."
NO_DEVICE = "Torch sees no accelerator; the memory of the CPU is under host memory."

Readers = tuple[Callable[[], int], Callable[[], int]]


def allocator(torch: Any) -> Readers | None:
    """How bytes in tensors and bytes reserved from the device are read; None without an accelerator.

    ``torch.accelerator`` is for CUDA and XPU alike; Metal has its own two names.
    """
    accelerator = torch.accelerator
    if not accelerator.is_available():
        return None
    kind = accelerator.current_accelerator().type
    if kind == "mps":
        return torch.mps.current_allocated_memory, torch.mps.driver_allocated_memory
    module = accelerator if hasattr(accelerator, "memory_allocated") else getattr(torch, kind)
    return module.memory_allocated, module.memory_reserved


class _Reading:
    def __init__(self, recorder: Recorder, readers: Readers) -> None:
        self._recorder = recorder
        tracks = recorder.track("device_allocated", "bytes"), recorder.track("device_reserved", "bytes")
        self._readers = tuple(zip(tracks, readers, strict=True))

    def sample(self) -> None:
        for track, read in self._readers:  # counts of the host's side of the allocator: the device is not waited for
            self._recorder.sample(track, read())

    def facts(self) -> dict[str, Any]:
        return {"source": "torch's allocator", "missing": {}}

    def close(self) -> None:
        """No handle stays open."""


class DeviceMemory:
    """Samples torch's allocator ten times a second."""

    id = "device_memory"
    title = "Accelerator memory"
    summary = "memory in tensors and reserved by torch on the accelerator (not verified on hardware)"
    period_s: float | None = 0.1
    by_default = False

    def check(self) -> str | None:
        """Why there is nothing to sample. Torch is not imported for it."""
        torch = sys.modules.get("torch")
        if torch is None:
            return NO_TORCH
        return None if allocator(torch) is not None else NO_DEVICE

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the tracks ``device_allocated`` and ``device_reserved``."""
        readers = allocator(sys.modules["torch"])
        if readers is None:
            raise RuntimeError("torch sees no accelerator any more")
        return _Reading(recorder, readers)


INSTRUMENT = DeviceMemory()
