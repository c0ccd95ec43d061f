"""Damaged traces give a run or a sentence with the file's name, and never take long: mutated ones, and the worst shapes."""

from __future__ import annotations

import pytest

from benchmarks import fuzz_traces
from core.errors import Refusal
from core.imports import kineto
from tests.traces import imported, kernel, launch, memory, slice_of, told


@pytest.mark.parametrize("seed", [3_000_000, 4_000_000])
def test_mutated_traces_are_runs_or_refusals(seed, tmp_path):
    found = {}
    for number in range(120):
        found.setdefault(fuzz_traces.outcome(fuzz_traces.written(tmp_path, seed + number)), []).append(seed + number)
    assert found.keys() == {"run", "refused"}, found


@pytest.mark.parametrize("error", [KeyError("x"), Refusal("Nothing is said about which file it was.")])
def test_the_benchmark_sees_what_is_wrong(error, tmp_path, monkeypatch):
    def broken(path):
        raise error

    monkeypatch.setattr(kineto, "read_trace", broken)
    assert fuzz_traces.outcome(tmp_path / "t.json") not in ("run", "refused")


MANY = 3000
WORST = {
    "quotation marks": ",".join(f'{{"ph":"X","name":"a,"ts":{n}}}' for n in range(MANY)),
    "open braces": '{"ph":{' * MANY,
    "deep objects": ('{"ph":"X","args":' + '{"a":' * MANY + "},{") * 30,
    "open texts": '{"ph":"' * MANY,
    "stray values": "1," * 20 * MANY,
    "lists": "[" * 20 * MANY,
}


@pytest.mark.parametrize("shape", WORST)
def test_no_shape_takes_more_than_linear_time(shape, tmp_path):
    with pytest.raises(Refusal, match=r"t\.json holds no event"):
        imported(tmp_path / "t.json", f"[{WORST[shape]}]")


def test_a_name_of_thousands_of_escapes_is_a_name(tmp_path):
    name = "a\nb\\" * MANY
    run = imported(tmp_path / "t.json", [slice_of(name, 1, 1)])
    assert run.trace.names[0] == name


def test_thousands_of_processes(tmp_path):
    events = [slice_of("ProfilerStep#1", 10 * n, 9, "user_annotation", n) for n in range(MANY)]
    events += [launch("launch", 10 * n, n, n) for n in range(MANY)]
    events += [kernel("k", 10 * n, 1, n, n) for n in range(MANY)]
    events += [{**memory(10 * n, 1), "pid": n} for n in range(MANY)]
    run = imported(tmp_path / "t.json", events)
    assert len(run.trace.moments["kind"]) == 256
    assert len(run.trace.tracks) == 1000
    assert len(set(run.trace.operators["lane"].tolist())) == 2 * MANY - 1, "launches and kernels, one lane is both"
    assert {"steps of more than 256 processes", "allocations of more than 1000 devices and processes"} <= told(run).keys()
