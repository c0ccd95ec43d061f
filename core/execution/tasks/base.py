"""What a form is: it makes the inputs of a kind of model, asks for one result, and reads what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from core.config import WorkloadConfig
from core.execution.moments import Frame, Moments
from core.models.base import LoadedModel
from core.pass_api.subject import Subject
from core.registry import Registry
from profilers.trace import Output

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Inputs:
    """The keyword arguments of one request, on the device, and how long making them of text, image or sound took.

    ``length``: positions per sequence that the model will see, for the request's row. ``tokenize_ns`` None: nothing was made
    of anything (a workload given as a number of tokens).
    """

    tensors: dict[str, Any]
    length: int
    tokenize_ns: int | None


class Maker(Protocol):
    """Makes the inputs of a form's requests: of text, of an image or of sound, or made up."""

    def length(self) -> int:
        """As ``Form.length``."""
        ...

    def inputs(self) -> Inputs:
        """As ``Form.inputs``."""
        ...


class TaskAdapter(Protocol):
    """How one loaded model is asked for one workload. Lives on the worker thread."""

    def length(self) -> int:
        """Positions per sequence that go in, found without making the whole batch (which may not fit)."""
        ...

    def inputs(self) -> Inputs:
        """The inputs of one request: the same ones each time, made anew, since that is part of what a user waits for."""
        ...

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        """Modules besides the model itself whose forward is a moment of its own, such as the encoder of a translator."""
        ...

    def ask(self, subject: Subject, inputs: Inputs, moments: Moments, new_tokens: int) -> torch.Tensor:
        """One request. ``moments.token_visible`` is called whenever a part of the result can be seen.

        Args:
            subject: the model with its passes.
            inputs: of ``inputs()``.
            moments: frames the model's forward; the request was begun there.
            new_tokens: how many to generate exactly; of no use for models that generate nothing.

        Returns:
            Token ids [batch, length] of those that generate; else the result's numbers [batch, n].
        """
        ...

    def probe(self, subject: Subject, inputs: Inputs) -> None:
        """A small real piece of the workload, outside any moment: a prefill and one decode, or one forward."""
        ...

    def output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        """What is kept of the result of the request ``row``."""
        ...

    def text(self, sequences: torch.Tensor) -> str | None:
        """The text so far, of the tokens that ``token_visible`` was given; None where there is none to show."""
        ...


class FormKind(Protocol):
    """Makes forms for one or several tasks; ``id`` names the kind of form, ``tasks`` those of ``core.models.base.TASKS``."""

    id: str
    tasks: ClassVar[tuple[str, ...]]

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> TaskAdapter:
        """The form for one model and one workload; ``Refusal`` where the workload does not suit it."""
        ...


form_kinds: Registry[FormKind] = Registry("form", "core.execution.tasks")


def form_of(loaded: LoadedModel, workload: WorkloadConfig, device: str) -> TaskAdapter:
    """The form for the task of ``loaded``; ``Refusal`` where the workload does not suit it."""
    kind = next(kind for kind in form_kinds if loaded.facts.task in kind.tasks)
    return kind.make(loaded, workload, device)
