"""``tickscope models | passes | targets | profilers | formats``: what there is here, and why something is not available."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from core import units
from core.commands.output import table, write, write_json
from core.errors import Refusal
from core.messages.reason import Reason

Row = dict[str, Any]


def listing(args: argparse.Namespace) -> int:
    """Print one listing, as JSON or as a table."""
    rows = _LISTINGS[args.command](args)
    if args.json:
        write_json({args.command: rows})
        return 0
    cells = [(row["id"], row["title"], "yes" if row["available"] else "no", row["reason"] or _options(row)) for row in rows]
    if any("predicted" in row for row in rows):
        rows.sort(key=lambda row: -(row["predicted"] or {"gain": 0.0})["gain"])
        cells = [(row["id"], row["title"], _gain(row), row["reason"] or row["prediction"]) for row in rows]
        write(table(("id", "title", "predicted, not measured", "why"), cells))
        return 0
    write(table(("id", "title", "here", ""), cells) or f"There are no {args.command} here.")
    return 0


def _gain(row: Row) -> str:
    found = row["predicted"]
    return units.DASH if found is None else units.ratio(found["gain"]) + (" (rough)" if found["rough"] else "")


def _row(item_id: str, title: str, reason: Reason | str | None, options: Row | None = None, **more: Any) -> Row:
    return {
        "id": item_id,
        "title": title,
        "available": reason is None,
        "reason": None if reason is None else str(reason),
        "options": options or {},
        **more,
    }


def _models(_args: argparse.Namespace) -> list[Row]:
    from core.models import catalog

    rows = []
    for one in catalog.listings():
        reason: Reason | str | None = None if one.available else one.reason or "not available here"
        rows.append(_row(one.spec, one.title, reason))
    return rows


def _passes(args: argparse.Namespace) -> list[Row]:
    from core.config import ModelConfig
    from core.models import catalog
    from core.pass_api.base import passes, summary_of, title_of
    from core.planning import plan

    model = catalog.describe(ModelConfig(args.model)) if args.model else None
    reasons = plan.reasons(model, _target(args.target), ())
    ordered = sorted(passes, key=lambda one: (one.phase, one.id))
    rows = [_row(one.id, title_of(one), reasons[one.id], options_json(one.options), summary=summary_of(one)) for one in ordered]
    if model is not None and args.predict:
        _predict(args, rows)
    return rows


def _predict(args: argparse.Namespace, rows: list[Row]) -> None:
    """Give each row what its pass should gain alone with its default options, or why that cannot be told."""
    from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
    from core.execution.foresight import Foreseen, foresee
    from core.execution.model_slot import ModelSlot
    from core.pass_api.options import typed
    from core.progress import Progress

    workload = WorkloadConfig(prompt_tokens=args.prompt_tokens, new_tokens=args.new_tokens, batch=args.batch)
    config = RunConfig(ModelConfig(args.model), (), TargetConfig(args.target, args.threads), workload, ())
    holder, choices = ModelSlot(), tuple(typed(PassConfig(row["id"])) for row in rows)
    try:
        holder.load(config.model, args.target, Progress())
        found = foresee(Foreseen(config, choices), holder, Progress(), lambda _: None)
    except Refusal as refusal:
        found = Foreseen(config, choices, why=refusal.reason)
    for row in rows:
        one = found.found.get(row["id"])
        told = one is not None and one.gain is not None
        row["predicted"] = {"gain": one.gain, "by_kind": dict(one.by_kind), "rough": one.rough} if one and told else None
        why = found.why if one is None else one.rests_on if told else one.why
        row["prediction"] = "" if why is None else str(why)


def _target(target_id: str) -> Any:
    from core.targets.base import targets

    try:
        return targets.get(target_id).probe()
    except ValueError as error:
        raise Refusal(str(error)) from error


def _targets(_args: argparse.Namespace) -> list[Row]:
    from core.targets.base import targets

    rows = []
    for facts in sorted((target.probe() for target in targets), key=lambda facts: (not facts.available, facts.id)):
        reason: Reason | str | None = None if facts.available else facts.reason or "not found on this machine"
        title = f"{facts.title} {facts.name}".strip()
        rows.append(_row(facts.id, title, reason, name=facts.name, memory_bytes=facts.memory_bytes, threads=facts.threads))
    return rows


def _profilers(_args: argparse.Namespace) -> list[Row]:
    from profilers.base import instruments

    return [
        _row(one.id, one.title, one.check(), summary=one.summary, by_default=one.by_default) for one in instruments().values()
    ]


def _formats(_args: argparse.Namespace) -> list[Row]:
    from core.export.base import exporters

    return [_row(one.id, one.title, one.check(), suffix=one.suffix) for one in exporters]


def options_json(options: type | None) -> Row:
    """An options dataclass as JSON: type, default and what its metadata says, by name."""
    from core.pass_api.options import DECLARED, declared

    known = declared(options)
    told: Row = {}
    for field in dataclasses.fields(options) if options is not None else ():
        entry: Row = {"type": field.type if isinstance(field.type, str) else field.type.__name__}
        if field.default is not dataclasses.MISSING:
            entry["default"] = field.default
        said = {"label": known[field.name].called, "help": known[field.name].explained}
        told[field.name] = entry | {
            key: said.get(key, _plain(field.metadata[key])) for key in DECLARED if key in field.metadata
        }
    return told


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _options(row: Row) -> str:
    parts = [f"{name}={entry.get('default', '')}" for name, entry in row["options"].items()]
    return ", ".join(parts) or row.get("summary", "")


_LISTINGS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "models": _models,
    "passes": _passes,
    "targets": _targets,
    "profilers": _profilers,
    "formats": _formats,
}
