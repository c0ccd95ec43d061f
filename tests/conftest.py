"""What holds for every test: folders of its own, no display, and nothing left running behind it."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slow import is_slow

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m "not slow"`` does not even import slow files: torch and Qt alone take longer than the fast tests."""
    left_out = config.option.markexpr == "not slow" and collection_path.name.startswith("test_") and is_slow(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a slow file are; others are marked one by one."""
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches, sessions and settings of the tests, and of processes they start, are not the user's.

    One cache for the whole suite, so that the starter model is converted once (about 20 s); TICKSCOPE_TEST_CACHE keeps it.
    """
    root = tmp_path_factory.mktemp("user")
    folders = {
        "TICKSCOPE_CACHE": os.environ.get("TICKSCOPE_TEST_CACHE", str(root / "cache")),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_CACHE_HOME": str(root / "xdg-cache"),
    }
    patch = pytest.MonkeyPatch()
    for name, folder in folders.items():
        Path(folder).mkdir(parents=True, exist_ok=True)
        patch.setenv(name, folder)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else computes on the machine that runs the tests is not what they are about (``test_noise`` asks itself)."""
    monkeypatch.setattr("profilers.noise.busy_now", lambda: None)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a thread, a running timer or a window behind fails."""
    threads = set(threading.enumerate())
    with_qt = "qtbot" in request.fixturenames
    if with_qt:
        gc.freeze()  # what was there before is not looked at afterwards: torch's compilers leave millions of objects
    windows = _windows() if with_qt else set()
    yield
    left: list[str] = [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads if _ours(thread)]
    if with_qt:
        left += [f"window {window.objectName() or type(window).__name__}" for window in _windows() - windows]
        left += _running_timers()
        gc.unfreeze()
    assert not left, f"left behind: {', '.join(left)}"


def _ours(thread: threading.Thread) -> bool:
    thread.join(2)  # one that is just ending is none that was left
    return thread.is_alive() and thread.name.startswith(("tickscope", "Thread-"))


def _windows() -> set[Any]:
    from PySide6.QtCore import QCoreApplication, QEvent
    from PySide6.QtWidgets import QApplication

    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    return set(QApplication.topLevelWidgets())


def _running_timers() -> list[str]:
    from PySide6.QtCore import QTimer
    from shiboken6 import isValid

    assert "PySide6.QtCore" in sys.modules
    timers = [thing for thing in gc.get_objects() if issubclass(type(thing), QTimer)]  # isinstance would ask dead proxies
    return [f"timer of {timer.parent()!r}" for timer in timers if isValid(timer) and timer.isActive()]
