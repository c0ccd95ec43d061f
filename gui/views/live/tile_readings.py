"""What the tiles say: each headline number read from a run's summary, with how sure it is, or why it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from core import units
from core.analysis import metrics
from core.analysis.metrics import Metric
from core.models.base import generates
from core.records.run import Run
from gui.views import quality_text

Json = Mapping[str, Any]
NO_RUN = "no run yet"
FIRST = "waiting for numbers"  # of a run that has just begun
IMPORTED = "imported trace"
SHORT = 28  # letters of a reason that shares its tile with another line
NOTICEABLE = 0.02  # an observer effect below this is no reason to warn, however surely it is known
DISTURBED = "Other processes or the hypervisor disturbed every moment there was; on a quiet machine the number may be another"
NOISY = 0.10  # share of perturbed moments from which a run is not to be trusted


class Reading(NamedTuple):
    """What a tile shows: the number and its unit, the line below, and how it is meant ("good", "warn" or "")."""

    value: str
    unit: str
    sub: str
    tone: str = ""
    why: str = ""  # of a dash that has something else to say in the line below
    detail: str = ""  # for the tooltip, where the tile has no room for it
    provisional: bool = False  # of warm-up: shown, and not what counts


def missing(why: str) -> Reading:
    """Not measured: a dash and the reason."""
    return Reading(units.DASH, "", why)


class Spec(NamedTuple):
    """One tile: its object name, label, definition, and how it reads a summary."""

    name: str
    label: str
    definition: str
    read: Callable[[Json], Reading]
    of_run: Callable[[Run], Reading] | None = None  # instead of ``read``: from the run itself


def _spread(summary: Json, name: str) -> Json:
    return _mapping(_mapping(summary, "metrics"), name)


def _why(summary: Json, *whats: str) -> str:
    """The reason that the summary gives for one of these ids being missing, "" for none."""
    return next((str(item["why"]) for item in summary.get("unavailable", ()) if item["what"] in whats), "")


def _final(summary: Json, *whats: str) -> str:
    """As ``_why``, once the run is over: until then it is only not measured *yet*."""
    return "" if _running(summary) else _why(summary, *whats)


def _gaps(number: int) -> str:
    return f"{number} gap" if number == 1 else f"{number} gaps"


def _certainty(spread: Json, show: Callable[[float | None], tuple[str, str]]) -> str:
    """``± 0.4 · n 8``: half the width of the 95 % interval in the value's unit, and how many samples.

    ``12.1–13 · n 4``: too few for an interval, so the range of what was seen.
    """
    count = f"n {spread.get('n', 0)}"
    low, high, median = spread.get("low"), spread.get("high"), spread.get("median")
    if low is None or high is None or median is None:
        return _range(spread, show) + count
    half = (high - low) / 2
    unit = show(median)[1]
    number, its_unit = show(half)
    return f"± {number}{'' if its_unit == unit else ' ' + its_unit} · {count}"


def _range(spread: Json, show: Callable[[float | None], tuple[str, str]]) -> str:
    """``12.1–13 · ``, in the median's unit where both bounds have it; "" for a single value."""
    least, most = spread.get("least"), spread.get("most")
    if least is None or most is None or spread.get("requests", 0) < 2:
        return ""
    (low, low_unit), (high, high_unit) = show(least), show(most)
    unit = show(spread.get("median"))[1]
    if low_unit == high_unit == unit:
        return f"{low}–{high} · "
    return f"{low} {low_unit}–{high} {high_unit} · "


def _marked(reading: Reading, spread: Json) -> Reading:
    """The reading, dimmed where it is of warm-up because there is nothing else yet, and a warning where nothing was calm."""
    if spread.get("disturbed") and not spread.get("provisional"):
        return reading._replace(tone="warn", sub=f"disturbed · {reading.sub}", detail=DISTURBED)
    return reading._replace(provisional=bool(spread.get("provisional")))


def _mapping(summary: Json, name: str) -> Json:
    """A part of the summary that may be null or, in older files, not there at all."""
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


def _running(summary: Json) -> bool:
    return summary.get("status") == "running"


def _waiting(summary: Json, what: str) -> str:
    if summary.get("status") == "imported":
        return IMPORTED
    return f"waiting for {what}" if _running(summary) else f"no clean {what}"


def _encoder(summary: Json) -> bool:
    return not generates(summary.get("model", {}).get("task"))


def _plain(metric: Metric) -> Callable[[Json], Reading]:
    """How a metric is read that needs nothing else said of it: its median, or the one value that it has."""

    def read(summary: Json) -> Reading:
        show = units.split_of_unit(metric.unit)
        if metric.table in (metrics.MEMORY, metrics.START):
            found = (summary if metric.table == metrics.START else _mapping(summary, "memory")).get(metric.id)
            if found is None:
                return missing(_final(summary, metric.id) or _waiting(summary, "moment"))
            return Reading(*show(found), "")
        spread = _spread(summary, metric.id)
        if spread.get("median") is None:
            why = "encoders give none" if _encoder(summary) else _waiting(summary, _MADE_OF.get(metric.made_of, "moment"))
            return missing(_final(summary, metric.id) or why)
        return _marked(Reading(*show(spread["median"]), _certainty(spread, show)), spread)

    return read


