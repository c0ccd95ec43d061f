"""Requests: begins and ends each request, keeps what came out, and reads the text as it grows."""

from __future__ import annotations

from math import isfinite

from core.errors import Cancelled
from core.execution.moments import Moments
from core.execution.tasks.base import TaskAdapter
from core.pass_api.subject import Subject
from profilers.trace import Recorder, Tag


class Requests:
    """Makes requests of one model through its form.

    Args:
        form: how such a model is asked.
        subject: the model with its passes.
        new_tokens: of the workload.
        recorder: where outputs go.
    """

    def __init__(self, form: TaskAdapter, subject: Subject, new_tokens: int, recorder: Recorder) -> None:
        self._form = form
        self._subject = subject
        self._new_tokens = new_tokens
        self._recorder = recorder
        self._moments: Moments | None = None
        self.not_finite = False  # some request's numbers were none (NaN or infinite)

    def read_text(self) -> None:
        """Put the text so far where the faces see it; only called with the clock stopped."""
        request = self._moments.request if self._moments else None
        if request is not None and request.sequences is not None:
            self._recorder.live_text = self._form.text(request.sequences) or self._recorder.live_text

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
        moments.begin(tags, 0, turns)
        finished = False
        result = None
        try:
            inputs = self._form.inputs()
            moments.tokenized(-1 if inputs.tokenize_ns is None else inputs.tokenize_ns, inputs.length)
            result = self._form.ask(self._subject, inputs, moments, min(new_tokens or self._new_tokens, self._new_tokens))
            finished = True
        except Cancelled:
            if moments.request is not None and moments.request.sequences is not None:
                result = moments.request.sequences
            raise
        finally:
            moments.end()
            self.not_finite = self.not_finite or (moments.request is not None and not moments.request.finite)
            if not tags & Tag.PROFILED:  # a few tokens of what the requests before it said already
                if result is not None and moments.request is not None:
                    output = self._form.output(moments.request.row, result, finished=finished)
                    self._recorder.output(output)
                    self.not_finite = self.not_finite or not all(map(isfinite, output.values))
                    if output.token_ids:  # what came out counts, not how often something became visible
                        self._recorder.requests.set(output.request, output_tokens=len(output.token_ids))
                self.read_text()
        return moments.latency_ns
