"""AOTInductor: compiles the model ahead of time into a library that is kept on disk and runs without Python in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import CPU_ONLY, Pass, PassContext, PassReport, Phase, none_because, passes
from core.pass_api.exclusions import RUNS_ELSEWHERE, Exclusion, Group
from core.pass_api.subject import Runtime, Subject
from core.passes.compiling import why_not
from core.runtimes.aot_package import AotPackage, folder_of, is_kept, key_of, make
from core.runtimes.exporting import Sample, sample_of, unexportable
from core.runtimes.forward_swap import replace_forward
from core.runtimes.runtime_pass import threads_in_words

if TYPE_CHECKING:
    import torch

UNTICKABLE = worded(
    "pass.aot_inductor.untickable",
    "AOTInductor's library does not tell when its layers begin and end; compile_forward and compile_decode do",
)

COMPILING = worded("pass.aot_inductor.compiling", "Compiling ahead of time (only the first time)")

CLOSE = 1e-3
"""By how much results may differ from torch's, as a share of their largest: sums of float32 in another order stay far below."""


@passes.register
class AotInductor(Pass):
    """``torch.export`` and inductor's ahead-of-time mode."""

    id = "aot_inductor"
    title = "AOTInductor"
    summary = "The model compiled ahead of time into a library of its own, kept for the next start"
    phase = Phase.ENGINE
    options: ClassVar[type | None] = None
    changes_weights = False  # the library is given the model's own
    lossless: ClassVar[bool] = False  # fused sums round otherwise
    groups: ClassVar[frozenset[Group]] = frozenset({Group.REPLACES_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (RUNS_ELSEWHERE,)
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.fused-operations"))

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id != "cpu":
            return CPU_ONLY
        if (why := why_not(context)) is not None:
            return why
        return None if context.model is None else unexportable(context.model.task)

    def apply(self, subject: Subject, options: Any) -> PassReport:
        model = subject.model
        sample = sample_of(model, subject.task)
        key = key_of(model, subject.task)
        kept = is_kept(key)
        if not kept:
            subject.progress.report(COMPILING, None)
            make(model, sample, key)
            subject.progress.check()
        engine = AotPackage(folder_of(key), model, sample)
        expected = _results(model, sample)
        generates = bool(sample.cache)
        patch = replace_forward(model, engine, generates=generates)

        def undo() -> None:
            patch.pop()
            subject.execution.runtime = subject.execution.untickable = None

        subject.undo.callback(undo)
        drift = _drift(expected, _results(model, sample))
        if not drift <= CLOSE:
            raise Refusal(Reason("passes.aot-gives-other-results", model=type(model).__name__))
        subject.execution.runtime, subject.execution.untickable = Runtime(engine.name), UNTICKABLE
        subject.changed_by |= {path: self.id for path, _ in model.named_modules()}
        notes = (
            _where_from(sum(file.stat().st_size for file in folder_of(key).iterdir()), subject.execution.threads, kept=kept),
            worded(
                "pass.aot_inductor.drift",
                "On a small input its results differ from torch's by {drift:.1g} of the largest.",
                drift=drift,
            ),
        )
        return PassReport(
            self.id,
            self.title,
            {},
            sum(1 for _ in model.modules()),
            worded("pass.aot_inductor.done-for-both", "one compiled graph for prefill and decode alike")
            if generates
            else worded("pass.aot_inductor.done", "one compiled graph"),
            notes=notes,
            prediction=self.unpredictable,
        )


def _where_from(size_bytes: int, threads: int, *, kept: bool) -> Reason:
    if kept:
        return worded(
            "pass.aot_inductor.from-disk",
            "The library was on disk ({size_bytes:size}); it holds no weights and computes with {threads}.",
            size_bytes=size_bytes,
            threads=threads_in_words(threads),
        )
    return worded(
        "pass.aot_inductor.compiled",
        "The library was compiled now and is kept for the next start ({size_bytes:size}); "
        "it holds no weights and computes with {threads}.",
        size_bytes=size_bytes,
        threads=threads_in_words(threads),
    )


def _results(model: torch.nn.Module, sample: Sample) -> list[torch.Tensor]:
    """What the model gives for a batch of one: a language model for a prompt and a token after it, others for one input."""
    import torch

    with torch.no_grad():
        if not sample.cache:
            output = model(**{name: tensor[:1] for name, tensor in sample.inputs.items()})
            return [tensor.float() for tensor in output.values()]
        ids = sample.inputs["input_ids"][:1]
        first = model(input_ids=ids, use_cache=True)
        second = model(input_ids=ids[:, :1], **{sample.cache: torch_private.cache_left(first)}, use_cache=True)
        return [first.logits.float(), second.logits.float()]


def _drift(expected: list[torch.Tensor], given: list[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest value; not a number where one of them is none."""
    differences = [
        (one - other).abs().max() / one.abs().max().clamp(min=1e-6) for one, other in zip(expected, given, strict=True)
    ]
    return max(float(difference) for difference in differences)
