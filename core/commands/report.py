"""A run for people: the JSON of a run as a few tables, in plain text or Markdown."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap
from typing import Any

from core import units
from core.analysis import metrics
from core.commands import imported_report
from core.commands.output import table
from core.commands.quality_report import cost
from core.commands.section import Section
from core.execution.executors.base import in_short
from core.models.base import generates, parameters_in_words
from core.plain_text import markdown as escaped
from core.plain_text import visible
from profilers.trace import KINDS

Json = dict[str, Any]

_TEXT_CHARACTERS = 300
_NAMES_CHARACTERS = 72


def sections(summary: Json) -> list[Section]:
    """The tables of one run; those with nothing to say are left out."""
    if summary["status"] == "imported":
        found = [imported_report.about(summary), imported_report.steps(summary)]
    else:
        found = [_about(summary), _metrics(summary), _per_token(summary)]
    found += [_observer(summary), _noise(summary["noise"]), _memory(summary), *_stages(summary)]
    found += [
        imported_report.operators(summary),
        _passes(summary),
        _speculation(summary),
        cost(summary),
        _output(summary),
        _missing(summary),
    ]
    return [section for section in found if section.rows]


def text(summary: Json) -> str:
    """The report as plain text."""
    parts = [headline(summary)]
    for section in sections(summary):
        body = table(section.header, section.rows, "  ")
        parts.append(f"{section.title}\n{body}" + (f"\n  {section.note}" if section.note else ""))
    return "\n\n".join(parts)


def markdown(summary: Json) -> str:
    """The same as Markdown."""
    parts = [f"# {escaped(headline(summary))}"]
    for section in sections(summary):
        header = section.header if any(section.header) else ("",) * len(section.rows[0])
        lines = [header, ("---",) * len(header), *section.rows]
        body = "\n".join("| " + " | ".join(map(escaped, row)) + " |" for row in lines)
        parts.append(f"## {section.title}\n\n{body}" + (f"\n\n{escaped(section.note, lines=True)}" if section.note else ""))
    return "\n\n".join(parts) + "\n"


def headline(summary: Json) -> str:
    """Name and status."""
    error = f": {summary['error']}" if summary["error"] else ""
    return visible(f"{summary['name']} — {summary['status']}{error}")


def _about(summary: Json) -> Section:
    model, target, workload = summary["model"], summary["target"], summary["workload"]
    encoder = not generates(model["task"])
    new = "" if encoder else f", {workload['new_tokens']} new tokens"
    parts = [
        model["architecture"],
        parameters_in_words(model["parameters"], model["active_parameters"]),
        model["stored_as"],
        f"as {model['dtype']}",
    ]
    threads = f" · {target['threads']} threads" if target["threads"] else ""
    where = in_short(target["executor"])
    elsewhere = f" · {where}" if where else ""
    requests = summary["requests"]
    measured = requests["measured"]
    repeats = f"{measured} {'repeat' if measured == 1 else 'repeats'} after {requests['warmup']} warm-up"
    if requests["profiled"]:
        repeats += f", {requests['profiled']} under the operator profiler"
    rows = [
        ("Model", " · ".join(part for part in parts if part)),
        *(("", note) for note in model["notes"]),
        ("Target", f"{target['id']} · {target['name'] or units.DASH}{threads}{elsewhere}"),
        (
            "Workload",
            f"{_asked(workload)}{new}, batch {workload['batch']}, {repeats}",
        ),
        *_reasons_to_stop(summary),
        (
            "Start",
            f"load {units.duration(summary['load_ns'])}, passes {units.duration(summary['apply_ns'])}, "
            f"compile {units.duration(summary['compile_ns'])}, cold start {units.duration(summary['cold_start_ns'])}",
        ),
    ]
    return Section("Run", ("", ""), rows)


def _asked(workload: Json) -> str:
    """What the model was given, in short."""
    if workload["prompt_tokens"]:
        return f"{workload['prompt_tokens']} random tokens"
    prompts = workload.get("prompts")
    said = f"{len(prompts)} prompts" if prompts else f"prompt {_short(workload['prompt'], 60)!r}"
    return f"{said} in the chat template" if workload.get("chat") else said


def _reasons_to_stop(summary: Json) -> list[tuple[str, str]]:
    said = (("warm-up", summary["warmup_done"]), ("repeats", summary["stopped"]))
    line = ", ".join(f"{what}: {why}" for what, why in said if why)
    found = [("Ended", line)] if line else []
    told = (summary["drift"] or {}).get("told")
    return [*found, ("Drift", told)] if told else found


def _metrics(summary: Json) -> Section:
    rows = []
    for metric in metrics.of_table(metrics.LATENCY):
        spread = summary["metrics"][metric.id]
        if not metric.shown or spread["n"] == 0:
            continue
        formatted = units.of_unit(metric.unit)
        tail = tuple(formatted(spread[q]) for q in ("p90", "p95", "p99", "max"))
        rows.append((metric.called, formatted(spread["median"]), _between(spread, formatted), *tail, str(spread["n"])))
    header = ("", "median", "95 % interval", "p90", "p95", "p99", "max", "n")
    return Section("Latency (clean moments)", header, rows)


def _per_token(summary: Json) -> Section:
    spreads = summary["metrics"]
    cycles, instructions = spreads["cycles_per_token"], spreads["instructions_per_token"]
    rows = []
    for metric in metrics.of_table(metrics.PER_TOKEN):
        spread, formatted = spreads[metric.id], units.of_unit(metric.unit)
        if spread["n"]:
            rows.append((metric.called, formatted(spread["median"]), _between(spread, formatted)))
    if cycles["median"] and instructions["median"] is not None:
        rows.append(("instructions per cycle", units.number(instructions["median"] / cycles["median"]), ""))
    energy = summary["energy"]
    if energy is not None:
        each = energy["joules_per_token"]
        told = f"{units.number(energy['joules'])} J in all" + (f", by {energy['source']}" if energy["source"] else "")
        rows.append(("energy", f"{units.number(each)} J" if each is not None else units.DASH, told))
    return Section("Per token", ("", "median", "95 % interval"), rows)


def _between(spread: Json, formatted: Callable[[float | None], str]) -> str:
    """The interval; where too few requests were made for one, the range of what was seen, and it says so."""
    if spread["low"] is not None:
        return f"{formatted(spread['low'])} … {formatted(spread['high'])}"
    if spread["requests"] < 2:
        return units.DASH
    return f"range {formatted(spread['least'])} … {formatted(spread['most'])} of {spread['requests']}"


def _noise(noise: Json) -> Section:
    shares = (
        ("of moments perturbed", noise["perturbed_share"]),
        ("of the processors stolen by other machines", noise["steal_share"]),
        ("taken by other processes", noise["others_share"]),
    )
    said = [f"{units.percent(share)} {what}" for what, share in shares if share is not None]
    if noise["switches_per_s"] is not None:
        said.append(f"{units.number(noise['switches_per_s'])} forced switches a second")
    rows = [(", ".join(said),)] if said else []
    if noise["competitors"]:
        rows.append((f"in the way: {', '.join(noise['competitors'][:3])}",))
    return Section("Noise", ("",), rows, "The machine was too busy to measure: doubt these times." if noise["busy"] else "")


def _observer(summary: Json) -> Section:
    effect = summary["observer_effect"]
    rows = []
    for kind in KINDS:
        ratio = effect.get(kind)
        if ratio is not None:
            rows.append((f"traced against clean {kind}", units.signed_percent(ratio["ratio"]), _effect_bounds(ratio)))
    if effect["paused_ns"] is not None:
        rows.append(("clock stopped in pauses", units.duration(effect["paused_ns"]), ""))
    for kind, slower in (summary["kernels"] or {}).items():
        rows.append((f"operator profiler against clean {kind}", units.ratio(slower), ""))
    return Section("Observer effect", ("", "", ""), rows)


def _effect_bounds(ratio: Json) -> str:
    if ratio["low"] is not None:
        return f"{units.signed_percent(ratio['low'])} … {units.signed_percent(ratio['high'])}"
    seen = f"{units.signed_percent(ratio['least'])} … {units.signed_percent(ratio['most'])}"
    return f"range {seen} of {ratio['n']}, too few to tell"


def _memory(summary: Json) -> Section:
    memory = summary["memory"]
    known = metrics.of_table(metrics.MEMORY)
    rows = [(one.called, units.of_unit(one.unit)(memory[one.id])) for one in known if memory[one.id] is not None]
    phases = ", ".join(f"{phase.replace('_', ' ')} {units.size(peak)}" for phase, peak in summary["phases"].items())
    if phases:
        rows.append(("peak by phase", phases))
    return Section("Memory", ("", ""), rows)


def _stages(summary: Json) -> list[Section]:
    found = []
    for kind in dict.fromkeys(row["kind"] for row in summary["stages"]):
        mine = [row for row in summary["stages"] if row["kind"] == kind]
        rows = [
            (row["stage"], units.duration(row["time_ns"]), units.percent(row["share"]))
            for row in sorted(mine, key=lambda row: -row["share"])
        ]
        found.append(
            Section(f"Where the time goes: median {kind}, scaled to {mine[0]['scaled_to']}", ("", "time", "share"), rows)
        )
    return found


def _passes(summary: Json) -> Section:
    rows = [
        (one["title"], one["summary"], _expected(one), _short(", ".join(one["kernels"]), 120) or units.DASH)
        for one in summary["passes"]
    ]
    notes = {one["title"]: " ".join((*one["notes"], one["prediction"])).strip() for one in summary["passes"]}
    told = [f"{title}: {note}" for title, note in notes.items() if note]
    return Section("Passes", ("", "changed", "expected", "kernels that ran"), rows, "\n  ".join(told))


def _expected(one: Json) -> str:
    return ", ".join(f"{kind} {units.ratio(gain)}" for kind, gain in one["predicted"].items()) or units.DASH


def _speculation(summary: Json) -> Section:
    found = summary["speculation"]
    if found is None:
        return Section("Guessed tokens", (), [])
    if not found["drafted"]:
        return Section("Guessed tokens", ("",), [("nothing was found to guess from",)])
    rows = [
        ("right", f"{units.percent(found['accepted_share'])} of {found['drafted']}"),
        ("tokens per check", units.number(found["tokens_per_verify"])),
        ("right by position", ", ".join(units.percent(share) for share in found["by_position"])),
    ]
    if found["draft_share"] is not None:
        rows.append(("time spent drafting", units.percent(found["draft_share"])))
    return Section("Guessed tokens", ("", ""), rows)


def _output(summary: Json) -> Section:
    if not summary["outputs"]:
        return Section("Output", (), [])
    first = summary["outputs"][0]
    if first["text"] is not None:
        said = _short(" ".join(first["text"].split()), _TEXT_CHARACTERS)
    elif first.get("values"):
        values = ", ".join(units.number(value) for value in first["values"][:8])
        said = f"{len(first['values'])} values: {values}{', …' if len(first['values']) > 8 else ''}"
    else:
        said = f"tokens {_short(' '.join(map(str, first['token_ids'])), _TEXT_CHARACTERS)}"
    return Section("Output of the first request", ("",), [(said,)])


def _missing(summary: Json) -> Section:
    together: dict[str, list[str]] = {}
    for item in summary["unavailable"]:
        together.setdefault(item["why"], []).append(item["what"])
    rows = []
    for why, names in together.items():
        first, *more = wrap(", ".join(names), _NAMES_CHARACTERS, break_long_words=False) or [""]
        rows += [(first, why), *((line, "") for line in more)]
    return Section("Not measured", ("", ""), rows)


def _short(value: str, characters: int) -> str:
    return value if len(value) <= characters else f"{value[: characters - 1]}…"
