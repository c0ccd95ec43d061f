"""Compiled decode: one graph for the single-token step over a static KV cache, compiled by torch's inductor.

``generate`` stays the real one. Its own automatic compilation is switched off (it is not offered on CPUs, and would hide from
us which moments are compiled); instead the engine calls ``subject.decode_forward`` for moments of one new position.
"""

from __future__ import annotations

import shutil
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from core.analysis.outline import outline
from core.errors import Refusal
from core.models.stages import layers_of
from core.native import compiler
from core.passes.base import PassContext, PassReport, Phase, Subject, passes
from core.passes.extras import missing
from core.passes.graphs import StepGraph, graph_key
from profilers.tick_op import TickClock
from profilers.twin import twin_of

COMPILED_FRAME = "_compile.compile_inner"  # dynamo's name for compiling one frame, everything below it included
_CACHE_TENSORS = ("keys", "values", "cumulative_length")


@dataclass(frozen=True)
class CompileDecodeOptions:
    """How hard inductor tries."""

    mode: str = field(
        default="default",
        metadata={
            "label": "Mode",
            "help": "max-autotune tries several kernels per product and compiles much longer",
            "choices": ("default", "max-autotune-no-cudagraphs"),
        },
    )
    freezing: bool = field(
        default=False,
        metadata={
            "label": "Freeze weights",
            "help": "Packs the weights into the graph for the CPU's kernels; takes up to twice their memory",
        },
    )
    cpp_wrapper: bool = field(
        default=False,
        metadata={
            "label": "C++ wrapper",
            "help": "Calls the kernels from C++ instead of Python: less time between them, longer to compile",
        },
    )
    backend: str = field(
        default="inductor",
        metadata={
            "label": "Backend",
            "help": "zentorch is AMD's for EPYC processors, a package of its own (not verified on hardware)",
            "choices": ("inductor", "zentorch"),
        },
    )


@passes.register
class CompileDecode:
    """``torch.compile`` of the model's forward for single-token moments."""

    id = "compile_decode"
    title = "Compiled decode"
    summary = "One compiled graph per generated token, with a static KV cache"
    phase = Phase.COMPILE
    options: ClassVar[type | None] = CompileDecodeOptions
    changes_weights = False
    lossless: ClassVar[bool] = True

    def check(self, context: PassContext) -> str | None:
        if context.model is not None and context.model.task != "text-generation":
            return "only text generation decodes"
        if context.target.id == "cpu":
            return None if shutil.which(compiler()) else f"needs a C++ compiler ({compiler()} is not installed)"
        if context.target.id not in ("cuda", "xpu"):
            return f"torch does not compile for {context.target.title} well enough"
        return None if find_spec("triton") else "needs the package triton"

    def apply(self, subject: Subject, options: CompileDecodeOptions) -> PassReport:
        model = subject.model
        if options.backend == "zentorch" and (reason := missing("zentorch", "zentorch")) is not None:
            raise Refusal(f"Compiled decode cannot use zentorch: it {reason}; or choose the backend inductor.")
        if subject.task != "text-generation":
            raise Refusal("Compiled decode is for text generation; switch it off for this model.")
        if not getattr(model, "_can_compile_fullgraph", True):
            raise Refusal(f"Compiled decode cannot be used: {type(model).__name__} has no static KV cache; switch it off.")
        settings = _settings(options)
        key = None if options.freezing or options.backend != "inductor" else graph_key(model, settings, *_shape(subject))
        clean = StepGraph(model.forward, twin_of(model), settings, key, freezing=options.freezing, backend=options.backend)
        # max_cache_len also for shorter requests (the probe): another length would be another graph
        added = {"cache_implementation": "static", "disable_compile": True, "max_cache_len": subject.max_length}
        subject.generation.update(added)
        subject.decode_forward = _decode(clean)
        ticked = _add_ticks(subject, subject.decode_forward, settings, options, key)

        def undo() -> None:
            subject.decode_forward = subject.ticked_forward = subject.ticks = subject.untickable = None
            for name in added:
                subject.generation.pop(name, None)
            model.__dict__.pop("_previous_max_cache_length", None)  # else generate keeps the longest cache it ever made
            for graph in (clean, ticked):
                if graph is not None:
                    graph.drop()

        subject.undo.append(undo)
        summary = f"decode → compiled graph, static cache of {subject.max_length} positions"
        return PassReport(self.id, self.title, asdict(options), 1, summary)


