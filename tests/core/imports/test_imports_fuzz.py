"""Damaged traces give a run or a sentence with the file's name, and never take long: mutated ones, and the worst shapes."""

from __future__ import annotations

import os

import pytest

from benchmarks import fuzz_traces
from core.errors import Refusal
from core.imports import kineto
from core.records.deltas import Written
from core.session.store import SessionStore
from tests.support.traces import imported, kernel, launch, memory, slice_of, told


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


def test_half_a_character_can_be_kept(tmp_path):
    rows = [
        r'{"ph":"X","name":"a\ud800b","cat":"x\udfffy","pid":"p\ud800","ts":1,"dur":1,"args":{"Input Dims":["\ud800"]}}',
        r'{"ph":"C","name":"c\ud800","ts":1,"args":{"k\ud800":1}}',
        r'{"ph":"i","name":"i\udc00","ts":1},{"ph":"X","name":"\ud83d\ude00 \\ud800","ts":2,"dur":1}',
        r'{"ph":"X","cat":"user_annotation","name":"region\ud800","ts":0,"dur":5}',
    ]
    run = imported(tmp_path / os.fsdecode(b"t\xff.json"), f"[{','.join(rows)}]")
    assert run.name == "t?.json"
    assert {"a�b", "😀 \\ud800"} <= set(run.trace.names)
    assert run.trace.instants[0].label == "i�"
    store = SessionStore.open(tmp_path / "s.tickscope")
    number = store.begin(run)
    store.append(number, run.trace, Written())
    assert store.read(number).trace.names == run.trace.names
    store.close()
