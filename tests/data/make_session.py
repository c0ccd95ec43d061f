"""Writes the sample session file of the current schema version beside this script: ``python -m tests.data.make_session``.

A sample of every version stays in this folder for good; a new schema version adds a file and changes no old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb

from core.config import ABTestConfig
from core.records.deltas import Written
from core.records.run import Group
from core.session.database import SETTINGS
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run


def main() -> None:
    path = Path(__file__).with_name(f"session-v{SCHEMA_VERSION}.tickscope")
    path.unlink(missing_ok=True)
    # Small blocks (a file of few rows takes 3 MB otherwise); an empty database is a session in the making to the store.
    duckdb.connect(str(path), config={**SETTINGS, "default_block_size": "16384"}).close()
    store = SessionStore.open(path)
    made = [
        replace(synthetic_run(repeats=2, new_tokens=8, blocks=6, scale=scale, status=status), name=name, note=note)
        for name, scale, status, note in (
            ("bfloat16", 1.0, "finished", "first try"),
            ("bfloat16 again", 1.25, "finished", ""),
            ("was killed", 1.0, "running", ""),
        )
    ]
    group = Group("0123456789abcdef", "ab_test", made[0].created, ABTestConfig(tuple(run.config for run in made[:2])))
    for role, run in enumerate(made):
        run_id = store.begin(replace(run, group=group, role=role) if role < 2 else run)
        store.append(run_id, run.trace, Written())
    store.close()


if __name__ == "__main__":
    main()
