"""Traces as other tools, old versions and several processes write them: each imports as what it says."""

from __future__ import annotations

import gzip
import json

import pytest

from core.analysis.imported import steps_json
from core.errors import Refusal
from core.imports import events as reading
from core.imports import text
from core.imports.kineto import read_trace
from profilers.trace import Tag
from tests.support.traces import imported, kernel, launch, layer_of, layer_times, memory, slice_of, sums, told, track_values

STEP = slice_of("ProfilerStep#1", 1000, 9000, "user_annotation")


def test_what_stands_behind_the_events_is_read_too(tmp_path):
    footer = {
        "deviceProperties": [{"id": 0, "name": "NVIDIA H100"}],
        "record_shapes": 1,
        "with_stack": 0,
        "host_name": "node7",
        "baseTimeNanoseconds": 1_750_000_000_000_000_000,
        "traceName": "trace.json",
    }
    run = imported(tmp_path / "t.json", [slice_of("aten::add", 12, 30)], footer=footer)
    assert run.created == "2025-06-15T15:06:40+00:00"
    assert run.facts.environment == {"devices": ["NVIDIA H100"], "host_name": "node7"}
    assert (run.facts.instruments["import"]["record_shapes"], run.facts.instruments["import"]["with_stack"]) == (True, False)
    both = imported(tmp_path / "u.json", [slice_of("a", 1, 1)], header={"with_stack": 1}, footer={"host_name": "node8"})
    assert both.facts.environment == {"host_name": "node8"}
    assert both.facts.instruments["import"]["with_stack"] is True


def test_an_event_with_a_wrong_time_moves_nothing(tmp_path):
    base = 1_708_722_576_001_000
    events = [
        kernel("lost", 0, 0, 9),
        launch("cudaLaunchKernel", base + 20, 9),
        slice_of("aten::mm", base + 10, 120),
        {"ph": "C", "name": "power", "pid": 0, "ts": 0, "args": {"watt": 5}},
    ]
    run = imported(tmp_path / "t.json", events)
    assert run.created == "2024-02-23T21:09:36+00:00"
    assert (run.trace.moments["start_ns"].tolist(), run.trace.moments["duration_ns"].tolist()) == ([0], [120_000])
    assert sums(run) == {("aten::mm", "cpu"): (1, 120, 120), ("cudaLaunchKernel", "runtime"): (1, 5, 5)}
    assert list(told(run).values()) == ["2 in t.json"]
    assert "whose time cannot be right" in next(iter(told(run)))


def test_functions_around_a_region_keep_only_what_is_theirs(tmp_path):
    """With stacks every region begins inside the Python call that opens it, and outlasts it."""
    events = [
        slice_of("forward", 0, 100, "python_function"),
        slice_of("__enter__", 10, 10, "python_function"),
        slice_of("<built-in _record_function_enter_new>", 12, 6, "python_function"),
        slice_of("attention", 15, 75, "user_annotation"),
        slice_of("aten::mm", 30, 30),
    ]
    assert sums(imported(tmp_path / "t.json", events)) == {
        ("forward", "python"): (1, 100, 60),
        ("__enter__", "python"): (1, 10, 4),
        ("<built-in _record_function_enter_new>", "python"): (1, 6, 6),
        ("aten::mm", "cpu"): (1, 30, 30),
    }


def test_without_categories_functions_are_told_by_their_names_whatever_their_code_came_from(tmp_path):
    """torch's list of events has none; it put ``os.environ``, which is frozen into Python, among the longest operators."""
    python = [
        "a/model.py(3): forward",
        "<frozen os>(674): __getitem__",
        "<frozen importlib._bootstrap>(1176): _find_and_load",
        "<string>(1): __init__",
        "<eval_with_key>.5(4): forward",
        "<ipython-input-3-5c>(1): <module>",
        "<built-in function linear>",
        "nn.Module: Linear_0",
    ]
    others = ["aten::mm", "forward", "void at::native::kernel<float>(2): x", "<mine>", "step (3): forward"]
    events = [slice_of(name, 10 * place, 5, None) for place, name in enumerate([*python, *others])]
    found = dict(sums(imported(tmp_path / "t.json", events)))
    assert {name for name, place in found if place == "python"} == set(python)
    assert {name for name, place in found if place == "cpu"} == set(others)


def test_a_trace_of_hours_keeps_all_of_it(tmp_path):
    run = imported(tmp_path / "t.json", [slice_of("tick", hour * 7.2e9, 10) for hour in range(5)])
    assert sums(run) == {("tick", "cpu"): (5, 50, 50)}
    assert not told(run)


