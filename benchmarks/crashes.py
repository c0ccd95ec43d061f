"""What is true after a headless run was broken off? Kills it, fills its disk, takes its session away, at random moments.

python -m benchmarks.crashes [--times 60] [--seed 1] [--ways kill,full] [--model arch:llama?...] [--more '--pass bfloat16']

Each run's own words are held against the files: what it says is kept must be there, with exit 0 only where nothing happened to
it; afterwards no process of it may be left, and no leftover once a next run with the same folders has begun and ended.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from core.errors import Refusal
from core.session.store import SessionStore

TINY = "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=2&num_attention_heads=4&vocab_size=256"
WAYS = ("kill", "terminate", "full", "removed", "replaced", "cut")
ENDING_IT = ("kill", "terminate")
DISK = "4M"
PAUSE = threading.Event()  # never set
LIMIT_S = 120.0
GRACE_S = 3.0
"""A child process sees that its parent is gone within this time, or is an orphan."""

MARK = "TICKSCOPE_BROKEN_OFF"


@dataclass
class Found:
    """What was not true of one run."""

    happened: bool = False
    claims: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    said: str = ""


@dataclass(frozen=True)
class Place:
    """Folders of one run's own."""

    session: Path
    user: Path
    mark: str

    @property
    def temporary(self) -> Path:
        return self.user / "tmp"


def main() -> None:
    """Break off, look, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--more", default="", help="further words of the command line, such as '--pass bfloat16'")
    asked = parser.parse_args()
    ways = [way for way in asked.ways.split(",") if way in WAYS and (way != "full" or may_mount())]
    results: dict[str, list[Found]] = collections.defaultdict(list)
    began = time.monotonic()
    for number in range(asked.times):
        way = ways[number % len(ways)]
        found = broken_off(way, random.Random(asked.seed * 10_000 + number), [asked.model, *asked.more.split()])
        results[way].append(found)
        wrong = [*found.claims, *found.orphans, *found.leftovers]
        then = "" if found.happened else " (it had ended before)"
        print(f"{number} {way}{then}: {'WRONG: ' + '; '.join(wrong) if wrong else 'true'} · {found.said}", flush=True)
    print(f"\n{'way':<10} {'moments':>8} {'in time':>8} {'false claims':>13} {'orphans':>8} {'leftovers':>10}")
    everything = [one for each in results.values() for one in each]
    for way, each in [*results.items(), ("all", everything)]:
        told = [sum(bool(getattr(one, what)) for one in each) for what in ("happened", "claims", "orphans", "leftovers")]
        print(f"{way:<10} {len(each):>8} {told[0]:>8} {told[1]:>13} {told[2]:>8} {told[3]:>10}")
    print(f"{time.monotonic() - began:.0f} s")


def may_mount() -> bool:
    """Only the administrator may mount a small disk."""
    return os.geteuid() == 0


def broken_off(way: str, chance: random.Random, model: list[str]) -> Found:
    """One run, harmed at a random moment: from its very start on where it is ended, else from its first rows on."""
    found = Found()
    with tempfile.TemporaryDirectory() as name, disk(Path(name) / "disk", small=way == "full") as folder:
        place = Place(folder / "run.tickscope", Path(name) / "user", uuid.uuid4().hex)
        place.temporary.mkdir(parents=True)
        told = Path(name) / "told"
        child = begin(place, model, told)
        reached = True
        if way not in ENDING_IT or chance.random() < 0.7:
            reached = wait_for_rows(child, place.session)
            PAUSE.wait(chance.uniform(0.0, 1.5))
        else:
            PAUSE.wait(chance.uniform(0.1, 3.0))
        found.happened = reached and child.poll() is None and harm(way, child, place.session, folder)
        try:
            child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            found.claims.append("it did not end")
            return found
        words = told.read_text(errors="replace")
        found.said = words.strip().splitlines()[-1] if words.strip() else f"(no word, exit {child.returncode})"
        found.claims += untrue(way if found.happened else "nothing", child.returncode, words)
        found.orphans += [f"process {one.pid} ({one.name()}) is left" for one in left_over(place.mark)]
        (folder / "filler").unlink(missing_ok=True)
        if way in ("removed", "replaced", "cut"):  # the file itself is lost, and who ended by itself leaves nothing
            found.leftovers += lying_about(place, harmed_session=True)
        else:
            after_next_start(place, model, found)
        return found


def begin(place: Place, model: list[str], told: Path, repeats: int = 100) -> subprocess.Popen[bytes]:
    """A headless run of some seconds with folders of its own."""
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(place.user / "data"),
        "XDG_CACHE_HOME": str(place.user / "cache"),
        "TICKSCOPE_CACHE": str(place.user / "cache"),
        "TMPDIR": str(place.temporary),
        MARK: place.mark,
    }
    command = [sys.executable, "-c", "import sys; from core.cli import main; sys.exit(main())", "run", "--model", *model]
    command += ["--prompt-tokens", "8", "--new-tokens", "32"]
    command += ["--repeats", str(repeats), "--warmup", "1", "--threads", "1", "--out", str(place.session)]
    with told.open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment, start_new_session=True)


def wait_for_rows(child: subprocess.Popen[bytes], session: Path) -> bool:
    """Until the run writes."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and child.poll() is None:
        if session.exists():
            return True
        PAUSE.wait(0.05)
    return False


