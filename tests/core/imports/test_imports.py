"""Traces of torch.profiler become runs; what is damaged is passed over and told, and what is no trace is refused."""

import csv
import gzip
import json
import random
import zlib

import numpy as np
import pytest

from core import cli
from core.commands.arguments import parser
from core.errors import Refusal
from core.export.base import exporters
from core.export.chrome_trace import write_trace
from core.export.trace_slices import Options
from core.imports import text
from core.imports.kineto import read_trace
from core.imports.nesting import in_reading_order, nearest, parents, self_times, strictly_nested
from core.records.deltas import Written
from core.session.store import SessionStore
from profilers.trace import KINDS, PLACES, Track
from tests.support import real_traces
from tests.support.strict_trace import read
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_operators import with_operators

BASE = 4_453_914_635_000.0


def slice_(name, ts, dur, cat="cpu_op", tid=11, pid=10, **args):
    found = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": BASE + ts, "dur": dur}
    return {**found, "args": args} if args else found


STEPS = [slice_(f"ProfilerStep#{n}", 100 * n, 80, "user_annotation") for n in (1, 2)]
EVENTS = [
    {"ph": "M", "name": "process_name", "pid": 10, "tid": 0, "ts": 0, "args": {"name": "python"}},
    *STEPS,
    slice_("nn.Module: LlamaMLP_0", 110, 60, "python_function"),
    slice_("nn.Module: Linear_3", 112, 50, "python_function"),
    slice_("aten::linear", 115, 40.5, **{"Input Dims": [[4, 32], [64, 32]], "Sequence number": 5}),
    slice_("aten::addmm", 120, 30.25, flops=4096),
    slice_("cudaLaunchKernel", 125, 5, "cuda_runtime", correlation=77),
    slice_("gemm", 205, 40, "kernel", tid=7, pid=0, stream=7, correlation=77),
    slice_("Memcpy HtoD", 260, 3, "gpu_memcpy", tid=7, pid=0, stream=7, bytes=512),
    slice_("aten::add", 210, 10),
    {"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": 10, "tid": 11, "ts": BASE + 121,
     "args": {"Total Allocated": 1024, "Bytes": 1024, "Device Type": 0, "Device Id": -1}},
    {"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": 10, "tid": 11, "ts": BASE + 122,
     "args": {"Total Allocated": 2048, "Bytes": 512, "Device Type": 1, "Device Id": 0}},
    {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": BASE + 300},
    {"ph": "C", "name": "power", "pid": 10, "ts": BASE + 130, "args": {"gpu": 250.5}},
    slice_("PyTorch Profiler (0)", 0, 400, "Trace", tid="PyTorch Profiler", pid="Spans"),
]  # fmt: skip
HEADER = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "NVIDIA L4"}], "record_shapes": 1, "host_name": "here",
          "baseTimeNanoseconds": 1_790_857_026_000_000_000}  # fmt: skip


def written(path, events=EVENTS, *, bare=False, indent=2):
    whole = events if bare else {**HEADER, "traceEvents": events, "traceName": "x"}
    path.write_text(json.dumps(whole, indent=indent), encoding="utf-8")
    return path


@pytest.mark.parametrize("base", ["1" * 400, "-" + "1" * 400, "1e999", "NaN", '"soon"', "[]", "null", "true"])
def test_a_beginning_that_is_no_time_is_no_beginning(tmp_path, base):
    path = tmp_path / "trace.json"
    path.write_text(f'{{"baseTimeNanoseconds": {base}, "traceEvents": {json.dumps(EVENTS)}}}', encoding="utf-8")
    assert read_trace(path).created > "2020"


def by_name(run):
    operators = run.trace.operators
    return {
        run.trace.names[number]: {name: column[row].item() for name, column in operators.items()}
        for row, number in enumerate(operators["name"].tolist())
    }


def whys(run):
    return {one.what: str(one.why) for one in run.facts.unavailable}