def test_a_kernel_belongs_to_the_launch_of_its_own_rank(tmp_path):
    def rank(pid, device, at, name):
        return [
            slice_of("ProfilerStep#1", 1000, 9000, "user_annotation", pid, pid),
            slice_of(f"{name}_region", at, 100, "user_annotation", pid, pid),
            launch("cudaLaunchKernel", at + 10, 77, pid),
            kernel(f"gemm_of_{name}", at + 490, 100, 77, device),
        ]

    run = imported(tmp_path / "t.json", rank(100, 0, 1010, "rank0") + rank(200, 1, 4010, "rank1"))
    assert layer_of(run, "gemm_of_rank0") == ["rank0_region"]
    assert layer_of(run, "gemm_of_rank1") == ["rank1_region"]
    assert run.trace.moments["request"].tolist() == [0, 1], "each rank has its own steps"
    assert run.facts.instruments["import"]["processes"] == [100, 200]
    assert [(one["process"], one["steps"]) for one in steps_json(run)] == [(100, 1), (200, 1)]
    owners = dict(zip(run.trace.operators["layer"].tolist(), run.trace.operators["moment"].tolist(), strict=True))
    assert sorted(owners.values()) == [0, 1]
    assert len(set(run.trace.operators["lane"].tolist())) == 4, "stream 7 of two devices is two lanes"


def test_kernels_that_could_be_of_either_rank_are_of_none(tmp_path):
    events = [launch("cudaLaunchKernel", 10 * n + (pid == 200), n, pid) for n in range(1, 9) for pid in (100, 200)]
    events += [slice_of("ProfilerStep#1", 0, 900, "user_annotation", pid, pid) for pid in (100, 200)]
    # each device's kernels begin behind both launches in half of the cases, and between them in the others
    events += [kernel(f"k{device}", 10 * n + (0.5 if n % 2 else 5), 1, n, device) for n in range(1, 9) for device in (0, 1)]
    run = imported(tmp_path / "t.json", events)
    operators = run.trace.operators
    on_device = operators["place"] == 2
    assert set(operators["moment"][on_device].tolist()) == {-1}
    assert told(run) == {"kernels and copies that may be of several merged ranks, and are in no layer and step": "16 in t.json"}


def test_memory_of_each_device_and_process_is_its_own(tmp_path):
    events = [STEP]
    for number in range(3):
        events += [memory(1100 + 200 * number, 1000 + number), memory(1200 + 200 * number, 5_000_000 + number, device_id=1)]
    events += [memory(1100, 7, device_type=0, device_id=-1)]
    run = imported(tmp_path / "t.json", events)
    assert track_values(run) == {
        "allocated": [7],
        "device_allocated of GPU 0": [1000, 1001, 1002],
        "device_allocated of GPU 1": [5_000_000, 5_000_001, 5_000_002],
    }
    two = [{**memory(1100, 5), "pid": pid} for pid in (1, 2)]
    counters = [{"ph": "C", "name": "power", "pid": pid, "ts": 1100, "args": {"watt": pid}} for pid in (1, 2)]
    run = imported(tmp_path / "u.json", [STEP, *two, *counters])
    assert track_values(run) == {
        "device_allocated of process 1": [5],
        "device_allocated of process 2": [5],
        "power of process 1": [1],
        "power of process 2": [2],
    }


def test_old_traces_tell_changes_of_memory_alone(tmp_path):
    run = imported(tmp_path / "t.json", [STEP, memory(1100, None, 0, change=64), memory(1200, None, 0, change=-16)])
    assert track_values(run) == {"allocated": [64, 48]}
    assert "changes since the trace began" in next(iter(told(run)))


def test_what_is_not_shown_has_nothing_in_it(tmp_path):
    """As torch's exporter in Python writes allocations: until the end of the trace."""
    lasting = [
        {**memory(ts, 64 * n, 0, -1), "ph": "X", "cat": "cpu_instant_event", "dur": 5000 - ts} for n, ts in enumerate((5, 30))
    ]
    modules = [slice_of(f"nn.Module: L_{n}", 10 + 30 * n, 25, "python_function") for n in range(2)]
    run = imported(tmp_path / "t.json", [*lasting, *modules, slice_of("aten::mm", 15, 10)])
    assert [(layer.path, layer.parent) for layer in run.trace.layers] == [("L_0", -1), ("L_1", -1)]
    assert layer_of(run, "aten::mm") == ["L_0"]
    assert track_values(run) == {"allocated": [0, 64]}


