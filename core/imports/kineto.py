"""Imports a Kineto or Chrome trace (``.json``, ``.json.gz``), such as ``torch.profiler`` exports, as a run of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.config import ModelConfig, RunConfig
from core.errors import Refusal
from core.imports.base import importers
from core.imports.content import Content, read_content
from core.imports.decoding import as_whole, decoded
from core.imports.events import read_events
from core.imports.slices import Slices
from core.imports.text import TraceText
from core.messages.reason import Reason
from core.records.run import Run, RunFacts, Unavailable

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def read_trace(path: Path) -> Run:
    """The trace at ``path`` as a run with the status "imported".

    ``ProfilerStep#n`` become moments (without any, the whole trace is one), ``nn.Module`` calls and marked regions layers with
    their spans, operators, driver calls, kernels, copies and Python functions become operators, allocations and counters
    become counter tracks. Times are ns from the first event on. What could not be read is told in ``facts.unavailable``.

    About 3 µs an event (2 GHz Xeon), in about 300 MB for a million of them (``benchmarks/import_trace.py``).

    Raises:
        Refusal: the file is not there, is no trace, unpacks to an absurd size, or holds no event with a duration.
    """
    text = TraceText(path)
    with _no_collection():
        slices = read_events(text)
        header = {**_header(text.header), **_footer(text.after_events())}
    if not slices.events:
        if text.problem is not None:
            raise Refusal(Reason("imports.no-event-because", name=path.name, problem=text.problem))
        raise Refusal(Reason("imports.no-event", name=path.name))
    content = read_content(slices, ours="tickscope" in header)
    if (
        not len(content.trace.operators["name"])
        and not len(content.trace.moments["kind"])
        and not len(content.trace.counters["value"])
    ):
        raise Refusal(Reason("imports.nothing-shown", name=path.name))
    name = path.name.encode("utf-8", "replace").decode()  # on Linux a name may be bytes that are no text
    source: dict[str, Any] = {"source": name, "events": slices.events, "bytes": text.size, **_settings(header)}
    if content.processes:
        source["processes"] = list(content.processes)
    facts = RunFacts(
        status="imported",
        environment=_environment(header),
        planned_moments=len(content.trace.moments["kind"]),
        unavailable=tuple(_unread(text, slices, name)),
        instruments={"import": source},
    )
    config = RunConfig(ModelConfig(f"trace:{name}"), profilers=(), name=name)
    return Run(0, name, _created(header, content, path), config, facts, content.trace)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Reading makes a million short-lived tuples, none in a circle: looking for circles took a tenth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _unread(text: TraceText, slices: Slices, name: str) -> Iterator[Unavailable]:
    """What a trace does not hold, or what of it could not be read."""
    if text.problem is not None:
        yield Unavailable(
            "the end of the trace", Reason("imports.ends-early", name=name, problem=text.problem, n=slices.events)
        )
    yield Unavailable("clean latency", Reason("imports.under-its-profiler"))
    for what, count in slices.left_out.items():
        yield Unavailable(what, Reason("imports.so-many-in", n=count, name=name))


def _header(text: bytes) -> Mapping[str, Any]:
    """What stands before the events, as far as it can be understood."""
    return _fields(text.rstrip().removesuffix(b",") + b"}" if text else b"{}")


def _footer(text: bytes) -> Mapping[str, Any]:
    """What stands behind the events: since torch 2.4 nearly everything does."""
    rest = text.strip().removeprefix(b",").strip().removesuffix(b"}")
    return _fields(b"{%b}" % rest.rstrip().removesuffix(b",")) if rest else {}


def _fields(text: bytes) -> Mapping[str, Any]:
    try:
        found = decoded(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _settings(header: Mapping[str, Any]) -> dict[str, Any]:
    flags = ("record_shapes", "profile_memory", "with_stack", "with_flops", "with_modules")
    return {name: bool(header[name]) for name in flags if isinstance(header.get(name), (int, bool))}


def _environment(header: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    devices = header.get("deviceProperties")
    names = (
        [str(one["name"]) for one in devices if isinstance(one, dict) and "name" in one] if isinstance(devices, list) else []
    )
    if names:
        found["devices"] = names
    if isinstance(header.get("host_name"), str):
        found["host_name"] = header["host_name"]
    return found


def _created(header: Mapping[str, Any], content: Content, path: Path) -> str:
    """When the first event was, if the trace knows, else when the file was written; ISO 8601 UTC."""
    base = as_whole(header.get("baseTimeNanoseconds"), 0)
    at = _EARLIEST
    seconds = (base + content.origin_ns) / 1e9
    if 1e9 < seconds < 1e10:
        at += timedelta(seconds=seconds)
    else:
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return at.isoformat(timespec="seconds")


@importers.register
class Kineto:
    """Traces as ``torch.profiler``, Chrome and Perfetto write them in JSON."""

    id = "kineto"
    title = "Kineto or Chrome trace"
    suffixes: Sequence[str] = (".json", ".json.gz")

    def read(self, path: Path) -> Run:
        """``read_trace``."""
        return read_trace(path)
