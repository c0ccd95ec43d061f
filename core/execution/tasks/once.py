"""Models that give everything at once: one forward a request, whose result is read in the way of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.execution.moments import Frame, Moments
from core.execution.tasks.base import Inputs, Maker
from core.execution.tasks.labels import likeliest, probabilities
from core.execution.tasks.windows import call_in_windows
from core.pass_api.subject import Subject
from profilers.trace import Output

if TYPE_CHECKING:
    import torch

Read = Callable[[Any, Inputs], "torch.Tensor"]
"""From the model's output to the result's numbers, [batch, n]."""

Tell = Callable[["torch.Tensor", Inputs], "str | None"]
"""From the numbers of the first of the batch, [n], to what people read; None: nothing."""

MOST_VALUES = 4096
"""Numbers of a result that are kept with a run."""


class Once:
    """Asks by one forward.

    Args:
        maker: makes the inputs.
        read: what the result is.
        tell: how it reads.
    """

    def __init__(self, maker: Maker, read: Read, tell: Tell) -> None:
        self._maker = maker
        self._read = read
        self._tell = tell
        self._last: Inputs | None = None

    def length(self) -> int:
        return self._maker.length()

    def inputs(self) -> Inputs:
        self._last = self._maker.inputs()
        return self._last

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        return ()

    def ask(self, subject: Subject, inputs: Inputs, moments: Moments, new_tokens: int) -> torch.Tensor:
        import torch

        with torch.no_grad():
            result = self._read(call_in_windows(subject, inputs.tensors), inputs)
        moments.token_visible()
        return result

    def probe(self, subject: Subject, inputs: Inputs) -> None:
        import torch

        with torch.no_grad():
            call_in_windows(subject, inputs.tensors)

    def output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        first = result[0].float().cpu()
        text = self._tell(first, self._last) if self._last is not None else None
        return Output(row, (), text, "forward", tuple(float(value) for value in first[:MOST_VALUES].tolist()))

    def text(self, sequences: torch.Tensor) -> str | None:
        return None


def labelled(maker: Maker, config: Any) -> Once:
    """A classifier of something: the probabilities of its labels, [batch, labels], told by name."""

    def read(output: Any, inputs: Inputs) -> torch.Tensor:
        return probabilities(output.logits, config)

    def tell(values: torch.Tensor, inputs: Inputs) -> str:
        return likeliest(values, config)

    return Once(maker, read, tell)