TODAY = ["user_annotation", "cpu_op", "cuda_runtime", "kernel", "gpu_memcpy", "python_function"]
OLD = ["Operator", "Operator", "Runtime", "Kernel", "Memcpy", "Python"]


@pytest.mark.parametrize(
    "names", [TODAY, OLD, ["cpu_op", *TODAY[1:]], [*TODAY[:2], "xpu_driver", "hpu_op", "Memset", "python"]]
)
def test_old_and_new_categories_give_the_same(names, tmp_path):
    step, operator, runtime, device, copy, python = names
    events = []
    for number in range(2):
        at = 1000 * (number + 1)
        events += [
            slice_of(f"ProfilerStep#{number}", at, 900, step),
            slice_of("aten::linear", at + 10, 100, operator, **{"Input dims" if names is OLD else "Input Dims": [[4, 32]]}),
            slice_of("launch", at + 30, 18, runtime, correlation=number + 1),
            slice_of("gemm", at + 200, 400, device, 0, 7, correlation=number + 1),
            slice_of("copied", at + 650, 50, copy, 0, 7),
            slice_of("f", at + 700, 5, python),
        ]
    run = imported(tmp_path / "t.json", events)
    assert run.trace.moments["duration_ns"].tolist() == [900_000, 900_000]
    assert sums(run) == {
        ("aten::linear", "cpu"): (2, 200, 164),
        ("launch", "runtime"): (2, 36, 36),
        ("gemm", "kernel"): (2, 800, 800),
        ("copied", "copy"): (2, 100, 100),
        ("f", "python"): (2, 10, 10),
    }
    assert "[[4, 32]]" in run.trace.names
    assert not told(run)


def test_ranges_over_kernels_are_told_and_not_added_to_them(tmp_path):
    run = imported(
        tmp_path / "t.json",
        [STEP, kernel("gemm", 2000, 50, 1), slice_of("range", 1990, 70, "cuda_profiler_range", 0, 99), slice_of("a", 1100, 5)],
    )
    assert sums(run) == {("gemm", "kernel"): (1, 50, 50), ("a", "cpu"): (1, 5, 5)}
    assert told(run) == {"events of the category cuda_profiler_range, which lie around others of the device": "1 in t.json"}


def test_a_name_is_no_category(tmp_path):
    names = [
        "Trace",
        "kernel",
        "all_reduce_sync",
        "gpu_mem_alloc",
        "overhead",
        "python_function",
        "user_annotation",
        "aten::add",
    ]
    events = [slice_of(name, 10 * number, 5, None, "CPU functions", 1) for number, name in enumerate(names)]
    events += [slice_of("add", 5, 50, None, "CUDA functions", 0), slice_of("Memcpy HtoD", 60, 5, None, "CUDA functions", 0)]
    assert sums(imported(tmp_path / "t.json", events)) == {
        **{(name, "cpu"): (1, 5, 5) for name in names},
        ("add", "kernel"): (1, 50, 50),
        ("Memcpy HtoD", "copy"): (1, 5, 5),
    }


@pytest.mark.parametrize("nested", ["region", "module"])
def test_a_region_under_several_others_is_a_layer_under_each(nested, tmp_path):
    category, prefix = ("user_annotation", "") if nested == "region" else ("python_function", "nn.Module: ")
    events = []
    for number in range(3):
        at = 1000.0 * number
        events += [
            slice_of(f"{prefix}layer_{number}", at, 900, category),
            slice_of(f"{prefix}attention_0", at + 10, 300 + 100 * number, category),
            slice_of("aten::bmm", at + 20, 200),
            slice_of(f"{prefix}mlp_0", at + 600, 150, category),
        ]
    run = imported(tmp_path / "t.json", events)
    assert [layer.path for layer in run.trace.layers] == [
        path for n in range(3) for path in (f"layer_{n}", f"layer_{n}.attention_0", f"layer_{n}.mlp_0")
    ]
    assert layer_times(run)["layer_2.attention_0"] == 500
    assert layer_of(run, "aten::bmm") == [f"layer_{n}.attention_0" for n in range(3)]
    assert all(
        layer.parent == -1 or run.trace.layers[layer.parent].path == f"layer_{n // 3}"
        for n, layer in enumerate(run.trace.layers)
    )


def test_a_region_that_calls_itself_ends_somewhere(tmp_path):
    run = imported(tmp_path / "t.json", [slice_of("again", n, 1000 - 2 * n, "user_annotation") for n in range(400)])
    assert len(run.trace.layers) == 64
    assert len(run.trace.spans["layer"]) == 400


