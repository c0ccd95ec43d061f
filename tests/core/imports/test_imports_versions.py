"""Traces of torch 1.8 to 2.13, written by the torch at hand and after the formats of older ones, against an own count."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from core.imports.kineto import read_trace
from core.records.run import Run
from profilers.trace import PLACES
from tests.support import real_traces
from tests.support.trace_counter import counted
from tests.support.traces import track_values


def places(run: Run) -> dict[str, tuple[int, int]]:
    """Of an imported run what ``counted`` tells of its file."""
    found = {}
    operators = run.trace.operators
    modules = np.array([name.startswith("nn.Module: ") for name in run.trace.names])[operators["name"]]
    for number, place in enumerate(PLACES):
        for key, rows in ((place, ~modules | (place != "python")), ("module", modules & (place == "python"))):
            mine = (operators["place"] == number) & rows
            if mine.any():
                found[key] = (int(mine.sum()), int(operators["duration_ns"][mine].sum()))
    moments, regions = run.trace.moments, np.array([layer.type == "region" for layer in run.trace.layers] or [False])
    if "step" not in found and not (len(moments["kind"]) == 1 and moments["start_ns"][0] == 0 and not len(run.trace.layers)):
        found["step"] = (len(moments["kind"]), int(moments["duration_ns"].sum()))
    mine = regions[run.trace.spans["layer"]]
    if mine.any():
        found["region"] = (int(mine.sum()), int(run.trace.spans["duration_ns"][mine].sum()))
    allocations = [values for name, values in track_values(run).items() if "allocated" in name]
    if allocations:
        found["memory"] = (sum(map(len, allocations)), 0)
    return found


def agrees(path: Path) -> Run:
    """The run of a file, after its places have been held against the count."""
    run = read_trace(path)
    expected = counted(path)
    if "step" not in expected:
        expected["step"] = (len(run.trace.moments["kind"]), int(run.trace.moments["duration_ns"].sum()))
    found = places(run)
    found.setdefault("step", expected["step"])
    assert found == expected
    return run


# -- older versions, after their formats -----------------------------------------------------------------------------------


class Version:
    """How one version of torch wrote its traces."""

    def __init__(self, name, names, *, us=1_615_207_264_504_915, ns=False, base=None, thread=4711, stream=7, **more):
        self.name, self.names, self.us, self.ns, self.base = name, names, us, ns, base
        self.thread, self.stream, self.more = thread, stream, more

    def slice_(self, kind, name, at_ns, length_ns, **args):
        on_device = kind in ("kernel", "copy")
        time = (lambda value: value / 1000) if self.ns else (lambda value: value // 1000)
        lane = {"pid": 0, "tid": self.stream} if on_device else {"pid": 4711, "tid": self.thread}
        stamp = f"{self.us + at_ns // 1000}.{at_ns % 1000:03d}" if self.ns else str(self.us + at_ns // 1000)
        event = {"ph": "X", "cat": self.names[kind], "name": name, **lane, "ts": "STAMP", "dur": time(length_ns), "args": args}
        return json.dumps(event).replace('"STAMP"', stamp)

    def events(self):
        dims = self.more.get("dims", "Input Dims")
        yield json.dumps({"ph": "M", "name": "process_name", "pid": 4711, "tid": 0, "ts": 0, "args": {"name": "python"}})
        for step in range(3):
            at = 10_000_000 * step
            yield self.slice_("step", f"ProfilerStep#{step}", at, 9_000_000)
            yield self.slice_("region", "forward", at + 1_000, 8_000_000) if "region" in self.names else "{}"
            yield self.slice_("cpu", "aten::linear", at + 10_000, 2_000_123, **{dims: [[4, 32], [64, 32]], "External id": 2})
            yield self.slice_("cpu", "aten::addmm", at + 20_000, 1_500_001)
            yield self.slice_("runtime", "cudaLaunchKernel", at + 30_000, 12_345, correlation=step + 1, cbid=211)
            lane = {"pid": 4711, "tid": self.thread}
            yield json.dumps({"ph": "s", "id": step, **lane, "ts": self.us, "cat": "ac2g", "name": "ac2g"})
            yield self.slice_("kernel", "sgemm", at + 3_000_000, 400_999, correlation=step + 1, stream=7, device=0)
            yield self.slice_("copy", "Memcpy HtoD", at + 4_000_000, 50_000, stream=7, bytes=512)
            if "python" in self.names:
                yield self.slice_("python", "model.py(3): forward", at + 5_000_000, 1_000_000, **{"Python id": 1})
            memory = {"Bytes": 64, "Device Id": -1, "Device Type": 0, **self.more.get("memory", {})}
            category = self.more.get("memory_category", {})
            allocation = {"ph": "i", "s": "t", "name": "[memory]", "ts": self.us + 1}
            yield json.dumps({**allocation, **lane, **category, "args": memory})
        yield json.dumps({"ph": "X", "cat": "Trace", "ts": self.us, "dur": 1, "pid": "Traces", "tid": "PyTorch Profiler",
                          "name": "PyTorch Profiler (0)", "args": {"Op count": 0}})  # fmt: skip
        yield json.dumps({"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": self.us + 40_000})

    def write(self, path):
        head = {
            "schemaVersion": 1,
            **({} if self.base is None else {"displayTimeUnit": "ms", "baseTimeNanoseconds": self.base}),
        }
        tail = {"traceName": "t.json", **self.more.get("tail", {})}
        events = ",\n  ".join(event for event in self.events() if event != "{}")
        text = f'{json.dumps(head)[:-1]}, "traceEvents": [\n  {events}\n], {json.dumps(tail)[1:]}'
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


CAPITALS = {"step": "Operator", "cpu": "Operator", "runtime": "Runtime", "kernel": "Kernel", "copy": "Memcpy"}
SMALL = {"step": "user_annotation", "cpu": "cpu_op", "runtime": "cuda_runtime", "kernel": "kernel", "copy": "gpu_memcpy",
         "region": "user_annotation", "python": "python_function"}  # fmt: skip
TOTAL = {"memory": {"Total Allocated": 4096}, "memory_category": {"cat": "cpu_instant_event"}}
SINCE_BASE = {"us": 4_453_914_635_000, "ns": True, "base": 1_748_736_000_000_000_000}
VERSIONS = [
    Version("1.8", CAPITALS, thread="4711 (python)", stream="stream 7", dims="Input dims"),
    Version("1.10", {**CAPITALS, "copy": "Memset"}, dims="Input dims"),
    Version("1.11", {**SMALL, "step": "cpu_op", "copy": "gpu_memset"}),
    Version("1.13", SMALL, memory_category={"cat": "cpu_instant_event"}),
    Version("2.0", SMALL, **TOTAL),
    Version("2.3", SMALL, us=1_710_000_000_000_000, ns=True, **TOTAL),
    Version("2.4", {**SMALL, "runtime": "cuda_driver"}, tail={"record_shapes": 1, "with_stack": 1}, **SINCE_BASE, **TOTAL),
    Version("2.7", {**SMALL, "runtime": "xpu_runtime"}, **SINCE_BASE, **TOTAL),
    Version("2.10", {**SMALL, "kernel": "hpu_op", "runtime": "cuda_sync"}, **SINCE_BASE, **TOTAL),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_every_version_counts_as_its_file_does(version, packed, tmp_path):
    path = tmp_path / ("t.json.gz" if packed else "t.json")
    version.write(path)
    run = agrees(path)
    assert run.trace.moments["duration_ns"].tolist() == [9_000_000] * 3
    operators = run.trace.operators
    kernels = operators["place"] == PLACES.index("kernel")
    assert operators["moment"][kernels].tolist() == [0, 1, 2]
    assert "[[4, 32], [64, 32]]" in run.trace.names
    begun = {"2.3": "2024-03-09", "2.4": "2025-07-22", "2.7": "2025-07-22", "2.10": "2025-07-22"}.get(
        version.name, "2021-03-08"
    )
    assert run.created.startswith(begun)


# -- the torch at hand -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Traces of one small model: as torch exports them, with and without stacks, and as its list of events exports them."""
    return real_traces.make(tmp_path_factory.mktemp("traces"))


@pytest.mark.parametrize("name", ["plain.json", "stack.json"])
def test_what_torch_exports_counts_as_its_file_does(written, name):
    run = agrees(written / name)
    assert len(run.trace.moments["kind"]) == 2
    assert {"forward"} <= {layer.path for layer in run.trace.layers}


@pytest.mark.parametrize("name", ["plain-list.json", "stack-list.json"])
def test_what_the_list_of_events_exports_counts_as_its_file_does(written, name):
    run = read_trace(written / name)
    expected = counted(written / name)
    found = places(run)
    assert {name: found.get(name) for name in ("cpu", "python", "module")} == {
        name: expected.get(name) for name in ("cpu", "python", "module")
    }
    assert len(run.trace.moments["kind"]) == expected.get("step", (1, 0))[0]
