"""An A/B test: configurations take turns, moment by moment where they can, until it is plain which is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from core.analysis.stopping import clean_rounds, stretches, turns
from core.analysis.verdict import SideVerdict, floors_of, judge
from core.clock.gate import Gate
from core.config import ABTestConfig, RunConfig
from core.errors import Cancelled, Refusal
from core.execution.ab_test_state import ABTestState
from core.execution.failure import what_failed
from core.execution.interleaver import Interleaver
from core.execution.model_slot import ModelSlot, PreparedModel
from core.execution.moments import NEVER
from core.execution.preparation import prepare, probed, recording
from core.execution.recording import Recording, TakingTurns
from core.messages.reason import Reason
from core.progress import Progress
from core.records.noise_floors import NoiseFloors
from core.records.run import ABTestPart, Group, Unavailable, status_said
from profilers.trace import Tag

FLOOR_ROUNDS = 40
"""Rounds of an A/A test, which does not stop early: a floor found by stopping when it looks small would be too low."""

SETTLING_ROUNDS = 2
MOST_SETTLING = 20
SETTLING_S = 5.0
"""Rounds before the first that counts: two, and up to twenty as long as five seconds are not over.

Simulated: equal sides of which one begins 10 % slower, fading over five rounds, end in a false verdict in 70 % of tests, in 17
after two settling rounds, and in none after ten.
"""

ALONE_S = 3.0
"""Of warm-up that each side has by itself, before all of them settle in turns, which warms them too."""

ENOUGH_TRACED = 12
MOST_TRACING_S = 10.0
"""Traced rounds that an A/B test has at least, unless they take longer or would go beyond its caps."""

LEFT_OUT = {"energy": Reason("execution.turns-faster-than-energy")}

NAMES = "ABCDEFGH"


@dataclass
class _Side:
    """One configuration. ``stage`` is open while its requests can be made."""

    number: int
    config: RunConfig
    holder: ModelSlot
    recording: Recording
    prepared: PreparedModel | None
    stage: ExitStack


class ABTest:
    """One A/B test under way. ``state()``, ``cancel()`` and ``active`` are for any thread; everything else for the worker.

    Models that fit are kept in memory side by side; where they do not, the side whose turn it is is loaded, outside the clock,
    and warmed up by one request.

    Args:
        config: the sides and the caps.
        holder: holds the first side's model, before and afterwards.
        gate: who may come in between two moments.
        progress: carries the user's wish to cancel.
        begun: called with each side's recording before anything is recorded.
        book: the noise floors of this machine.
    """

    def __init__(
        self,
        config: ABTestConfig,
        holder: ModelSlot,
        gate: Gate,
        progress: Progress,
        begun: Callable[[Recording], None],
        book: NoiseFloors,
    ) -> None:
        self.config = config
        self.active: Recording | None = None
        self.stopped: Reason | None = None
        self.trouble: Reason | None = None  # why the noise floor could not be kept
        self._group = Group(uuid4().hex, "ab_test", datetime.now(UTC).isoformat(timespec="seconds"), config)
        self._holders = [holder, *(ModelSlot() for _ in config.sides[1:])]
        self._gate = gate
        self._progress = progress
        self._begun = begun
        self._book = book
        self._sides: list[_Side] = []
        self._order: list[int] = []
        self._verdicts: tuple[SideVerdict, ...] = ()
        self._floors: Mapping[str, float] = {}
        self._together = True
        self._interleaver = Interleaver()
        self._rounds_began: float | None = None
        self._parts = 1  # of each request, as ``ABTestPart``

    # -- any thread -------------------------------------------------------------------------------------------------------

    def state(self) -> ABTestState:
        """The A/B test as it stands."""
        runs = tuple(side.recording.run() for side in list(self._sides))
        return ABTestState(self.config, runs, tuple(self._order), self._verdicts, self._floors, self.stopped)

    def cancel(self) -> None:
        """Stop within about one layer's time. The progress must have been cancelled before."""
        active = self.active
        if active is not None:
            active.cancel()

    @property
    def shown(self) -> Recording | None:
        """The side that is on show while the A/B test goes on: the last, always the same, so that charts do not jump."""
        sides = list(self._sides)
        return sides[-1].recording if sides else None

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """One per side."""
        return tuple(side.recording for side in list(self._sides))

    @property
    def seconds_left(self) -> float | None:
        """At most so long until a cap is reached, at the pace so far; None before the first round is over."""
        done = len(self._order) // len(self.config.sides)
        if self._rounds_began is None or done < 1:
            return None
        took = time.perf_counter() - self._rounds_began
        measured = self._measured_s
        left = took * (self.most_rounds - done) / done
        return max(0.0, min(left, took * (self.config.most_seconds - measured) / measured if measured > 0 else left))

    @property
    def round(self) -> int:
        """How many rounds have begun."""
        return -(-len(self._order) // len(self.config.sides))

    @property
    def most_rounds(self) -> int:
        """The cap."""
        return min(self.config.most_rounds, FLOOR_ROUNDS) if self.config.same else self.config.most_rounds

    # -- worker -----------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load and prepare every side; ``Refusal`` where one cannot be had."""
        turns_of_sides = TakingTurns(self._interleaver.yield_turn, LEFT_OUT)
        for number, (config, holder) in enumerate(zip(self.config.sides, self._holders, strict=True)):
            self._load(config, holder)
            prepared = prepare(config, holder, self._progress)
            record = recording(config, prepared, self._gate, self._progress, turns_of_sides)
            record.label = f" ({NAMES[number]})"
            record.group, record.role = self._group, number
            self._sides.append(_Side(number, config, holder, record, prepared, ExitStack()))
        if self.by_moments:
            self._parts = stretches(self.config.sides[0].workload.new_tokens, self.most_rounds)
        self._floors = {} if self.config.same else self._book.find(self._sides[0].recording.run()) or {}
        self._tell_part()
        for side in self._sides:
            self._begun(side.recording)

    def carry_out(self) -> None:
        """Take turns to the end; afterwards every side's ``facts.status`` says how it ended. Failures are raised after that."""
        for side in self._sides:
            side.recording.begin()
        status, error = "failed", None
        try:
            for side in self._sides:
                self._turn_to(side)
                if self.by_moments:  # then they settle in turns, which warms them up as well
                    side.recording.warming.limit_s = ALONE_S
                side.recording.warm_up()
            self._settle()
            self._rounds_began = time.perf_counter()
            why = None
            while why is None:
                why = self._play_round()
            self._trace_more()
            self.stopped = why
            for side in self._sides:
                self._turn_to(side)
                side.recording.profile_operators()
            status = "finished"
        except Cancelled:
            status = "cancelled"
        except BaseException as failure:
            error = what_failed(failure)
            raise
        finally:
            self.stopped = self.stopped or status_said(status)
            self._end(status, error)

    def give_up(self) -> None:
        """Complete every side's facts from another thread, while the worker hangs."""
        self.stopped = self.stopped or status_said("cancelled")
        for side in self._sides:
            side.recording.give_up()
        self._tell_part()

    def unload(self) -> None:
        """Let go of every model but the first side's."""
        for holder in self._holders[1:]:
            holder.unload()

    def _load(self, config: RunConfig, holder: ModelSlot) -> None:
        target = probed(config.target)
        try:
            holder.load(config.model, target.id, self._progress)
        except Refusal as refusal:
            if not refusal.can_override or not self._sides:
                raise
            self._together = False  # the sides before it leave no room: from now on one at a time
            for side in self._sides:
                self._put_away(side)
            holder.load(config.model, target.id, self._progress)

    def _put_away(self, side: _Side) -> None:
        side.stage.close()
        side.prepared = None
        side.holder.unload()

    def _turn_to(self, side: _Side) -> None:
        """Make it possible to make requests of this side; the clock is stopped."""
        import torch

        if side.prepared is None:
            for other in self._sides:
                if other.prepared is not None:
                    self._put_away(other)
            self._load(side.config, side.holder)
            side.prepared = prepare(side.config, side.holder, self._progress)
            self._open(side)
            if side.recording.recorder.requests.count:
                side.recording.request(Tag.WARMUP)  # what was just loaded is cold
        elif self.active is not side.recording:
            self._open(side)
        threads = side.prepared.subject.execution.threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def _open(self, side: _Side) -> None:
        """Open its stage if it is not open, and let its sampler alone go on."""
        assert side.prepared is not None
        if not side.recording.on_stage:
            side.stage = ExitStack()
            side.stage.enter_context(side.recording.on(side.prepared))
        self.active = side.recording
        for other in self._sides:
            other.recording.rest(other is not side)

    @property
    def by_moments(self) -> bool:
        """Whether sides take turns within a request; not where that means loading a model or another pool of threads."""
        threads = {side.prepared.subject.execution.threads for side in self._sides if side.prepared is not None}
        return self._together and len(threads) == 1

    def _settle(self) -> None:
        """Rounds that do not count: in turns each side finds caches and clocks as the others leave them, which is new to it.

        Only where warm-up is left to the program, and where sides take turns within requests.
        """
        if not self.by_moments or any(side.config.workload.warmup is not None for side in self._sides):
            return
        began, rounds = time.perf_counter(), 0
        while rounds < SETTLING_ROUNDS or (rounds < MOST_SETTLING and time.perf_counter() - began < SETTLING_S):
            places = tuple(range(len(self._sides)))
            self._in_turns(places[:: 1 if rounds % 2 == 0 else -1], lambda side: side.recording.request(Tag.WARMUP, NEVER))
            rounds += 1

    def _play_round(self) -> Reason | None:
        """One request of every side, in an order that turns round, so that a steady drift falls on all alike.

        Returns:
            Why the A/B test ends with it; None: it goes on.
        """
        number = len(self._order) // len(self._sides)
        order, traced = turns(number, len(self._sides))
        self._order += order
        self._in_turns(order, lambda side: side.recording.measured_request(traced=traced))
        self._verdicts = self._judged()
        return self._why_stop(number + 1)

    def _trace_more(self) -> None:
        """After an early end traced rounds alone, until there are enough to tell layers apart: eleven rounds have only two.

        They are rounds like any other, so the caps hold for them too.
        """
        rounds, sides = len(self._order) // len(self._sides), len(self._sides)
        if not all("layer_clock" in side.config.profilers for side in self._sides):
            return
        traced = rounds - clean_rounds(rounds)
        began = time.perf_counter()
        for number in range(traced, min(ENOUGH_TRACED, traced + self.most_rounds - rounds)):
            if time.perf_counter() - began > MOST_TRACING_S or self._measured_s >= self.config.most_seconds:
                break
            order = tuple(range(sides))[:: 1 if number % 2 == 0 else -1]
            self._order += order
            self._in_turns(order, lambda side: side.recording.measured_request(traced=True))

    @property
    def _measured_s(self) -> float:
        """Seconds of measuring so far, of all sides together."""
        return sum(one.measured_s for one in self.recordings)

    def _in_turns(self, order: tuple[int, ...], request: Callable[[_Side], object]) -> None:
        """A request of every side: moment by moment where that can be, else one after the other."""
        if self.by_moments:
            for side in self._sides:
                side.recording.rest(False)
            self._interleaver.run([partial(request, side) for side in self._sides], self._hand_to, backwards=order[0] != 0)
        else:
            for side in (self._sides[place] for place in order):
                self._turn_to(side)
                request(side)

    def _hand_to(self, number: int) -> None:
        """The next moment is this side's, and a cancel must reach it."""
        self.active = self._sides[number].recording

    def _judged(self, *, ended: bool = False) -> tuple[SideVerdict, ...]:
        runs = [side.recording.run() for side in self._sides]
        return judge(runs, self._floors, self.most_rounds, self._parts, ended=ended)

    def _why_stop(self, rounds: int) -> Reason | None:
        found = [verdict.main for verdict in self._verdicts]
        if (
            self.config.early
            and not self.config.same
            and all(one is not None and (one.decided or one.hopeless) for one in found)
        ):
            told = all(one is not None and one.decided for one in found)
            return Reason("execution.decided") if told else Reason("execution.no-difference")
        if rounds >= self.most_rounds:
            return Reason("execution.cap-of-rounds", n=rounds)
        if self._measured_s >= self.config.most_seconds:
            return Reason("execution.cap-of-measuring", most_s=self.config.most_seconds)
        return None

    def _tell_part(self) -> None:
        """Put the A/B test into every side's facts."""
        for side in self._sides:
            part = ABTestPart(
                self._group.id,
                side.number,
                len(self._sides),
                tuple(self._order),
                dict(self._floors),
                self.config.same,
                self.most_rounds,
                self._parts,
            )
            side.recording.facts = replace(side.recording.facts, trial=part)

    def _end(self, status: str, error: Reason | None) -> None:
        for side in self._sides:
            side.stage.close()
            side.recording.finish(status, error)
        if self.config.same and status == "finished":
            runs = [side.recording.run() for side in self._sides]
            self._floors = floors_of(runs)
            self.trouble = self._book.record(runs[0], self._floors)
        if self._order:
            self._verdicts = self._judged(ended=True)
        self._tell_part()
        shared = Unavailable("peak memory", Reason("execution.all-sides-in-memory"))
        for side in self._sides:
            facts = replace(side.recording.facts, stopped=self.stopped)
            if self._together:
                facts = replace(facts, rss_peak_bytes=None, device_peak_bytes=None, phase_peak_bytes={})
                facts = replace(facts, unavailable=(*facts.unavailable, shared))
            side.recording.facts = facts
