"""Native kernels: compiles the C++ that Tickscope ships, once for this machine, and registers it as torch operators."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import resources
from core.disk_space import require_to_compile
from core.errors import Refusal
from core.folders import cache_folder
from core.machine_cache import draft_of, keep, usable
from core.messages.reason import Reason

SOURCE = "native/grouped_linear.cpp"
LIBRARY = "kernels.so"
_FLAGS = ("-O3", "-std=c++20", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")


def available() -> Reason | None:
    """Why these kernels cannot be had here, as a short clause; None where they can (or are compiled already)."""
    if sys.platform == "win32":
        return Reason("native.not-on-windows")
    return None if shutil.which(compiler()) else Reason("native.needs-compiler", compiler=compiler())


@cache
def load() -> None:
    """Register ``torch.ops.tickscope``; compiles at the first use on a machine (about 6 s), later ones take milliseconds.

    Raises:
        Refusal: there is no C++ compiler, or it cannot compile this here.
    """
    import torch

    torch.ops.load_library(str(_library()))

    @torch.library.register_fake("tickscope::grouped_linear")  # what it returns, for torch's compiler
    def _linear(
        x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, outputs: int, bits: int
    ) -> torch.Tensor:
        return x.new_empty((x.shape[0], outputs))

    @torch.library.register_fake("tickscope::grouped_weight")
    def _weight(
        weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, like: torch.Tensor, inputs: int, outputs: int, bits: int
    ) -> torch.Tensor:
        return like.new_empty((outputs, inputs))


def compiler() -> str:
    """The C++ compiler's name, as torch's inductor chooses it."""
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return os.environ.get("CXX", default)


def _library() -> Path:
    """The compiled library for this source, torch, compiler and processor."""
    import torch

    source = resources.data(SOURCE)
    machine = f"{torch.__version__} {compiler()} {platform.machine()} {sorted(torch.cpu.get_capabilities().items())}"
    name = hashlib.sha256(source + machine.encode()).hexdigest()[:24]
    entry = cache_folder() / "native" / name
    if not usable(entry, code=True):
        try:
            require_to_compile(entry.parent)
            draft = draft_of(entry)
            try:
                compile_source(Path(resources.path(SOURCE)), draft / LIBRARY)
                keep(draft, entry)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            problem = error.strerror or str(error)
            raise Refusal(Reason("native.cannot-be-kept", folder=str(entry.parent), problem=problem)) from error
    return entry / LIBRARY


def compile_source(source: Path, target: Path) -> None:
    """Compile one C++ file against torch into the shared library ``target``; ``Refusal`` where that fails."""
    import torch

    root = Path(torch.__file__).parent
    include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'torch' / 'csrc' / 'api' / 'include'}"]
    link = [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
    command = [compiler(), *_FLAGS, _native_flag(), *include, "-o", str(target), str(source), *link]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Refusal(Reason("native.no-compiler", problem=str(error), compiler=compiler())) from error
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise Refusal(Reason("native.does-not-compile", compiler=compiler(), problem=first.strip()))


def _native_flag() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