def _settings(options: CompileDecodeOptions) -> dict[str, Any]:
    """Inductor's settings for these options."""
    import torch._inductor

    chosen = dict(torch._inductor.list_mode_options(options.mode))
    if options.freezing:
        chosen["freezing"] = True
    if options.cpp_wrapper:
        chosen["cpp_wrapper"] = True
    return chosen


def _shape(subject: Subject) -> tuple[int, int]:
    return subject.batch, subject.max_length


def _add_ticks(
    subject: Subject, clean: Callable[..., Any], settings: dict[str, Any], options: CompileDecodeOptions, key: str | None
) -> StepGraph | None:
    """Give the subject a second graph with the layer clock's ticks, compiled at its first call; or say why there is none."""
    if options.freezing:
        subject.untickable = "Frozen weights are packed into the graph; a second one, for layer times, would pack them again."
        return None
    if next(subject.model.parameters()).device.type != "cpu":
        subject.untickable = (
            "The clock inside compiled graphs is the processor's, which does not see when an accelerator computes."
        )
        return None
    layers = layers_of(subject.model)
    rows = [row for piece in outline(layers, len(layers)) for row in piece.rows]
    ticks = TickClock(subject.model, [(row, layers[row].path) for row in rows])
    clock = weakref.ref(ticks)  # dynamo keeps backends for good, and a clock holds the model

    def captured(numbers: Sequence[int]) -> None:
        known = clock()
        if known is not None:
            known.planned(numbers)

    ticked = StepGraph(
        subject.model.forward, ticks.twin, settings, f"{key}-ticks" if key else None, captured, backend=options.backend
    )
    subject.ticks, subject.ticked_forward = ticks, _ticked(subject, ticks, ticked, clean)
    return ticked


def _ticked(subject: Subject, ticks: TickClock, ticked: StepGraph, clean: Callable[..., Any]) -> Callable[..., Any]:
    """The decode step with ticks; falls back to the one without where the model with ticks is not one graph."""
    from torch._dynamo.exc import TorchDynamoException

    def decode(*args: Any, **kwargs: Any) -> Any:
        if subject.untickable is None:
            try:
                return _step(ticked, args, kwargs)
            except TorchDynamoException:
                subject.untickable = ticks.problem = "This model's decode step is not one graph with the clock's ticks in it."
        return clean(*args, **kwargs)

    return decode


def _decode(graph: StepGraph) -> Callable[..., Any]:
    """The decode step; what torch cannot compile is refused in a sentence."""
    from torch._dynamo.exc import Unsupported

    def decode(*args: Any, **kwargs: Any) -> Any:
        try:
            return _step(graph, args, kwargs)
        except Unsupported as error:
            sentence = "This model's decode step cannot be compiled into one graph; switch the pass compile_decode off."
            raise Refusal(sentence) from error

    return decode


def _step(graph: StepGraph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    cache = kwargs.get("past_key_values")
    if cache is None or not getattr(cache, "is_initialized", False):
        return graph.plain(*args, **kwargs)  # a prompt of one token: this is the prefill, which allocates the cache
    if graph.freezing:
        _unmark(cache)
    return graph.run(*args, **kwargs)


def _unmark(cache: Any) -> None:
    """Make a static cache's tensors plain inputs: freezing would take tensors marked static for constants of the graph."""
    for layer in cache.layers:
        for name in _CACHE_TENSORS:
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensor.__dict__.pop("_dynamo_static_input_type", None)


def compile_ns() -> int | None:
    """Nanoseconds that dynamo and inductor have spent compiling in this process; None if nothing was compiled yet.

    Well under 1 µs; it rises when a moment compiled something.
    """
    frames = _frames()
    return int(sum(frames) * 1e9) if frames else None


def _frames() -> list[float]:
    """Seconds of each compiled frame; empty while dynamo is not imported. (Nobody resets dynamo, which would clear them.)"""
    utils = sys.modules.get("torch._dynamo.utils")
    metrics: dict[str, list[float]] = getattr(utils, "compilation_time_metrics", {})
    return metrics.get(COMPILED_FRAME, [])
