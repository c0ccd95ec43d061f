"""What the accelerators share: one implementation over the module interface that torch gives each of them.

Not verified on hardware: tested against a stand-in at the driver's edge.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.messages.reason import Reason
from core.targets.base import TargetFacts
from core.torch_private import wholly_imported
from profilers.device_clock import DeviceEvents, TorchEvents


def torch_has_library(name: str) -> bool:
    """Whether the installed torch was built for this backend ("cuda", "xpu"), told from its files without importing it.

    CPU builds lack ``libtorch_cuda`` (``torch_cuda.dll`` on Windows).
    """
    spec = find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return any(next((Path(folder) / "lib").glob(f"*torch_{name}.*"), None) is not None for folder in folders)


def loaded_torch() -> Any | None:
    """Torch if it is imported, else None; also None while another thread is still importing it."""
    return wholly_imported("torch")


class Accelerator:
    """The first device of one sort. Not verified on hardware.

    A subclass names itself and tells two things: what the operating system knows before torch is imported, and why
    torch sees no device.
    """

    id: str
    title: str
    device: str

    def probe(self) -> TargetFacts:
        """What is here. With torch imported its own word counts; before that the driver's or the system's (a few ms)."""
        torch = loaded_torch()
        if torch is None:
            return self.before_torch()
        if not self.is_available(torch):
            return self.absent(self.why_absent(torch))
        return self.facts(self.module(torch))

    def module(self, torch: Any) -> Any:
        """Torch's module for this sort of device, such as ``torch.cuda``."""
        return getattr(torch, self.id)

    def is_available(self, torch: Any) -> bool:
        """Whether torch can use a device of this sort."""
        return bool(self.module(torch).is_available())

    def before_torch(self) -> TargetFacts:
        """The answer while torch is not imported."""
        return self.absent(Reason("targets.known-with-torch"))

    def why_absent(self, torch: Any) -> Reason:
        """A short clause for people; torch is there and sees no device."""
        return Reason("targets.not-found")

    def facts(self, module: Any) -> TargetFacts:
        """Name and memory of device 0 by ``get_device_properties``, which torch.cuda and torch.xpu share."""
        properties = module.get_device_properties(0)
        return self.present(str(properties.name), int(properties.total_memory), self.features(module))

    def features(self, module: Any) -> frozenset[str]:
        """Capabilities worth telling; none by default."""
        return frozenset()

    def present(self, name: str, memory_bytes: int | None, features: frozenset[str] = frozenset()) -> TargetFacts:
        """Facts of a device that is there."""
        return TargetFacts(self.id, self.title, name, True, None, memory_bytes, None, features)

    def absent(self, reason: Reason) -> TargetFacts:
        """Facts of a device that is not there, with the reason."""
        return TargetFacts(self.id, self.title, "", False, reason)

    def synchronize(self) -> None:
        """Wait for all queued work of the device."""
        self._loaded().synchronize()

    def reset_peak(self) -> None:
        """Start a new peak of the allocator's memory."""
        self._loaded().reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        """Most bytes that tensors held at once since ``reset_peak`` (the allocator's own count)."""
        return int(self._loaded().max_memory_allocated())

    def events(self) -> DeviceEvents | None:
        """Marks for the device's own clock, by torch's interface that all accelerators share."""
        torch = _torch()
        return TorchEvents(lambda: torch.Event(device=self.device, enable_timing=True), self.synchronize)

    def _loaded(self) -> Any:
        return self.module(_torch())


def _torch() -> Any:
    torch = loaded_torch()
    assert torch is not None, "only the worker, which has torch, drives a device"
    return torch
