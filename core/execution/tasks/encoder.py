"""Encoders and sequence classifiers: one forward per request, an embedding or class probabilities out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.labels import likeliest, probabilities
from core.execution.tasks.once import Once
from core.execution.tasks.prompt import Prompt
from core.execution.tasks.windows import call_in_windows
from core.models.base import LoadedModel
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch


@form_kinds.register
class TextEncoder:
    """Models that read a text at once."""

    id = "encoder"
    tasks: ClassVar[tuple[str, ...]] = ("embedding", "classification")

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        config = getattr(loaded.model, "config", None)
        classifies = loaded.facts.task == "classification"

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            return read_output(output, inputs, config)

        def tell(values: torch.Tensor, inputs: Inputs) -> str | None:
            return likeliest(values, config) if classifies else None

        return Once(Prompt(loaded, workload, device), read, tell)


def encode(subject: Subject, inputs: Inputs) -> torch.Tensor:
    """One call of an encoder: mean-pooled embedding [batch, hidden], or class probabilities [batch, labels]."""
    import torch

    with torch.no_grad():
        return read_output(call_in_windows(subject, inputs.tensors), inputs, getattr(subject.model, "config", None))


def read_output(output: Any, inputs: Inputs, config: Any = None) -> torch.Tensor:
    """Of the output of an encoder: see ``encode``."""
    logits = getattr(output, "logits", None)
    if logits is not None:
        return probabilities(logits, config)
    hidden = output.last_hidden_state
    mask = inputs.tensors.get("attention_mask")
    if mask is None:  # some tokenizers give none: nothing is padded
        unweighted: torch.Tensor = hidden.mean(1)
        return unweighted
    weights = mask[..., None].to(hidden.dtype)
    pooled: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1)
    return pooled