_MADE_OF = {metrics.FIRST: "prefill", metrics.LATER: "decode"}


def _tpot(summary: Json) -> Reading:
    return _drifting(_plain_tpot(summary), summary)


def _drifting(reading: Reading, summary: Json) -> Reading:
    """The reading with a warning where times changed along the run."""
    told = str(_mapping(summary, "drift").get("told") or "")
    if not told or reading.value == units.DASH:
        return reading
    change = units.signed_percent(1 + summary["drift"]["change"])
    return reading._replace(sub=f"drift {change} · {reading.sub}", tone="warn", detail=told)


def _plain_tpot(summary: Json) -> Reading:
    spread = _spread(summary, "tpot_ns")
    if spread.get("median") is None:
        if _encoder(summary):
            return _forward(summary)
        return missing(_final(summary, "tpot_ns") or _waiting(summary, "decode"))
    return _marked(Reading(*units.split_duration(spread["median"]), _certainty(spread, units.split_duration)), spread)


def _forward(summary: Json) -> Reading:
    spread = _spread(summary, "e2e_ns")
    if spread.get("median") is None:
        return missing("encoders give none")
    return missing(f"encoder: {units.duration(spread['median'])} a call")


def _itl(summary: Json) -> Reading:
    """The highest percentile that there are enough gaps for, else the median with the maximum."""
    spread = _spread(summary, "itl_ns")
    if spread.get("median") is None:
        why = "encoders give none" if _encoder(summary) else _waiting(summary, "decode")
        return missing(_final(summary, "itl_ns") or why)
    if spread.get("p95") is not None:
        return _marked(Reading(*units.split_duration(spread["p95"]), f"p95 · {_gaps(spread['n'])}"), spread)
    return _marked(Reading(*units.split_duration(spread["median"]), f"median · {_gaps(spread['n'])}"), spread)


def _decode(summary: Json) -> Reading:
    spread = _spread(summary, "decode_tokens_per_s")
    if spread.get("median") is None:
        spread = _spread(summary, "input_tokens_per_s")
        if spread.get("median") is not None:
            return Reading(*units.split_rate(spread["median"]), "positions read")
        return missing(_final(summary, "decode_tokens_per_s") or _waiting(summary, "decode"))
    batch = summary.get("workload", {}).get("batch", 1)
    sub = _certainty(spread, units.split_rate)
    return _marked(Reading(*units.split_rate(spread["median"]), sub if batch == 1 else f"batch {batch} · {sub}"), spread)


def _memory(summary: Json) -> Reading:
    memory = summary.get("memory", {})
    on_device = memory.get("device_peak_bytes")
    peak = on_device if on_device is not None else memory.get("rss_peak_bytes")
    if peak is None:
        imported = summary.get("status") == "imported"
        return missing(
            IMPORTED if imported else _why(summary, "host_memory", "device_memory", "peak memory") or "not sampled in this run"
        )
    weights = memory.get("weights_bytes")
    return Reading(*units.split_size(peak), "weights not known" if weights is None else f"weights {units.size(weights)}")


def _cycles(summary: Json) -> Reading:
    """Cycles with the instructions per cycle; without counters what the kernel's clock of the threads says."""
    cycles = _spread(summary, "cycles_per_token").get("median")
    if cycles is not None:
        number, _, unit = units.count(cycles).partition(" ")
        instructions = _spread(summary, "instructions_per_token").get("median")
        ipc = f"IPC {instructions / cycles:.2f}" if instructions is not None and cycles > 0 else "IPC not counted"
        return Reading(number, unit, ipc)
    cpu = _spread(summary, "cpu_ns_per_token").get("median")
    missed = _mapping(_mapping(_mapping(summary, "instruments"), "cycles"), "missing").get("cycles")
    why = str(missed or _final(summary, "cycles") or _waiting(summary, "decode"))
    if cpu is None:
        return missing(why)
    short = why if len(why) <= SHORT else "no counters to read"
    return Reading(units.DASH, "", f"CPU {units.duration(cpu)}", why=short, detail=why)


def _energy(summary: Json) -> Reading:
    energy = _mapping(summary, "energy")
    joules = energy.get("joules_per_token")
    if joules is None:
        imported = summary.get("status") == "imported"
        return missing(IMPORTED if imported else _why(summary, "energy") or "no energy counter was read")
    value, unit = (joules, "J") if joules >= 0.9995 else (1e3 * joules, "mJ")
    period = energy.get("period_s")
    every = f" · {units.duration(1e9 * period)}" if period else ""
    return Reading(units.number(value), unit, f"{energy.get('source') or 'source unknown'}{every}")


def _noise(summary: Json) -> Reading:
    noise = _mapping(summary, "noise")
    share = noise.get("perturbed_share", _mapping(summary, "observer_effect").get("perturbed_share"))
    if share is None or summary.get("status") == "imported":
        return missing(_final(summary, "noise") or _waiting(summary, "moment"))
    value = units.percent(share).removesuffix(" %")
    return Reading(value, "%", _disturbers(noise), "warn" if share > NOISY or noise.get("busy") else "good")


