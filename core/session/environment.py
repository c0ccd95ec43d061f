"""What a run's numbers depend on besides model and workload: system, processor, memory, versions, settings. No torch import."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from core.session.torch_facts import torch_facts

PACKAGES = (
    *("tickscope", "torch", "transformers", "torchao", "numpy", "PySide6-Essentials", "duckdb"),
    *("tokenizers", "safetensors", "accelerate", "gguf", "optimum", "triton", "onnxruntime", "openvino"),
    *("intel-extension-for-pytorch", "flash-attn", "kernels", "nvidia-ml-py", "psutil"),
)

VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "OMP_DYNAMIC",
    "OMP_SCHEDULE",
    "OMP_THREAD_LIMIT",
    "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "KMP_SETTINGS",
    "MKL_NUM_THREADS",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_CBWR",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MALLOC_CONF",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
    "THP_MEM_ALLOC_ENABLE",
    "LRU_CACHE_CAPACITY",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_DEVICE_ORDER",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO",
    "PYTORCH_MPS_FAST_MATH",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_COMPILE_DISABLE",
    "TORCHDYNAMO_DISABLE",
    "TORCHINDUCTOR_FREEZING",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
    "TORCHINDUCTOR_CPP_WRAPPER",
    "TOKENIZERS_PARALLELISM",
    "PYTHONMALLOC",
    "PYTHON_GIL",
)
"""Settings that change speed or results. Only these are stored: other variables may hold secrets."""

_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)

_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc", "hoard", "tbbmalloc")

_CPU = Path("/sys/devices/system/cpu")
_PROC = Path("/proc")


def environment() -> dict[str, Any]:
    """A JSON-able description of this machine and process, in some ms. None: this system does not tell."""
    return {**_software(), **_processor_facts(), **_memory(), **torch_facts()}


def _software() -> dict[str, Any]:
    return {
        "os": platform.system(),
        "os_release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name.removesuffix("-Essentials").lower(): _version(name) for name in PACKAGES},
        "perf_event_paranoid": _number(_PROC / "sys/kernel/perf_event_paranoid"),
        "clock_source": _text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "allocator": _allocator(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _processor_facts() -> dict[str, Any]:
    model, features, fields = _processor()
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "cpu_model": model,
        "cpu_features": features,
        "cpu_family": fields.get("cpu family"),
        "cpu_model_number": fields.get("model"),
        "cpu_stepping": fields.get("stepping"),
        "cpu_microcode": fields.get("microcode"),
        "hypervisor": "hypervisor" in fields["flags"].split() if "flags" in fields else None,
        "cpu_cores_physical": psutil.cpu_count(logical=False),
        "cpu_cores_logical": psutil.cpu_count(),
        "cpu_affinity": _affinity(),
        "cpu_quota": _quota(),
        "cpu_governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "cpu_driver": _text(_CPU / "cpu0/cpufreq/scaling_driver"),
        "cpu_boost": _boost(),
        "cpu_frequency_hz": _hertz(frequency.current) if frequency else None,
        "cpu_frequency_min_hz": _hertz(frequency.min) if frequency else None,
        "cpu_frequency_max_hz": _hertz(frequency.max) if frequency else None,
        "smt_active": _text(_CPU / "smt/active"),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "power_source": _power_source(),
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
    }


def _memory() -> dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "transparent_hugepages": _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "huge_pages": _number(_PROC / "sys/vm/nr_hugepages"),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_bytes": swap.total,
        "swap_used_bytes": swap.used,
        "swappiness": _number(_PROC / "sys/vm/swappiness"),
    }


def _allocator() -> str | None:
    """The memory allocator that ``LD_PRELOAD`` put in place, by its library's name; "system" where none was."""
    preloaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    names = [Path(path).name for path in preloaded]
    return next((name for name in names if any(known in name for known in _ALLOCATORS)), "system")


def _power_source() -> str | None:
    """Either "battery" or "mains"; None where there is no battery to ask."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is None:
        return None
    return "mains" if battery.power_plugged else "battery"


def _boost() -> bool | None:
    """Whether the processor may clock above its nominal frequency; None where the system does not tell."""
    off = _number(_CPU / "intel_pstate/no_turbo")
    if off is not None:
        return not off
    on = _number(_CPU / "cpufreq/boost")
    return bool(on) if on is not None else None


def _hertz(mhz: float) -> float | None:
    """None for the 0 with which psutil says "not known"."""
    return mhz * 1e6 or None


@lru_cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> tuple[str | None, list[str] | None, dict[str, str]]:
    """Model name, the instruction sets that inference kernels look for, and what Linux lists about the first processor."""
    system = platform.system()
    if system == "Linux":
        return _linux_processor(_text(_PROC / "cpuinfo") or "")
    if system == "Darwin":
        return _run("sysctl", "-n", "machdep.cpu.brand_string"), None, {}
    return platform.processor() or None, None, {}


def _linux_processor(text: str) -> tuple[str | None, list[str] | None, dict[str, str]]:
    first = text.split("\n\n", 1)[0]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set(fields.get("flags", fields.get("features", "")).split())
    model = fields.get("model name") or fields.get("cpu model") or fields.get("hardware") or platform.processor() or None
    return model, [name for name in _FEATURES if name in flags] if flags else None, fields


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


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
