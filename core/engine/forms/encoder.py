"""Encoders and sequence classifiers: one forward per request, an embedding or class probabilities out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from core.config import WorkloadConfig
from core.engine.forms.base import Inputs, form_kinds
from core.engine.forms.prompt import Prompt
from core.engine.moments import Frame, Moments
from core.models.base import LoadedModel
from core.passes.base import Subject
from profilers.trace import Output

if TYPE_CHECKING:
    import torch


@form_kinds.register
class TextEncoder:
    """Models that read a text at once."""

    id = "encoder"
    tasks: ClassVar[tuple[str, ...]] = ("embedding", "classification")

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Encoding:
        return Encoding(loaded, workload, device)


class Encoding:
    """Asks an encoder for the mean-pooled embedding, or a classifier for its probabilities."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._prompt = Prompt(loaded, workload, device)

    def length(self) -> int:
        return self._prompt.length()

    def inputs(self) -> Inputs:
        return self._prompt.inputs()

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        return ()

    def ask(self, subject: Subject, inputs: Inputs, moments: Moments, new_tokens: int) -> torch.Tensor:
        result = encode(subject, inputs)
        moments.token_visible()
        return result

    def probe(self, subject: Subject, inputs: Inputs) -> None:
        encode(subject, inputs)

    def output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        return Output(row, (), None, "forward", tuple(float(value) for value in result[0].float().tolist()))

    def text(self, sequences: torch.Tensor) -> str | None:
        return None


def encode(subject: Subject, inputs: Inputs) -> torch.Tensor:
    """One call of an encoder: mean-pooled embedding [batch, hidden], or class probabilities [batch, labels]."""
    import torch

    with torch.no_grad():
        output = subject.model(**inputs.tensors)
        logits = getattr(output, "logits", None)
        if logits is not None:
            probabilities: torch.Tensor = logits.softmax(-1)
            return probabilities
        hidden = output.last_hidden_state
        mask = inputs.tensors["attention_mask"][..., None].to(hidden.dtype)
        pooled: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return pooled
