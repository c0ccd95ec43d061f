"""An A/B test for people: where it stands as one line, and its result as JSON and as a few tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from core import units
from core.analysis import metrics
from core.analysis.summary import summarize
from core.analysis.verdict import Verdict, layer_verdicts
from core.analysis.word import Word
from core.commands.output import table
from core.messages.reason import of_text
from core.notices import Status
from profilers.trace import PLACES

if TYPE_CHECKING:
    from core.analysis.verdict import SideVerdict
    from core.execution.ab_test_state import ABTestState
    from core.records.run import Run

Json = dict[str, Any]

NAMES = "ABCDEFGH"
_LAYERS_SHOWN = 12
_KERNELS_SHOWN = 8


def standing(status: Status, state: ABTestState | None) -> Status:
    """The program's status with the running verdict: ``round 12 of at most 60: B/A 0.93 (0.90–0.97) faster``."""
    if state is None or not state.verdicts or state.stopped is not None or status.state != "running":
        return status
    # the round alone, without side and moment, so that on a log the line changes once a round
    return replace(status, said=(of_text(f"{''.join(map(str, status.said[:1]))}: {' · '.join(_said(state.verdicts))}"),))


def _said(verdicts: Sequence[SideVerdict]) -> list[str]:
    said = []
    for one in verdicts:
        main = one.main
        if main is not None:
            said.append(f"{NAMES[one.side]}/A {_interval(asdict(main))} {main.word.said if main.looked else 'no look yet'}")
    return said


def trial_json(state: ABTestState) -> Json:
    """The result as ``ab --json`` writes it (see ``core.commands.ab``)."""
    runs = state.runs
    part = runs[0].facts.trial
    sides = len(state.config.sides)
    return {
        "schema": 1,
        "trial": {
            "id": part.id if part is not None else None,
            "same": state.config.same,
            "rounds": len(state.order) // sides,
            "order": list(state.order),
            "most_rounds": state.config.most_rounds,
            "most_seconds": state.config.most_seconds,
            "parts": part.parts if part is not None else None,
        },
        "sides": [summarize(run) for run in runs],
        "verdicts": [{"side": one.side, "name": NAMES[one.side], "metrics": _metrics(one.metrics)} for one in state.verdicts],
        "layers": [asdict(one) for one in layer_verdicts(runs, state.floors)] if len(runs) == sides else [],
        "kernels": _kernels(runs),
        "floors": dict(state.floors),
        "stopped": None if state.stopped is None else str(state.stopped),
    }


def _metrics(metrics: Mapping[str, Verdict]) -> Json:
    return {name: verdict.as_json() for name, verdict in metrics.items()}


def _kernels(runs: Sequence[Run]) -> list[Json]:
    """What ran on each side, as far as it was named, and what only there."""
    names = [_names(run) for run in runs]
    found = []
    for side, mine in enumerate(names):
        others = {name for number, theirs in enumerate(names) if number != side for name in theirs}
        all_named = all(names)  # what nobody looked for is not known to be missing
        only = [name for name in mine if name not in others] if all_named else []
        found.append({"side": side, "name": NAMES[side], "names": mine, "only_here": only})
    return found


def _names(run: Run) -> list[str]:
    """Kernels that passes led to, and all operators and kernels where the run was profiled."""
    found = dict.fromkeys(kernel for report in run.facts.passes for kernel in report.kernels)
    operators = run.trace.operators
    wanted = np.isin(operators["place"], [PLACES.index("cpu"), PLACES.index("kernel")])
    found.update(dict.fromkeys(run.trace.names[row] for row in np.unique(operators["name"][wanted]) if row >= 0))
    return list(found)


def text(result: Json) -> str:
    """The report as plain text."""
    sides = [
        f"{NAMES[number]}  {side['name']} ({side['status']})" + (f": {side['error']}" if side["error"] else "")
        for number, side in enumerate(result["sides"])
    ]
    parts = ["\n".join(sides), _verdicts(result), _quality(result), _floors(result), _layers(result), _kernel_lines(result)]
    rounds = result["trial"]["rounds"]
    parts.append(f"Ended after {rounds} {'round' if rounds == 1 else 'rounds'}: {result['stopped'] or 'cut short'}.")
    return "\n\n".join(part for part in parts if part)


