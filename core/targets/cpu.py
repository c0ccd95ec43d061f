"""The CPU as a target: its name, the logical processors this process may use, its memory and its instruction sets."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from core.targets.accelerator import loaded_torch
from core.targets.base import TargetFacts, targets
from profilers.device_clock import DeviceEvents

FEATURES = frozenset(
    {
        *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_bf16", "amx_int8", "amx_fp16"),
        *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),  # the Arm kernel's names
    }
)
"""Instruction sets that decide which kernels of torch run; named as in ``/proc/cpuinfo``."""

_TORCH_NAMES = {"avx512_f": "avx512f", "fma3": "fma"}


def usable_threads() -> int:
    """Logical processors that this process may use (its affinity, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """The first processor's block of ``/proc/cpuinfo``; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    return fields


def sysctl(name: str) -> str:
    """One value of macOS's ``sysctl``; "" where it cannot be asked."""
    try:
        answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name as its maker gives it, else what the platform says."""
    if sys.platform == "darwin" and (name := sysctl("machdep.cpu.brand_string")):
        return name
    info = _cpuinfo()
    return info.get("model name") or info.get("Hardware") or platform.processor() or platform.machine()


def _features(torch: Any | None) -> frozenset[str]:
    info = _cpuinfo()
    names = set((info.get("flags") or info.get("Features") or "").split())
    capabilities = getattr(getattr(torch, "cpu", None), "get_capabilities", None)
    if capabilities is not None:
        names |= {_TORCH_NAMES.get(name, name) for name, present in capabilities().items() if present is True}
    return frozenset(names & FEATURES)


@targets.register
class Cpu:
    """The processor that the program itself runs on."""

    id = "cpu"
    title = "CPU"
    device = "cpu"

    def probe(self) -> TargetFacts:
        return TargetFacts(
            id=self.id,
            title=self.title,
            name=cpu_name(),
            available=True,
            memory_bytes=psutil.virtual_memory().total,
            threads=usable_threads(),
            features=_features(loaded_torch()),
        )

    def synchronize(self) -> None:
        """Nothing is queued on a CPU."""

    def reset_peak(self) -> None:
        """Nothing to reset: the process's own peak is the host memory instrument's."""

    def peak_bytes(self) -> int | None:
        return None

    def events(self) -> DeviceEvents | None:
        return None