def harm(way: str, child: subprocess.Popen[bytes], session: Path, folder: Path) -> bool:
    """Do it; whether it could be done."""
    if way == "kill":
        child.send_signal(signal.SIGKILL)
    elif way == "terminate":
        child.send_signal(signal.SIGTERM)
    elif way == "full":
        fill(folder / "filler")
    elif way == "removed":
        session.unlink()
    elif way == "replaced":
        other = session.with_name("other")
        shutil.copy(Path(__file__).parent.parent / "tests" / "data" / "session-v3.tickscope", other)
        other.replace(session)
    else:
        whole = session.stat().st_size
        os.truncate(session, whole // 2)
        return whole > 0
    return True


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


def untrue(way: str, status: int, told: str) -> list[str]:
    """What the run claimed and is not so."""
    wrong = []
    if "Traceback" in told:
        wrong.append("a traceback")
    claims = re.findall(r"(?:[Kk]ept in|Not in .* kept in) (\S.*?\.tickscope) as run (\d+)", told)
    for path, number in claims:
        try:
            store = SessionStore.open(path, create=False)
            try:
                if not len(store.read(int(number)).trace.moments["kind"]):
                    wrong.append(f"run {number} of {path} has no moments")
            finally:
                store.close()
        except Refusal as refusal:
            wrong.append(f"claimed and not there: {refusal}")
    allowed = {"kill": (-9,), "terminate": (130, 143, -15, 0), "nothing": (0,)}.get(way, (0, 1))
    if way == "full" and not claims and "The disk is full" in told:
        allowed = (1, 2)  # full before anything was measured: the session was refused
    if status not in allowed:
        wrong.append(f"exit {status}")
    if status == 0 and not claims:
        wrong.append("exit 0 without a word about where it is kept")
    if way in ("removed", "replaced", "cut") and status == 0:
        wrong.append("exit 0 although its file was taken away")
    if way not in (*ENDING_IT, "nothing") and status == 1 and not claims and "Not kept" not in told:
        wrong.append("exit 1 without a word about what is kept")
    return wrong


def left_over(mark: str) -> list[psutil.Process]:
    """Processes that the run or a child of it began, by the mark in their environment, and that live on."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = list(_marked(mark))
        if not left or time.monotonic() > deadline:
            return left
        PAUSE.wait(0.1)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or is somebody else's


def lying_about(place: Place, *, harmed_session: bool = False) -> list[str]:
    """Files that nobody will use any more, where no process of the run lives.

    ``harmed_session``: the session itself was harmed, so a log of it may be all that is left of its rows.
    """
    wrong = [f"left over: tmp/{path.name}" for path in place.temporary.iterdir()]
    for root in (place.session.parent, place.user / "data", place.user / "cache"):
        for path in root.rglob("*"):
            log_of_it = harmed_session and path.name == place.session.name + ".wal"
            if not log_of_it and (path.suffix in (".part", ".wal", ".tmp") or re.match(r"\..*\.\d+-", path.name)):
                wrong.append(f"left over: {path.name}")
    return wrong


def after_next_start(place: Place, model: list[str], found: Found) -> None:
    """The next run with the same folders and file, and what it leaves lying about."""
    told = place.user / "told"
    try:
        status = begin(place, model, told, repeats=2).wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        found.claims.append("the next run did not end")
        return
    if status != 0:
        found.claims.append(f"the next run ended with {status}: {told.read_text(errors='replace').strip()[-200:]}")
        return
    found.orphans += [f"process {one.pid} ({one.name()}) is left by the next run" for one in left_over(place.mark)]
    found.leftovers += lying_about(place)
    store = SessionStore.open(place.session, create=False)
    statuses = [head.status for head in store.runs()]
    store.close()
    if statuses[-1] != "finished" or any(one not in ("interrupted", "cancelled", "finished") for one in statuses):
        found.claims.append(f"the file says {statuses}")


@contextmanager
def disk(path: Path, *, small: bool) -> Iterator[Path]:
    """A folder; a small disk of its own in memory where that is asked for."""
    path.mkdir()
    if not small:
        yield path
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


if __name__ == "__main__":
    main()
