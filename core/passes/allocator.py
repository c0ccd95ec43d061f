"""Allocator: whether the C library keeps freed memory for the next buffer or hands it back and asks again.

glibc maps every block beyond a threshold anew from the system and unmaps it when it is freed; each of its pages then costs a
page fault on first touch. The threshold adapts up to 32 MiB, but the heaps of threads other than the first are handed back too.
Measured on a worker thread, two buffers written in turn: of 12 MB each 11 ms as it is and 3 ms with freed memory kept, of 40 MB
48 and 16 ms. Blocks above 64 MiB do not fit such a thread's heap and are mapped as before. Another allocator (tcmalloc,
jemalloc) can only be chosen when the process starts; the report says how.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes
from core.pass_api.subject import Subject

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

MIB = 1 << 20
_USUAL = ((MMAP_MAX, 65_536), (MMAP_THRESHOLD, 32 * MIB), (TRIM_THRESHOLD, 64 * MIB), (TOP_PAD, 128 << 10))
"""What a process that has loaded a model has: glibc's defaults with its adapting threshold at its upper end."""

_HEAP = 64 * MIB
"""Largest heap of a thread; a pad of that size keeps glibc from handing heaps that became empty back."""

_OTHERS = re.compile(r"[^ ]*/lib(tcmalloc|jemalloc|mimalloc)[^ /]*")
_MAPS = Path("/proc/self/maps")


@dataclass(frozen=True)
class AllocatorOptions:
    """What the process keeps, and how it treats the smallest numbers."""

    keep_mib: int = field(
        default=1024,
        metadata={
            "label": "Keep freed memory, MiB",
            "help": "Up to so much freed memory stays with the process for the next buffers; 0 leaves the allocator alone",
            "minimum": 0,
            "maximum": 65_536,
        },
    )
    flush_denormal: bool = field(
        default=False,
        metadata={
            "label": "Denormal numbers are zero",
            "help": "Numbers below 1e-38 slow some processors down; seen in pruned and random models only",
        },
    )

    def __post_init__(self) -> None:
        if self.keep_mib == 0 and not self.flush_denormal:
            raise ValueError(
                worded(
                    "pass.allocator.changes-nothing",
                    "keep_mib is 0 and flush_denormal off, which changes nothing; set one of them",
                )
            )


@passes.register
class Allocator(Pass):
    """Sets glibc's thresholds for this process."""

    id = "allocator"
    title = "Memory allocator"
    summary = "Keeps freed memory for the next buffer instead of mapping new pages"
    phase = Phase.PROCESS
    options: ClassVar[type | None] = AllocatorOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.page-faults-saved"))

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id != "cpu":
            return Reason("passes.cpu-buffers-only")
        return unusable()

    def apply(self, subject: Subject, options: AllocatorOptions) -> PassReport:
        if (reason := unusable()) is not None:
            raise Refusal(Reason("passes.allocator-not-set", reason=reason))
        done: list[Reason] = []
        notes = [_other_allocators()]
        if options.keep_mib:
            subject.undo.callback(_keep(options.keep_mib * MIB))
            done.append(worded("pass.allocator.kept", "up to {mib} MiB of freed memory kept", mib=options.keep_mib))
            notes.append(
                worded(
                    "pass.allocator.fixed",
                    "Switched off, it leaves glibc's thresholds fixed at 32 and 64 MiB; they adapt again after a restart.",
                )
            )
        if options.flush_denormal:
            undo, note = _flush()
            subject.undo.callback(undo)
            done.append(worded("pass.allocator.denormals", "denormal numbers are zero"))
            notes += [note] if note else []
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            0,
            worded("pass.allocator.done", "{what}", what=tuple(done)),
            notes=tuple(notes),
            prediction=self.unpredictable,
        )


def unusable() -> Reason | None:
    """Why glibc's options are of no use in this process, as a short clause; None where they are."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return Reason("passes.glibc-only")
    other = preloaded()
    return None if other is None else Reason("passes.other-allocator", allocator=other)


def preloaded() -> str | None:
    """The name of the allocator that was put in the C library's place when the process started; None if there is none."""
    try:
        found = _OTHERS.search(_MAPS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return None if found is None else found.group(1)


def _other_allocators() -> Reason:
    """The command that starts Tickscope with another allocator."""
    for name in ("tcmalloc_minimal", "tcmalloc", "jemalloc"):
        if (library := ctypes.util.find_library(name)) is not None:
            return worded(
                "pass.allocator.other",
                "The allocator is glibc's; to try {name}, start with LD_PRELOAD={library} tickscope.",
                name=name,
                library=library,
            )
    return worded(
        "pass.allocator.no-other",
        "The allocator is glibc's; to try another, install jemalloc or tcmalloc and start with LD_PRELOAD=FILE tickscope.",
    )


def _keep(kept_bytes: int) -> Callable[[], None]:
    """Let glibc keep that much at the top of each heap and map no block that fits one; returns what undoes that."""
    library = ctypes.CDLL(None)
    wanted = ((MMAP_MAX, 0), (TRIM_THRESHOLD, min(kept_bytes, 2**31 - 1)), (TOP_PAD, _HEAP))

    def usual() -> None:
        for parameter, value in _USUAL:
            library.mallopt(parameter, value)
        library.malloc_trim(0)  # what was kept, so that the runs after it begin as those before it did

    if not all(library.mallopt(parameter, value) for parameter, value in wanted):
        usual()
        raise Refusal(Reason("passes.glibc-refused"))
    return usual


def _flush() -> tuple[Callable[[], None], Reason | None]:
    """Treat denormal numbers as zero; returns what ends that, and a sentence where it does not reach all threads."""
    import torch

    def left() -> int:
        """Denormal numbers that survive a product, of those that a parallel operator of all threads computes."""
        numbers = torch.full((1 << 18,), 1e-310, dtype=torch.float64)
        return int(((numbers * 0.5).view(torch.int64) != 0).sum())

    before = left()
    if not torch.set_flush_denormal(True):
        raise Refusal(Reason("passes.no-denormal-switch"))
    after = left()
    note = None
    if after:
        note = worded(
            "pass.allocator.workers-before",
            "Torch's worker threads were there before and still compute denormal numbers; only the calling thread does not.",
        )

    def restore() -> None:
        if before:
            torch.set_flush_denormal(False)

    return restore, note
