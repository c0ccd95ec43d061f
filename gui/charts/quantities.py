"""What a layer can be measured in: how each quantity is called, written, and why a run may not have it."""

from __future__ import annotations

import math
from typing import NamedTuple

from core import units
from core.records.run import Run


class Quantity(NamedTuple):
    """One quantity of ``core.analysis.series.heat``: its title, the short word on a button, and the column that it needs."""

    title: str
    short: str
    column: str


QUANTITIES = {
    "time": Quantity("Time", "ms", ""),
    "cycles": Quantity("Processor cycles", "cycles", "cycles"),
    "ipc": Quantity("Instructions per cycle", "IPC", "instructions"),
    "cpu": Quantity("CPU time, all threads", "CPU time", "cpu_ns"),
}
IMPORTED = "this is an imported trace, without counters"
OFF = "the processor counters were not switched on"
NOT_COUNTED = "none was counted in these moments"


def missing_count(run: Run, column: str) -> str:
    """Why a run has nothing in one of the processor's columns."""
    if run.facts.status == "imported":
        return IMPORTED
    facts = run.facts.instruments.get("cycles")
    told = facts.get("missing", {}) if isinstance(facts, dict) else {}
    for name in (column, "cycles") if column != "cpu_ns" else (column,):
        if name in told:
            return str(told[name]).rstrip(".")
    why = run.facts.why_missing(column, "cycles", "counters", "Processor counters")
    if why is not None:
        return str(why).rstrip(".")
    return NOT_COUNTED if "cycles" in run.config.profilers else OFF


def written(value: float, quantity: str) -> str:
    """A value of the heat map as text: 1.24 ms, 3.5 M cycles, IPC 1.84."""
    if math.isnan(value):
        return "not measured" if quantity in ("cycles", "ipc", "cpu") else "not called"
    if quantity == "cycles":
        return f"{units.count(value)} cycles"
    if quantity == "ipc":
        return f"IPC {value:.2f}"
    text = units.duration(value * 1e6)
    return f"{text} of CPU time" if quantity == "cpu" else text


def scale_of(limit: float, quantity: str) -> tuple[float, str]:
    """Factor and unit in which a scale that ends at ``limit`` reads well."""
    if quantity == "cycles":
        for factor, unit in ((1e-9, "G"), (1e-6, "M"), (1e-3, "k")):
            if limit * factor >= 1:
                return factor, unit
        return 1.0, ""
    return 1.0, "" if quantity == "ipc" else "ms"
