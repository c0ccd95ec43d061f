"""The command line: decides between window and commands, carries a command out, and turns errors into one sentence."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.commands import BAD_INPUT, CANCELLED, DONE, FAILED
from core.commands.arguments import COMMANDS, parser
from core.error_text import named
from core.errors import NotWritten, Refusal
from core.plain_text import visible

SESSION_SUFFIX = ".tickscope"


@dataclass(frozen=True)
class WindowRequest:
    """The window is asked for: empty, on a session file, or with the demo."""

    session: Path | None = None
    demo: bool = False


def window_request(argv: Sequence[str]) -> WindowRequest | None:
    """What the window should show, or None if the arguments are a matter for ``main``. Whether there is a display is not asked.

    ``demo`` with ``--headless`` or ``--out`` writes files and needs no window.
    """
    if not argv:
        return WindowRequest()
    if len(argv) == 1 and not argv[0].startswith("-") and argv[0].lower().endswith(SESSION_SUFFIX):
        return WindowRequest(session=Path(argv[0]))
    if list(argv) == ["demo"]:
        return WindowRequest(demo=True)
    return None


def main(argv: list[str] | None = None) -> int:
    """Carry out a command; returns the exit status (0 done, 1 failed, 2 bad usage or input, 130 or 143 cancelled)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not know a dash or an arrow
            stream.reconfigure(errors="replace")
    signals = _Signals()
    try:
        with signals.heard():
            return _command(arguments)
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else BAD_INPUT
    except Refusal as refusal:
        _explain(str(refusal), debug)
        return FAILED if isinstance(refusal, NotWritten) else BAD_INPUT
    except KeyboardInterrupt:
        _explain("Cancelled.", debug)
        return signals.status
    except BrokenPipeError:  # "| head" closed the pipe: not an error, but nothing more can be written
        sys.stdout = None  # or the interpreter would try to flush it at exit and complain
        return DONE
    except Exception as error:  # noqa: BLE001 - the last place that can turn a bug into a sentence
        if signals.number:  # DuckDB makes "Query interrupted" of whatever a handler raises
            _explain("Cancelled.", debug)
            return signals.status
        _explain(f"{named(error)} (--debug shows where).", debug)
        return FAILED


class _Signals:
    """SIGINT and SIGTERM end what they interrupt as an error would: no half file stays. Commands that measure do more."""

    def __init__(self) -> None:
        self.number = 0  # of the one that came; 0: none

    @property
    def status(self) -> int:
        """The exit status of a command that was interrupted."""
        return 128 + self.number if self.number else CANCELLED

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` for either, unless somebody else has asked to be told of them."""
        usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
        ours = threading.current_thread() is threading.main_thread()
        heard = {number: before for number, before in usual.items() if ours and signal.getsignal(number) is before}
        for number in heard:
            signal.signal(number, self._raise)
        try:
            yield
        finally:
            for number, before in heard.items():
                signal.signal(number, before)

    def _raise(self, number: int, _: object) -> None:
        self.number = number
        raise KeyboardInterrupt


def _explain(sentence: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"tickscope: {visible(sentence)}", file=sys.stderr)


def _command(arguments: list[str]) -> int:
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:
        raise Refusal(
            f"There is no command {first!r}; there is {', '.join(COMMANDS)} (a session file ends in {SESSION_SUFFIX})."
        )
    args = parser().parse_args(arguments)
    return _commands()[args.command](args)


def _commands() -> dict[str, Callable[..., int]]:
    """Imported only now: ``--help`` and ``--version`` need none of it."""
    from core.commands import ab, demo, import_trace, listings, run, sessions

    return {
        "demo": demo.demo,
        "run": run.run,
        "ab": ab.ab,
        "show": sessions.show,
        "export": sessions.export,
        "import": import_trace.import_trace,
        "compare": sessions.compare_runs,
        **dict.fromkeys(("models", "passes", "targets", "profilers", "formats"), listings.listing),
    }
