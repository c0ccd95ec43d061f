"""Does any damaged trace crash, hang or surprise the import? Promised: no signal, no hang over 20 s, no bare exception.

    python -m benchmarks.fuzz_traces [--inputs 30000] [--seed N] [--keep FOLDER]

Small traces as torch, old torch, ``EventList`` and other tools write them are mutated: bytes, tokens, numbers, whole values,
cuts, and the packed file. Each is imported, summed up and reported (some kept, too) in a child process with limits of time and
of memory. What is wrong is printed with its seed, which makes the input again: ``--seed N --inputs 1 --keep FOLDER`` writes it.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.records.run import Run
    from core.session.store import SessionStore

SECONDS = 20
MEMORY_BYTES = 4 << 30
CHUNK = 500
KEPT_EVERY = 7
"""Every so many are kept in a session, too, which takes ten times as long."""

Event = dict[str, Any]


def main() -> None:
    """Run the children, print what they met; exit 1 if that is anything but runs and refusals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the inputs there and import nothing")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return
    if asked.keep:
        for number in range(asked.inputs):
            print(written(asked.keep, asked.seed + number))
        return
    found = carry_out(asked.seed, asked.inputs, asked.jobs)
    bad = {what: seeds for what, seeds in found.items() if what not in ("run", "refused")}
    print(
        f"seed {asked.seed}, {asked.inputs:,} inputs: " + ", ".join(f"{what} {len(seeds):,}" for what, seeds in found.items())
    )
    for what, seeds in bad.items():
        print(f"{what}: seeds {seeds[:10]}")
    sys.exit(1 if bad else 0)


def carry_out(seed: int, inputs: int, jobs: int = 1) -> dict[str, list[int]]:
    """Seeds by what came of them: "run", "refused", "signal …", "hang" or a bare exception's text."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    todo = [(seed + at, min(CHUNK, inputs - at)) for at in range(0, inputs, CHUNK)]
    running: list[tuple[subprocess.Popen[str], int, int]] = []
    while todo or running:
        while todo and len(running) < jobs:
            first, count = todo.pop(0)
            command = [sys.executable, "-m", "benchmarks.fuzz_traces", "--child", str(first), str(count)]
            running.append((subprocess.Popen(command, stdout=subprocess.PIPE, text=True), first, count))
        process, first, count = running.pop(0)
        lines = process.communicate()[0].splitlines()
        for line in lines:
            number, what = json.loads(line)
            found[what].append(number)
        if process.returncode:
            broken = first + len(lines)
            why = signal.Signals(-process.returncode).name if process.returncode < 0 else f"exit {process.returncode}"
            found["hang" if why == "SIGALRM" else f"signal {why}"].append(broken)
            if len(lines) + 1 < count:
                todo.insert(0, (broken + 1, count - len(lines) - 1))
    return dict(found)


def child(first: int, count: int) -> None:
    """Import inputs one after another, one line each; a hang or a crash ends the process, and the parent goes on behind it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    from core.session.store import SessionStore

    with tempfile.TemporaryDirectory() as folder:
        store = SessionStore.open(Path(folder) / "kept.tickscope")
        for seed in range(first, first + count):
            path = written(Path(folder), seed)
            signal.alarm(SECONDS)
            what = outcome(path, store if seed % KEPT_EVERY == 0 else None)
            signal.alarm(0)
            path.unlink()
            print(json.dumps([seed, what]), flush=True)


def outcome(path: Path, store: SessionStore | None = None) -> str:
    """What comes of importing, summing up and reporting a file, and of keeping its run in a session if one is given."""
    from core.analysis.summary import summarize
    from core.commands import report
    from core.commands.import_trace import imported_text
    from core.errors import Refusal
    from core.imports.kineto import read_trace

    try:
        try:
            run = read_trace(path)
        except Refusal as refusal:
            return "refused" if path.name in str(refusal) else f"no file's name in: {refusal}"
        summary = summarize(run, intervals=False)
        json.dumps(summary, allow_nan=False)
        report.text(summary)
        imported_text(run)
        if store is not None:
            keep(store, run)
    except Exception as error:  # noqa: BLE001  # any at all is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:80]}"
    trouble = _trouble(run)
    return f"inconsistent: {trouble}" if trouble else "run"


def keep(store: SessionStore, run: Run) -> None:
    """Put the run into the session, read it back and take it out again."""
    from core.records.deltas import Written

    number = store.begin(run)
    store.append(number, run.trace, Written())
    store.update(number, run.facts)
    assert store.read(number).trace.names == run.trace.names, "other names were kept"
    store.delete(number)


