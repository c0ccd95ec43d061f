"""A real window on a fake program, for the tests of the shell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtWidgets import QWidget

from gui import app
from gui.settings import Settings
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run


class Facts:
    """Describes every model without looking for one."""

    def describe(self, config: Any) -> Any:
        return replace(synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1).facts.model, spec=config.spec)

    def fit_sentence(self, _facts: Any, _dtype: str) -> tuple[bool, str]:
        return True, "fits"


def make_window(settings_path: Path, **kwargs: Any) -> Any:
    """A shown window."""
    _, window = app.create([], program=FakeProgram(blocks=2, **kwargs), settings=Settings(settings_path), knowledge=Facts())
    window.show()
    return window


def close_window(window: Any) -> None:
    """As a user who is asked nothing."""
    window.ask = lambda *_: True
    window.close()
    window.deleteLater()


def child(window: Any, name: str) -> Any:
    """The widget of that object name."""
    return window.findChild(QWidget, name)
