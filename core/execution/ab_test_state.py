"""Where an A/B test stands, and where one stood that a session file has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.analysis.verdict import SideVerdict, judge
from core.config import ABTestConfig
from core.messages.reason import Reason
from core.records.run import Run, status_said


@dataclass(frozen=True)
class ABTestState:
    """Where an A/B test stands, for the faces.

    ``runs`` are fresh snapshots, one per side; ``order`` the sides in the order in which their measured requests ran;
    ``verdicts`` has one entry per side but the first; ``floors`` is by metric (see ``ABTestPart``); ``stopped`` says why it
    ended, None while it goes on.
    """

    config: ABTestConfig
    runs: tuple[Run, ...]
    order: tuple[int, ...] = ()
    verdicts: tuple[SideVerdict, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    stopped: Reason | None = None


def reopened(runs: Sequence[Run]) -> ABTestState | None:
    """The A/B test in which these runs took turns, as it ended; None where they are not all of its sides.

    What was asked comes from their group; where a file of before does not say, from the runs themselves.
    """
    sides = sorted(runs, key=lambda run: run.role)
    part = sides[0].facts.trial if sides else None
    group = sides[0].group if sides else None
    if part is None or group is None or [run.role for run in sides] != list(range(part.sides)):
        return None
    config = group.config or ABTestConfig(tuple(run.config for run in sides), part.most_rounds)
    verdicts = judge(sides, part.floors, part.most_rounds, part.parts, ended=True) if part.order else ()
    stopped = sides[0].facts.stopped or status_said(sides[0].facts.status)
    return ABTestState(config, tuple(sides), part.order, verdicts, part.floors, stopped)