def test_shapes_are_the_same_however_they_are_spaced(tmp_path):
    shapes = [[512], [141, 512], [], ["", "Scalar"]]
    events = [slice_of("aten::addmm", 10 * n, 5, **{"Input Dims": shapes}) for n in range(700)]
    for indent, separators in ((None, (",", ":")), (None, None), (4, None)):
        text = json.dumps(events, indent=indent, separators=separators)
        run = imported(tmp_path / "t.json", text.replace('"dur": 5', '"dur": 5', 1))
        found = {run.trace.names[number] for number in run.trace.operators["shapes"].tolist()}
        assert found == {'[[512], [141, 512], [], ["", "Scalar"]]'}
    lost = imported(tmp_path / "u.json", "[" + json.dumps(events)[1:-1] + ', {"ph": broken}]')
    assert len({*lost.trace.operators["shapes"].tolist()}) == 1, "also where a piece had to be read event by event"


def test_begins_and_ends_in_any_order(tmp_path):
    def mark(phase, ts, name=None):
        return {"ph": phase, "pid": 1, "tid": 1, "ts": ts, **({"name": name, "cat": "cpu_op"} if name else {})}

    events = [mark("E", 50), mark("B", 20, "late"), mark("B", 10, "outer"), mark("E", 90)]
    run = imported(tmp_path / "t.json", events)
    assert sums(run) == {("outer", "cpu"): (1, 80, 50), ("late", "cpu"): (1, 30, 30)}
    assert not told(run)


def test_asynchronous_events_are_kept(tmp_path):
    def mark(phase, name, ts, number):
        return {"ph": phase, "name": name, "cat": "COLL", "id": number, "pid": 1, "tid": 1, "ts": ts}

    events = [
        mark("b", "AllReduce", 10, 0), mark("n", "ProxyOp", 20, 0), mark("b", "Send", 30, "0x7"), mark("e", "AllReduce", 60, 0),
        mark("e", "Send", 90, "0x7"), mark("b", "AllReduce", 95, 1), mark("e", "AllReduce", 99, 1), mark("b", "open", 99, 2),
    ]  # fmt: skip
    run = imported(tmp_path / "t.json", [*events, slice_of("aten::add", 12, 30, pid=1, tid=1)])
    assert sums(run) == {("AllReduce", "cpu"): (2, 54, 54), ("Send", "cpu"): (1, 60, 60), ("aten::add", "cpu"): (1, 30, 30)}
    assert len(set(run.trace.operators["lane"].tolist())) == 3, "what overlaps has lanes of its own"
    assert [instant.label for instant in run.trace.instants] == ["ProxyOp"]
    assert told(run) == {"begins without an end": "1 in t.json"}
    assert ("Send", "cpu") in sums(imported(tmp_path / "u.json", events))


def test_what_is_of_no_kind_that_is_shown_is_told(tmp_path):
    run = imported(
        tmp_path / "t.json", [slice_of("a", 1, 1), {"ph": "N", "name": "object", "ts": 1}, {"ph": "s", "ts": 1, "id": 1}]
    )
    assert told(run) == {"events of kinds that are not shown": "1 in t.json"}


def test_kernels_that_overlap_do_not_call_each_other(tmp_path):
    events = [STEP, kernel("long", 2000, 2_000_000, 1), kernel("short", 2100, 90, 2), kernel("short", 2200, 90, 3)]
    run = imported(tmp_path / "t.json", events)
    assert sums(run) == {("long", "kernel"): (1, 2_000_000, 2_000_000), ("short", "kernel"): (2, 180, 180)}
    assert told(run) == {"kernels and copies that overlap others of their stream, each counted whole": "2 in t.json"}


WINDOWS = r"""[
{"ph": "X", "cat": "python_function", "name": "torch\cuda\__init__.py(2): _lazy_init", "pid": 1, "tid": 1, "ts": 10, "dur": 5},
{"ph": "X", "cat": "python_function", "name": "D:\new\run.py(3): <module>", "pid": 1, "tid": 1, "ts": 20, "dur": 5},
{"ph": "X", "cat": "python_function", "name": "a\b\f\r.py(1): t", "pid": 1, "tid": 1, "ts": 30, "dur": 5},
{"ph": "X", "cat": "cpu_op", "name": "aten::pow", "pid": 1, "tid": 1, "ts": 40, "dur": 30,
 "args": {"Call stack": "C:\Users\u\profiler.py(6): __init__", "Input Dims": [[1, 1]]}}
]"""