def many(count):
    rng = random.Random(0)
    at, found = 0, list(STEPS)
    for number in range(count):
        at += rng.randint(1, 9)
        found.append(slice_(f"aten::op{number % 7}", at, 0.5 + number % 3, **{"External id": number}))
    return found


def test_steps_operators_kernels_layers_memory_and_counters(tmp_path):
    run = read_trace(written(tmp_path / "t.json"))
    assert (run.facts.status, run.config.model.spec, run.name) == ("imported", "trace:t.json", "t.json")
    assert run.created.startswith("2026-11-22T")
    assert run.facts.environment == {"devices": ["NVIDIA L4"], "host_name": "here"}
    moments = run.trace.moments
    assert moments["start_ns"].tolist() == [0, 100_000]
    assert moments["duration_ns"].tolist() == [80_000, 80_000]
    assert {KINDS[kind] for kind in moments["kind"]} == {"forward"}
    found = by_name(run)
    assert "ProfilerStep#1" not in found
    assert "PyTorch Profiler (0)" not in found
    linear = found["aten::linear"]
    assert (linear["start_ns"], linear["duration_ns"], linear["self_ns"], linear["lane"]) == (15_000, 40_500, 10_250, 11)
    assert run.trace.names[linear["shapes"]] == "[[4, 32], [64, 32]]".replace(" ", "") or json.loads(
        run.trace.names[linear["shapes"]]
    ) == [[4, 32], [64, 32]]
    product = found["aten::addmm"]
    assert (product["self_ns"], product["flops"], product["allocated_bytes"]) == (25_250, 4096, 1536)
    kernel, launch, copy = found["gemm"], found["cudaLaunchKernel"], found["Memcpy HtoD"]
    assert [PLACES[one["place"]] for one in (linear, launch, kernel, copy)] == ["cpu", "runtime", "kernel", "copy"]
    assert kernel["correlation"] == launch["correlation"] == 77
    assert (kernel["moment"], found["aten::add"]["moment"], copy["bytes"]) == (0, 1, 512), "a kernel belongs to its launch"
    layers = run.trace.layers
    assert [(layer.path, layer.type, layer.stage, layer.parent) for layer in layers] == [
        ("LlamaMLP_0", "LlamaMLP", "mlp", -1),
        ("LlamaMLP_0.Linear_3", "Linear", "mlp", 0),
    ]
    assert linear["layer"] == kernel["layer"] == 1
    assert found["aten::add"]["layer"] == -1
    spans = run.trace.spans
    assert spans["duration_ns"].tolist() == [60_000, 50_000]
    assert spans["self_ns"].tolist() == [10_000, 50_000]
    assert run.trace.tracks == (Track("allocated", "bytes"), Track("device_allocated", "bytes"), Track("power gpu", "count"))
    assert run.trace.counters["value"].tolist() == [1024, 2048, 250.5]
    assert [instant.label for instant in run.trace.instants] == ["Record Window End"]
    assert list(whys(run)) == ["clean latency"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_container_gives_the_same(packed, bare, indent, tmp_path):
    path = written(tmp_path / "t.json", many(3000), bare=bare, indent=indent)
    if packed:
        data = path.read_bytes()
        path = tmp_path / "t.json.gz"
        path.write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
    run = read_trace(path)
    assert len(run.trace.operators["name"]) == 3000
    assert list(whys(run)) == ["clean latency"]
    other = read_trace(written(tmp_path / "o.json", many(3000)))
    for name, column in run.trace.operators.items():
        np.testing.assert_array_equal(column, other.trace.operators[name])


def test_a_real_trace_of_torch(tmp_path):
    path = real_traces.make(tmp_path) / "stack.json"
    run = read_trace(path)
    assert len(run.trace.moments["kind"]) == 2
    layers = {layer.path for layer in run.trace.layers}
    assert {"forward.Sequential_0", "forward.Sequential_0.Linear_0", "forward.Sequential_0.ReLU_0"} <= layers
    found = by_name(run)
    assert run.trace.layers[found["aten::addmm"]["layer"]].path.startswith("forward.Sequential_0.Linear_")
    assert found["aten::addmm"]["allocated_bytes"] == 64
    assert run.trace.names[found["aten::linear"]["shapes"]].startswith("[[2")
    assert (run.trace.operators["self_ns"] >= 0).all()
    assert list(whys(run)) == ["clean latency"]


def test_a_run_goes_out_and_comes_back(tmp_path):
    run = with_operators(synthetic_run(repeats=1, warmup=0, new_tokens=4, blocks=2), on_device=True)
    write_trace(run, tmp_path / "t.json.gz", Options(python=True))
    back = read_trace(tmp_path / "t.json.gz")
    assert list(whys(back)) == ["clean latency"]
    for name in ("duration_ns", "flops", "correlation"):
        both = [(one.trace.operators[name] >= 0).sum() for one in (run, back)]
        assert both[0] == both[1]
    assert totals(back) == totals(run)
    assert [KINDS[kind] for kind in back.trace.moments["kind"]] == [KINDS[kind] for kind in run.trace.moments["kind"]]
    for name in ("step", "start_ns", "duration_ns"):
        np.testing.assert_array_equal(back.trace.moments[name], run.trace.moments[name])
    assert span_times(back) == span_times(run)
    stages = {layer.path: (layer.type, layer.stage) for layer in run.trace.layers}
    assert all(stages[layer.path] == (layer.type, layer.stage) for layer in back.trace.layers)
    assert set(back.trace.tracks) == set(run.trace.tracks)
    assert sorted(back.trace.counters["value"]) == sorted(run.trace.counters["value"])


def test_a_trace_of_before_that_has_each_moment_twice_is_read_alike(tmp_path):
    run = with_operators(synthetic_run(repeats=1, warmup=0, new_tokens=4, blocks=2), on_device=True)
    write_trace(run, tmp_path / "now.json")
    document = json.loads((tmp_path / "now.json").read_text(encoding="utf-8"))
    events = []
    for event in document["traceEvents"]:
        step, _, own = event["name"].partition(" ")
        if event["ph"] == "X" and step.startswith("ProfilerStep#") and own:
            args = dict(event["args"])
            events += [{**event, "name": step, "args": {"moment": args.pop("moment")}}, {**event, "name": own, "args": args}]
        else:
            events.append(event)
    assert len(events) == len(document["traceEvents"]) + len(run.trace.moments["kind"])
    (tmp_path / "before.json").write_text(json.dumps({**document, "traceEvents": events}), encoding="utf-8")
    now, before = (read_trace(tmp_path / f"{name}.json") for name in ("now", "before"))
    for name in ("kind", "step", "start_ns", "duration_ns"):
        np.testing.assert_array_equal(now.trace.moments[name], before.trace.moments[name])
    np.testing.assert_array_equal(now.trace.moments["kind"], run.trace.moments["kind"])
    np.testing.assert_array_equal(now.trace.moments["step"], run.trace.moments["step"])


def totals(run):
    operators = run.trace.operators
    found = {}
    for row, number in enumerate(operators["name"].tolist()):
        shapes = int(operators["shapes"][row])
        key = (
            run.trace.names[number],
            json.dumps(json.loads(run.trace.names[shapes])) if shapes >= 0 else None,
            int(operators["moment"][row]),
            PLACES[operators["place"][row]],
        )
        count, total = found.get(key, (0, 0))
        found[key] = (count + 1, total + int(operators["duration_ns"][row]))
    return found


def span_times(run):
    spans = run.trace.spans
    keys = zip(spans["moment"].tolist(), [run.trace.layers[row].path for row in spans["layer"]], strict=True)
    return dict(zip(keys, spans["duration_ns"].tolist(), strict=True))


def test_an_imported_run_is_kept_in_a_session(tmp_path):
    run = read_trace(written(tmp_path / "t.json"))
    store = SessionStore.open(tmp_path / "s.tickscope")
    number = store.begin(run)
    store.append(number, run.trace, Written())
    again = store.read(number)
    store.close()
    assert again.facts.status == "imported"
    for table in ("operators", "moments", "spans", "counters"):
        for name, column in getattr(run.trace, table).items():
            np.testing.assert_array_equal(column, getattr(again.trace, table)[name], err_msg=f"{table}.{name}")
    assert again.trace.names == run.trace.names


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_gives_what_is_whole_and_says_so(packed, keep, tmp_path):
    data = written(tmp_path / "t.json", many(3000)).read_bytes()
    path = tmp_path / ("cut.json.gz" if packed else "cut.json")
    data = gzip.compress(data) if packed else data
    path.write_bytes(data[: int(keep * len(data))])
    run = read_trace(path)
    count = len(run.trace.operators["name"])
    assert abs(count - 3000 * keep) < 250
    told = whys(run)["the end of the trace"]
    assert "ends early" in told
    assert "let the profiler finish" in told


def test_damaged_events_are_passed_over_and_counted(tmp_path):
    events = [json.dumps(event) for event in many(2000)]
    events[40] = '{"ph": "X", "cat": "cpu_op", "name": "nan", "pid": 1, "tid": 1, "ts": NaN, "dur": 5}'
    events[41] = '{"ph": "X", "cat": "cpu_op", "name": "long", "pid": 1, "tid": 1, "ts": 4453914635000, "dur": Infinity}'
    events[42] = '{"ph": "X", "cat": "cpu_op", "name": "short", "pid": 1, "tid": 1, "ts": 4453914635000, "dur": -5}'
    events[43] = '{"ph": "X", "cat": "cpu_op", "name": "huge", "pid": 1, "tid": 1, "ts": 1e300, "dur": 5}'
    events[44] = '{"ph": "X", "name": "none"}'
    events[45] = '{"ph": "X", "cat": 5, "name": 6, "pid": "a", "tid": null, "ts": "4453914635001", "dur": "2", "args": []}'
    events[46] = '{"ph": "X", "cat": "cpu_op", "name": "raw \n\t", "pid": 1, "tid": 1, "ts": 4453914635000, "dur": 1}'
    events[47] = '{"ph": "X", "cat": "cpu_op", "name": "broken" "pid": 1, "ts": 4453914635000}'
    events[48] = '{"ph": "X", "name": "deep", "args": ' + "[" * 5000 + "]" * 5000 + "}"
    events[49] = (
        '{"ph": "X", "name": "ids", "pid": 123456789012345678901234567890, "tid": 1, "ts": 4453914635003, "dur": 1, '
        + ('"args": {"correlation": 99999999999999999999999, "stream": "x", "nested": [{"a": 1}, {"b": 2}]}}')
    )
    events[50] = "17"
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents": [' + ",\n".join(events) + "]}", encoding="utf-8")
    run = read_trace(path)
    found = by_name(run)
    assert {"long", "short", "6", "raw \n\t", "ids"} <= found.keys()
    assert (found["long"]["duration_ns"], found["short"]["duration_ns"], found["6"]["duration_ns"]) == (0, 0, 2000)
    assert found["ids"]["correlation"] == -1
    assert len(run.trace.operators["name"]) == 2000 + 2 - 11 + 5 - 2
    told = whys(run)
    assert told["events without a usable time"] == "3 in t.json"
    assert told["events without a usable duration, taken as 0"] == "2 in t.json"
    assert told["damaged events"] == "3 in t.json"


