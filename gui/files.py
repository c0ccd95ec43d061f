"""What the File menu does: sessions are opened, begun and copied, traces imported, runs exported; all off the GUI thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QFileDialog, QWidget

from core.error_text import first_line, said, trace
from core.imports.base import importer_of, importers
from core.notices import Notice
from gui.last_folder import last_folder, short_path, use_folder, within

if TYPE_CHECKING:
    from core.program import Program
    from core.records.run import Run
    from gui.bridge import Bridge
    from gui.view_state import ViewState

SESSIONS = "Tickscope session (*.tickscope)"


def trace_filters() -> str:
    """The formats of traces that can be imported, as a file dialog wants them told."""
    return ";;".join(f"{one.title} ({' '.join('*' + suffix for suffix in one.suffixes)})" for one in importers)


def ask_open(parent: QWidget, title: str, filters: str) -> Path | None:
    """A file to open, from the system's dialog."""
    name, _ = QFileDialog.getOpenFileName(parent, title, last_folder(), filters)
    return Path(name) if name else None


def ask_save(parent: QWidget, title: str, suggested: str, filters: str) -> tuple[Path, str] | None:
    """A file to write and the chosen filter, from the system's dialog."""
    name, chosen = QFileDialog.getSaveFileName(parent, title, suggested, filters)
    return (Path(name), chosen) if name else None


