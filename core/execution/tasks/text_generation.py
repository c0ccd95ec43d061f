"""Text generation: the model's own ``generate``, greedy and of fixed length, one moment per forward.

Also where tokens are guessed: transformers cuts off what a last check gives beyond the fixed length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from core.config import WorkloadConfig
from core.execution.moments import Frame, Moments
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.generating import ended, greedily
from core.execution.tasks.prompt import Prompt
from core.models.base import LoadedModel
from core.pass_api.subject import Subject
from profilers.trace import Output

if TYPE_CHECKING:
    import torch


@form_kinds.register
class TextGeneration:
    """Language models that continue a text."""

    id = "text-generation"
    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Continuing:
        return Continuing(loaded, workload, device)


class Continuing:
    """Asks a language model to continue the prompt."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._tokenizer = loaded.tokenizer
        self._prompt = Prompt(loaded, workload, device)
        self._prompt_length = 0
        self._different = len(workload.prompts) if workload.prompts and workload.prompt_tokens is None else 1
        self._asked = 0

    def length(self) -> int:
        return self._prompt.length()

    def inputs(self) -> Inputs:
        made = self._prompt.inputs()
        self._prompt_length = made.length
        return made

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        return tuple(Frame(draft, "draft") for draft in subject.execution.drafts)

    def ask(self, subject: Subject, inputs: Inputs, moments: Moments, new_tokens: int) -> torch.Tensor:
        self._asked = new_tokens
        return greedily(subject.model, inputs.tensors, new_tokens, subject.execution.generation, moments.token_visible)

    def probe(self, subject: Subject, inputs: Inputs) -> None:
        greedily(subject.model, inputs.tensors, 2, subject.execution.generation)

    def output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        ids = tuple(result[0, self._prompt_length :].tolist())
        return Output(row, ids, self.text(result), ended(len(ids), self._asked, finished=finished))

    def text(self, sequences: torch.Tensor) -> str | None:
        if self._tokenizer is None:
            return None
        new = sequences[: self._different, self._prompt_length :].tolist()
        said = [str(self._tokenizer.decode(ids, skip_special_tokens=True)) for ids in new]
        return said[0] if len(said) == 1 else "\n".join(f"{number}: {text}" for number, text in enumerate(said, 1))
