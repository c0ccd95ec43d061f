"""Models that give token after token from inputs of their own: translators, and those that look or listen first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.execution.moments import Frame, Moments
from core.execution.tasks.base import Inputs, Maker
from core.pass_api.subject import Subject
from profilers.trace import Output

if TYPE_CHECKING:
    import torch


class Generating:
    """Asks by the model's own ``generate``, greedy and of fixed length.

    Args:
        maker: makes the inputs.
        tokenizer: reads what comes out; None: it is not read.
        arguments: of ``generate``, beside the inputs.
        start: where in the sequences the new tokens begin; None: with the first one that becomes visible.
        encodes: the model has an encoder, whose forward is a moment of its own.
    """

    def __init__(
        self, maker: Maker, tokenizer: Any | None, arguments: Mapping[str, Any], *, start: int | None, encodes: bool
    ) -> None:
        self.arguments = dict(arguments)
        self._maker = maker
        self._tokenizer = tokenizer
        self._given_start = start
        self._start = start or 0
        self._encodes = encodes
        self._asked = 0

    def length(self) -> int:
        return self._maker.length()

    def inputs(self) -> Inputs:
        return self._maker.inputs()

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        inner = writing_part(subject.model)
        if inner is not None:  # its generate, and not the model's own, runs the steps
            seeing = (getattr(subject.model, name, None) for name in ("vision_model", "qformer"))
            return (*(Frame(part, "encode") for part in seeing if part is not None), Frame(inner))
        encoder = subject.model.get_encoder() if self._encodes else None
        return () if encoder is None or encoder is subject.model else (Frame(encoder, "encode"),)

    def ask(self, subject: Subject, inputs: Inputs, moments: Moments, new_tokens: int) -> torch.Tensor:
        def visible(sequences: torch.Tensor) -> None:
            if not shown and self._given_start is None:
                self._start = sequences.shape[1] - 1
            shown[:] = [sequences]
            moments.token_visible(sequences)

        shown: list[torch.Tensor] = []
        self._asked = new_tokens
        result = greedily(subject.model, inputs.tensors, new_tokens, self.arguments | subject.execution.generation, visible)
        # Whisper's generate gives its result without the tokens that say what to do; what was seen has them like all others.
        return shown[0] if shown else result

    def probe(self, subject: Subject, inputs: Inputs) -> None:
        greedily(subject.model, inputs.tensors, 2, self.arguments | subject.execution.generation)

    def output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        ids = tuple(result[0, self._start :].tolist())
        return Output(row, ids, self.text(result), ended(len(ids), self._asked, finished=finished))

    def text(self, sequences: torch.Tensor) -> str | None:
        if self._tokenizer is None:
            return None
        return str(self._tokenizer.decode(sequences[0, self._start :].tolist(), skip_special_tokens=True))


def ended(came: int, asked: int, *, finished: bool) -> str:
    """Why a request ended: ``length`` only where as many tokens came out as were asked for."""
    if not finished:
        return "cancelled"
    return "length" if came >= asked else "stop"


def greedily(
    model: Any,
    tensors: Mapping[str, Any],
    new_tokens: int,
    arguments: Mapping[str, Any],
    visible: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """The model's own ``generate``: always its likeliest token, so many of them, ended by nothing.

    Its generation config was set back to neutral when it was loaded (``core.models.generation``).

    Args:
        model: a model that generates.
        tensors: its inputs.
        new_tokens: how many.
        arguments: of ``generate`` besides.
        visible: is given the sequences [batch, length] so far at each step.

    Returns:
        Sequences [batch, length].
    """
    from transformers import StoppingCriteriaList

    criteria = {} if visible is None else {"stopping_criteria": StoppingCriteriaList([_watching(visible)])}
    fixed = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "num_beams": 1}
    with _silence():
        result = model.generate(**tensors, **{**fixed, **criteria, **arguments})
    sequences: torch.Tensor = getattr(result, "sequences", result)  # a ``generate`` of the model's own may give more
    return sequences


def writing_part(model: Any) -> Any | None:
    """The part of a model whose ``generate`` its own only passes on to (BLIP, BLIP-2); None where it writes itself."""
    from transformers.generation import GenerationMixin

    own = getattr(type(model), "generate", None)
    if own is None or own is GenerationMixin.generate:
        return None
    parts: tuple[Any, ...] = tuple(getattr(model, name, None) for name in ("text_decoder", "language_model"))
    return next((part for part in parts if part is not None and hasattr(part, "generate") and part.can_generate()), None)


@contextmanager
def _silence() -> Iterator[None]:
    """Whisper's generate warns in every request of settings that it makes itself."""
    from transformers.utils import logging as library_logging

    verbosity = library_logging.get_verbosity()
    library_logging.set_verbosity(library_logging.ERROR)
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)


def _watching(visible: Callable[[torch.Tensor], None]) -> Any:
    """A stopping criterion that never stops and passes the sequences on (it is called once a step)."""
    import torch
    from transformers import StoppingCriteria

    class Watching(StoppingCriteria):
        never: torch.Tensor | None = None

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:
            visible(input_ids)
            if self.never is None:
                self.never = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
            return self.never

    return Watching()
