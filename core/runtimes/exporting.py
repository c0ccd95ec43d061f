"""Exporting: turns a model into one graph for another engine, with transformers' own exporters, and says why where it cannot.

A language model becomes one graph for prefill and decode alike: new positions, positions in the cache and the batch are all
dynamic, and which positions get logits is an input. Two graphs, as the exporters make by themselves, take twice as long and
hold the weights twice. Dimensions have names, shared by all inputs: left to be found out (``Dim.AUTO``), the same export took
three times as long. Sizes in the sample differ from 1, at which torch would fix them.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, partialmethod
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.error_text import first_line
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import TASKS
from profilers.forward_patch import keeping_forward

if TYPE_CHECKING:
    import torch

BATCH, NEW, CACHED, KEPT = 2, 7, 5, 3
"""Sizes of the sample that is traced."""

LONGEST = 1 << 20

EXPORT_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)
"""What exporters raise where a model does something that they do not know."""

_LOUD = ("", "transformers", "torch.onnx", "torch.export", "torch.fx", "nncf", "onnxscript", "onnx_ir")
"""Loggers that say what nobody needs to know; "" is that of ONNX Runtime's quantizer."""

ENCODERS = ("embedding", "classification", "token-classification", "question-answering", "image-classification")


@dataclass(frozen=True)
class Sample:
    """What is traced: the forward's arguments and which of their dimensions may change (empty: none of them).

    ``cache`` is which of the arguments is the cache, empty for models that keep none.
    """

    inputs: dict[str, Any]
    shapes: dict[str, Any]
    cache: str = ""


@dataclass(frozen=True)
class Exported:
    """One graph of an engine's own kind, what the exporter recorded about it, and whether it keeps a cache."""

    program: Any
    metadata: Any
    generates: bool
    drift: tuple[str, ...]  # "torch 2.13.0 (tested with 2.12.0)"


def unexportable(task: str) -> Reason | None:
    """Why models of this task cannot be exported as one graph, as a short clause, or None."""
    if task == "text-generation" or task in ENCODERS:
        return None
    title = TASKS[task].title.lower() if task in TASKS else task
    return Reason("runtimes.takes", task=title)


def sample_of(model: torch.nn.Module, task: str) -> Sample:
    """A small call of the model that is traced for the export; ``Refusal`` where its task has none."""
    why = unexportable(task)
    if why is not None:
        raise Refusal(Reason("runtimes.export-impossible", why=why))
    if task == "text-generation":
        return _continuing(model)
    if TASKS[task].modality == "image":
        return _seeing(model)
    return _reading(model)


def export(exporter: Any, model: torch.nn.Module, sample: Sample, config: Any) -> Exported:
    """The model as one graph.

    Args:
        exporter: one of ``transformers.exporters``.
        model: in float, not compiled; left as it is.
        sample: what is traced.
        config: the exporter's configuration with the sample's shapes and, maybe, a quantizer.

    Raises:
        Refusal: the exporter cannot do it, in its own words.
    """
    try:
        with quiet(), keeping_forward(model):  # exporters leave the method they found on the instance
            component = exporter.export(model, sample.inputs, config).components["model"]
    except EXPORT_FAILURES as error:
        raise Refusal(Reason("runtimes.not-exported", model=type(model).__name__, problem=_first_line(error))) from error
    return Exported(component.program, component.metadata, bool(sample.cache), _drift(exporter))


@contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, exporters and quantizers print nothing; what matters of it is in the report's notes."""
    import torch

    nncf_bar = getattr(sys.modules.get("nncf.common.logging.track_progress"), "track", None)
    bar_init = getattr(nncf_bar, "__init__", None)
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    torch_export = torch.onnx.export
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    torch.onnx.export = partial(torch_export, verbose=False)  # transformers calls it without, and it prints its progress
    if nncf_bar is not None and bar_init is not None:
        nncf_bar.__init__ = partialmethod(bar_init, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.onnx.export = torch_export
        if nncf_bar is not None:
            nncf_bar.__init__ = bar_init
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# -- samples --------------------------------------------------------------------------------------------------------------


def _continuing(model: torch.nn.Module) -> Sample:
    """A language model with some positions cached and more to come.

    The cache is one of plain layers, whatever the model would make by itself: a window slides by the mask alone, so that a
    traced length cannot become a constant. ``logits_to_keep`` is given as positions, which the models take as well as a count.
    """
    import torch
    from transformers import DynamicCache

    dim = torch.export.Dim
    batch, new, cached = dim("batch", max=LONGEST), dim("new", max=LONGEST), dim("cached", max=LONGEST)
    takes = inspect.signature(model.forward).parameters
    name, cache = torch_private.cache_argument(model), DynamicCache()
    ids = torch.ones(BATCH, NEW, dtype=torch.long)
    try:
        with torch.no_grad():
            model(input_ids=ids[:, :CACHED], **{name: cache}, use_cache=True)
    except EXPORT_FAILURES as error:
        raise Refusal(Reason("runtimes.no-plain-cache", model=type(model).__name__, problem=_first_line(error))) from error
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    if any(getattr(tensor, "ndim", 0) != 4 or tensor.shape[2] != CACHED for tensor in tensors):
        raise Refusal(Reason("runtimes.keeps-more-than-a-cache", model=type(model).__name__))
    inputs: dict[str, Any] = {"input_ids": ids, name: cache, "use_cache": True}
    shapes: dict[str, Any] = {"input_ids": {0: batch, 1: new}, name: [{0: batch, 2: cached} for _ in tensors]}
    if "position_ids" in takes:
        inputs["position_ids"] = torch.arange(CACHED, CACHED + NEW).expand(BATCH, NEW).contiguous()
        shapes["position_ids"] = {0: batch, 1: new}
    if "logits_to_keep" in takes:
        inputs["logits_to_keep"] = torch.arange(KEPT)
        shapes["logits_to_keep"] = {0: dim("kept", max=LONGEST)}
    return Sample(inputs, shapes, name)


def _reading(model: torch.nn.Module) -> Sample:
    """A model that reads a text at once. Its longest text is a bound that only the model knows, so torch finds it out."""
    import torch

    auto = torch.export.Dim.AUTO
    takes = inspect.signature(model.forward).parameters
    wanted = {"input_ids": 1, "attention_mask": 1, "token_type_ids": 0}
    inputs = {
        name: torch.full((BATCH, NEW), value, dtype=torch.long)
        for name, value in wanted.items()
        if name in takes and (name != "token_type_ids" or getattr(model.config, "type_vocab_size", 0) > 0)
    }
    return Sample(inputs, {name: {0: auto, 1: auto} for name in inputs})


def _seeing(model: torch.nn.Module) -> Sample:
    """A model that looks at images of the size it was made for."""
    import torch

    size = getattr(model.config, "image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    pixels = torch.zeros(BATCH, int(getattr(model.config, "num_channels", 3)), int(height), int(width))
    return Sample({"pixel_values": pixels}, {"pixel_values": {0: torch.export.Dim("batch", max=LONGEST)}})


def blank_inputs(metadata: Any) -> dict[str, torch.Tensor]:
    """Tensors of the traced sizes that mean nothing, without a cache: for a first pass that only warms an engine up."""
    import torch

    return {
        name: torch.full(kind["shape"], 1 if name == "attention_mask" else 0, dtype=getattr(torch, kind["dtype"]))
        for name, kind in metadata.kwargs.items()
        if "shape" in kind
    }


# -- words ----------------------------------------------------------------------------------------------------------------


def _drift(exporter: Any) -> tuple[str, ...]:
    """Packages whose version is not the one that the exporter was tested with."""
    tested: Mapping[str, str] = getattr(exporter, "tested_versions", {})
    found = []
    for package, wanted in tested.items():
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
        if installed != wanted:
            found.append(f"{package} {installed} (tested with {wanted})")
    return tuple(found)


def _first_line(error: BaseException) -> str:
    """What the innermost cause says, shortened to a clause."""
    seen: set[int] = set()  # an error may be its own cause
    while error.__cause__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__
    text = first_line(error)
    return text.rstrip(".") if len(text) <= 160 else text[:157] + "…"


def experimental(exported: Exported) -> Reason:
    """The sentence that says what the exporter says about itself."""
    own = version("transformers")
    if exported.drift:
        return Reason("runtimes.experimental-and-untested", version=own, others=tuple(exported.drift))
    return Reason("runtimes.experimental", version=own)
