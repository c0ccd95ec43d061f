"""How a job ended: a sentence for a run, for an A/B test, and a notice for what was raised."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from core.analysis.drift import drift, sentence
from core.error_text import trace
from core.errors import Cancelled, NotWritten, Refusal
from core.execution.failure import what_failed
from core.execution.model_slot import give_memory_back
from core.execution.workload import is_out_of_memory
from core.messages.reason import Reason
from core.notices import Notice
from core.records.run import Run

KILLED = Reason("execution.killed")


def of_run(run: Run) -> Reason:
    """How a run ended."""
    if run.facts.status == "finished" and _without_quality(run):
        return Reason("execution.run-finished-without-quality", name=run.name)
    return {
        "finished": Reason("execution.run-finished", name=run.name),
        "cancelled": Reason("execution.run-cancelled", name=run.name),
        "failed": Reason("execution.run-failed", name=run.name),
    }[run.facts.status]


def _without_quality(run: Run) -> bool:
    """Whether its quality was not measured because somebody cancelled that."""
    lost = run.facts.why_missing("quality")
    return lost is not None and lost.code == "execution.cancelled-before-known"


def worth_telling(run: Run, known: set[Reason]) -> list[Reason]:
    """Sentences about a run that is over: what is special about its model, unless it was ``known`` before, and drift."""
    notes = run.facts.model.notes if run.facts.model is not None else ()
    new = [note for note in notes if note not in known]
    known.update(new)
    drifted = sentence(drift(run))
    return [*new, drifted] if drifted else new


def of_ab_test(status: str, stopped: Reason | None, runs: Sequence[Run] = ()) -> Reason:
    """How an A/B test ended; ``stopped``: why it took no further rounds. ``runs`` are its sides."""
    if status == "finished" and any(map(_without_quality, runs)):
        return Reason("execution.trial-over-without-quality", stopped=stopped)
    return {
        "finished": Reason("execution.trial-over", stopped=stopped),
        "cancelled": Reason("execution.trial-cancelled"),
        "failed": Reason("execution.trial-failed"),
    }[status]


def of_error(error: BaseException, job: str = "") -> Notice:
    """What a job raised, in a sentence, with the traceback for the log; lets go of what the error holds."""
    if isinstance(error, Cancelled):
        return Notice("cancelled", Reason("execution.cancelled-before-anything"), job=job)
    detail = trace(error)
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, Refusal):
        kind = "failed" if isinstance(error, NotWritten) else "refused"
        return Notice(kind, error.reason, can_override=error.can_override, job=job)
    if is_out_of_memory(error):
        give_memory_back()
        sentence = Reason("execution.memory-ran-out")
    else:
        sentence = Reason("execution.failed-because", why=what_failed(error))
    return Notice("failed", sentence, detail, job=job)
