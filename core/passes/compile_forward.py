"""Compiled forward: one graph for the whole forward of a model that reads its input at once, compiled by torch's inductor."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.models.base import generates
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.passes.compiling import CompileOptions, compile_step, told, why_not


@passes.register
class CompileForward(Pass):
    """``torch.compile`` of an encoder's, classifier's or any module's forward."""

    id = "compile_forward"
    title = "Compiled forward"
    summary = "The whole forward as one compiled graph of the workload's shape"
    phase = Phase.COMPILE
    options: ClassVar[type | None] = CompileOptions
    changes_weights = False
    lossless: ClassVar[bool] = False  # fused sums round otherwise
    groups: ClassVar[frozenset[Group]] = frozenset({Group.COMPILES, Group.NEEDS_TORCH})
    one_graph: ClassVar[bool] = True

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and generates(context.model.task):
            return Reason("passes.compiled-decode-instead")
        return why_not(context)

    def apply(self, subject: Subject, options: CompileOptions) -> PassReport:
        if generates(subject.task):
            raise Refusal(Reason("passes.compile-forward-reads-at-once"))
        graphs = compile_step(subject, options, self.id, every=True)
        subject.afterwards[self.id] = partial(told, graphs)
        return PassReport(
            self.id, self.title, asdict(options), 1, worded("pass.compile_forward.done", "forward → compiled graph")
        )
