"""Apple's GPU through Metal (torch.mps). Not verified on hardware."""

from __future__ import annotations

import platform
import sys
from typing import Any

from core.messages.reason import Reason
from core.targets.accelerator import Accelerator
from core.targets.base import TargetFacts, targets
from core.targets.cpu import cpu_name, sysctl
from profilers.device_clock import DeviceEvents, TorchEvents

NEEDS_MAC = Reason("targets.needs-mac")


def is_apple_silicon() -> bool:
    """Whether this is macOS on Apple's own processor (also false for an Intel Python under Rosetta, rightly)."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


@targets.register
class Mps(Accelerator):
    """The GPU of an Apple silicon Mac; it shares the machine's memory. Not verified on hardware."""

    id = "mps"
    title = "MPS"
    device = "mps"

    def before_torch(self) -> TargetFacts:
        if not is_apple_silicon():
            return self.absent(NEEDS_MAC)
        memory = sysctl("hw.memsize")
        return self.present(cpu_name(), int(memory) if memory.isdigit() else None)

    def is_available(self, torch: Any) -> bool:
        return bool(torch.backends.mps.is_available())

    def why_absent(self, torch: Any) -> Reason:
        if not is_apple_silicon():
            return NEEDS_MAC
        return Reason("targets.needs-macos") if torch.backends.mps.is_built() else Reason("targets.not-built-for-mps")

    def facts(self, module: Any) -> TargetFacts:
        """The memory is what Metal recommends as the most to use."""
        return self.present(cpu_name(), int(module.recommended_max_memory()))

    def reset_peak(self) -> None:
        """Metal keeps no peak."""

    def peak_bytes(self) -> int | None:
        """None: torch.mps tells what is allocated now, and no peak."""
        return None

    def events(self) -> DeviceEvents | None:
        """Metal's own events, through torch.mps."""
        event = self._loaded().event
        return TorchEvents(lambda: event.Event(enable_timing=True), self.synchronize)