def test_lone_backslashes_of_windows(tmp_path):
    run = imported(tmp_path / "t.json", WINDOWS)
    assert list(sums(run)) == [
        (r"torch\cuda\__init__.py(2): _lazy_init", "python"),
        (r"D:\new\run.py(3): <module>", "python"),
        (r"a\b\f\r.py(1): t", "python"),
        ("aten::pow", "cpu"),
    ]
    assert not told(run)
    only = imported(tmp_path / "u.json", "\n".join(WINDOWS.splitlines()[:1] + WINDOWS.splitlines()[2:3]).rstrip(",") + "]")
    assert list(sums(only)) == [(r"D:\new\run.py(3): <module>", "python")], "an escape that is legal and yet none"


def test_backslashes_that_are_escaped_stay_as_they_are(tmp_path):
    events = [slice_of("C:\\Users\\new\\run.py(1): f", 1, 1), slice_of('say "a\nb"', 3, 1), slice_of("tab\t", 5, 1)]
    assert {name for name, _ in sums(imported(tmp_path / "t.json", events))} == {event["name"] for event in events}


@pytest.mark.parametrize("quoted", [False, True])
def test_nanoseconds_since_1970_are_exact(quoted, tmp_path):
    rows = []
    for number in range(900):
        for name, start, length in (("outer", 0.103, 0.9), ("inner", 0.202, 0.8), ("next", 1.003, 0.4)):
            stamp = f"{1_708_722_576_000_000 + 10 * number + int(start)}{f'{start % 1:.3f}'[1:]}"
            stamp = f'"{stamp}"' if quoted else stamp
            rows.append(f'{{"ph": "X", "cat": "cpu_op", "name": "{name}", "pid": 1, "tid": 1, "ts": {stamp}, "dur": {length}}}')
    rows += ['{"ph": "B", "name": "b", "cat": "cpu_op", "pid": 2, "tid": 1, "ts": 1708722576000001.001}']
    rows += ['{"ph": "E", "pid": 2, "tid": 1, "ts": 1708722576000002.002}']
    run = imported(tmp_path / "t.json", f"[{','.join(rows)}]")
    assert sums(run) == {
        ("outer", "cpu"): (900, 810, 90),
        ("inner", "cpu"): (900, 720, 720),
        ("next", "cpu"): (900, 360, 360),
        ("b", "cpu"): (1, 1, 1),
    }
    assert run.trace.operators["start_ns"][:3].tolist() == [0, 99, 900]


def test_one_quotation_mark_too_few_loses_one_event(tmp_path):
    rows = [json.dumps(slice_of(f"op{n}", n, 1)) for n in range(2000)]
    rows[700] = rows[700].replace('"tid"', 'tid"')
    run = imported(tmp_path / "t.json", f"[{','.join(rows)}]")
    assert len(run.trace.operators["name"]) == 1999
    assert sum(int(why.split()[0]) for why in told(run).values()) == 1


def test_steps_of_another_thread_are_told(tmp_path):
    steps = [slice_of(f"ProfilerStep#{n}", 1000 * n, 900, "user_annotation", tid=tid) for n, tid in ((0, 1), (1, 1), (0, 2))]
    run = imported(tmp_path / "t.json", steps)
    assert len(run.trace.moments["kind"]) == 2
    assert told(run) == {"steps of other threads than the one with most of them": "1 in t.json"}


def test_the_first_step_is_set_apart(tmp_path):
    steps = [slice_of(f"ProfilerStep#{n}", 1000 * n, 900 if n else 990, "user_annotation") for n in range(4)]
    tags = imported(tmp_path / "t.json", steps).trace.moments["tags"].tolist()
    assert [bool(tag & Tag.COLD) for tag in tags] == [True, False, False, False]
    assert not imported(tmp_path / "t.json", steps[:2]).trace.moments["tags"].any(), "of two, nothing would be left"


@pytest.mark.parametrize("event", [b'{"ph":"X","ts":1,"dur":1},', b'{"ph":"B","ts":1},', b"{},"])
def test_a_file_that_grows_more_than_any_trace_is_refused(event, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RATIO_FROM", 1 << 18)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b"[" + event * 200_000))
    with pytest.raises(Refusal, match=r"bomb.json.gz unpacks to more than .* export fewer steps"):
        read_trace(path)


def test_more_events_than_fit_into_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_MEMORY_SHARE", 1e-6)
    path = tmp_path / "large.json"
    path.write_text(json.dumps([slice_of("a", n, 1) for n in range(3000)]))
    with pytest.raises(Refusal, match=r"large.json holds more than .* events, .*close other programs"):
        read_trace(path)
