"""Runs of a session file without their columns, as lists and groups show them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.config import ModelConfig, RunConfig
from core.error_text import first_line
from core.messages.reason import Reason
from core.records.run import STATUSES, UNREADABLE, Group, RunFacts
from core.session import codec

HEADS = """
SELECT runs.id, runs.name, runs.created, status, note, config, facts, names, settings,
       group_id, role, group_kind, group_created, group_config
FROM runs
LEFT JOIN (SELECT run, list(name) AS names, list(value) AS settings FROM environment GROUP BY run) ON run = runs.id
LEFT JOIN (SELECT id AS its_id, any_value(kind) AS group_kind, any_value(created) AS group_created,
                  any_value(config) AS group_config FROM groups GROUP BY id) ON its_id = group_id
"""


@dataclass(frozen=True)
class RunHead:
    """A run without its columns, for lists.

    ``status`` is ``interrupted`` where the process died while it was running, and ``unreadable`` where what was asked or is
    known of it makes no sense: ``facts.error`` says why, and there is nothing else to it.
    """

    id: int
    name: str
    created: str
    status: str
    note: str
    config: RunConfig
    facts: RunFacts
    consents: tuple[str, ...] = ()  # what its maker allowed the model to do, which ``config`` leaves out
    group: Group | None = None
    role: int = 0


def head_of(row: tuple[Any, ...], *, ours: bool) -> RunHead:
    """A row of ``HEADS``. ``ours``: this process began the run, so that it may really be running."""
    run_id, name, created, status, note, config, facts, names, settings, *of_group = row
    if status == "running" and not ours:
        status = "interrupted"
    try:
        if status not in STATUSES:
            raise ValueError(f"there is no status {status[:40]!r}")
        environment = dict(zip(names or (), map(codec.value_from_json, settings or ()), strict=True))
        known = replace(codec.facts_from_json(facts, environment), status=status)
        asked, consents = codec.config_from_json(config), codec.consents_in(config)
        group, role = _group(*of_group)
    except Exception as error:  # noqa: BLE001 - one odd run must not hide the others, whatever its decoder raises
        why = Reason("session.makes-no-sense", problem=_first_line(error))
        return RunHead(
            run_id, name, created, UNREADABLE, note, RunConfig(ModelConfig("unknown")), RunFacts(UNREADABLE, error=why)
        )
    return RunHead(run_id, name, created, status, note, asked, known, consents, group, role)


def _group(
    name: str | None, role: int | None, kind: str | None, created: str | None, config: str | None
) -> tuple[Group | None, int]:
    """The group of a run from its columns; none where the file names one that it does not hold."""
    if name is None or kind is None or created is None or config is None:
        return None, 0
    return Group(name, kind, created, codec.group_config_from_json(config)), max(0, role or 0)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error, '')[:120]}".removesuffix(": ")