def _disturbers(noise: Json) -> str:
    """What disturbed, worst first; what can hardly have is left out."""
    competitors = noise.get("competitors") or ()
    felt = []
    for name, words in (("others_share", "others"), ("steal_share", "steal")):
        share = noise.get(name)
        if share is not None and share >= 0.005:
            felt.append((share, f"{words} {units.percent(share)}"))
    switches = noise.get("switches_per_s")
    if switches is not None and switches >= 0.5:
        felt.append((switches / 1000, f"{switches:.1f} switches/s"))
    felt.sort(reverse=True)
    parts = [str(competitors[0])] if competitors else []
    parts += [text for _, text in felt]
    known = any(noise.get(name) is not None for name in ("others_share", "steal_share", "switches_per_s"))
    return " · ".join(parts) or ("all quiet" if known else "of all moments")


def _observer(summary: Json) -> Reading:
    effects = summary.get("observer_effect", {})
    effect = next((effects[kind] for kind in ("decode", "verify", "forward", "prefill") if effects.get(kind)), None)
    paused = f"paused {units.duration(effects['paused_ns'])}" if effects.get("paused_ns") else "no pause"
    if effect is None:
        return missing(_final(summary, "observer_effect") or _waiting(summary, "traced pair"))
    change = units.signed_percent(effect["ratio"]).removesuffix(" %")
    low, high = effect.get("low"), effect.get("high")
    if low is None or high is None:
        seen = f"{units.signed_percent(effect['least'])} … {units.signed_percent(effect['most'])} of {effect['n']}"
        return Reading(change, "%", seen, detail=f"Too few comparisons for an interval, so nothing is claimed; {paused}.")
    proven = not low <= 1 <= high and abs(effect["ratio"] - 1) >= NOTICEABLE
    bounds = f"{units.signed_percent(low)} … {units.signed_percent(high)}"
    return Reading(change, "%", f"{bounds} · {paused}", "warn" if proven else "good")


def _quality(run: Run) -> Reading:
    """What the passes cost, in the figure that fits the kind of model."""
    told = quality_text.told(run)
    if told.why:
        return missing(told.why)
    return Reading(told.value, told.unit, told.below, told.tone, detail=told.sentence)


class _Special(NamedTuple):
    """What a metric's tile says otherwise than others: its label, its reading, and how that is to be taken."""

    label: str = ""
    read: Callable[[Json], Reading] | None = None
    taken: str = ""


_SPECIAL = {
    "decode_tokens_per_s": _Special(read=_decode, taken="Median over requests."),
    "ttft_ns": _Special(
        taken="Median of clean, warm requests; ± is half the 95 % interval, n the number of requests. Fewer than six cannot "
        "give an interval, and the range of what was measured stands in its place."
    ),
    "tpot_ns": _Special("TPOT p50", _tpot, "Median over requests; n is their number."),
    "itl_ns": _Special(read=_itl, taken="p95 is shown from 130 gaps on; below that, the median."),
    "rss_peak_bytes": _Special(read=_memory, taken="On an accelerator the device's peak stands in its place."),
    "cycles_per_token": _Special(
        "Cycles / token",
        _cycles,
        "IPC is instructions per cycle. Without counters: time on a processor, summed over those threads.",
    ),
    "joules_per_token": _Special("Energy / token", _energy, "By the counter named below and at its period."),
}

_OTHERS = {  # by their place among the tiles: what is put together of several figures
    6: Spec("statQuality", "Quality cost", quality_text.DEFINITION, lambda _: missing(NO_RUN), of_run=_quality),
    7: Spec(
        "statNoise",
        "Noise",
        "Share of moments that something disturbed: the window painted, the system took the processor away (switches), the "
        "hypervisor gave it to others (steal), or other programs computed (others). They are tagged, and left out of headline "
        f"numbers while others remain. Above {100 * NOISY:.0f} % the machine is too busy to measure.",
        _noise,
    ),
    8: Spec(
        "statObserver",
        "Observer effect",
        "What watching costs: each traced moment against the clean ones beside it, so that a drift of the machine cancels out; "
        "the median of these ratios with its 95 % interval, or their range where there are fewer than six. It warns only where "
        "the interval leaves zero outside. Headline numbers come from clean moments only, so this is not in them. Pauses for "
        "painting stop the clock.",
        _observer,
    ),
}


def specs() -> tuple[Spec, ...]:
    """All tiles, the most important first: where they take two rows, the first row is the headline."""
    placed = {one.tile: _of_metric(one) for one in metrics.METRICS if one.tile is not None} | _OTHERS
    return tuple(placed[place] for place in sorted(placed))


def _of_metric(metric: Metric) -> Spec:
    special = _SPECIAL.get(metric.id, _Special())
    name = "".join(word[:1].upper() + word[1:] for word in metric.title.split())
    definition = f"{metric.explained} {special.taken}".rstrip()
    return Spec(f"stat{name}", special.label or metric.called, definition, special.read or _plain(metric))
