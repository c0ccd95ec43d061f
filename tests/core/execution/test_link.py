"""The link between two processes carries what was recorded, whole, and takes nothing else."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from core.execution.link import MESSAGE, ROWS, Link, LinkError
from core.records.deltas import Delta, Written, put_into, since
from profilers.trace import KINDS, Layer, Output, Recorder


def recorded(recorder: Recorder, moments: int) -> None:
    """Some rows, as an engine appends them."""
    if not recorder.layers:
        recorder.set_layers([Layer("", "Model", "other", -1), Layer("a", "Linear", "mlp", 0)])
    request = recorder.requests.append(tags=0, start_ns=recorder.moments.count, end_ns=-1)
    for step in range(moments):
        row = recorder.moments.count
        recorder.spans.extend({"moment": np.full(2, row), "layer": np.arange(2), "self_ns": np.array([5, 7])})
        recorder.moments.append(request=request, kind=KINDS.index("decode"), step=step, tags=4, duration_ns=12)
        recorder.sample(recorder.track("memory", "bytes"), 1000.0 + row)
    recorder.operators.append(moment=0, name=recorder.name(f"op {request}"), place=0)
    recorder.instant("run", "something")
    recorder.output(Output(request, (1, 2), "text", "length", (0.5,)))


def same(one: Recorder, other: Recorder) -> None:
    ours, theirs = one.snapshot(), other.snapshot()
    for table in ("requests", "moments", "spans", "operators", "counters"):
        for name, column in getattr(ours, table).items():
            assert np.array_equal(column, getattr(theirs, table)[name], equal_nan=True), (table, name)
    for field in ("layers", "names", "tracks", "instants", "outputs"):
        assert getattr(ours, field) == getattr(theirs, field)


def over_the_wire(key: int, delta: object) -> tuple[int, object]:
    stream = io.BytesIO()
    Link(io.BytesIO(), stream).send_rows(key, delta)  # type: ignore[arg-type]
    stream.seek(0)
    came = Link(stream, io.BytesIO()).receive()
    assert isinstance(came, tuple)
    return came


def test_a_mirror_has_what_was_recorded_however_it_was_taken() -> None:
    recorder, mirror, written = Recorder(), Recorder(), Written()
    for moments in (3, 0, 1, 40, 2):
        recorded(recorder, moments)
        delta, written = since(recorder.snapshot(), written)
        key, came = over_the_wire(7, delta)
        assert key == 7
        put_into(mirror, came)  # type: ignore[arg-type]
        same(recorder, mirror)
        recorder.requests.set(recorder.requests.count - 1, end_ns=99)  # known only later
        recorder.moments.set(max(0, recorder.moments.count - 1), tags=64)
    delta, written = since(recorder.snapshot(), written)
    put_into(mirror, over_the_wire(7, delta)[1])  # type: ignore[arg-type]
    same(recorder, mirror)


def test_spans_of_a_moment_that_is_not_closed_wait_for_it() -> None:
    recorder = Recorder()
    recorded(recorder, 2)
    recorder.spans.extend({"moment": np.full(2, 2), "layer": np.arange(2)})
    delta, written = since(recorder.snapshot(), Written())
    assert (len(delta.columns["spans"]["moment"]), written.spans) == (4, 4)


def test_a_gap_is_noticed() -> None:
    recorder = Recorder()
    recorded(recorder, 3)
    delta, _ = since(recorder.snapshot(), Written(moments=2))
    with pytest.raises(ValueError, match="missing"):
        put_into(Recorder(), delta)


def changed(delta: Delta, table: str, column: str, value: int) -> Delta:
    columns = {name: {key: values.copy() for key, values in rows.items()} for name, rows in delta.columns.items()}
    columns[table][column][-1] = value
    return replace(delta, columns=columns)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("moments", "request", 1),
        ("moments", "kind", len(KINDS)),
        ("moments", "kind", -1),
        ("spans", "layer", 2),
        ("spans", "layer", -2),
        ("spans", "moment", 3),
        ("spans", "moment", 0),
        ("operators", "name", 1),
        ("operators", "place", 9),
        ("counters", "track", 1),
        ("counters", "track", -1),
        ("operators", "name", -1),
        ("spans", "layer", -1),
    ],
)
def test_rows_that_point_nowhere_are_refused(table: str, column: str, value: int) -> None:
    recorder = Recorder()
    recorded(recorder, 3)
    delta, _ = since(recorder.snapshot(), Written())
    mirror = Recorder()
    with pytest.raises(ValueError, match=f"{table}.*{column}|order"):
        put_into(mirror, changed(delta, table, column, value))
    assert mirror.moments.count == 0  # nothing of it was taken
    put_into(mirror, delta)
    same(recorder, mirror)


def test_layers_within_later_ones_and_outputs_of_no_request_are_refused() -> None:
    recorder = Recorder()
    recorded(recorder, 3)
    delta, _ = since(recorder.snapshot(), Written())
    for bad in (
        replace(delta, layers=(Layer("", "Model", "other", 1), Layer("a", "Linear", "mlp", 0))),
        replace(delta, layers=(Layer("", "Model", "nowhere", -1), Layer("a", "Linear", "mlp", 0))),
        replace(delta, outputs=(Output(5, (), None, "length"),)),
    ):
        with pytest.raises(ValueError, match=r"layer|output"):
            put_into(Recorder(), bad)


def frame(kind: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IB", len(payload) if length is None else length, kind) + payload


@pytest.mark.parametrize(
    "sent",
    [
        frame(9, b"{}"),
        frame(MESSAGE, b"[]"),
        frame(MESSAGE, b"{"),
        frame(MESSAGE, b'{"what": 3}'),
        frame(MESSAGE, b"", 2**32 - 1),
        frame(ROWS, b"\xc1"),
        frame(ROWS, msgspec.msgpack.encode({"key": 1, "first": {}})),
    ],
)
def test_what_makes_no_sense_ends_the_link(sent: bytes) -> None:
    with pytest.raises(LinkError):
        Link(io.BytesIO(sent), io.BytesIO()).receive()


@pytest.mark.parametrize("cut", [0, 3, 5, 9])
def test_a_stream_that_ends_is_the_end(cut: int) -> None:
    assert Link(io.BytesIO(frame(MESSAGE, b'{"what": "go"}')[:cut]), io.BytesIO()).receive() is None


def test_rows_of_another_shape_are_refused() -> None:
    recorder = Recorder()
    recorded(recorder, 2)
    stream = io.BytesIO()
    Link(io.BytesIO(), stream).send_rows(1, since(recorder.snapshot(), Written())[0])
    good = stream.getvalue()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        bad = bytearray(good)
        for place in rng.integers(5, len(bad), rng.integers(1, 6)):
            bad[place] = rng.integers(256)
        try:
            came = Link(io.BytesIO(bytes(bad)), io.BytesIO()).receive()
            if isinstance(came, tuple):
                put_into(Recorder(), came[1])
        except (LinkError, ValueError):
            continue


def test_a_link_works_over_pipes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as near, os.fdopen(writing, "wb", buffering=0) as far:
        link = Link(near, far)
        link.send("go", perturbed={"1": [3]})
        assert link.receive() == {"what": "go", "perturbed": {"1": [3]}}
