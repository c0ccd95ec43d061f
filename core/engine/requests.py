"""Requests: runs the workload through the real ``generate`` loop, or an encoder's own call, moment by moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.config import WorkloadConfig
from core.engine.moments import Moments
from core.engine.workload import Inputs, Prompt
from core.errors import Cancelled
from core.models.base import LoadedModel
from core.passes.base import Subject
from profilers.trace import Output, Recorder, Tag

if TYPE_CHECKING:
    import torch


class Requests:
    """Makes requests of one model, and reads the text as it grows."""

    def __init__(
        self, loaded: LoadedModel, subject: Subject, workload: WorkloadConfig, prompt: Prompt, recorder: Recorder
    ) -> None:
        self._loaded = loaded
        self._subject = subject
        self._workload = workload
        self._prompt = prompt
        self._recorder = recorder
        self._moments: Moments | None = None
        self._prompt_length = 0
        self._new_tokens = workload.new_tokens

    def read_text(self) -> None:
        """Put the text so far where the faces see it; only called with the clock stopped."""
        request = self._moments.request if self._moments else None
        if request is not None and request.sequences is not None and self._loaded.tokenizer is not None:
            self._recorder.live_text = self._decode(request.sequences[0, self._prompt_length :].tolist())

    def make(
        self, moments: Moments, tags: Tag, turns: tuple[bool, ...] | None = None, new_tokens: int | None = None
    ) -> int | None:
        """One request from its acceptance to its last token.

        Args:
            moments: frames the model's forward.
            tags: of the request and its moments.
            turns: which of its moments are traced, in turn; None: by their kind.
            new_tokens: fewer than the workload's, for requests that are not measured.

        Returns:
            Its latency in ns without pauses (E2E); None if not every token became visible.
        """
        self._moments = moments
        self._new_tokens = min(new_tokens or self._workload.new_tokens, self._workload.new_tokens)
        moments.begin(tags, 0, turns)
        finished = False
        result: Any = None
        try:
            inputs = self._prompt.inputs()
            moments.tokenized(-1 if inputs.tokenize_ns is None else inputs.tokenize_ns, inputs.length)
            self._prompt_length = inputs.length
            if self._subject.task == "text-generation":
                result = self._generate(moments, inputs)
            else:
                result = encode(self._subject, inputs)
                moments.token_visible()
            finished = True
        except Cancelled:
            if moments.request is not None and moments.request.sequences is not None:
                result = moments.request.sequences
            raise
        finally:
            moments.end()
            if not tags & Tag.PROFILED:  # a few tokens of what the requests before it said already
                if result is not None and moments.request is not None:
                    self._recorder.output(self._output(moments.request.row, result, finished=finished))
                self.read_text()
        return moments.latency_ns

    def _generate(self, moments: Moments, inputs: Inputs) -> torch.Tensor:
        from transformers import StoppingCriteriaList

        count = self._new_tokens
        result: torch.Tensor = self._subject.model.generate(
            **inputs.tensors,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([_criterion(moments)]),
            **self._subject.generation,
        )
        return result

    def _output(self, row: int, result: torch.Tensor, *, finished: bool) -> Output:
        if self._subject.task != "text-generation":
            return Output(row, (), None, "forward", tuple(float(value) for value in result[0].float().tolist()))
        ids = tuple(result[0, self._prompt_length :].tolist())
        text = self._decode(ids) if self._loaded.tokenizer is not None else None
        return Output(row, ids, text, "length" if finished else "cancelled")

    def _decode(self, ids: Any) -> str:
        assert self._loaded.tokenizer is not None
        return str(self._loaded.tokenizer.decode(ids, skip_special_tokens=True))


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


def probe(subject: Subject, inputs: Inputs) -> None:
    """A small real piece of the workload, outside any moment: a prefill and one decode, or one forward."""
    if subject.task != "text-generation":
        encode(subject, inputs)
        return
    subject.model.generate(**inputs.tensors, max_new_tokens=2, min_new_tokens=2, do_sample=False, **subject.generation)


def _criterion(moments: Moments) -> Any:
    """A stopping criterion that never stops and notes when a token became visible (it is called once a step)."""
    from transformers import StoppingCriteria

    class TokenVisible(StoppingCriteria):
        def __init__(self) -> None:
            self._never: torch.Tensor | None = None

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:
            moments.token_visible(input_ids)
            if self._never is None:
                import torch

                self._never = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
            return self._never

    return TokenVisible()