def _trouble(run: Any) -> str:
    """What cannot be so in any run."""
    trace = run.trace
    moments, layers, names = len(trace.moments["kind"]), len(trace.layers), len(trace.names)
    for name, columns, most in (
        ("moment", trace.operators, moments),
        ("layer", trace.operators, layers),
        ("name", trace.operators, names),
        ("shapes", trace.operators, names),
        ("moment", trace.spans, moments),
        ("layer", trace.spans, layers),
        ("track", trace.counters, len(trace.tracks)),
    ):
        column = columns[name]
        if len(column) and not (column.min() >= -1 and column.max() < most):
            return f"{name} beyond {most}"
    for columns in (trace.operators, trace.spans, trace.moments):
        if len(columns["duration_ns"]) and int(columns["duration_ns"].min()) < 0:
            return "a negative duration"
    own = trace.operators
    return "more own time than time" if (own["self_ns"] > own["duration_ns"]).any() else ""


# -- inputs ----------------------------------------------------------------------------------------------------------------


def written(folder: Path, seed: int) -> Path:
    """The file of a seed."""
    rng = random.Random(seed)
    text = rng.choice(STYLES)(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        text = rng.choice(MUTATIONS)(rng, text)
    packed = rng.random() < 0.3
    if packed:
        text = gzip.compress(text, 1)
        if rng.random() < 0.5:
            text = rng.choice((_flip, _cut, _splice))(rng, text)
    path = folder / f"trace{seed}{'.json.gz' if packed else '.json'}"
    path.write_bytes(text)
    return path


def _kineto(rng: random.Random) -> bytes:
    """As torch writes today or wrote in 1.8, with its header before or behind, indented or not."""
    old = rng.random() < 0.3
    categories = (
        ("Operator", "Operator", "Runtime", "Kernel", "Memcpy", "python_function")
        if old
        else ("user_annotation", "cpu_op", "cuda_runtime", "kernel", "gpu_memcpy", "python_function")
    )
    base = rng.choice((0, 4_453_914_635_000, 1_708_722_576_000_000, 1_708_722_576_000_000.125))
    events = [event for rank in range(rng.choice((1, 1, 2))) for event in _step_events(rng, categories, base, 100 + rank, rank)]
    if rng.random() < 0.3:
        rng.shuffle(events)
    header = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "L4"}], "record_shapes": 1, "with_stack": 1}
    footer = {"traceName": "C:\\t.json", "displayTimeUnit": "ms", "baseTimeNanoseconds": 1_790_857_026_000_000_000}
    parts = [header, {"traceEvents": events}, footer]
    whole = {key: value for part in (parts if rng.random() < 0.5 else parts[1:] + parts[:1]) for key, value in part.items()}
    text = json.dumps(whole, indent=rng.choice((None, 1)), separators=rng.choice((None, (",", ":")))).encode()
    return text.replace(b"\\\\", b"\\") if rng.random() < 0.2 else text


