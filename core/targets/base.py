"""What a target is: a device, what it can do, and how its clock and memory are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from core.messages.reason import Reason
from core.registry import Registry
from profilers.device_clock import DeviceEvents


@dataclass(frozen=True)
class TargetFacts:
    """What probing a target told. ``memory_bytes`` is its total memory; ``features`` are instruction sets and the like."""

    id: str
    title: str  # "CPU", "CUDA"
    name: str  # "AMD EPYC 9B45", "NVIDIA L4"; "" where absent
    available: bool
    reason: Reason | None = None  # why it is absent
    memory_bytes: int | None = None
    threads: int | None = None  # logical processors this process may use
    features: frozenset[str] = field(default_factory=frozenset)


class Target(Protocol):
    """One sort of device. Accelerators are not verified on hardware here; they are tested against a fake driver's edge."""

    id: str
    title: str
    device: str  # torch device string

    def probe(self) -> TargetFacts:
        """What is here. Without torch imported it answers what the operating system knows (fast, for the window's start);
        the worker probes again once torch is there.
        """
        ...

    def synchronize(self) -> None:
        """Wait for all queued work (nothing to do on the CPU)."""
        ...

    def reset_peak(self) -> None:
        """Start a new device memory peak."""
        ...

    def peak_bytes(self) -> int | None:
        """Device memory peak since ``reset_peak``; None on the CPU (the process's own peak is the host memory's)."""
        ...

    def events(self) -> DeviceEvents | None:
        """Marks in the device's queue for its own clock, a new pool each time; None on the CPU, whose clock is the host's."""
        ...


targets: Registry[Target] = Registry("target", "core.targets")
