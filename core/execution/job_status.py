"""Where a run or an A/B test stands, in the words and numbers of the status bar."""

from __future__ import annotations

from core.execution import time_left
from core.execution.ab_test import NAMES, ABTest
from core.execution.recording import MEASURING_QUALITY, Recording
from core.messages.reason import Reason
from core.models.base import generates
from core.notices import Status

COMPILING = Reason("execution.compiling")


def run_status(state: str, recording: Recording) -> Status:
    """Request and moment; "compiling" while a graph is compiled, with no time left, since nobody knows it."""
    recorder, workload = recording.recorder, recording.config.workload
    requests, measured = recorder.requests.count, recording.measured_requests
    warming = recording.facts.warmup_done is None
    if warming:
        said = _numbered_warm_up(requests, workload.warmup)
    elif recording.facts.stopped is not None:
        doing, fraction = recording.looking_at
        return Status(state, (doing,), fraction)
    else:
        said = _numbered_repeat(measured + 1, workload.repeats)
    done, planned = recorder.moments.count, recording.facts.planned_moments
    fraction = min(1.0, done / planned) if planned else None
    parts = (said, *_step(recording))
    if recording.compiling:
        return Status(state, (*parts, COMPILING), fraction, warming=warming, compiling=True)
    open_end = workload.repeats is None or (warming and workload.warmup is None)
    then = (MEASURING_QUALITY,) if recording.measures_quality else ()
    return Status(state, parts, fraction, _run_seconds(recording, warming), warming, at_most=open_end, then=then)


def ab_test_status(state: str, trial: ABTest) -> Status:
    """Round, side and moment; the fraction is that of the cap, which is rarely reached."""
    active = trial.active
    if active is None:
        return Status(state, (Reason("execution.getting-sides-ready"),))
    side = NAMES[next((number for number, run in enumerate(trial.recordings) if run is active), 0)]
    if not trial.round:
        parts = (Reason("execution.warm-up-of-side", side=side), *_step(active), *((COMPILING,) if active.compiling else ()))
        left = None if active.compiling else _warm_up_seconds(trial)
        then: tuple[Reason, ...] = (Reason("execution.the-rounds"),)
        return Status(state, parts, None, left, warming=True, compiling=active.compiling, at_most=True, then=then)
    fraction = min(1.0, trial.round / trial.most_rounds)
    turn = () if trial.by_moments else (Reason("execution.side", side=side),)
    parts = (Reason("execution.round-of", number=trial.round, most=trial.most_rounds), *turn, *_step(active))
    then = (MEASURING_QUALITY,) if any(one.measures_quality for one in trial.recordings) else ()
    return Status(state, parts, fraction, trial.seconds_left, at_most=True, then=then)


def _numbered_warm_up(number: int, of: int | None) -> Reason:
    return Reason("execution.warm-up", number=number) if of is None else Reason("execution.warm-up-of", number=number, of=of)


def _numbered_repeat(number: int, of: int | None) -> Reason:
    return Reason("execution.repeat", number=number) if of is None else Reason("execution.repeat-of", number=number, of=of)


def _run_seconds(recording: Recording, warming: bool) -> float | None:
    """Time left of warm-up, at most, and of the requests after it; measuring quality comes on top of it."""
    one_s = recording.request_s
    if one_s is None:
        return None
    done_of_one = one_s - time_left.rest_of_request_s(recording.recorder, one_s)
    measuring = recording.requests_left * one_s
    if not warming:
        return max(0.0, measuring - done_of_one)
    asked, limit = recording.config.workload.warmup, recording.warming.seconds_left
    if limit is None and asked is not None:
        done = max(0, recording.recorder.requests.count - 1)
        limit = max(0.0, (asked - done) * one_s - done_of_one)
    return None if limit is None else limit + measuring


def _warm_up_seconds(trial: ABTest) -> float | None:
    """At most so long until the first round: what is left of each side's warm-up."""
    left = [one.warming.seconds_left for one in trial.recordings if one.facts.warmup_done is None]
    known = [one for one in left if one is not None]
    return sum(known) if len(known) == len(left) else None


def _step(recording: Recording) -> tuple[Reason, ...]:
    """Which moment of its request is under way, for requests of several."""
    steps = recording.config.workload.new_tokens
    request = recording.recorder.moments.view()["request"]
    if steps < 2 or (recording.facts.model is not None and not generates(recording.facts.model.task)):
        return ()
    done = int((request[-steps:] == recording.recorder.requests.count - 1).sum()) if len(request) else 0
    return (Reason("execution.moment-of", number=min(done + 1, steps), of=steps),)
