"""What a run's numbers depend on besides model and workload: system, processor, memory, versions, settings. No torch import."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("tickscope", "torch", "transformers", "torchao", "numpy", "PySide6-Essentials", "duckdb")

VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)
"""Settings that change speed. Only these are stored: other variables may hold secrets."""

_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)

_CPU = Path("/sys/devices/system/cpu")


def environment() -> dict[str, Any]:
    """A JSON-able description of this machine and process, in some ms. None: this system does not tell."""
    model, features = _processor()
    return {
        "os": platform.system(),
        "os_release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name.removesuffix("-Essentials").lower(): _version(name) for name in PACKAGES},
        "cpu_model": model,
        "cpu_features": features,
        "cpu_cores_physical": psutil.cpu_count(logical=False),
        "cpu_cores_logical": psutil.cpu_count(),
        "cpu_affinity": _affinity(),
        "cpu_quota": _quota(),
        "cpu_governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "smt_active": _text(_CPU / "smt/active"),
        "transparent_hugepages": _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> tuple[str | None, list[str] | None]:
    """Model name and the instruction sets that inference kernels look for."""
    system = platform.system()
    if system == "Linux":
        return _linux_processor(_text(Path("/proc/cpuinfo")) or "")
    if system == "Darwin":
        return _run("sysctl", "-n", "machdep.cpu.brand_string"), None
    return platform.processor() or None, None


def _linux_processor(text: str) -> tuple[str | None, list[str] | None]:
    first = text.split("\n\n", 1)[0]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set(fields.get("flags", fields.get("features", "")).split())
    model = fields.get("model name") or fields.get("cpu model") or fields.get("hardware") or platform.processor() or None
    return model, [name for name in _FEATURES if name in flags] if flags else None


def _affinity() -> list[int] | None:
    process = psutil.Process()
    return list(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else None


def _quota() -> float | None:
    """Processors that a container's limit leaves (cgroup v2 ``cpu.max``); None without a limit."""
    quota, _, period = (_text(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
