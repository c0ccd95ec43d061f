"""Compiled decode: one graph for the single-token step over a static KV cache, compiled by torch's inductor.

``generate`` stays the real one. Its own automatic compilation is switched off (it is not offered on CPUs, and would hide from
us which moments are compiled); instead the engine calls ``subject.decode_forward`` for moments of one new position.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from core.analysis.outline import outline
from core.errors import Refusal
from core.models.stages import layers_of
from core.passes.base import PassContext, PassReport, Phase, Subject, passes
from profilers.tick_op import TickClock, ticks_in
from profilers.twin import twin_of

COMPILED_FRAME = "_compile.compile_inner"  # dynamo's name for compiling one frame, everything below it included
_CACHE_TENSORS = ("keys", "values", "cumulative_length")
_numbers = itertools.count()


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
            return None if cxx_compiler() else f"needs a C++ compiler ({_compiler_name()} is not installed)"
        if context.target.id not in ("cuda", "xpu"):
            return f"torch does not compile for {context.target.title} well enough"
        return None if find_spec("triton") else "needs the package triton"

    def apply(self, subject: Subject, options: CompileDecodeOptions) -> PassReport:
        import torch._inductor

        model = subject.model
        if subject.task != "text-generation":
            raise Refusal("Compiled decode is for text generation; switch it off for this model.")
        if not getattr(model, "_can_compile_fullgraph", True):
            raise Refusal(f"Compiled decode cannot be used: {type(model).__name__} has no static KV cache; switch it off.")
        settings = {**torch._inductor.list_mode_options(options.mode), **({"freezing": True} if options.freezing else {})}
        clean = _Graph(model.forward, twin_of(model).forward, settings, options.freezing)
        # max_cache_len also for shorter requests (the probe): another length would be another graph
        added = {"cache_implementation": "static", "disable_compile": True, "max_cache_len": subject.max_length}
        subject.generation.update(added)
        subject.decode_forward = _decode(clean)
        ticked = _add_ticks(subject, subject.decode_forward, settings, options)

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


class _Graph:
    """One compiled form of a forward function, with a code object of its own.

    Dynamo keeps graphs by code object, and all models of a class share theirs (through transformers' decorators, those of all
    classes do); it would run a graph made for another model as long as its guards hold, and they do not look at hooks.

    Args:
        plain: the model's forward, which runs what is not to be compiled.
        forward: the forward of a twin of the model; the first call compiles it.
        settings: inductor's.
        freezing: whether inductor takes the weights for constants.
        captured: told of each graph before inductor gets it.
    """

    def __init__(
        self,
        plain: Callable[..., Any],
        forward: Callable[..., Any],
        settings: dict[str, Any],
        freezing: bool,
        captured: Callable[[Any], None] | None = None,
    ) -> None:
        import torch
        from torch._inductor import compile as compile_graph

        def step(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        def backend(graph: Any, inputs: Any) -> Any:
            if captured is not None:
                captured(graph)
            return compile_graph(graph, inputs, options=settings or None)

        name = f"decode_step_{next(_numbers)}"  # code objects compare by value: an equal one would count as this one
        self._code = step.__code__.replace(co_name=name)
        own = types.FunctionType(self._code, step.__globals__, name, None, step.__closure__)
        self.plain = plain
        self.freezing = freezing
        guards = {"guard_filter_fn": _guards_that_can_fail}
        self.run = torch.compile(own, backend=backend, fullgraph=True, dynamic=False, options=guards)

    def drop(self) -> None:
        """Let the compiled code go; graphs of other models stay."""
        import torch

        torch._dynamo.reset_code(self._code)


def _guards_that_can_fail(guards: Sequence[Any]) -> list[bool]:
    """All but those on the twin, which nobody but its graph has: half of the time between a call and its first kernel.

    (Of 30 blocks: 0.8 of 1.5 ms. The names are those of ``step`` above.)
    """
    return [not guard.name.startswith(("forward.__self__", "L['forward'].__self__")) for guard in guards]


def _add_ticks(
    subject: Subject, clean: Callable[..., Any], settings: dict[str, Any], options: CompileDecodeOptions
) -> _Graph | None:
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

    def captured(graph: Any) -> None:
        known = clock()
        if known is not None:
            known.planned(ticks_in(graph.graph))

    ticked = _Graph(subject.model.forward, ticks.twin.forward, settings, options.freezing, captured)
    subject.ticks, subject.ticked_forward = ticks, _ticked(subject, ticks, ticked, clean)
    return ticked


def _ticked(subject: Subject, ticks: TickClock, ticked: _Graph, clean: Callable[..., Any]) -> Callable[..., Any]:
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


def _decode(graph: _Graph) -> Callable[..., Any]:
    """The decode step; what torch cannot compile is refused in a sentence."""
    from torch._dynamo.exc import Unsupported

    def decode(*args: Any, **kwargs: Any) -> Any:
        try:
            return _step(graph, args, kwargs)
        except Unsupported as error:
            sentence = "This model's decode step cannot be compiled into one graph; switch the pass compile_decode off."
            raise Refusal(sentence) from error

    return decode


def _step(graph: _Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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


def cxx_compiler() -> str | None:
    """Path of the C++ compiler that inductor would use, or None."""
    return shutil.which(_compiler_name())


def _compiler_name() -> str:
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return os.environ.get("CXX", default)


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
