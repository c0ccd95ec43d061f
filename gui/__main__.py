"""Where ``tickscope`` begins: the window, or for every other form the command line, which never imports Qt."""

from __future__ import annotations

import os
import sys

NO_DISPLAY = "There is no display for the window; start it on a desktop, or measure without one (see tickscope --help)."


def has_display() -> bool:
    """Whether a window can be shown: Linux needs X or Wayland, or a Qt platform named by the user."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))


def main(argv: list[str] | None = None) -> int:
    """The entry point; returns the exit code. Without ``argv`` the process ends with it, whatever would keep it from that."""
    if argv is not None:
        return _begin(argv)
    from core.ending import leave

    try:
        status = _begin(sys.argv[1:])
    except KeyboardInterrupt:  # before the command line, or the window, has begun to listen
        print("tickscope: Cancelled.", file=sys.stderr)  # noqa: T201 - the command line's one sentence
        status = 130
    return leave(status)


def _begin(arguments: list[str]) -> int:
    from core.execution.carriers.worker_process import FROZEN_COMMAND

    if arguments[:1] == [FROZEN_COMMAND] and getattr(sys, "frozen", False):
        from core.execution.carriers import child_process

        return child_process.main(arguments[1:])
    from core import cli

    request = cli.window_request(arguments)
    if request is None:
        return cli.main(arguments)
    if not has_display():
        if request.demo:
            return cli.main(["demo", "--headless", *arguments[1:]])
        print(NO_DISPLAY, file=sys.stderr)  # noqa: T201 - the command line's one sentence
        return 2
    from gui import app

    return app.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
