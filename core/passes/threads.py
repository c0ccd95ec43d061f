"""Thread count: how many threads torch's kernels use within one operator.

Torch's other number, of threads between operators, is no option: only ``torch.jit.fork`` uses them, which no model here calls,
and torch sets them once in a process at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.subject import Subject
from core.targets.cpu import usable_threads


@dataclass(frozen=True)
class ThreadsOptions:
    """How many threads."""

    count: int = field(
        default=1,
        metadata={"label": "Threads", "help": "Threads within one operator", "minimum": 1, "maximum": usable_threads()},
    )


@passes.register
class Threads(Pass):
    """Sets the number of threads that one operator uses; more is not always faster."""

    id = "threads"
    title = "Thread count"
    summary = "Threads that one operator uses; more is not always faster"
    phase = Phase.PROCESS
    options: ClassVar[type | None] = ThreadsOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    sets_threads: ClassVar[bool] = True

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id != "cpu":
            return Reason("passes.only-cpu-threads")
        return None

    def apply(self, subject: Subject, options: ThreadsOptions) -> PassReport:
        import torch

        usable = usable_threads()
        if not 1 <= options.count <= usable:
            raise Refusal(Reason("passes.threads-out-of-range", count=options.count, usable=usable))
        before_model, before = subject.execution.threads, torch.get_num_threads()
        torch.set_num_threads(options.count)
        subject.execution.threads = options.count

        def restore() -> None:
            torch.set_num_threads(before)
            subject.execution.threads = before_model

        subject.undo.callback(restore)
        return PassReport(
            self.id,
            self.title,
            {"count": options.count},
            0,
            worded("pass.threads.done", "{before} → {after} threads", before=before, after=options.count),
        )
