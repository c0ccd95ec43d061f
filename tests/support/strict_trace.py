"""Strict readers of exported traces: every rule of the measures document (§2) that a file alone can break is checked here."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

LIMIT = 2**32
ORDER = ["schemaVersion", "deviceProperties", "distributedInfo", "displayTimeUnit", "baseTimeNanoseconds", "metadata"]
CATEGORIES = {
    *("cpu_op", "user_annotation", "gpu_user_annotation", "kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver"),
    *("cuda_sync", "python_function", "overhead", "xpu_runtime", "privateuse1_runtime", "hardware_counters"),
}


def read(path: Path, *, whole_us: bool = False) -> dict[str, Any]:
    """The trace, after every check; ``AssertionError`` names the rule that it breaks."""
    packed = path.read_bytes()
    assert path.name.endswith((".json", ".gz")), "rule 3: HTA looks for .json or .gz"
    assert packed.startswith(b"\x1f\x8b") == path.name.endswith(".gz"), "rule 3: packed exactly if the name says so"
    text = (gzip.decompress(packed) if path.name.endswith(".gz") else packed).decode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text), "rule 3: no raw control characters"
    document = strict(text)
    _container(document, text)
    events = document["traceEvents"]
    assert events[0]["ph"] == "M", "rule 16: index 0 never links"
    for event in events:
        _event(event, whole_us)
    _nested(events)
    _flows(events)
    _steps(events)
    slices = [event for event in events if event["ph"] == "X"]
    assert any(isinstance(event.get("args"), dict) for event in slices), "rule 19: at least one args object"
    return document


def strict(text: str) -> Any:
    """JSON without NaN, Infinity and doubled keys."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"rule 3: {constant} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), f"a key is doubled: {keys}"
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _container(document: dict[str, Any], text: str) -> None:
    keys = list(document)
    assert keys[-2:] == ["traceEvents", "traceName"], "rule 1: events, then the name, last"
    assert [key for key in keys if key in ORDER] == ORDER, "rule 1: order"
    assert document["schemaVersion"] == 1
    assert document["displayTimeUnit"] == "ms"
    assert isinstance(document["baseTimeNanoseconds"], int)
    found = re.search(r'"rank":\s+(\d+)', text)
    assert found, "rule 2: HTA finds the rank only with a space"
    assert found[1] == "0"
    assert text.count('"rank"', 0, found.start()) == 0, "rule 2: no other rank before it"
    assert isinstance(document["metadata"], dict), "rule 4: settings"
    assert all(isinstance(value, (str, int, float)) for value in document["metadata"].values())


def _event(event: dict[str, Any], whole_us: bool) -> None:
    for key in ("pid", "tid"):
        assert type(event[key]) is int, f"rule 7: {key} is an integer: {event}"
        assert 0 <= event[key] < LIMIT, f"rule 7: {key} in range: {event}"
    for key in ("ts", "dur"):
        value = event.get(key, 0)
        assert isinstance(value, (int, float)), event
        assert value >= 0, event
        assert abs(value * 1000 - round(value * 1000)) < 1e-2, f"rule 5: at most three decimals: {event}"
        assert not whole_us or value == int(value), f"rule 6: whole µs: {event}"
    assert isinstance(event["name"], str)
    assert "ts" in event, "rules 6 and 10: every event has a time"
    phase = event["ph"]
    assert phase in ("M", "X", "C", "i", "s", "f"), event
    if phase == "X":
        assert {"cat", "name", "pid", "tid", "ts", "dur"} <= event.keys(), f"rule 9: {event}"
        assert event["cat"] in CATEGORIES, f"rule 12: {event}"
        assert not whole_us or event["dur"] >= 1, f"rule 6: {event}"
        _kernel(event)
    elif phase == "C":
        assert event["args"], event
        assert all(type(value) in (int, float) for value in event["args"].values()), f"rule 10: {event}"
    elif phase == "i":
        assert event["s"] in ("g", "p", "t"), f"rule 10: {event}"


def _kernel(event: dict[str, Any]) -> None:
    args = event.get("args", {})
    on_device = event["cat"] in ("kernel", "gpu_memcpy", "gpu_memset")
    assert on_device == ("stream" in args), f"rule 14: {event}"
    if on_device:
        assert args["stream"] >= 1, f"rule 15: {event}"


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def _nested(events: list[dict[str, Any]]) -> None:
    lanes = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = _ns(event["ts"])
            lanes[event["pid"], event["tid"]].append((start, start + _ns(event["dur"]), event["name"]))
    for lane, slices in lanes.items():
        open_until: list[int] = []
        for start, end, name in sorted(slices, key=lambda one: (one[0], -one[1])):
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1], f"rule 9: {name} sticks out of its parent on {lane}"
            open_until.append(end)


def _flows(events: list[dict[str, Any]]) -> None:
    ends: dict[int, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event["ph"] in ("s", "f"):
            ends[event["id"]][event["ph"]].append(event)
    slices = defaultdict(list)
    for event in events if ends else ():
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((_ns(event["ts"]), _ns(event["ts"]) + _ns(event["dur"])))
    for number, pair in ends.items():
        assert {phase: len(found) for phase, found in pair.items()} == {"s": 1, "f": 1}, f"rule 11: flow {number}"
        begin, end = pair["s"][0], pair["f"][0]
        assert (begin["cat"], begin["name"]) == (end["cat"], end["name"]) == ("ac2g", "ac2g"), "rule 11"
        assert end["bp"] == "e", "rule 11"
        for event in (begin, end):
            at = _ns(event["ts"])
            assert any(start <= at <= stop for start, stop in slices[event["pid"], event["tid"]]), f"rule 11: {event}"


def _steps(events: list[dict[str, Any]]) -> None:
    steps = [event for event in events if re.match(r"ProfilerStep#\d+", event["name"])]
    assert steps, "rule 17: a closing step is always there"
    assert {event["cat"] for event in steps} == {"user_annotation"}, "rule 17"
    last = max(steps, key=lambda event: int(re.match(r"ProfilerStep\s*#\s*(\d+)", event["name"])[1]))  # type: ignore[index] # as HTA reads it
    ends = [_ns(event["ts"]) + _ns(event["dur"]) for event in events if event["ph"] == "X" and event is not last]
    assert _ns(last["ts"]) >= max(ends, default=0), "rule 17: the step that HTA discards holds nothing"


def read_speedscope(path: Path) -> dict[str, Any]:
    """A speedscope file after every check (rule 21)."""
    document = strict(path.read_text(encoding="utf-8"))
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert re.fullmatch(r"[^@]+@[^@]+", document["exporter"])
    frames = document["shared"]["frames"]
    for frame in frames:
        assert isinstance(frame["name"], str)
        assert frame.keys() <= {"name", "file", "line"}
    assert document["profiles"], "speedscope opens nothing without a profile"
    for profile in document["profiles"]:
        assert profile["type"] == "evented"
        assert profile["unit"] == "microseconds"
        assert isinstance(profile["name"], str)
        _evented(profile, len(frames))
    return document


def _evented(profile: dict[str, Any], frames: int) -> None:
    at = profile["startValue"]
    stack: list[int] = []
    for event in profile["events"]:
        assert event["at"] >= at, f"times go back at {event}"
        at = event["at"]
        assert 0 <= event["frame"] < frames
        if event["type"] == "O":
            stack.append(event["frame"])
        else:
            assert event["type"] == "C"
            assert stack.pop() == event["frame"], f"not nested at {event}"
    assert not stack, "a frame stays open"
    assert at <= profile["endValue"]
