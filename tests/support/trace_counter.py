"""Counts a trace file by other means than the import: plain JSON, one event after another, sums of whole nanoseconds."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

PLACES = {
    "cpu_op": "cpu", "operator": "cpu", "kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "copy", "memcpy": "copy",
    "memset": "copy", "runtime": "runtime", "cuda_runtime": "runtime", "cuda_driver": "runtime", "xpu_runtime": "runtime",
    "cuda_sync": "runtime", "overhead": "runtime", "python_function": "python", "python": "python", "hpu_op": "kernel",
    "user_annotation": "region", "": "cpu",
}  # fmt: skip
"""Where the events of a category ran, by the documents of each version; what is not here is shown nowhere."""


def counted(path: Path) -> dict[str, tuple[int, int]]:
    """By place: how many slices and their ns. Steps and regions are places of their own here, ``memory`` counts allocations."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    whole = json.loads(text, parse_float=Decimal, strict=False)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for event in whole["traceEvents"] if isinstance(whole, dict) else whole:
        place = _place(event)
        if place is not None:
            found[place][0] += 1
            found[place][1] += 0 if place == "memory" else round(Decimal(event.get("dur", 0)) * 1000)
    return {place: (count, total) for place, (count, total) in found.items()}


def _place(event: dict[str, Any]) -> str | None:
    if event.get("name") == "[memory]" and (event["ph"] == "i" or event.get("cat") == "cpu_instant_event"):
        return "memory"
    if event.get("ph") != "X":
        return None
    place = PLACES.get(event.get("cat", "").lower())
    if place in ("cpu", "region") and event["name"].startswith("ProfilerStep#"):
        return "step"
    if "cat" not in event and (".py(" in event["name"] or event["name"].startswith(("<", "nn.Module: "))):
        place = "python"
    if place == "python" and event["name"].startswith("nn.Module: "):
        return "module"
    return "kernel" if "cat" not in event and str(event.get("pid")) == "CUDA functions" else place
