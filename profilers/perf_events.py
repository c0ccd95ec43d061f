"""The kernel's edge for processor counters: opens perf events by system call, lists threads, and says why where it cannot.

Linux only. Everything that touches the system is a method of ``Kernel``, so that tests can put a made-up one in its place.
Source of numbers and layouts: ``linux/perf_event.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

HARDWARE, SOFTWARE = 0, 1

_CALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
_ATTRIBUTES_BYTES = 64  # PERF_ATTR_SIZE_VER0: all that is needed, and every kernel knows it
_TIME_ENABLED, _TIME_RUNNING, _GROUP = 1, 2, 8  # read_format
_EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6
_CLOSE_ON_EXEC = 8
_NO_COUNTERS = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSYS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Event:
    """One thing to count: the column it fills, its name in ``perf list``, and its type and number for the kernel."""

    quantity: str
    title: str
    type: int
    number: int


EVENTS = (
    Event("cycles", "cycles", HARDWARE, 0),
    Event("instructions", "instructions", HARDWARE, 1),
    Event("cache_misses", "cache-misses", HARDWARE, 3),
    Event("cpu_ns", "task-clock", SOFTWARE, 1),
)


class Kernel:
    """The running system."""

    read = staticmethod(os.read)
    close = staticmethod(os.close)

    def trouble(self) -> str | None:
        """Why there can be no perf events on this system at all, as a sentence, or None."""
        if sys.platform != "linux":
            return "Only Linux lets a program read the processor's counters; on this system use its own profiler for them."
        if platform.machine() not in _CALL_NUMBERS:
            return f"Tickscope reads processor counters on x86_64 and aarch64 only; this processor is {platform.machine()}."
        return None

    def open_event(self, event: Event, thread: int, leader: int) -> int:
        """A file descriptor that counts ``event`` in user space of one thread (native id), from now on.

        Reading the leader (opened with ``leader`` -1) gives its whole group: number of events, ns in which the thread was on a
        processor, ns in which the group really counted, and the counts, each as 8 bytes.

        Raises:
            OSError: the kernel's refusal.
        """
        read_format = _GROUP | _TIME_ENABLED | _TIME_RUNNING
        attributes = struct.pack(
            "=IIQQQQQIIQ",
            event.type,
            _ATTRIBUTES_BYTES,
            event.number,
            0,
            0,
            read_format,
            _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR,
            0,
            0,
            0,
        )
        call = ctypes.CDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        descriptor = call(
            ctypes.c_long(_CALL_NUMBERS[platform.machine()]),
            ctypes.c_char_p(attributes),
            ctypes.c_long(thread),
            ctypes.c_long(-1),  # on whichever processor
            ctypes.c_long(leader),
            ctypes.c_long(_CLOSE_ON_EXEC),
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(descriptor)

    def threads(self) -> frozenset[int]:
        """Native ids of all threads of this process. Takes about 5 µs."""
        return frozenset(map(int, os.listdir("/proc/self/task")))

    def python_threads(self) -> frozenset[int]:
        """Native ids of those that Python knows."""
        return frozenset(thread.native_id for thread in threading.enumerate() if thread.native_id is not None)

    def own_thread(self) -> int:
        """The calling thread's native id."""
        return threading.get_native_id()

    def paranoid(self) -> str:
        """What the administrator has set ``kernel.perf_event_paranoid`` to, as text; "unknown" where it cannot be read."""
        try:
            return Path("/proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii").strip()
        except OSError:
            return "unknown"


def reason(error: OSError, kernel: Kernel) -> str:
    """Why an event did not open, and what to do, as one sentence."""
    if error.errno in _FORBIDDEN:
        return (
            f"The kernel forbids it (kernel.perf_event_paranoid is {kernel.paranoid()}); set it to 2 or less, or give the "
            "program CAP_PERFMON (a container needs both, and a seccomp profile that allows perf_event_open)."
        )
    if error.errno in _NO_COUNTERS:
        return (
            "The processor offers no such counter to this system, as in most virtual machines; run on the machine itself, or "
            "have its virtual counters (vPMU) switched on."
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open to count every thread; raise the limit (ulimit -n) or use fewer threads."
    return f"The kernel refuses it ({error.strerror or error})."
