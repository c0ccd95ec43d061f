"""Compiled decode: one graph for the single-token step over a static KV cache, compiled by torch's inductor.

``generate`` stays the real one. Its own automatic compilation is switched off (it is not offered on CPUs, and would hide from
us which moments are compiled); instead the engine calls ``subject.decode_forward`` for moments of one new position.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from core.errors import Refusal
from core.passes.base import PassContext, PassReport, Phase, Subject, passes

COMPILED_FRAME = "_compile.compile_inner"  # dynamo's name for compiling one frame, everything below it included
_CACHE_TENSORS = ("keys", "values", "cumulative_length")
_forgotten = {"count": 0, "ns": 0}  # of compilations whose metrics a reset has cleared


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

    def check(self, context: PassContext) -> str | None:
        if context.model is not None and context.model.task != "text-generation":
            return "only text generation decodes"
        if context.target.id == "cpu":
            return None if cxx_compiler() else f"needs a C++ compiler ({_compiler_name()} is not installed)"
        if context.target.id not in ("cuda", "xpu"):
            return f"torch does not compile for {context.target.title} well enough"
        return None if find_spec("triton") else "needs the package triton"

    def apply(self, subject: Subject, options: CompileDecodeOptions) -> PassReport:
        import torch
        import torch._inductor

        model = subject.model
        if subject.task != "text-generation":
            raise Refusal("Compiled decode is for text generation; switch it off for this model.")
        if not getattr(model, "_can_compile_fullgraph", True):
            raise Refusal(f"Compiled decode cannot be used: {type(model).__name__} has no static KV cache; switch it off.")
        forget_compilations()  # graphs of an earlier subject: dynamo keys them by code, which all models of a class share
        settings = {**torch._inductor.list_mode_options(options.mode), **({"freezing": True} if options.freezing else {})}
        plain = model.forward
        compiled = torch.compile(plain, fullgraph=True, dynamic=False, options=settings or None)
        # max_cache_len also for shorter requests (the probe): another length would be another graph
        added = {"cache_implementation": "static", "disable_compile": True, "max_cache_len": subject.max_length}
        subject.generation.update(added)
        subject.decode_forward = _decode(plain, compiled, options.freezing)

        def undo() -> None:
            subject.decode_forward = None
            for name in added:
                subject.generation.pop(name, None)
            model.__dict__.pop("_previous_max_cache_length", None)  # else generate keeps the longest cache it ever made
            forget_compilations()

        subject.undo.append(undo)
        summary = f"decode → compiled graph, static cache of {subject.max_length} positions"
        return PassReport(self.id, self.title, asdict(options), 1, summary)


def _decode(plain: Callable[..., Any], compiled: Callable[..., Any], freezing: bool) -> Callable[..., Any]:
    from torch._dynamo.exc import Unsupported

    def decode(*args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is None or not getattr(cache, "is_initialized", False):
            return plain(*args, **kwargs)  # a prompt of one token: this is the prefill, which allocates the cache
        if freezing:
            _unmark(cache)
        try:
            return compiled(*args, **kwargs)
        except Unsupported as error:
            sentence = "This model's decode step cannot be compiled into one graph; switch the pass compile_decode off."
            raise Refusal(sentence) from error

    return decode


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


def compile_events() -> int:
    """How many frames dynamo has compiled in this process; rises when a moment compiled something. Well under 1 µs."""
    return _forgotten["count"] + len(_frames())


def compile_ns() -> int | None:
    """Nanoseconds that dynamo and inductor have spent compiling in this process; None if nothing was compiled yet."""
    if compile_events() == 0:
        return None
    return _forgotten["ns"] + int(sum(_frames()) * 1e9)


def forget_compilations() -> None:
    """Drop all compiled graphs (``torch._dynamo.reset``); the counts above go on from where they were."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return
    frames = _frames()
    _forgotten["count"] += len(frames)
    _forgotten["ns"] += int(sum(frames) * 1e9)
    dynamo.reset()
    frames = _frames()
    _forgotten["count"] -= len(frames)
    _forgotten["ns"] -= int(sum(frames) * 1e9)


def _frames() -> list[float]:
    """Seconds of each compiled frame since dynamo was last reset; empty while dynamo is not imported."""
    utils = sys.modules.get("torch._dynamo.utils")
    metrics: dict[str, list[float]] = getattr(utils, "compilation_time_metrics", {})
    return metrics.get(COMPILED_FRAME, [])
