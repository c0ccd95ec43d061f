"""Compiling a step for inductor: the options, the graph and the one with ticks in it, for every pass that compiles."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from core import torch_private
from core.compiled.key import graph_key
from core.compiled.step_graph import StepGraph
from core.error_text import noted
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.outline import outline
from core.models.stages import layers_of
from core.native import compiler
from core.pass_api.base import PassContext
from core.pass_api.extras import missing
from core.pass_api.subject import CompiledStep, Execution, Subject
from profilers.shallow_clone import shallow_clone
from profilers.tick_op import TickClock

_CACHE_TENSORS = ("keys", "values", "cumulative_length")


@dataclass(frozen=True)
class CompileOptions:
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
        default=True,
        metadata={
            "label": "C++ wrapper",
            "help": "Calls the kernels from C++ instead of Python: less time between them, and kept on disk for the next start",
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


def why_not(context: PassContext) -> Reason | None:
    """Why nothing can be compiled for this target, as a short clause, or None."""
    if context.target.id == "cpu":
        return None if shutil.which(compiler()) else Reason("passes.needs-compiler", compiler=compiler())
    if context.target.id not in ("cuda", "xpu"):
        return Reason("passes.not-compiled-for", target=context.target.title)
    return None if find_spec("triton") else Reason("passes.needs-triton")


def compile_step(
    subject: Subject, options: CompileOptions, pass_id: str, *about: object, every: bool = False
) -> tuple[StepGraph, ...]:
    """Make the subject's forward of fixed shape run as a graph, compiled at its first call or found on disk.

    Sets the execution's ``step`` and ``untickable``, and adds what undoes it to ``undo``.

    Args:
        subject: the model with its other passes.
        options: how.
        pass_id: of the pass that is to be switched off where it cannot be done.
        every: for every forward, not only for single-token decode moments.
        about: what else the graph's code depends on, such as the length of the cache.

    Returns:
        The graph, and the one with the layer clock's ticks where there can be one.

    Raises:
        Refusal: the backend is not installed.
    """
    if options.backend != "inductor" and (reason := missing(options.backend, options.backend)) is not None:
        raise Refusal(Reason("passes.backend-unusable", pass_id=pass_id, backend=options.backend, reason=reason))
    on_cpu = next(subject.model.parameters()).device.type == "cpu"
    settings = _settings(options)
    twin = shallow_clone(subject.model)
    key: str | None = None
    if options.cpp_wrapper and on_cpu and not options.freezing and options.backend == "inductor":
        key = graph_key(subject.model, settings, pass_id, subject.execution.threads, subject.batch, *about)
    clean = StepGraph(subject.model.forward, twin, settings, key, freezing=options.freezing, backend=options.backend)
    execution = subject.execution
    execution.step = step = CompiledStep(_clean(clean, pass_id), every)
    ticked = _add_ticks(subject, clean.key, step, settings, options) if on_cpu else None
    if not on_cpu:
        execution.untickable = Reason("passes.ticks-are-the-processors")
    graphs = (clean,) if ticked is None else (clean, ticked)

    def undo() -> None:
        execution.step = execution.untickable = None
        for graph in graphs:
            graph.drop()

    subject.undo.callback(undo)
    return graphs


NOT_ONE_GRAPH = Reason("passes.ticks-not-one-graph")


def told(graphs: Sequence[StepGraph]) -> tuple[Reason, ...]:
    """What is special about the graphs, once they have run: sentences for people."""
    clean = graphs[0]
    if clean.from_disk and not clean.compiled:
        return (Reason("passes.graph-from-disk"),)
    anew = clean.compiled - 1
    return (Reason("passes.graph-compiled-once") if anew <= 0 else Reason("passes.graph-compiled-anew", times=anew),)


def _settings(options: CompileOptions) -> dict[str, Any]:
    """Inductor's settings for these options; its defaults do not need it imported."""
    if options.mode == "default" and not options.freezing:
        return {}
    chosen = torch_private.mode_settings(options.mode)
    if options.freezing:
        chosen |= {"freezing": True, "cpp_wrapper": options.cpp_wrapper}
    return chosen


def _add_ticks(
    subject: Subject, key: str | None, step: CompiledStep, settings: dict[str, Any], options: CompileOptions
) -> StepGraph | None:
    """Give the step a second graph with the layer clock's ticks; or say why there is none. ``key``: of the first one."""
    if options.freezing:
        subject.execution.untickable = Reason("passes.frozen-untickable")
        return None
    layers = layers_of(subject.model)
    rows = [row for piece in outline(layers, len(layers)) for row in piece.rows]
    ticks = TickClock(subject.model, [(row, layers[row].path) for row in rows])
    clock = weakref.ref(ticks)  # dynamo keeps backends for good, and a clock holds the model

    def captured(numbers: Sequence[int]) -> None:
        known = clock()
        if known is not None:
            known.planned(numbers)

    own = None if key is None else f"{key}-ticks"
    ticked = StepGraph(subject.model.forward, ticks.twin, settings, own, captured, backend=options.backend)
    step.ticks, step.ticked = ticks, _ticked(subject.execution, ticks, ticked, step.call)
    return ticked


def _ticked(execution: Execution, ticks: TickClock, ticked: StepGraph, clean: Callable[..., Any]) -> Callable[..., Any]:
    """The decode step with ticks; falls back to the one without where the model with ticks is not one graph."""

    def decode(*args: Any, **kwargs: Any) -> Any:
        if execution.untickable is None:
            try:
                return _step(ticked, args, kwargs)
            except RuntimeError as error:
                if _refused(error) is not None or not torch_private.is_dynamos(error, "TorchDynamoException"):
                    raise
                execution.untickable = NOT_ONE_GRAPH
                ticks.problem = str(NOT_ONE_GRAPH)
        return clean(*args, **kwargs)

    return decode


def _clean(graph: StepGraph, pass_id: str) -> Callable[..., Any]:
    """The step; what torch cannot compile is refused in a sentence."""

    def decode(*args: Any, **kwargs: Any) -> Any:
        try:
            return _step(graph, args, kwargs)
        except RuntimeError as error:
            if (refusal := _refused(error)) is not None:
                raise refusal from error
            if not torch_private.is_dynamos(error, "Unsupported"):
                raise
            raise Refusal(Reason("passes.not-one-graph", id=pass_id)) from error

    return decode


def _refused(error: BaseException) -> Refusal | None:
    """Tickscope's own refusal, where dynamo has wrapped it in an exception of its own."""
    inner = noted(error, "inner_exception")
    return inner if isinstance(inner, Refusal) else None


def _step(graph: StepGraph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    cache = torch_private.cache_given(kwargs)
    if cache is not None and not getattr(cache, "is_initialized", False):
        return graph.plain(*args, **kwargs)  # a prompt of one token: this is the prefill, which allocates the cache
    if graph.freezing and cache is not None:
        _unmark(cache)
    if graph.settled_elsewhere(kwargs):
        return graph.plain(*args, **kwargs)
    return graph.run(*args, **kwargs)


def _unmark(cache: Any) -> None:
    """Make a static cache's tensors plain inputs: freezing would take tensors marked static for constants of the graph."""
    for layer in cache.layers:
        for name in _CACHE_TENSORS:
            tensor = getattr(layer, name, None)
            if tensor is not None:
                torch_private.forget_static(tensor)


def compile_ns() -> int | None:
    """Nanoseconds that dynamo and inductor have spent compiling in this process; None if nothing was compiled yet.

    Well under 1 µs; it rises when a moment compiled something.
    """
    frames = torch_private.compiled_frames()
    return int(sum(frames) * 1e9) if frames else None
