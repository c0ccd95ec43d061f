"""Compiled decode: one graph for the single-token step over a static KV cache, compiled by torch's inductor.

``generate`` stays the real one. Its own automatic compilation is switched off (it is not offered on CPUs, and would hide from
us which moments are compiled); instead the engine calls the execution's compiled step in moments of one new position.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import ClassVar

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes, without_cache
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.passes.compiling import CompileOptions, compile_step, told, why_not


@passes.register
class CompileDecode(Pass):
    """``torch.compile`` of the model's forward for single-token moments."""

    id = "compile_decode"
    title = "Compiled decode"
    summary = "One compiled graph per generated token, with a static KV cache"
    phase = Phase.COMPILE
    options: ClassVar[type | None] = CompileOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CACHES, Group.COMPILES, Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (Exclusion(frozenset({"kv_cache"}), Reason("passes.brings-static-cache")),)
    one_graph: ClassVar[bool] = True

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task != "text-generation":
            return Reason("passes.only-generation-decodes")
        return without_cache(context) or why_not(context)

    def apply(self, subject: Subject, options: CompileOptions) -> PassReport:
        model = subject.model
        if subject.task != "text-generation":
            raise Refusal(Reason("passes.compile-decode-generates"))
        if not torch_private.takes_static_cache(model):
            raise Refusal(Reason("passes.compile-decode-needs-static-cache", model=type(model).__name__))
        # max_cache_len also for shorter requests (the probe): another length would be another graph
        added = {"cache_implementation": "static", "disable_compile": True, "max_cache_len": subject.max_length}
        subject.execution.generation.update(added)

        def undo() -> None:
            for name in added:
                subject.execution.generation.pop(name, None)
            torch_private.forget_longest_cache(model)

        subject.undo.callback(undo)
        graphs = compile_step(subject, options, self.id, subject.max_length)
        subject.afterwards[self.id] = partial(told, graphs)
        summary = worded(
            "pass.compile_decode.done",
            "decode → compiled graph, static cache of {positions} positions",
            positions=subject.max_length,
        )
        return PassReport(self.id, self.title, asdict(options), 1, summary)
