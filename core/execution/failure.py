"""What went wrong in a run, in a sentence that names the layer it happened in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.error_text import first_line, note, noted

if TYPE_CHECKING:
    import torch


NO_REACTION = "what was going on did not react to the cancel"


def what_failed(error: BaseException, model: torch.nn.Module | None = None) -> str:
    """The error in one line; with ``model``, the innermost of its layers on the traceback is named.

    The sentence is kept on the error (``tickscope_sentence``), for those who see it later without the model.
    """
    known: str | None = noted(error, "tickscope_sentence")
    if known is not None:
        return known
    layer = _failing_layer(error, model) if model is not None else None
    where = f" in layer {layer}" if layer else " in the model itself" if layer == "" else ""
    message = first_line(error, "no message").rstrip(".")
    sentence = f"{type(error).__name__}{where}: {message}"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        sentence = f"The model's code asked the whole program to end{where} ({type(error).__name__}: {message}); it goes on"
    note(error, "tickscope_sentence", sentence)
    return sentence


def _failing_layer(error: BaseException, model: torch.nn.Module) -> str | None:
    paths = {id(module): path for path, module in model.named_modules()}
    layer = None
    trace = error.__traceback__
    while trace is not None:
        found = paths.get(id(trace.tb_frame.f_locals.get("self")))
        layer = found or (layer if layer else found)
        trace = trace.tb_next
    return layer
