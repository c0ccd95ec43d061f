"""Guessing: how many of the positions that a forward is given are guessed tokens, which it checks (speculative decoding)."""

from __future__ import annotations

from core.execution.calls import Call
from core.pass_api.subject import Subject
from core.passes.speculative import ARGUMENTS, base_config
from profilers.trace import NOT_MEASURED


class Guessing:
    """What one subject's ``generate`` guesses; ``wanted`` False: nothing."""

    def __init__(self, subject: Subject) -> None:
        self.wanted = not ARGUMENTS.isdisjoint(subject.execution.generation)
        self._blocks: int | None = subject.execution.generation.get("assistant_early_exit")
        self._config = base_config(subject.model) if self._blocks is not None else None
        self._all_blocks = self._config.num_hidden_layers if self._config is not None else 0

    @property
    def drafting(self) -> bool:
        """Whether the model itself is about to guess, with its first blocks only: transformers shortens its configuration."""
        return self._config is not None and self._config.num_hidden_layers == self._blocks

    def give_up(self) -> None:
        """The request is over; where it was cut short while guessing, the model is whole again."""
        if self._config is not None:
            self._config.num_hidden_layers = self._all_blocks

    def drafted(self, call: Call, input_tokens: int, *, first: bool) -> int:
        """Guessed tokens of a call of the model, per sequence; -1 where none are ever guessed.

        Args:
            call: what is known of it.
            input_tokens: of the request, per sequence.
            first: no token of the request is visible yet.
        """
        if not self.wanted:
            return NOT_MEASURED
        if call.kept is not None and call.kept > 0:
            return call.kept - 1
        return max(0, call.width - (input_tokens if first else 1))
