"""What is true after a headless run was broken off? Kills it, fills its disk, takes its session away, at random moments.

python -m benchmarks.crashes [--times 60] [--seed 1] [--model arch:llama?...]

Each run's own words are held against the files: what it says is kept must be there, with exit 0 only where nothing happened to
it; afterwards no process of it may be left, and no leftover once a next run with the same folders has begun.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from core.errors import Refusal
from core.session.store import SessionStore

TINY = "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=2&num_attention_heads=4&vocab_size=256"
WAYS = ("kill", "terminate", "full", "removed", "replaced", "cut")
DISK = "24M"
PAUSE = threading.Event()  # never set
LIMIT_S = 120.0


def main() -> None:
    """Break off, look, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default=TINY)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    found: collections.Counter[str] = collections.Counter()
    for number in range(asked.times):
        way = WAYS[number % len(WAYS)]
        if way == "full" and os.geteuid() != 0:
            continue  # only the administrator may mount a small disk
        wrong, said = broken_off(way, chance, asked.model)
        found[way if not wrong else f"{way} WRONG"] += 1
        print(f"{number} {way}: {'WRONG: ' + '; '.join(wrong) if wrong else 'true'} · {said}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))


def broken_off(way: str, chance: random.Random, model: str) -> tuple[list[str], str]:
    """What was not true after one run, and the last thing it said."""
    with tempfile.TemporaryDirectory() as name, disk(Path(name) / "disk", small=way == "full") as folder:
        user = Path(name) / "user"
        session = folder / "run.tickscope"
        child = begin(session, model, user)
        reached = wait_for_rows(child, session)
        PAUSE.wait(chance.uniform(0.0, 2.5))
        happened = reached and child.poll() is None and harm(way, child, session, folder)
        try:
            _, told = child.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return ["it did not end"], ""
        wrong = untrue(way if happened else "nothing", child.returncode, told)
        wrong += [f"process {one.pid} is left" for one in left_over(child.pid)]
        if way == "full":
            (folder / "filler").unlink(missing_ok=True)
        if way in ("kill", "terminate") and session.exists():
            wrong += after_next_start(session, model, user)
        return wrong, told.strip().splitlines()[-1] if told.strip() else f"(killed, exit {child.returncode})"


def begin(session: Path, model: str, user: Path, repeats: int = 80) -> subprocess.Popen[str]:
    """A headless run of some seconds with folders of its own."""
    environment = {**os.environ, "XDG_DATA_HOME": str(user / "data"), "TICKSCOPE_CACHE": str(user / "cache")}
    command = [sys.executable, "-c", "import sys; from core.cli import main; sys.exit(main())", "run", "--model", model]
    command += ["--prompt-tokens", "8", "--new-tokens", "32"]
    command += ["--repeats", str(repeats), "--warmup", "1", "--threads", "1", "--out", str(session)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_rows(child: subprocess.Popen[str], session: Path) -> bool:
    """Until the run writes."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and child.poll() is None:
        if session.exists():
            return True
        PAUSE.wait(0.05)
    return False


def harm(way: str, child: subprocess.Popen[str], session: Path, folder: Path) -> bool:
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
        os.truncate(session, session.stat().st_size // 2)
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
    allowed = {"kill": (-9,), "terminate": (130, 143, 0), "nothing": (0,)}.get(way, (0, 1))
    if status not in allowed:
        wrong.append(f"exit {status}")
    if status == 0 and not claims:
        wrong.append("exit 0 without a word about where it is kept")
    if way in ("removed", "replaced", "cut") and status == 0:
        wrong.append("exit 0 although its file was taken away")
    return wrong


def left_over(parent: int) -> Iterator[psutil.Process]:
    """Processes that the run began and that live on."""
    for process in psutil.process_iter(["ppid", "environ"]):
        if process.info["ppid"] == parent:
            yield process


def after_next_start(session: Path, model: str, user: Path) -> list[str]:
    """The next run with the same folders and file, and what it leaves lying about."""
    child = begin(session, model, user, repeats=2)
    _, told = child.communicate(timeout=LIMIT_S)
    wrong = [] if child.returncode == 0 else [f"the next run ended with {child.returncode}: {told.strip()[-200:]}"]
    names = [path for root in (session.parent, user) for path in root.rglob("*")]
    wrong += [f"left over: {path.name}" for path in names if path.suffix in (".part", ".wal", ".tmp")]
    store = SessionStore.open(session, create=False)
    statuses = [head.status for head in store.runs()]
    store.close()
    if statuses[-1] != "finished" or any(one not in ("interrupted", "cancelled", "finished") for one in statuses):
        wrong.append(f"the file says {statuses}")
    return wrong


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
