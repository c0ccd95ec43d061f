"""The session that a program writes to: made with the first run, changed by people, and looked at after every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.clock.gate import Gate
from core.errors import Refusal
from core.messages.reason import Reason
from core.notices import Notice

if TYPE_CHECKING:  # DuckDB takes 85 ms to import, which the window should not wait for
    from core.records.run import Run, RunFacts
    from core.session.store import SessionStore
    from core.session.writer import Writer
    from profilers.trace import Recorder


class Recorded(Protocol):
    """As much of ``core.execution.recording.Recording`` as is needed here."""

    number: int
    recorder: Recorder
    facts: RunFacts

    def run(self) -> Run: ...


def default_session_path(now: datetime) -> Path:
    """Where a session goes that nobody named: a new file in the user's data folder."""
    from core.session.keeping import sessions_folder

    return sessions_folder() / f"{now:%Y-%m-%d %H%M%S}.tickscope"


class CurrentSession:
    """``store`` is None until the first run, and where nothing is to be kept. Tells what becomes of it through ``tell``."""

    def __init__(self, path: Path | None, keep: bool, gate: Gate, tell: Callable[[Notice], None]) -> None:
        self.store: SessionStore | None = None
        self._path = path
        self._keep = keep
        self._gate = gate
        self._tell = tell
        self._writer: Writer | None = None

    def change(self, path: Path, *, create: bool) -> None:
        """Close the session and go on in another; ``Refusal`` if that cannot be opened (the present one then stays)."""
        from core.session.store import SessionStore

        self._go_on_in(SessionStore.open(path, create=create))

    def leave(self) -> None:
        """Close the session; the next run begins another in the user's data folder."""
        self.close()
        self._path = None
        self._tell(Notice("session_changed"))

    def close(self) -> None:
        """Write everything and let go of the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.store is not None:
            self.store.close()
            self.store = None

    def follow(self, recording: Recorded) -> None:
        """A run goes into the file from its first row on."""
        with _MadeFor(self) as store:
            if store is not None:
                recording.number = store.begin(recording.run())
                assert self._writer is not None
                self._writer.follow(recording.number, recording.recorder, lambda: recording.facts)

    def add(self, run: Run) -> Run:
        """Put a whole run into the file, or nothing of it; returns it with its id."""
        with _MadeFor(self) as store:
            return run if store is None else self.settle([replace(run, id=store.add(run))])[0]

    def settle(self, runs: Sequence[Run]) -> list[Run]:
        """The runs are over: write the rest, look whether all of it is there, and keep it elsewhere where it is not.

        Returns:
            The runs with the ids under which they are kept.
        """
        store = self.store
        if store is None or self._writer is None:
            return list(runs)
        written = self._writer.finish()
        why = store.missing(runs) or (None if written else Reason("session.not-written"))
        if why is None:
            return list(runs)
        from core.session.keeping import rescue

        gone = store.trouble()
        saved = rescue(runs, store.path, store if gone else None)
        if saved is None:
            self._tell(Notice("not_kept", Reason("session.export-now", path=str(store.path), why=why)))
            return list(runs)
        other, kept = saved
        self._writer.give_up()
        told = Reason("session.goes-on-in", path=str(store.path), why=why, other=str(other.path))
        self._tell(Notice("not_kept", told))
        self._go_on_in(other)
        return kept

    def _go_on_in(self, store: SessionStore) -> None:
        from core.session.writer import Writer

        self.close()
        self.store, self._path = store, store.path
        self._writer = Writer(store, self._gate, self._warn)
        self._tell(Notice("session_changed"))

    def made(self) -> bool:
        """Make the session if there is none yet and one is wanted; whether it was made now."""
        if self.store is not None or not self._keep:
            return False
        path = self._path or default_session_path(datetime.now())
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        self.change(path, create=True)
        return not there

    def discard(self) -> None:
        """Delete the session that was only just made."""
        from core.session.keeping import remove_session

        path = self._path
        self.close()
        if path is not None:
            remove_session(path)
        self._tell(Notice("session_changed"))

    def _warn(self, sentence: Reason) -> None:
        self._tell(Notice("warning", sentence))


class _MadeFor:
    """The session for a run that begins; if that fails, one that was made for it goes again."""

    def __init__(self, session: CurrentSession) -> None:
        self._session = session
        self._new = False

    def __enter__(self) -> SessionStore | None:
        self._new = self._session.made()
        return self._session.store

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, (Refusal, OSError)) and self._new:
            self._session.discard()
