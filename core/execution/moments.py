"""Moments: opens and closes them around the model's own forward pass, and alone knows when the clock runs.

``generate`` (or an encoder's call) is the real one; only the model's ``forward`` is framed, on the instance. All bookkeeping
of a moment happens when the next one is about to open, with the clock stopped, and so does everything that the gate lets in.

What lies between two visible tokens is a *gap*: one moment as a rule, several where tokens are guessed first (``draft``), where
a prompt is read in chunks, or where an encoder comes before the decoder. A gap is traced as a whole or not at all.
"""

from __future__ import annotations

import functools
import gc
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.clock.gate import Gate
from core.execution.cache_size import cache_bytes, cache_in
from core.execution.calls import Call, read
from core.execution.finite import choosable
from core.execution.instrumentation import Clock, Instrumentation
from core.execution.speculation import Guessing
from core.execution.trace_schedule import ALWAYS, NEVER, TraceSchedule
from core.execution.under_way import MomentUnderWay, RequestUnderWay
from core.models.base import generates
from core.pass_api.subject import Subject
from core.progress import Progress
from profilers.cancel_patch import CancelPatch
from profilers.forward_patch import Forward, ForwardPatch, Order
from profilers.trace import KINDS, NOT_MEASURED, Recorder, Tag

__all__ = ["ALWAYS", "NEVER", "SETTLING_MOMENTS", "Frame", "Moments"]

# Painting that took more than this share of a moment while the clock ran makes it ``perturbed``.
PERTURBED_SHARE = 0.005

SETTLING_MOMENTS = 2
SETTLING_PAUSE_NS = 1_000_000
"""After the gate's guests (the window's painting, the writer, the link to another process) were let in and waited for longer
than this, the next moments are slower: measured in the live window on 2 cores with SmolLM2-135M int8 (33 ms moments, pauses of
25 ms) +6 to +8 % for the first and +2 to +4 % for the second. Only that wait counts. What else stops the clock before a moment
(spans put away, text decoded, other sides' turns) is in its ``paused_ns`` and makes none settle.
"""


@dataclass(frozen=True)
class Frame:
    """A module whose ``forward`` is a moment. ``kind`` None: told from what it is given (the model itself)."""

    module: Any
    kind: str | None = None


