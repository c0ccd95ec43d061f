"""Sees whether runs are in the file that they were written to, and keeps them in another where they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import platformdirs

from core.errors import Refusal
from core.messages.reason import Reason
from core.records.run import Run
from core.session.copying import copy_session
from core.session.database import remove_leftovers
from core.session.store import SessionStore

MOST_NAMES = 100


def sessions_folder() -> Path:
    """Where sessions go that nobody gave a place."""
    return Path(platformdirs.user_data_dir("tickscope", appauthor=False)) / "sessions"


def rescue(runs: Sequence[Run], path: Path, source: SessionStore | None = None) -> tuple[SessionStore, list[Run]] | None:
    """Put ``runs`` into a new session beside ``path``, or else in the user's data folder.

    ``source`` is the open session that was at ``path``: its earlier runs come along, as far as they can be read.
    Returns the new session, open, and the runs with their ids in it; None where nothing can be written anywhere.
    """
    for place in _places(path):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if source is not None:
                _copy(source, place)
            return _put(runs, place)
        except (Refusal, OSError):
            remove_session(place)
    return None


def confirm(path: Path, runs: Sequence[Run]) -> tuple[bool, Reason]:
    """After everything was closed: whether ``runs`` are in the file at ``path``, and a sentence about where they are."""
    try:
        store = SessionStore.open(path, create=False)
        try:
            why = store.missing(runs)
        finally:
            store.close()
    except Refusal as refusal:
        why = Reason("session.as-clause", sentence=refusal.reason)
    if why is None:
        return True, Reason("session.kept", path=str(path), runs=_named(runs))
    saved = rescue(runs, path)
    if saved is None:
        return False, Reason("session.not-kept", why=why)
    store, kept = saved
    store.close()
    return False, Reason("session.kept-elsewhere", path=str(path), why=why, other=str(store.path), runs=_named(kept))


def remove_session(path: Path) -> None:
    """Delete a session that was only just made, with its log."""
    path.unlink(missing_ok=True)
    remove_leftovers(path)


def _put(runs: Sequence[Run], place: Path) -> tuple[SessionStore, list[Run]]:
    store = SessionStore.open(place, create=True)
    try:
        there = {head.id for head in store.runs()}
        for number in {run.id for run in runs} & there:
            store.delete(number)  # as far as the old file had it
        kept = [replace(run, id=store.restore(run)) for run in runs]
        why = store.missing(kept)
        if why is not None:
            raise Refusal(why)
    except BaseException:
        store.close()
        raise
    return store, kept


def _copy(source: SessionStore, place: Path) -> None:
    """The earlier runs, if they can still be read; the new ones are more important than they."""
    try:
        with source.reading() as cursor:
            copy_session(cursor, place)
    except Refusal:
        remove_session(place)


def _places(path: Path) -> Iterator[Path]:
    for folder in (path.parent, sessions_folder()):
        for number in range(1, MOST_NAMES):
            mark = "rescued" if number == 1 else f"rescued {number}"
            place = folder / f"{path.stem[:80]} ({mark}){path.suffix}"
            if not place.exists():
                yield place
                break


def _named(runs: Sequence[Run]) -> Reason:
    return Reason("session.runs", n=len(runs), ids=tuple(str(run.id) for run in runs))