def test_invalid_utf8_and_strings_that_look_like_boundaries(tmp_path):
    events = many(3000)
    for number, event in enumerate(events[2:]):
        event["name"] = "}, {" if number % 2 else '"}, {"ph'
        event["args"] = {"list": [{"a": 1}, {"b": "\\"}]}
    data = json.dumps({"traceEvents": events}).encode().replace(b'"cpu_op"', b'"cpu_op\xff"', 3)
    path = tmp_path / "t.json"
    path.write_bytes(data)
    run = read_trace(path)
    assert len(run.trace.operators["name"]) == 3000
    assert set(by_name(run)) == {"}, {", '"}, {"ph'}
    assert list(whys(run)) == ["clean latency"]


def test_overlapping_slices_and_a_clock_going_backwards(tmp_path):
    events = [slice_("late", 50, 10), slice_("a", 0, 20), slice_("b", 10, 20), slice_("c", 15, 2), slice_("zero", 5, 0)]
    run = read_trace(written(tmp_path / "t.json", events))
    found = by_name(run)
    assert {name: one["start_ns"] for name, one in found.items()} == {
        "a": 0, "zero": 5000, "b": 10_000, "c": 15_000, "late": 50_000,
    }  # fmt: skip
    assert {name: one["self_ns"] for name, one in found.items()} == {
        "a": 10_000, "b": 18_000, "c": 2_000, "late": 10_000, "zero": 0,
    }  # fmt: skip
    assert run.trace.moments["duration_ns"].tolist() == [60_000], "without steps the whole trace is one moment"


