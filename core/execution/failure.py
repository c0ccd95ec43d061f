"""What went wrong in a run, in a sentence that names the layer it happened in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.error_text import first_line, note, noted
from core.messages.reason import Reason

if TYPE_CHECKING:
    import torch


NO_REACTION = Reason("execution.no-reaction")


def what_failed(error: BaseException, model: torch.nn.Module | None = None) -> Reason:
    """The error in one line; with ``model``, the innermost of its layers on the traceback is named.

    The sentence is kept on the error (``tickscope_sentence``), for those who see it later without the model.
    """
    known: Reason | None = noted(error, "tickscope_sentence")
    if known is not None:
        return known
    layer = _failing_layer(error, model) if model is not None else None
    message = first_line(error, "no message").rstrip(".")
    kind = type(error).__name__
    if isinstance(error, SystemExit | KeyboardInterrupt):
        sentence = _asked_to_end(kind, message, layer)
    elif layer:
        sentence = Reason("execution.error-in-layer", kind=kind, layer=layer, words=message)
    elif layer == "":
        sentence = Reason("execution.error-in-model", kind=kind, words=message)
    else:
        sentence = Reason("execution.error-in-words", kind=kind, words=message)
    note(error, "tickscope_sentence", sentence)
    return sentence


def _asked_to_end(kind: str, message: str, layer: str | None) -> Reason:
    if layer:
        return Reason("execution.asked-to-end-in-layer", kind=kind, layer=layer, words=message)
    if layer == "":
        return Reason("execution.asked-to-end-in-model", kind=kind, words=message)
    return Reason("execution.asked-to-end", kind=kind, words=message)


def _failing_layer(error: BaseException, model: torch.nn.Module) -> str | None:
    paths = {id(module): path for path, module in model.named_modules()}
    layer = None
    trace = error.__traceback__
    while trace is not None:
        found = paths.get(id(trace.tb_frame.f_locals.get("self")))
        layer = found or (layer if layer else found)
        trace = trace.tb_next
    return layer
