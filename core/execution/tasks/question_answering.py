"""Question answering: the span of the text that answers a question, by the likeliest beginning and end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.accepted import accepted, check_tokens, tokenized
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.once import Once
from core.execution.tasks.prompt import Prompt
from core.messages.reason import Reason
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import torch

LONGEST_ANSWER = 30
"""Tokens of an answer at most."""


@form_kinds.register
class QuestionAnswering:
    """Models that mark the answer in the text."""

    id = "question-answering"
    tasks: ClassVar[tuple[str, ...]] = ("question-answering",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result is the first and the last token of the answer and its probability, [batch, 3]."""
        maker = QuestionAndText(loaded, workload, device)

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            return answer(output.start_logits, output.end_logits, maker.within)

        def tell(values: torch.Tensor, inputs: Inputs) -> str:
            first, last, probability = int(values[0]), int(values[1]), float(values[2])
            if loaded.tokenizer is None:
                return f"tokens {first} to {last} {probability:.2f}"
            words = loaded.tokenizer.decode(inputs.tensors["input_ids"][0, first : last + 1].tolist()).strip()
            return f"{words} {probability:.2f}"

        return Once(maker, read, tell)


class QuestionAndText:
    """Makes the inputs of a question and the text it is about; or that many random tokens.

    ``within`` are the positions of the text as (first, last), among which the answer is looked for; None: anywhere.
    """

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self.within: tuple[int, int] | None = None
        self._plain = Prompt(loaded, workload, device)
        self._loaded = loaded
        self._tokenizer = loaded.tokenizer
        self._workload = workload
        self._device = device
        if workload.prompt_tokens is None and not workload.question.strip():
            raise Refusal(Reason("execution.no-question"))

    def length(self) -> int:
        if self._workload.prompt_tokens is not None:
            return self._plain.length()
        ids = tokenized(self._loaded, self._workload.question, self._workload.prompt)["input_ids"]
        check_tokens(ids, self._loaded, "question and the text")
        return len(ids)

    def inputs(self) -> Inputs:
        if self._workload.prompt_tokens is not None:
            return self._plain.inputs()
        batch = self._workload.batch
        start = time.perf_counter_ns()
        encoded = self._tokenizer(  # type: ignore[misc]
            [self._workload.question] * batch, [self._workload.prompt] * batch, return_tensors="pt"
        )
        tokenize_ns = time.perf_counter_ns() - start
        if getattr(encoded, "is_fast", False):
            text = [position for position, part in enumerate(encoded.sequence_ids(0)) if part == 1]
            self.within = (text[0], text[-1]) if text else None
        given = accepted(encoded, self._loaded.model)
        tensors = {name: tensor.to(self._device) for name, tensor in given.items()}
        return Inputs(tensors, int(tensors["input_ids"].shape[1]), tokenize_ns)


def answer(starts: torch.Tensor, ends: torch.Tensor, within: tuple[int, int] | None) -> torch.Tensor:
    """The likeliest span: P(start) · P(end), start ≤ end, both in the text.

    Args:
        starts: logits of each token to be the first, [batch, tokens].
        ends: of each to be the last.
        within: positions of the text, first and last.

    Returns:
        First and last position and the probability, [batch, 3].
    """
    import torch

    first, last = within or (0, starts.shape[1] - 1)
    before = starts.float()[:, first : last + 1].softmax(-1)
    after = ends.float()[:, first : last + 1].softmax(-1)
    pairs = (before[:, :, None] * after[:, None, :]).triu().tril(LONGEST_ANSWER - 1)
    best, place = pairs.flatten(1).max(-1)
    size = before.shape[1]
    return torch.stack([place // size + first, place % size + first, best], -1)
