"""Where the events of an imported trace ran, by their categories."""

from __future__ import annotations

import numpy as np

from core.imports.slices import Slices
from profilers.trace import PLACES, Array

_REGIONS = {"user_annotation"}
_NOT_SHOWN = {"Trace", "gpu_user_annotation"}
_MEMORY = "[memory]"
DROPPED, REGION = -2, -1


def places(slices: Slices) -> Array:
    """Where each category ran, as an index into ``PLACES``; regions -1, what is not shown -2."""
    found = []
    for category in slices.categories:
        if category in _NOT_SHOWN or category in ("cpu_instant_event", _MEMORY):
            found.append(DROPPED)
        elif category in _REGIONS:
            found.append(REGION)
        elif category == "kernel":
            found.append(PLACES.index("kernel"))
        elif category.startswith("gpu_mem"):
            found.append(PLACES.index("copy"))
        elif category.endswith(("_runtime", "_driver", "_sync")) or category == "overhead":
            found.append(PLACES.index("runtime"))
        elif category == "python_function":
            found.append(PLACES.index("python"))
        else:
            found.append(PLACES.index("cpu"))
    return np.array([*found, DROPPED])
