"""A session whose program was killed while it was being made is made anew; a copy that lacks its log is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Refusal
from core.session import making
from core.session.store import SessionStore
from tests.support.folders import ROOT
from tests.support.synthetic import synthetic_run

KILLED = """
import os, sys
from pathlib import Path
from core.session import store
if sys.argv[2] == "before":
    store.migrate = lambda *_: os._exit(9)
else:
    migrate = store.migrate
    store.migrate = lambda *given: (migrate(*given), os._exit(9))
store.SessionStore.open(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_was_killed_while_it_was_made_takes_the_next_run(tmp_path: Path, when: str, create: bool) -> None:
    path = tmp_path / "run.tickscope"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), when], check=False, cwd=ROOT)
    assert ended.returncode == 9
    assert any(name.endswith(making.SUFFIX) for name in os.listdir(tmp_path))
    store = SessionStore.open(path, create=create)
    store.add(synthetic_run(repeats=1, new_tokens=2, blocks=1))
    store.close()
    assert os.listdir(tmp_path) == [path.name]
    store = SessionStore.open(path, create=False)
    assert len(store.runs()) == 1
    store.close()


def test_only_marks_of_this_file_and_of_dead_programs_count(tmp_path: Path) -> None:
    path, other = tmp_path / "run.tickscope", tmp_path / "other.tickscope"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), "before"], check=False, cwd=ROOT)
    assert ended.returncode == 9
    (mark,) = (one for one in tmp_path.iterdir() if one.name.endswith(making.SUFFIX))
    other.write_bytes(path.read_bytes())
    running = tmp_path / f"{making.PREFIX}{making.process_mark()}-{making._number(other)}{making.SUFFIX}"
    mark.rename(running)
    with pytest.raises(Refusal, match="copied without its log"):
        SessionStore.open(other, create=False)
    assert other.exists()
    assert running.exists()
