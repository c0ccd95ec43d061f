"""Drift along a run is found, sized and told; steady noise is not; parts sum to the moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.analysis.drift import drift, sentence, trend
from core.analysis.series import layer_rows, stages
from core.analysis.summary import summarize
from core.commands import report
from core.records.run import Run
from tests.support.synthetic import synthetic_run


def drifting(run: Run, change: float) -> Run:
    """The run with requests that get slower by so much from the first measured one to the last."""
    moments, requests = run.trace.moments, run.trace.requests
    measured = np.flatnonzero((requests["tags"] & 1 << 1) == 0)
    place = np.clip((moments["request"] - measured[0]) / (len(requests["tags"]) - 1 - measured[0]), 0, 1)
    factor = (1 + change) ** place
    slower = {name: (moments[name] * factor).astype(np.int64) for name in ("duration_ns", "latency_ns")}
    return replace(run, trace=replace(run.trace, moments={**moments, **slower}))


def test_a_run_from_34_to_54_ms_is_named() -> None:
    rng = np.random.default_rng(1)
    found = trend(np.linspace(34, 54, 12) * np.exp(rng.normal(0, 0.03, 12)))
    assert found is not None
    assert found.told
    assert found.change == pytest.approx(54 / 34 - 1, abs=0.1)
    assert str(sentence(found)).startswith("Requests got ")
    assert "slower" in str(sentence(found))
    back = trend(np.linspace(54, 34, 12))
    assert back is not None
    assert "37 % faster" in str(sentence(back))


def test_steady_noise_is_called_a_drift_in_one_of_a_hundred_runs_at_most() -> None:
    rng = np.random.default_rng(2)
    told = [bool(sentence(trend(rng.lognormal(0, 0.2, 12)))) for _ in range(1500)]
    assert 0 < np.mean(told) <= 0.012


@pytest.mark.parametrize("values", [[], [1.0] * 5, [1.0, np.nan]])
def test_few_values_have_no_trend(values: list[float]) -> None:
    assert trend(values) is None
    assert sentence(None) is None


def test_equal_values_have_no_trend_and_many_are_quick() -> None:
    equal = trend(np.full(9, 2.0))
    assert equal is not None
    assert (equal.change, equal.told) == (0, False)
    many = trend(np.linspace(1, 2, 100_000))
    assert many is not None
    assert many.change == pytest.approx(1, abs=0.05)


def test_summary_and_report_tell_it() -> None:
    run = synthetic_run(repeats=10, seed=1, blocks=2)
    steady, slower = summarize(run), summarize(drifting(run, 0.6))
    assert steady["drift"]["told"] == ""
    assert slower["drift"]["change"] == pytest.approx(0.6, abs=0.12)
    assert slower["drift"]["told"] in report.text(slower)
    assert "Drift" not in report.text(steady)
    assert summarize(synthetic_run(repeats=3))["drift"] is None
    assert drift(run) is not None


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_stages_sum_to_the_clean_moment_and_layers_to_the_model(kind: str) -> None:
    run = synthetic_run(repeats=6, seed=4, blocks=3)
    found = stages(run, kind)
    inside = [time for stage, time in zip(found.stages, found.time_ms, strict=True) if stage not in ("tokenize", "sample")]
    table = layer_rows(run)
    rows = [row for row in range(len(table)) if table.kind[row] == kind]
    model = next(row for row in rows if table.path[row] == "")
    assert sum(table.self_ns[row] for row in rows) == pytest.approx(table.total_ns[model])
    clean_ns = table.self_ns[model] / table.share[model]
    assert sum(inside) * 1e6 == pytest.approx(clean_ns)  # the median clean moment


@pytest.mark.parametrize("timed", ["model", "blocks"])
@pytest.mark.parametrize("read", [0.0, 0.2])
def test_a_stage_is_the_sum_of_its_layers_as_the_layer_table_has_them(timed: str, read: float) -> None:
    """``read``: that share of the time in blocks went into reading counters, which own times are without."""
    run = outside_of_the_model(synthetic_run(repeats=6, seed=4, blocks=3), read, model=timed == "model")
    found, table = stages(run, "decode"), layer_rows(run)
    for stage, time_ms in zip(found.stages, found.time_ms, strict=True):
        own = [table.self_ns[row] for row in range(len(table)) if (table.kind[row], table.stage[row]) == ("decode", stage)]
        if stage not in ("tokenize", "sample", "other"):
            assert time_ms * 1e6 == pytest.approx(sum(own)), stage
    shares = sum(share for share, kind in zip(table.share, table.kind, strict=True) if kind == "decode")
    assert 0.5 < shares < 0.95  # the rest lies outside of the model, in "other"


def outside_of_the_model(run: Run, read: float, *, model: bool) -> Run:
    """The run with half a moment more around the model, own times less what reading took, and the model timed or not."""
    spans = {name: column.copy() for name, column in run.trace.spans.items()}
    inside = spans["layer"] != 0
    spans["self_ns"][inside] = (spans["self_ns"][inside] * (1 - read)).astype(np.int64)
    if not model:
        spans = {name: column[inside] for name, column in spans.items()}
    moments = {name: column.copy() for name, column in run.trace.moments.items()}
    moments["duration_ns"] = (moments["duration_ns"] * 1.5).astype(np.int64)
    return replace(run, trace=replace(run.trace, spans=spans, moments=moments))
