"""Intel GPUs through torch.xpu. Not verified on hardware."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from core.messages.reason import Reason
from core.targets.accelerator import Accelerator, torch_has_library
from core.targets.base import TargetFacts, targets
from core.torch_private import xpu_is_built

NO_GPU = Reason("targets.no-xpu-gpu")
NOT_BUILT = Reason("targets.not-built-for-xpu")
NEITHER = Reason("targets.both", one=NO_GPU, other=NOT_BUILT)
INTEL = "0x8086"  # PCI vendor


def intel_gpu_listed(cards: Path = Path("/sys/class/drm")) -> bool | None:
    """Whether the kernel lists an Intel graphics device; None where it cannot be asked (not Linux)."""
    if sys.platform != "linux":
        return None
    for vendor in cards.glob("card*/device/vendor"):
        try:
            if vendor.read_text().strip() == INTEL:
                return True
        except OSError:
            continue
    return False


@targets.register
class Xpu(Accelerator):
    """The first Intel GPU. Not verified on hardware."""

    id = "xpu"
    title = "XPU"
    device = "xpu"

    def before_torch(self) -> TargetFacts:
        """Files of torch and the kernel's device list; torch itself has the last word once it is loaded."""
        listed = intel_gpu_listed()
        if not torch_has_library("xpu"):
            return self.absent(NEITHER if listed is False else NOT_BUILT)
        return self.absent(NO_GPU) if listed is False else self.present("Intel GPU", None)

    def why_absent(self, torch: Any) -> Reason:
        if xpu_is_built():
            return NO_GPU
        return NEITHER if intel_gpu_listed() is False else NOT_BUILT
