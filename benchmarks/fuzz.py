"""``python -m benchmarks.fuzz``: does every reader of somebody else's file answer with a result or a sentence?

Each kind of file begins as a sound one that is made on the spot, and is changed by seeded random numbers (``mutations.py``).
Readers run in child processes, each input for 20 s at most. Counted are signals, hangs, and errors that are no sentence with
the file's name. Offending inputs are kept in ``--keep``, with a ``.why`` beside each.

    python -m benchmarks.fuzz --inputs 30000 --seed 7 --kind gguf --kind safetensors
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.fuzz_kinds import KINDS, Kind
from core.errors import Refusal

SECONDS = 20
ADDRESS_BYTES = 16 << 30
"""torch alone maps gigabytes; what one input takes beyond that is too much for any file here."""

GRACE_S = 10
"""How long a child that is stuck where Python cannot interrupt it is given beyond the limit."""


@dataclass(frozen=True)
class Finding:
    """One input that was not answered well. ``what``: signal, hang, bare, unnamed (a sentence without the file's name)."""

    kind: str
    number: int
    what: str
    why: str


class Hang(BaseException):
    """The input took longer than the limit."""


def changed(kind: Kind, sound: bytes, seed: int, number: int) -> bytes:
    """The input of that number."""
    return kind.change(sound, random.Random(f"{seed}/{kind.name}/{number}"))


def judged(kind: Kind, folder: Path, data: bytes) -> tuple[str, str] | None:
    """What is wrong with how the input was answered, and why; None if nothing is."""
    kind.put(folder, data)
    try:
        kind.read(folder)
    except Refusal as refusal:
        sentence = str(refusal)
        named = any(name in sentence for name in kind.names(folder))
        if not named or "\n" in sentence or not sentence.rstrip().endswith((".", ")", "]")):
            return "unnamed", sentence[:300]
        return None
    except Hang:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if f"{os.sep}core{os.sep}" in frame.filename] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return "bare", f"{type(error).__name__} {place} {str(error)[:200]!r}"
    return None


def run_here(
    kind: Kind, folder: Path, seed: int, numbers: range, progress: int | None = None, seconds: float = SECONDS
) -> Iterator[Finding]:
    """Judge inputs in this process. ``progress``: a file descriptor that the number under way is written to."""
    sound = kind.make(folder)
    alarms = hasattr(signal, "SIGALRM")

    def ring(*_: object) -> None:
        raise Hang

    if alarms:
        signal.signal(signal.SIGALRM, ring)
    for number in numbers:
        if progress is not None:
            os.pwrite(progress, f"{number:12d}".encode(), 0)
        data = changed(kind, sound, seed, number)
        try:
            if alarms:
                signal.setitimer(signal.ITIMER_REAL, seconds)
            wrong = judged(kind, folder, data)
        except Hang:
            wrong = ("hang", f"more than {seconds:g} s")
        finally:
            if alarms:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if wrong is not None:
            yield Finding(kind.name, number, *wrong)


def run_in_children(kind: Kind, seed: int, inputs: int) -> Iterator[Finding]:
    """Judge inputs in a child process, and in another from the next input on whenever one dies or is stuck."""
    first = 0
    while first < inputs:
        with tempfile.TemporaryDirectory(prefix="tickscope-fuzz-") as place:
            where = Path(place) / "progress"
            where.write_text(f"{first:12d}")
            command = [sys.executable, "-m", "benchmarks.fuzz", "--child", kind.name, str(seed), str(first), str(inputs), place]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            stuck = _watch(child, where)
            said, _ = child.communicate()
            yield from (Finding(**json.loads(line)) for line in said.splitlines() if line.startswith("{"))
            if child.returncode == 0:
                return
            number = int(where.read_text())
            why = "stuck where nothing interrupts it" if stuck else f"exit status {child.returncode}"
            yield Finding(kind.name, number, "hang" if stuck else "signal", why)
            first = number + 1


def _watch(child: subprocess.Popen[str], progress: Path) -> bool:
    """Wait for the child; kill it, and say so, where one input takes longer than the limit and some grace."""
    last, since = "", time.monotonic()
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
        now = progress.read_text()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > SECONDS + GRACE_S + 40 * (last.strip() == "0"):  # libraries are imported first
            child.kill()
            return True
    return False


def _child(name: str, seed: int, first: int, last: int, place: str) -> int:
    faulthandler.enable()
    _limit_memory()
    kind = KINDS[name]
    kind.warm_up()
    progress = os.open(Path(place) / "progress", os.O_WRONLY)
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is nobody's
    folder = Path(place) / "given-file"
    folder.mkdir()
    for finding in run_here(kind, folder, seed, range(first, last), progress):
        os.write(out, f"{json.dumps(asdict(finding))}\n".encode())
    return 0


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))


def _keep(finding: Finding, seed: int, into: Path) -> None:
    kind = KINDS[finding.kind]
    with tempfile.TemporaryDirectory() as place:
        data = changed(kind, kind.make(Path(place)), seed, finding.number)
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{finding.kind}-{seed}-{finding.number}{kind.suffix}").write_bytes(data)
    (into / f"{finding.kind}-{seed}-{finding.number}.why").write_text(f"{finding.what}: {finding.why}\n", "utf-8")


def main() -> int:
    """Run, print the counts, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Mutated files for every reader.")
    parser.add_argument("--inputs", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="one kind (several times for several; else all)")
    parser.add_argument("--keep", type=Path, help="folder for inputs that were not answered well")
    args = parser.parse_args()
    total: Counter[str] = Counter()
    for name in args.kind or sorted(KINDS):
        start, found, shown = time.monotonic(), Counter[str](), Counter[str]()
        for finding in run_in_children(KINDS[name], args.seed, args.inputs):
            found[finding.what] += 1
            shown[f"{finding.what}: {finding.why}"] += 1
            if args.keep is not None:
                _keep(finding, args.seed, args.keep)
        took = time.monotonic() - start
        counts = ", ".join(f"{count} {what}" for what, count in sorted(found.items())) or "nothing"
        print(f"{name:18} {args.inputs:7,} inputs {args.inputs / took:8,.0f}/s   {counts}", flush=True)
        for why, count in shown.most_common(12):
            print(f"    {count:6}  {why}", flush=True)
        total += found
    return 1 if total else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, seed, first, last, place = sys.argv[2:]
        sys.exit(_child(name, int(seed), int(first), int(last), place))
    sys.exit(main())
