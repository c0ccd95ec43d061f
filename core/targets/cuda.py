"""NVIDIA GPUs (and AMD's under a ROCm build of torch, which calls them cuda too). Not verified on hardware."""

from __future__ import annotations

from typing import Any

from core.messages.reason import Reason
from core.targets.accelerator import Accelerator, torch_has_library
from core.targets.base import TargetFacts, targets

NO_GPU = Reason("targets.no-cuda-gpu")
NOT_BUILT = Reason("targets.not-built-for-cuda")
NEITHER = Reason("targets.both", one=NO_GPU, other=NOT_BUILT)


def ask_nvml() -> tuple[str, int] | None:
    """Name and memory in bytes of the driver's first GPU; None without a driver or a GPU. Takes milliseconds, no torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return None
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        return name.decode() if isinstance(name, bytes) else str(name), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


@targets.register
class Cuda(Accelerator):
    """The first CUDA device. Not verified on hardware."""

    id = "cuda"
    title = "CUDA"
    device = "cuda"

    def before_torch(self) -> TargetFacts:
        """The driver says what is there, the files of torch whether it could use it."""
        gpu = ask_nvml()
        built = torch_has_library("cuda")
        if gpu is None and not torch_has_library("hip"):
            return self.absent(NO_GPU if built else NEITHER)
        if not built and not torch_has_library("hip"):
            return self.absent(NOT_BUILT)
        return self.present(*gpu) if gpu is not None else self.present("AMD GPU", None)

    def why_absent(self, torch: Any) -> Reason:
        if torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None:
            return NO_GPU
        return NOT_BUILT if ask_nvml() is not None else NEITHER

    def features(self, module: Any) -> frozenset[str]:
        """The compute capability, such as ``sm_89``."""
        major, minor = module.get_device_capability(0)
        return frozenset({f"sm_{major}{minor}"})
