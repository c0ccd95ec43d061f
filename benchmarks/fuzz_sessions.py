"""Does any changed session file do more than earn a sentence? Mutates a good one and shows, exports and lists what comes of it.

python -m benchmarks.fuzz_sessions [--times 1000] [--seed 1] [--keep FOLDER]

Bytes are flipped, cut and overwritten, and values in the tables replaced (JSON texts, NULLs, wrong numbers). A child opens each
file as the command line and the window do; counted are signals, hangs over 20 s, and exceptions that are no sentence.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import multiprocessing
import random
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "session-v3.tickscope"
LIMIT_S = 20.0
WORDS = (
    "",
    "nonsense",
    "NaN",
    "-1",
    "999999999999999999999",
    "[]",
    "{}",
    "null",
    "true",
    "<b>x</b>",
    "=1+1",
    "\x1b[2J",
    "\ud7ff" * 3,
)
NUMBERS = (0, -1, -2, 1, 7, 127, 128, 32767, 2**31 - 1, -(2**31))
LONG = (*NUMBERS, 2**62, 2**63 - 1, -(2**63))
TREES = (None, True, -1, 0, 1.5, 1e308, float("inf"), float("nan"), "", "x", "\ud800", [], [None], {}, {"a": 1}, 10**30)


def main() -> None:
    """Mutate, open, count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that did more than earn a sentence")
    asked = parser.parse_args()
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        todo = range(asked.seed, asked.seed + asked.times)
        for seed, outcome in outcomes(list(todo), Path(folder)):
            kind = outcome.partition(":")[0]
            found[kind] += 1
            if kind not in ("shown", "refused"):
                print(f"seed {seed}: {outcome}", flush=True)
                if asked.keep is not None:
                    asked.keep.mkdir(parents=True, exist_ok=True)
                    mutated(seed, asked.keep / f"{seed}.tickscope")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(found.items())))


def outcomes(seeds: list[int], folder: Path) -> Any:
    """What came of each seed, from a child that is begun anew when it dies or hangs."""
    context = multiprocessing.get_context("spawn")
    while seeds:
        ours, theirs = context.Pipe()
        child = context.Process(target=_try_all, args=(seeds, folder, theirs))
        child.start()
        theirs.close()
        try:
            while seeds:
                if not ours.poll(LIMIT_S + (40 if child.exitcode is None and not hasattr(child, "warm") else 0)):
                    yield seeds.pop(0), "hang"
                    break
                child.warm = True
                yield seeds.pop(0), ours.recv()
        except EOFError:
            child.join()
            yield seeds.pop(0), f"signal: exit {child.exitcode}"
        finally:
            child.kill()
            child.join()


def _try_all(seeds: list[int], folder: Path, answers: Any) -> None:
    for seed in seeds:
        path = folder / "mutated.tickscope"
        path.with_name(path.name + ".wal").unlink(missing_ok=True)
        mutated(seed, path)
        answers.send(tried(path))


def tried(path: Path) -> str:
    """``shown``, ``refused: sentence`` or ``exception: what``: what a person would meet who opens that file."""
    from core.errors import Refusal
    from core.records.run import UNREADABLE
    from core.session.store import SessionStore

    said = ""
    try:
        store = SessionStore.open(path, create=False)
        try:
            for head in store.runs():
                if head.status == UNREADABLE:
                    said = f"refused: {head.facts.error}"
                    continue
                try:
                    use(store.read(head.id), path)
                except Refusal as refusal:
                    said = f"refused: {refusal}"
        finally:
            store.close()
    except Refusal as refusal:
        return f"refused: {refusal}"
    except BaseException:  # noqa: BLE001 - what is looked for
        return f"exception: {traceback.format_exc(limit=-3)}"
    return said or "shown"


def use(run: Any, path: Path) -> None:
    """As much as show, export and compare do with a run."""
    from core.analysis.compare import compare
    from core.commands import report
    from core.commands.output import json_text
    from core.commands.sessions import summarized
    from core.export.csv_tables import TABLES

    summary = summarized(run, path, intervals=False)
    json_text(summary)
    report.text(summary)
    report.markdown(summary)
    for table in TABLES.values():
        table(run)
    compare(run, run)


def mutated(seed: int, path: Path) -> Path:
    """The good session, changed as that seed says."""
    chance = random.Random(seed)
    shutil.copy(SAMPLE, path)
    chance.choice((_bytes, _values, _trees, _trees, _values))(chance, path)
    return path


def _bytes(chance: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 3, 20))):
        at = chance.randrange(len(content))
        way = chance.randrange(4)
        if way == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            content[at : at + chance.choice((1, 8, 512))] = chance.randbytes(8)
        elif way == 2:
            del content[at:]
        else:
            content[at:at] = chance.randbytes(chance.choice((1, 16)))
        if not content:
            break
    path.write_bytes(content)


def _values(chance: random.Random, path: Path) -> None:
    """Numbers, words and holes in the tables."""
    import duckdb

    with duckdb.connect(str(path)) as file:
        columns = file.execute("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal").fetchall()
        for _ in range(chance.choice((1, 1, 2, 5))):
            table, column, kind = chance.choice(columns)
            value: Any = chance.choice(WORDS) if kind == "VARCHAR" else chance.choice(LONG if kind == "BIGINT" else NUMBERS)
            if kind.endswith("[]"):
                value = [chance.choice(NUMBERS), None]
            if kind == "DOUBLE":
                value = chance.choice((float("nan"), float("inf"), -1e308, 0.5))
            if chance.random() < 0.15:
                value = None
            where = chance.choice(("", " WHERE rowid = 0", " WHERE rowid % 7 = 3"))
            action = chance.choice(("update", "update", "update", "delete", "double"))
            try:
                if action == "update":
                    file.execute(f'UPDATE {table} SET "{column}" = ?{where}', [value])
                elif action == "delete":
                    file.execute(f"DELETE FROM {table}{where}")
                else:
                    file.execute(f"INSERT INTO {table} SELECT * FROM {table}{where}")
            except duckdb.Error:
                continue  # the column takes no such value


def _trees(chance: random.Random, path: Path) -> None:
    """The JSON texts of what was asked, what is known, and the environment."""
    import duckdb

    with duckdb.connect(str(path)) as file:
        where = chance.choice((("runs", "config"), ("runs", "facts"), ("runs", "facts"), ("environment", "value")))
        rows = file.execute(f"SELECT rowid, {where[1]} FROM {where[0]}").fetchall()
        for row, text in chance.sample(rows, min(len(rows), chance.choice((1, 3, 9)))):
            tree = [json.loads(text)]
            for _ in range(chance.choice((1, 1, 2, 6))):
                _change(chance, tree)
            changed = json.dumps(tree[0])
            if chance.random() < 0.05:
                changed = changed[: chance.randrange(len(changed) + 1)]
            file.execute(f"UPDATE {where[0]} SET {where[1]} = ? WHERE rowid = ?", [changed, row])


def _change(chance: random.Random, tree: list[Any]) -> None:
    holder: Any = tree
    key: Any = 0
    while isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.85:
        holder = holder[key]
        key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    if chance.random() < 0.15 and holder is not tree:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(chance.choice(TREES))  # it may be changed in its turn


if __name__ == "__main__":
    main()