def test_begin_and_end_are_paired(tmp_path):
    events = [
        {"ph": "B", "name": "outer", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 10},
        {"ph": "B", "name": "inner", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 12},
        {"ph": "E", "pid": 1, "tid": 1, "ts": 15},
        {"ph": "E", "pid": 1, "tid": 1, "ts": 20},
        {"ph": "E", "pid": 1, "tid": 1, "ts": 21},
        {"ph": "B", "name": "open", "pid": 1, "tid": 1, "ts": 30},
    ]
    run = read_trace(written(tmp_path / "t.json", events))
    found = by_name(run)
    assert {name: (one["duration_ns"], one["self_ns"]) for name, one in found.items()} == {
        "outer": (10_000, 7_000),
        "inner": (3_000, 3_000),
    }
    assert whys(run)["ends without a begin"] == whys(run)["begins without an end"] == "1 in t.json"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; export the trace again"),
        (b"  \n ", "is empty"),
        (b"\x00\x01\x02" * 40, "is not a Chrome trace"),
        (b"hello, world", "is not a Chrome trace"),
        (b'{"a": 1}', "holds no list traceEvents"),
        (b'{"traceEvents": null}', "holds no list traceEvents"),
        (b'{"traceEvents": []}', "holds no event"),
        (b"[]", "holds no event"),
        (b'[{"ph": "M", "name": "x", "pid": 1}]', "holds no operator, step or counter"),
        (b"\x1f\x8b\x08\x00garbage of no use at all", "is empty .its packed data is damaged"),
        (b"\x1f\x8b", "is empty"),
        (b"[" * 100_000, "holds no event"),
    ],
)
def test_what_is_no_trace_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "t.json.gz"
    path.write_bytes(content)
    with pytest.raises(Refusal, match=sentence) as refusal:
        read_trace(path)
    assert "\n" not in str(refusal.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(Refusal, match="There is no file"):
        read_trace(tmp_path / "no.json")
    with pytest.raises(Refusal, match="is a folder"):
        read_trace(tmp_path)


def test_a_zip_bomb_is_refused_before_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RATIO_FROM", 8 << 20)
    pack = zlib.compressobj(9, wbits=31)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(pack.compress(b'{"traceEvents": [') + pack.compress(b" " * (64 << 20)) + pack.flush())
    with pytest.raises(Refusal, match="which no trace of a sane size does"):
        read_trace(path)


def random_slices(seed, count=300):
    rng = np.random.default_rng(seed)
    lane, start = rng.integers(0, 3, count), rng.integers(0, 2000, count)
    duration = rng.choice([0, 1, 10, 50, 700], count)
    order = in_reading_order(lane, start, duration)
    return lane[order], start[order], (start + duration)[order]


@pytest.mark.parametrize("seed", range(8))
def test_parents_and_self_times_are_those_of_a_loop(seed):
    lane, start, end = random_slices(seed)
    expected = []
    for row in range(len(start)):
        around = [one for one in range(row) if lane[one] == lane[row] and end[one] > start[row]]
        expected.append(max(around, default=-1))
    parent = parents(lane, start, end)
    assert parent.tolist() == expected
    own = self_times(start, end, parent)
    assert (own >= 0).all()
    for row in np.flatnonzero(parent >= 0)[:50].tolist():
        inside = [one for one in range(len(start)) if parent[one] == parent[row]]
        within = sum(min(end[one], end[parent[row]]) - start[one] for one in inside)
        assert own[parent[row]] == end[parent[row]] - start[parent[row]] - within
    marked = np.arange(len(start)) % 5 == 0
    for row, found in enumerate(nearest(marked, parent).tolist()):
        at = row
        while at >= 0 and not marked[at]:
            at = expected[at]
        assert found == at


@pytest.mark.parametrize("seed", range(8))
def test_every_level_nests_strictly(seed):
    lane, start, end = random_slices(seed)
    level, cut = strictly_nested(lane, start, end, tolerance_ns=1)
    assert (cut <= end).all()
    assert (cut >= start).all()
    for number in range(level.max() + 1):
        rows = level == number
        parent = parents(lane[rows], start[rows], cut[rows])
        has = parent >= 0
        assert (cut[rows][has] <= cut[rows][parent[has]]).all()


def test_the_command_adds_a_run_and_sums_it_up(tmp_path, capsys):
    trace, session = written(tmp_path / "t.json"), tmp_path / "s.tickscope"
    assert cli.main(["import", str(trace), "--out", str(session)]) == 0
    told = capsys.readouterr()
    assert "t.json — imported" in told.out
    assert "aten::addmm" in told.out
    assert "as run 1." in told.err
    assert cli.main(["import", str(trace), "--out", str(session), "--name", "again", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["status"]) == ("again", "imported")
    store = SessionStore.open(session)
    assert [(head.name, head.status) for head in store.runs()] == [("t.json", "imported"), ("again", "imported")]
    store.close()
    assert cli.main(["show", str(session)]) == 0
    assert cli.main(["export", str(session), "--format", "chrome", "--run", "1", "--out", str(tmp_path / "o.json.gz")]) == 0
    read(tmp_path / "o.json.gz")
    capsys.readouterr()
    assert cli.main(["import", str(tmp_path / "no.json"), "--out", str(session)]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_a_damaged_trace_is_told_on_the_command_line(tmp_path, capsys):
    data = written(tmp_path / "t.json", many(500)).read_bytes()
    (tmp_path / "t.json").write_bytes(data[:-2000])
    assert cli.main(["import", str(tmp_path / "t.json"), "--out", str(tmp_path / "s.tickscope")]) == 0
    assert "the end of the trace: t.json ends early" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "number"), [("auto", None), ("7", 7), ("AUTO", None)])
def test_repeats_and_warmup_take_a_number_or_auto(text, number):
    args = parser().parse_args(["run", "--model", "arch:gpt2", "--repeats", text, "--warmup", text])
    assert (args.repeats, args.warmup) == (number, number)
    assert parser().parse_args(["run", "--model", "arch:gpt2"]).repeats is None
    with pytest.raises(Refusal, match="neither a whole number nor auto"):
        parser().parse_args(["run", "--model", "arch:gpt2", "--repeats", "some"])


def test_the_operators_table_and_the_new_columns_are_in_the_csv(tmp_path):
    run = with_operators(synthetic_run(repeats=1, warmup=0, new_tokens=4, blocks=2), on_device=True)
    exporters.get("csv").write([run], tmp_path / "o.csv")
    with (tmp_path / "o-operators.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert {"name", "place", "layer", "calls", "total (ns)", "self (ns)", "flops", "shapes"} <= set(head)
    assert "sm80_xmma_gemm_f32" in {row[0] for row in rows}
    head = (tmp_path / "o-moments.csv").read_text(encoding="utf-8").partition("\n")[0].strip().split(",")
    assert {"cycles", "instructions", "cpu (ns)", "peak (bytes)", "profiled"} <= set(head)
