"""Live pictures of a long run: what is continued equals what is added up anew, and costs only what came since."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.analysis import series
from core.analysis.outline_sums import OutlineSums
from core.analysis.summary import summarize
from core.records.run import Run
from profilers.trace import Recorder, Tag, Trace
from tests.support.synthetic import llama_layers, record_moment, synthetic_run

PLAIN = synthetic_run(repeats=1, new_tokens=2, blocks=2)


def run_of(trace: Trace) -> Run:
    return replace(PLAIN, trace=trace, facts=replace(PLAIN.facts, status="running"))


def growing(blocks: int = 3) -> tuple[Recorder, Any]:
    recorder, rng = Recorder(), np.random.default_rng(1)
    recorder.set_layers(llama_layers(blocks))

    def grow(moments: int, scale: float = 1.0) -> None:
        first = recorder.requests.append(tags=0, start_ns=0, tokenize_ns=0, end_ns=-1, input_tokens=5, output_tokens=moments)
        start = recorder.moments.count * 12_000_000
        for step in range(moments):
            tags = Tag.TRACED if step % 2 else Tag.CLEAN
            begun = recorder.spans.count
            start = record_moment(recorder, rng, request=first, step=step, tags=tags, start_ns=start, scale=scale)
            for row in range(begun, recorder.spans.count, 3):  # of some layers only
                recorder.spans.set(row, cycles=1000 + row, instructions=2000 + row)
        recorder.requests.set(first, end_ns=start)

    return recorder, grow


@pytest.mark.parametrize("quantity", ["time", "cycles", "ipc"])
def test_a_picture_that_is_continued_equals_one_that_is_made_anew(quantity: str) -> None:
    recorder, grow = growing()
    kept = series.heat_sums(quantity)
    for moments in (1, 7, 2, 12):
        grow(moments)
        run = run_of(recorder.snapshot())
        ours, anew = series.heat(run, quantity=quantity, kept=kept), series.heat(run, quantity=quantity)
        for name in ("labels", "quantities", "unit"):
            assert getattr(ours, name) == getattr(anew, name)
        for name in ("layer_rows", "moments", "milliseconds", "values"):
            assert np.array_equal(getattr(ours, name), getattr(anew, name), equal_nan=True)
    assert ours.values.shape[1] == 10
    assert np.isfinite(ours.values).any()


def test_the_sums_are_those_of_the_spans() -> None:
    recorder, grow = growing(blocks=1)
    grow(4)
    sums = OutlineSums().of(run_of(recorder.snapshot()))
    spans, row = recorder.spans.view(), [piece.label for piece in sums.pieces].index("layers.0")
    block = [layer.path for layer in recorder.layers].index("model.layers.0")
    for moment in range(4):
        mine = (spans["moment"] == moment) & (spans["layer"] == block)
        assert sums.total_ns[row, moment] == spans["duration_ns"][mine].sum()
        assert sums.calls[row, moment] == mine.sum() == moment % 2


def test_spans_of_a_moment_that_is_not_closed_wait_for_it() -> None:
    recorder, grow = growing()
    grow(4)
    whole = recorder.snapshot()
    early = replace(whole, moments={name: column[:3] for name, column in whole.moments.items()})
    kept = OutlineSums()
    assert kept.of(run_of(early)).total_ns.shape[1] == 3
    assert np.array_equal(kept.of(run_of(whole)).total_ns, OutlineSums().of(run_of(whole)).total_ns)


def test_another_run_begins_anew() -> None:
    (first, grow_first), (second, grow_second) = growing(), growing()
    grow_first(6)
    grow_second(9, 2.0)
    kept = OutlineSums()
    kept.of(run_of(first.snapshot()))
    other = run_of(second.snapshot())  # even where its id is the same
    assert np.array_equal(kept.of(other).total_ns, OutlineSums().of(other).total_ns)


def test_what_came_long_ago_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, grow = growing()
    seen: list[int] = []
    add = OutlineSums._add

    def counting(self: OutlineSums, run: Run, new: slice) -> None:
        seen.append(new.stop - new.start)
        add(self, run, new)

    monkeypatch.setattr(OutlineSums, "_add", counting)
    kept = OutlineSums()
    for _ in range(5):
        grow(8)
        kept.of(run_of(recorder.snapshot()))
    assert len(set(seen)) == 1
    assert sum(seen) == recorder.spans.count


def test_a_live_summary_is_of_the_newest_moments_and_the_final_one_of_all() -> None:
    recorder, grow = growing()
    grow(20, 4.0)
    for _ in range(8):
        grow(20)  # 80 traced moments that are four times as fast
    run = run_of(recorder.snapshot())
    live, final = summarize(run, intervals=False, newest=series.NEWEST), summarize(run, intervals=False)
    assert live["metrics"] == final["metrics"]
    assert {row["path"] for row in live["layers"]} == {row["path"] for row in final["layers"]}
    few = series.stages(run, "decode", 5)
    spans, moments = run.trace.spans, run.trace.moments
    newest = np.flatnonzero((moments["tags"] & int(Tag.TRACED)) != 0)[-5:]
    stage = np.array([layer.stage for layer in run.trace.layers])
    own = np.array(
        [
            [spans["self_ns"][(spans["moment"] == at) & (spans["layer"] == row)].sum() for at in newest]
            for row in range(len(stage))
        ]
    )
    rest = np.maximum(moments["duration_ns"][newest] - own.sum(axis=0), 0)
    medians = np.median(own, axis=1)
    clean = np.median(moments["duration_ns"][(moments["tags"] & int(Tag.CLEAN) != 0) & (moments["kind"] == 2)])
    expected = medians[stage == "mlp"].sum() / (medians.sum() + np.median(rest)) * clean / 1e6
    assert few.time_ms[few.stages.index("mlp")] == pytest.approx(expected)