def _step_events(rng: random.Random, categories: tuple[str, ...], base: float, pid: int, device: int) -> Iterator[Event]:
    step, operator, runtime, kernel, copy, python = categories

    def one(name: str, at: float, length: float, category: str, tid: Any = 11, owner: Any = None, **args: Any) -> Event:
        owner = pid if owner is None else owner
        return {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": owner,
            "tid": tid,
            "ts": base + at,
            "dur": length,
            "args": args,
        }

    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": 0, "args": {"name": "python"}}
    for number in range(rng.randint(0, 4)):
        at = 1000.0 * number
        yield one(f"ProfilerStep#{number}", at, 900, step)
        yield one(f"nn.Module: Block_{number}", at + 1, 800, python, **{"Python id": 1})
        for each in range(rng.randint(0, 6)):
            here = at + 10 + 100 * each
            yield one("attention", here, 90, step)
            yield one("aten::mm", here + 1, 80.125, operator, **{"Input Dims": [[4, 32], [], [32, 8]], "flops": 2048})
            yield one("C:\\new\\run.py(3): f", here + 2, 5, python)
            yield one("launch", here + 10, 5, runtime, correlation=10 * number + each)
            yield one("gemm", here + 40, 70, kernel, 7, device, stream=7, correlation=10 * number + each)
            yield one("Memcpy HtoD", here + 60, 5, copy, 7, device, bytes=512)
            args = {"Bytes": 64, "Total Allocated": 64 * each, "Device Type": each % 2, "Device Id": device - 1}
            yield {"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": pid, "tid": 11,
                   "ts": base + here + 3, "args": args}  # fmt: skip
        yield {"ph": "C", "name": "power", "pid": pid, "ts": base + at, "args": {"watt": 25.5, "gpu": number}}
    yield {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": base + 5000}


def _other_tools(rng: random.Random) -> bytes:
    """A bare list of begins and ends, asynchronous events, counters, and slices without a category."""
    events: list[Event] = []
    for number in range(rng.randint(1, 60)):
        phase = rng.choice(("B", "E", "b", "e", "n", "X", "X", "C", "i", "s", "f", "N", "R", "S", "F", "P"))
        pid = rng.choice((1, 2, "CPU functions", "CUDA functions"))
        event: Event = {"ph": phase, "name": f"n{number % 5}", "pid": pid, "tid": number % 3, "ts": rng.randint(0, 999)}
        if phase == "X":
            event["dur"] = rng.randint(0, 99)
        if phase in "benSF":
            event |= {"id": rng.choice((0, "0x1", 7)), "cat": "COLL"}
        if phase == "C":
            event["args"] = {"v": rng.random()}
        events.append(event)
    return json.dumps(events).encode()


STYLES: tuple[Callable[[random.Random], bytes], ...] = (_kineto, _kineto, _kineto, _other_tools)

_ODD = (
    b"0", b"-1", b"1e308", b"-1e308", b"1e999", b"NaN", b"Infinity", b"9223372036854775807", b"-9223372036854775808", b"1" * 30,
    b"1" * 5000, b"1708722576000000.123", b"-0.0", b"null", b"true", b'""', b'"\\ud800"', b'"\\u0000"', b'"\\"', b"[]", b"{}",
    b"[[[[]]]]", b'{"a": {}}', b'"x', b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"1e-400", b"0x10", b"'a'", b"1_000",
)  # fmt: skip
_TOKENS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\x00",
    b"},{",
    b'"}',
    b"\xef\xbb\xbf",
    b"\\u",
    b"]}",
    b"/*",
)
_KEYS = (b'"ts"', b'"dur"', b'"ph"', b'"pid"', b'"tid"', b'"cat"', b'"name"', b'"args"', b'"id"', b'"correlation"',
         b'"Input Dims"', b'"Total Allocated"', b'"Device Type"', b'"Device Id"', b'"Bytes"', b'"flops"', b'"bytes"',
         b'"baseTimeNanoseconds"', b'"deviceProperties"', b'"traceEvents"', b'"host_name"', b'"record_shapes"')  # fmt: skip


def _flip(rng: random.Random, text: bytes) -> bytes:
    found = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 16))):
        if found:
            found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def _cut(rng: random.Random, text: bytes) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _splice(rng: random.Random, text: bytes) -> bytes:
    """Take out, double, or move a part."""
    begin = rng.randrange(len(text) + 1)
    end = min(len(text), begin + rng.choice((1, 3, 20, 300, 5000)))
    put = rng.choice((b"", text[begin:end] * 2, text[begin:end] * 20))
    return text[:begin] + put + text[end:]


def _insert(rng: random.Random, text: bytes) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(_TOKENS + _ODD) + text[at:]


def _drop_token(rng: random.Random, text: bytes) -> bytes:
    token = rng.choice(_TOKENS[:8])
    at = text.find(token, rng.randrange(len(text) + 1))
    return text if at < 0 else text[:at] + text[at + len(token) :]


def _odd_value(rng: random.Random, text: bytes) -> bytes:
    """Another value for a key, once or everywhere."""
    key, odd = rng.choice(_KEYS), rng.choice(_ODD)
    parts = text.split(key)
    chosen = set(range(1, len(parts))) if rng.random() < 0.2 else {rng.randrange(1, len(parts))} if len(parts) > 1 else set()
    for number in chosen:
        part = parts[number]
        colon = part.find(b":")
        ends = [end for end in (part.find(b","), part.find(b"}")) if end > colon]
        if colon >= 0 and ends:
            parts[number] = part[: colon + 1] + odd + part[min(ends) :]
    return key.join(parts)


def _other_key(rng: random.Random, text: bytes) -> bytes:
    return text.replace(rng.choice(_KEYS), rng.choice(_KEYS), rng.choice((1, -1)))


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _cut, _splice, _insert, _drop_token, _odd_value, _odd_value, _odd_value, _other_key,
)  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