def _verdicts(result: Json) -> str:
    rows, why = [], []
    for side in result["verdicts"]:
        for metric, one in side["metrics"].items():
            name = f"{side['name']}/A {metrics.title(metric)}"
            floor = units.percent(one["floor"]) if one["floor"] else units.DASH
            # an A/A test asks for a floor; which of two equals is faster is no question
            word = units.DASH if result["trial"]["same"] or not one["looked"] else str(Word(one["word"]).said)
            rows.append((name, _ratio(one["ratio"]), _bounds(one), word, str(one["n"]), floor))
            why.append(f"  {name}: {one['why']}")
    if not rows:
        return ""
    head = table(("", "time, ×", "95 %, whole test", "verdict", "pairs", "floor"), rows)
    return head if result["trial"]["same"] else f"{head}\n" + "\n".join(why)


_FIGURES = {
    "kld_mean": "KLD in bulk",
    "decode_kld_mean": "KLD decoding",
    "same_top": "same top",
    "decode_same_top": "same top decoding",
    "token_agreement": "equal tokens",
    "cosine_mean": "cosine",
    "accuracy": "accuracy",
    "accuracy_before": "accuracy before",
}


def _quality(result: Json) -> str:
    """What each side's passes cost, against the model without them; a dash where there is none or it was not measured."""
    found = [(side.get("quality") or {}).get("figures", {}) for side in result["sides"]]
    shown = [name for name in _FIGURES if any(name in figures for figures in found)]
    if not shown:
        return ""
    rows = [(NAMES[number], *(_figure(name, figures.get(name)) for name in shown)) for number, figures in enumerate(found)]
    return "Quality cost against the unoptimized model\n" + table(("", *(_FIGURES[name] for name in shown)), rows, "  ")


def _figure(name: str, figure: Mapping[str, Any] | None) -> str:
    """``0.0123 ± 0.0004``, or a share in percent."""
    if figure is None:
        return units.DASH
    form: Callable[[float], str] = units.number if "kld" in name or "cosine" in name else units.percent
    return form(figure["value"]) + ("" if figure["error"] is None else f" ± {form(figure['error'])}")


def _floors(result: Json) -> str:
    if not result["trial"]["same"]:
        return ""
    if not result["floors"]:
        return "No noise floor was found: too few rounds were measured."
    rows = [(metrics.title(metric), f"± {100 * floor:.2g} %") for metric, floor in result["floors"].items()]
    return "Noise floor of this machine for this workload: smaller differences cannot be told\n" + table(("", ""), rows, "  ")


def _layers(result: Json) -> str:
    told = [row for row in result["layers"] if row["word"] != Word.UNDECIDED]
    if not result["layers"] or result["trial"]["same"]:
        return ""
    title = f"Layers: {len(told)} of {len(result['layers'])} told apart (of those 5 % may be false; traced rounds)"
    most = sorted(told, key=lambda row: -abs(row["b_ns"] - row["a_ns"]))[:_LAYERS_SHOWN]
    rows = [
        (
            f"{NAMES[row['side']]}/A",
            row["path"] or "(model)",
            row["kind"],
            units.duration(row["a_ns"]),
            units.duration(row["b_ns"]),
            _interval(row),
            str(Word(row["word"]).said),
        )
        for row in most
    ]
    return f"{title}\n{table(('', 'layer', 'kind', 'A', 'side', 'time, ×', ''), rows, '  ')}" if rows else title


def _kernel_lines(result: Json) -> str:
    lines = []
    for one in result["kernels"]:
        names = one["only_here"] or []
        if names:
            more = f" and {len(names) - _KERNELS_SHOWN} more" if len(names) > _KERNELS_SHOWN else ""
            lines.append(f"  only {one['name']}: {', '.join(names[:_KERNELS_SHOWN])}{more}")
        elif one["names"] and not all(other["names"] for other in result["kernels"]):
            lines.append(f"  {one['name']}: {', '.join(one['names'][:_KERNELS_SHOWN])}")
    return "Kernels that ran\n" + "\n".join(lines) if lines else ""


def _ratio(value: float | None) -> str:
    return units.DASH if value is None else f"{value:.3f}"


def _bounds(one: Mapping[str, Any]) -> str:
    return units.DASH if one["low"] is None else f"{one['low']:.3f}–{one['high']:.3f}"


def _interval(one: Mapping[str, Any]) -> str:
    """``0.93 (0.90–0.97)``; without bounds the ratio alone, without a ratio a dash."""
    if one["ratio"] is None:
        return units.DASH
    return f"{one['ratio']:.2f}" + ("" if one["low"] is None else f" ({one['low']:.2f}–{one['high']:.2f})")
