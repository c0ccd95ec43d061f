"""Takes over the setup of a run: the sidebar is filled as that run had it, and what cannot be is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from core.config import RunConfig
from core.notices import Notice
from core.records.run import Run

if TYPE_CHECKING:
    from PySide6.QtWidgets import QWidget

    from gui.setup.sidebar import Sidebar

CODE = "py:"
Ask = Callable[["QWidget", str, str], bool]


def without_consent(config: RunConfig) -> RunConfig:
    """The setup without what only the person at this machine may allow: foreign code, pickled weights, a model too large."""
    return replace(config, model=replace(config.model, trust_remote_code=False, allow_pickle=False, force=False))


def take_over(sidebar: Sidebar, run: Run, ask: Ask) -> Notice:
    """Fill the sidebar from a run; returns what was set, and as a warning what could not be.

    A model that is a Python file runs with this person's rights, so its setup is taken only once ``ask`` says yes to the path.
    """
    if run.imported:
        name = run.name or f"Run {run.id}"
        return Notice("warning", f"{name} is an imported trace, which does not say what was asked; the sidebar stays as it is.")
    config = without_consent(run.config)
    if config.model.spec.startswith(CODE):
        path = config.model.spec.removeprefix(CODE)
        question = f"The model of this run is Python code: {path}\n\nIt will run with your rights. Do you trust this file?"
        if not ask(sidebar, "Run this code?", question):
            return Notice("warning", f"The sidebar was left as it is: the setup of this run needs the code {path}.")
        config = replace(config, model=replace(config.model, trust_remote_code=True))
    unknown = sidebar.show_config(config)
    taken = f"The sidebar has the setup of {run.name or f'run {run.id}'}."
    if not unknown:
        return Notice("told", taken)
    return Notice("warning", f"{taken} Not set, because they are not here: {', '.join(unknown)}.")
