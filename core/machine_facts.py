"""What was found out about this machine, kept for the next start: ceilings, how long layers take, what A/B tests showed.

Finding it out takes a second or two, and does not change from start to start. What was measured while others kept the machine
busy is used but not kept, so one busy start does not spoil the later ones. Another torch, processor or number of threads:
another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from core.folders import cache_folder
from core.machine_cache import read_document, write_document

VERSION = 2
"""Raised when what an older Tickscope found must not be used any more."""


TICK_S = 0.02  # the kernel counts in hundredths

BUSY = 0.2
"""Share of one processor that others may take while something is measured that is to be kept."""


def remembered(name: str, find: Callable[[], Any]) -> Any:
    """What is known under ``name``, a value as JSON has it; found out where it is not, and kept if the machine was calm."""
    path = _file()
    known = _read(str(path))
    if name in known:
        return known[name]
    start, others = time.perf_counter(), others_s()
    found = known[name] = json.loads(json.dumps(find()))  # the same the next time
    if others_s() - others <= BUSY * (time.perf_counter() - start) + TICK_S:
        _write(path, name, found)
    else:
        _doubtful.add((str(path), name))
    return found


_doubtful: set[tuple[str, str]] = set()
"""What this process found out while others computed: file and name."""


def is_doubtful(name: str) -> bool:
    """Whether what ``remembered`` returns for it was found out while others computed, and so is not kept."""
    return (str(_file()), name) in _doubtful


def is_remembered(name: str) -> bool:
    """Whether ``remembered`` would return at once."""
    return name in _read(str(_file()))


def forget() -> None:
    """Find everything out again (in this process: for tests, and after another folder was named)."""
    _read.cache_clear()
    _doubtful.clear()


def others_s() -> float:
    """Processor seconds that other processes have used since the machine started."""
    all_times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(all_times) - all_times.idle - getattr(all_times, "iowait", 0.0) - getattr(all_times, "guest", 0.0)
    return float(busy - own.user - own.system)


def _file() -> Path:
    import torch

    machine = repr((VERSION, torch.__version__, torch.get_num_threads(), platform.machine(), _processor()))
    return cache_folder() / "machine" / f"{hashlib.sha256(machine.encode()).hexdigest()[:24]}.json"


@lru_cache(maxsize=1)
def _processor() -> str:
    """Its name where Linux tells it, and what torch says it can do."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name} {os.cpu_count()} {sorted(torch.cpu.get_capabilities().items())}"


@lru_cache(maxsize=8)
def _read(path: str) -> dict[str, Any]:
    return read_document(Path(path))


def _write(path: Path, name: str, value: Any) -> None:
    with contextlib.suppress(OSError):  # it is found out again at the next start
        write_document(path, read_document(path) | {name: value})
