"""Exports a run as a Chrome trace that Perfetto, chrome://tracing and HTA open, by the rules of ``measures.md`` §2."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import Refusal
from core.export.base import exporters
from core.export.files import replacing
from core.export.trace_events import events, origin_ns
from core.export.trace_slices import Options
from core.json_text import strict
from core.messages.reason import Reason
from core.records.run import Run
from core.session.codec import to_json
from profilers.trace import PLACES

_LEVEL = 1
"""Of gzip: level 6 makes the file a fifth smaller and takes three times as long."""

_CHROME_BYTES, _PERFETTO_BYTES = 250 << 20, 1 << 30


@exporters.register
class ChromeTrace:
    """One file per run; ``.json.gz`` is packed, ``.json`` is not. Several runs are told apart by their ids."""

    id = "chrome"
    title = "Chrome trace (Perfetto, HTA)"
    suffix = ".json.gz"

    def check(self) -> Reason | None:
        return None

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        files = [file_of(path, run, self.suffix, several=len(runs) > 1) for run in runs]
        for run, file in zip(runs, files, strict=True):
            write_trace(run, file)
        return files

    def warning(self, path: Path) -> Reason | None:
        """What to know before opening a written file that is large, or None."""
        return size_warning(path)


def file_of(path: Path, run: Run, suffix: str, *, several: bool) -> Path:
    """The file for one run: ``path`` itself, in it if it is a folder, and with the run's id where there are several."""
    if path.is_dir():
        return path / f"run{run.id}{suffix}"
    ending = next((one for one in (suffix, ".json.gz", ".json", ".gz") if path.name.lower().endswith(one)), "")
    stem = path.name[: len(path.name) - len(ending)] if ending else path.name
    number = f"-run{run.id}" if several else ""
    return path.with_name(f"{stem}{number}{ending or suffix}")


def write_trace(run: Run, path: Path, options: Options | None = None) -> None:
    """Write one run; packed if ``path`` ends in ``.gz``. A million spans take about 1.5 s.

    ``options.whole_us``: for HTA before it knew ``HTA_DISABLE_NS_ROUNDING=1``, which otherwise cuts slices below 1 µs.

    Raises:
        Refusal: ``path`` cannot be written.
    """
    options = options or Options()
    if not path.name.lower().endswith((".json", ".gz")):
        raise Refusal(Reason("export.not-a-trace-name", name=path.name))
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        text = _pieces(_whole(run, path, options))
        if path.name.lower().endswith(".gz"):
            text = _packed(text)
        for piece in text:
            file.write(piece)


def size_warning(path: Path) -> Reason | None:
    """A sentence if viewers will have trouble with a written trace, or None."""
    size = path.stat().st_size
    if path.suffix == ".gz":
        with path.open("rb") as file:
            file.seek(-4, 2)
            size = max(size, int.from_bytes(file.read(4), "little"))
    if size >= _PERFETTO_BYTES:
        return Reason("export.too-large-for-perfetto", name=path.name, megabytes=size >> 20)
    if size >= _CHROME_BYTES:
        return Reason("export.too-large-for-chrome", name=path.name, megabytes=size >> 20)
    return None


def _whole(run: Run, path: Path, options: Options) -> Iterator[bytes]:
    """The file's text: everything that describes the run comes before the events, where HTA stops to read."""
    head = strict(_head(run, options))
    yield head[:-1].encode() + b', "traceEvents": [\n'
    held = b""
    for piece in events(run, options):
        if piece:
            yield held
            held = piece
    yield held.removesuffix(b",\n") + b'\n], "traceName": %b}\n' % json.dumps(path.name).encode()


def _head(run: Run, options: Options) -> dict[str, Any]:
    operators = run.trace.operators
    target = run.facts.target
    devices = [target.name] if target is not None and target.id != "cpu" else []
    devices = [str(name) for name in run.facts.environment.get("devices", ())] if run.imported else devices
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": number, "name": name} for number, name in enumerate(devices)],
        "distributedInfo": {"rank": 0},
        "record_shapes": int(bool((operators["shapes"] >= 0).any())),
        "with_stack": 0,
        "profile_memory": int(bool((operators["allocated_bytes"] >= 0).any())),
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": _base_ns(run),
        "tickscope": 1,
        "metadata": _metadata(run, options),
    }


def _base_ns(run: Run) -> int:
    try:
        return round(datetime.fromisoformat(run.created).timestamp()) * 1_000_000_000 + origin_ns(run)
    except ValueError:
        return 0


def _metadata(run: Run, options: Options) -> dict[str, str | int]:
    """Settings as texts and numbers only: Perfetto shows them so, and HTA's reader stumbles over lists in lists."""
    facts, config = run.facts, run.config
    python = int((run.trace.operators["place"] == PLACES.index("python")).sum())
    found: dict[str, str | int | None] = {
        "run": run.name,
        "created": run.created,
        "status": facts.status,
        "model": config.model.spec,
        "dtype": None if run.imported else config.model.dtype,
        "passes": None if run.imported else ", ".join(choice.id for choice in config.passes) or "none",
        "target": None if run.imported else config.target.id,
        "threads": facts.threads,
        "workload": None if run.imported else to_json(config.workload),
        "profilers": ", ".join(config.profilers),
        "unavailable": "; ".join(f"{one.what}: {one.why}" for one in facts.unavailable),
        "left_out": f"{python} Python functions" if python and not options.python else "nothing",
        "hint": "Set HTA_DISABLE_NS_ROUNDING=1 for HTA, or it cuts slices below 1 µs.",
    }
    return {name: value for name, value in found.items() if value is not None}


def _pieces(text: Iterable[bytes], least: int = 1 << 20) -> Iterator[bytes]:
    """The same text in pieces of about a megabyte, since some come by the line."""
    held: list[bytes] = []
    size = 0
    for piece in text:
        held.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _packed(text: Iterable[bytes]) -> Iterator[bytes]:
    """The text as gzip; packed on a thread of its own while the next piece is made (zlib lets go of the interpreter)."""
    pack = zlib.compressobj(_LEVEL, wbits=31)
    with ThreadPoolExecutor(1, thread_name_prefix="packing") as thread:
        before: Future[bytes] | None = None
        for piece in text:
            following = thread.submit(pack.compress, piece)
            if before is not None:
                yield before.result()
            before = following
        if before is not None:
            yield before.result()
    yield pack.flush()