class Moments:
    """Frames one subject's forward for the length of one run.

    Args:
        subject: the model with its passes.
        recorder: where moments and spans go.
        gate: who may come in between two moments.
        progress: carries the user's wish to cancel.
        tripwire: disarmed in compiled moments, whose graphs guard the layers' attributes.
        watch: the instruments.
        compile_spent: ns spent compiling in this process so far.
        on_pause: called in each pause of the gate, before the guests (the text so far is decoded there).
        frames: modules besides the model whose forwards are moments too (an encoder, a draft model).
        yield_turn: called before each moment, with the clock stopped; other sides of an A/B test may have theirs there.
        pause_steps: numbers of a request's tokens before which a pause may come (None: any, and between requests). Where it
            leaves out the first and the last two, the few first forwards of a run are never settling.
    """

    def __init__(
        self,
        subject: Subject,
        recorder: Recorder,
        gate: Gate,
        progress: Progress,
        tripwire: CancelPatch,
        watch: Instrumentation,
        compile_spent: Callable[[], int],
        on_pause: Callable[[], None],
        *,
        frames: Sequence[Frame] = (),
        yield_turn: Callable[[], None] | None = None,
        pause_steps: range | None = None,
    ) -> None:
        self._subject = subject
        self._recorder = recorder
        self._gate = gate
        self._progress = progress
        self._tripwire = tripwire
        self._watch = watch
        self._compile_spent = compile_spent
        self._compiled_before_ns = 0
        self.compiled_ns = 0
        self._on_pause = on_pause
        self._frames = (Frame(subject.model), *frames)
        self._patch: ForwardPatch | None = None
        self._yield_turn = yield_turn
        self._pause_steps = pause_steps
        self._request: RequestUnderWay | None = None
        self._moment: MomentUnderWay | None = None
        self._guessing = Guessing(subject)
        self._turns = TraceSchedule(whole_requests=self._guessing.wanted)
        self._clock_on: Clock | None = None
        self._collected = False
        self._settling = 0
        self._called: set[int] = set()  # compiled forwards that have run
        self.compiling = False

    # -- requests ---------------------------------------------------------------------------------------------------------

    def begin(self, tags: Tag, input_tokens: int, turns: tuple[bool, ...] | None = None) -> None:
        """A request is accepted: the clock runs from here. ``turns``: which of its gaps are traced (None: they take turns)."""
        if self._pause_steps is None:
            self._pause_if_wanted()
        if tags & Tag.WARMUP == 0 and self._request is not None and self._request.tags & Tag.WARMUP:
            self._turns.start_over()
        turns = turns or self._turns.of_request()
        row = self._recorder.requests.append(
            tags=int(tags),
            start_ns=self._recorder.now_ns(),
            tokenize_ns=NOT_MEASURED,
            end_ns=NOT_MEASURED,
            input_tokens=input_tokens,
            output_tokens=0,
        )
        accepted = time.perf_counter_ns()  # after the row was made, which is not what the user asked for
        self._recorder.requests.set(row, start_ns=accepted - self._recorder.origin_ns)
        self._request = RequestUnderWay(row, tags, accepted, turns)
        self._gate.clock_runs = True

    def tokenized(self, duration_ns: int, input_tokens: int) -> None:
        """Tokenising, the first part of the request, took this long."""
        assert self._request is not None
        self._request.input_tokens = input_tokens
        self._recorder.requests.set(self._request.row, tokenize_ns=duration_ns, input_tokens=input_tokens)

    def token_visible(self, sequences: Any = None) -> None:
        """The result of the moment just run can be seen now: a token, several of them, or an encoder's output.

        ``sequences``: prompt and tokens so far, [batch, length]. Only where tokens are guessed is their growth looked at.
        """
        request, moment = self._request, self._moment
        assert request is not None
        request.token_ns = time.perf_counter_ns()
        request.sequences = sequences
        grown = 1
        if self._guessing.wanted and sequences is not None and moment is not None:
            length = int(sequences.shape[1])
            before = request.length or moment.call.context + moment.call.width - moment.drafted
            grown, request.length = max(1, length - before), length
            moment.accepted = min(grown - 1, moment.drafted)
        request.tokens_seen += grown

    def end(self) -> None:
        """The request is over (or was cut short): close its last moment."""
        request = self._request
        assert request is not None
        logits = self._moment.logits if self._moment is not None else None
        self._close()
        self._guessing.give_up()
        self._gate.clock_runs = False
        self._recorder.requests.set(
            request.row, end_ns=request.visible_ns - self._recorder.origin_ns, output_tokens=request.tokens_seen
        )
        request.finite = choosable(logits)  # only now: everything of the request is measured

    @property
    def latency_ns(self) -> int | None:
        """From acceptance to the last token of the request last made, without pauses; None: it gave none."""
        return self._request.latency_ns or None if self._request is not None else None

    @property
    def request(self) -> RequestUnderWay | None:
        """The request under way or last ended."""
        return self._request

    # -- the frame --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Moments:
        self._patch = ForwardPatch(Order.FRAME, [(frame.module, partial(self._framed, frame)) for frame in self._frames])
        self._patch.push()
        gc.callbacks.append(self._on_collection)
        self._compiled_before_ns = self._compile_spent()
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._on_collection)
        self._gate.clock_runs = False
        self._set_clock(None)
        assert self._patch is not None
        self._patch.pop()

    def _framed(self, frame: Frame, plain: Forward) -> Forward:
        """The module's forward with a moment around it."""
        subject, execution, watch = self._subject, self._subject.execution, self._watch
        synchronize, begin, end = watch.synchronize, watch.begin, watch.end
        decodes = frame.kind is None
        chooses = decodes and generates(subject.task)
        ours = any(module is frame.module for module in subject.model.modules())

        @functools.wraps(plain)
        def framed(*args: Any, **kwargs: Any) -> Any:
            entered = time.perf_counter_ns()
            given = read(args, kwargs)
            compiled = decodes and execution.is_compiled(given.width, given.context)
            moment = self._open(entered, frame.kind, given, compiled=compiled, ours=ours)
            call = self._compiled_call(moment) if compiled else plain
            begin()
            start = time.perf_counter_ns()
            output = call(*args, **kwargs)
            if synchronize is not None:
                synchronize()
            moment.duration_ns = time.perf_counter_ns() - start
            end()
            self.compiling = False
            moment.start_ns = start
            moment.paused_ns = start - entered
            moment.cache = cache_in(output, kwargs)
            moment.logits = getattr(output, "logits", None) if chooses else None
            self._moment = moment
            return output

        # transformers asks for the signature at every step; through ``__wrapped__`` that takes longer than from here
        framed.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
        return framed

    def _open(self, entered_ns: int, kind: str | None, call: Call, *, compiled: bool, ours: bool) -> MomentUnderWay:
        """The clock is stopped from ``entered_ns`` until this returns. ``ours``: a part of the model, whose layers are timed.

        ``kind`` None: told from the call.
        """
        request = self._request
        assert request is not None
        self._close()
        if self._yield_turn is not None:
            self._set_clock(None)
            self._yield_turn()
        if self._pause_steps is None or request.tokens_seen in self._pause_steps:
            self._pause_if_wanted()
        drafted = NOT_MEASURED
        if kind is None and self._guessing.drafting:
            kind = "draft"
        elif kind is None:
            drafted = self._guessing.drafted(call, request.input_tokens, first=request.tokens_seen == 0)
            kind = self._kind(request, drafted)
        clock = self._clock_for(request, compiled=compiled, ours=ours)
        self._set_clock(clock)
        self._tripwire.armed = not compiled
        self._progress.check()  # after both: a cancel before this line is seen here, one after it finds the wire in place
        tags = request.tags
        if not tags & Tag.PROFILED:
            tags |= Tag.CLEAN if clock is None else Tag.TRACED
        if request.tokens_seen > 0:
            tags &= ~Tag.COLD
        if self._settling:
            self._settling -= 1
            tags |= Tag.SETTLING
        self._collected = False
        self._compiled_before_ns = self._compile_spent()
        self._gate.take_disturbance()
        self._gate.clock_runs = True
        return MomentUnderWay(KINDS.index(kind), request.step, tags, 0, 0, 0, call, clock, drafted=drafted)

    def _clock_for(self, request: RequestUnderWay, *, compiled: bool, ours: bool) -> Clock | None:
        """The instrument that times the layers of this moment, None for a clean one (always, for a model that only drafts)."""
        if request.tags & Tag.PROFILED:
            if not ours:
                return None
            return self._watch.graph_kernels if compiled else self._watch.kernels
        if request.traced is None:
            request.traced, request.counting = self._turns.of_gap(request.turns, first=request.tokens_seen == 0)
        if not request.traced or not ours:
            return None
        return self._watch.layers(compiled=compiled, counting=request.counting)

    def _compiled_call(self, moment: MomentUnderWay) -> Callable[..., Any]:
        step = self._subject.execution.step
        assert step is not None
        call = step.ticked if moment.clock is not None and moment.clock is self._watch.ticks else step.call
        assert call is not None
        if id(call) not in self._called:
            self._called.add(id(call))
            self.compiling = True
        return call

    def _kind(self, request: RequestUnderWay, drafted: int) -> str:
        if not generates(self._subject.task):
            return "forward"
        if request.tokens_seen == 0:
            read_before, request.prefilled = request.prefilled, True
            return "prefill_chunk" if read_before else "prefill"
        return "verify" if drafted > 0 else "decode"

    def _close(self) -> None:
        """Record the moment that was measured last, if there is one that is not recorded yet."""
        moment, request = self._moment, self._request
        if moment is None or request is None:
            return
        self._moment = None
        disturbed_ns = self._gate.take_disturbance()
        self._gate.clock_runs = False
        request.step += 1
        request.paused_ns += moment.paused_ns
        latency_ns = NOT_MEASURED
        if request.token_ns != NOT_MEASURED:
            latency_ns = request.token_ns - request.visible_ns - request.paused_ns
            request.visible_ns, request.token_ns, request.paused_ns = request.token_ns, NOT_MEASURED, 0
            request.traced = None  # the next gap has its own turn
            request.latency_ns += latency_ns
        columns = self._watch.columns()
        if disturbed_ns > PERTURBED_SHARE * moment.duration_ns or self._watch.perturbed(columns, moment.duration_ns):
            moment.tags |= Tag.PERTURBED
        if self._collected:
            moment.tags |= Tag.GC
        moment.tags |= self._compile_tag()
        recorder = self._recorder
        if moment.clock is not None:
            self._set_clock(None)  # before its spans are read: the operator profiler must have stopped
            problem = moment.clock.collect(recorder, recorder.moments.count, moment.start_ns, moment.duration_ns)
            if problem:
                self._watch.note("kernels" if moment.tags & Tag.PROFILED else "layers", problem)
        recorder.moments.append(
            request=request.row,
            kind=moment.kind,
            step=moment.step,
            tags=int(moment.tags),
            start_ns=moment.start_ns - recorder.origin_ns,
            duration_ns=moment.duration_ns,
            latency_ns=latency_ns,
            paused_ns=moment.paused_ns,
            tokens=moment.call.tokens,
            context=moment.call.context,
            kv_bytes=cache_bytes(moment.cache),
            drafted=moment.drafted,
            accepted=moment.accepted,
            **columns,
        )

    def _compile_tag(self) -> Tag:
        """Whether a graph was compiled in the moment just ended, which adds to ``compiled_ns``."""
        spent_ns = self._compile_spent()
        if spent_ns == self._compiled_before_ns:
            return Tag(0)
        self.compiled_ns += spent_ns - self._compiled_before_ns
        self._compiled_before_ns = spent_ns
        return Tag.COMPILE

    def _pause_if_wanted(self) -> None:
        if self._gate.wanted:
            self._gate.clock_runs = False
            self._on_pause()
            if self._gate.pause() > SETTLING_PAUSE_NS:
                self._settling = SETTLING_MOMENTS

    def _set_clock(self, clock: Clock | None) -> None:
        if clock is not self._clock_on:
            before, self._clock_on = self._clock_on, clock
            if before is not None:
                before.remove()
            if clock is not None:
                clock.install()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:  # the young generations take microseconds
            self._collected = True
