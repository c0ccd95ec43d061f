"""What the installed torch is, read from its files, and how it is set, once it is imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.targets.accelerator import loaded_torch

_BUILT_FOR = re.compile(r"^(cuda|hip|xpu|git_version)\b[^=\n]*= '([^']*)'", re.MULTILINE)
_LIBRARIES = {
    "mkl": re.compile(r"Math Kernel Library Version (\S+)"),
    "onednn": re.compile(r"MKL-DNN v(\S+)"),
    "openmp": re.compile(r"OpenMP (\d+)"),
    "blas": re.compile(r"BLAS_INFO=(\w+)"),
}


def torch_facts() -> dict[str, Any]:
    """Keys that begin with ``torch_``, ready for JSON. Torch is not imported; while it is not, most of them are missing."""
    facts: dict[str, Any] = {"torch_build": built_for()}
    torch = loaded_torch()
    if torch is None:
        return facts
    built = torch.__config__.show()
    found = {name: pattern.search(built) for name, pattern in _LIBRARIES.items()}
    return facts | {
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_libraries": {name: match[1] for name, match in found.items() if match is not None},
        "torch_matmul_precision": torch.get_float32_matmul_precision(),
        "torch_deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def built_for(folder: Path | None = None) -> dict[str, str] | None:
    """What torch's ``version.py`` says: commit, and the CUDA, HIP or XPU version it was built for; None without torch."""
    if folder is None:
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent
    try:
        return dict(_BUILT_FOR.findall((folder / "version.py").read_text(encoding="utf-8")))
    except OSError:
        return None