class Files:
    """Each method asks for a path where it needs one (``ask_open`` and ``ask_save`` are replaceable) and returns at once."""

    def __init__(self, program: Program, bridge: Bridge, state: ViewState, parent: QWidget) -> None:
        self.ask_open: Callable[[QWidget, str, str], Path | None] = ask_open
        self.ask_save: Callable[[QWidget, str, str, str], tuple[Path, str] | None] = ask_save
        self.opened: Callable[[Run], object] = lambda _run: None  # told when a session's newest run is on show
        self._program = program
        self._bridge = bridge
        self._state = state
        self._parent = parent
        self.made: Callable[[str, Path], None] = lambda _sentence, _path: None  # told of every file that was written
        self._exports: list[tuple[str, Path]] = []  # asked for and not over: what to say then, and the file
        self._waiting: list[tuple[Callable[[], Any], Callable[[Future[Any]], None]]] = []  # the first is being done

    def new_session(self) -> None:
        """Begin another session; its file is made with the first run."""
        self._do(lambda: self._program.new_session(None), "The session could not be begun")

    def open_session(self, path: Path | None = None) -> None:
        """Open a session file."""
        chosen = path or self._open("Open session", SESSIONS)
        if chosen is not None:
            self._do(lambda: self._program.open_session(chosen), f"{chosen.name} could not be opened", then=self.show_newest)

    def show_newest(self) -> None:
        """Show the session's newest run in every view, unless something is being measured or there is none."""
        store = self._program.store
        if store is None or self._program.busy:
            return

        def newest() -> Run | None:
            heads = store.runs()
            return store.read(heads[-1].id) if heads else None

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if isinstance(error, ValueError):
                self._tell(Notice("refused", said(error)))
            elif error is None and future.result() is not None and self._program.store is store:
                self._state.open_run(future.result())
                self.opened(future.result())

        self._bridge.in_background(newest, done)

    def save_session_as(self) -> None:
        """Copy the session to another file and go on there."""
        store = self._program.store
        if store is None:
            self._tell(Notice("refused", "There is nothing to save yet; every run is saved as it happens, so make one first."))
            return
        answer = self._save("Save session as", store.path.name, SESSIONS)
        if answer is not None:
            path = answer[0].with_suffix(".tickscope")
            done = Notice("session_changed", f"The session was saved as {path.name}.")
            told = f"The session was saved as {short_path(path)}."

            def save() -> None:
                lost = store.save_as(path)
                if lost is not None:
                    self._program.notices.put(Notice("warning", str(lost)))

            self._do(save, f"{path.name} could not be written", done, lambda: self.made(told, path))

    def import_trace(self, path: Path | None = None) -> None:
        """Make a run of a trace that another profiler wrote; the notice "imported" tells when it is there."""
        if self._program.busy:
            self._tell(Notice("refused", "Something is going on; import the trace when it is over, or cancel it (Esc)."))
            return
        chosen = path or self._open("Import trace", trace_filters())
        if chosen is not None:
            self._program.import_trace(chosen)
            self._bridge.expect()

    def open_dropped(self, path: Path, choose_model: Callable[[str], None]) -> None:
        """What was dropped: a session is opened, a trace imported; a folder or a GGUF file becomes the chosen model."""
        if path.suffix == ".tickscope":
            self.open_session(path)
        elif importer_of(path) is not None:
            self.import_trace(path)
        elif path.is_dir() or path.suffix.lower() == ".gguf":
            choose_model(str(path))
        else:
            what = "drop a model folder, a .gguf file, a .tickscope session or a .json trace"
            self._tell(Notice("refused", f"{path.name} is no model; {what}."))

    def export_run(self) -> None:
        """Write the run on show in one of the export formats."""
        from core.export.base import exporters

        run = self._state.current_run
        if run is None:
            self._tell(Notice("refused", "There is no run to export; make one, or open one in Sessions."))
            return
        known = {f"{one.title} (*{_dotted(one.suffix)})": one for one in exporters}
        answer = self._save("Export run", run.name or "run", ";;".join(known))
        if answer is None:
            return
        path, chosen = answer
        named = [one for one in known.values() if path.name.lower().endswith(_dotted(one.suffix))]
        exporter = known.get(chosen) or max(named, key=lambda one: len(one.suffix), default=None)
        if exporter is None:
            self._tell(
                Notice("refused", f"There is no export format for {path.suffix or path.name}; choose one from the list.")
            )
            return
        # A dot in a run's name is no suffix; ".json" for ".json.gz" is one, and means a file that is not packed.
        suffix = _dotted(exporter.suffix)
        complete = named or path.suffix in (suffix, *Path(f"run{suffix}").suffixes)
        target = path if complete else path.with_name(path.name + suffix)
        if self._program.busy:
            self._tell(Notice("queued", f"{target.name} is written when what is going on is over."))
        self._exports.append((f"{run.name or 'The run'} was exported to {short_path(target)}.", target))
        self._program.export([run], exporter.id, target)
        self._bridge.expect()

    def follow(self, notice: Notice) -> None:
        """An export is over, in whatever way."""
        if notice.job == "export" and notice.kind != "job_started" and self._exports:
            told, target = self._exports.pop(0)
            if notice.kind == "job_finished":
                self.made(told, target)

    def _open(self, title: str, filters: str) -> Path | None:
        path = self.ask_open(self._parent, title, filters)
        if path is not None:
            use_folder(path.parent)
        return path

    def _save(self, title: str, suggested: str, filters: str) -> tuple[Path, str] | None:
        answer = self.ask_save(self._parent, title, within(suggested), filters)
        if answer is not None:
            use_folder(answer[0].parent)
        return answer

    def _do(
        self,
        work: Callable[[], Any],
        trouble: str,
        done: Notice | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        def finished(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                if done is not None:
                    self._tell(done)
                if then is not None:
                    then()
            elif isinstance(error, ValueError):
                self._tell(Notice("refused", said(error)))
            else:
                self._tell(Notice("failed", f"{trouble}: {first_line(error)}", trace(error)))

        self._waiting.append((work, finished))
        if len(self._waiting) == 1:
            self._do_next()

    def _do_next(self) -> None:
        """One after the other, as asked for: of two changes of the session at once, either might be the last."""
        work, finished = self._waiting[0]

        def done(future: Future[Any]) -> None:
            finished(future)
            self._waiting.pop(0)
            if self._waiting:
                self._do_next()

        self._bridge.in_background(work, done)

    def _tell(self, notice: Notice) -> None:
        self._bridge.notice.emit(notice)


def _dotted(suffix: str) -> str:
    return suffix if suffix.startswith(".") else f".{suffix}"
