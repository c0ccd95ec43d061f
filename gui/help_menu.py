"""The Help menu: what can be done, how to begin, which keys there are, and what the words mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from gui.header import Command

if TYPE_CHECKING:
    from gui.main_window import MainWindow

PALETTE_HINT = "Everything that can be done, found by a few letters"
GLOSSARY_HINT = "Moment, clean, traced, TPOT, KLD …"


def help_commands(window: MainWindow) -> list[Command]:
    """Its entries. The pages are imported as they are opened: nobody needs them to start."""

    def opened(make: Callable[[], QWidget]) -> None:
        window.theme_switch.dress(make())

    def palette() -> None:
        from gui.command_palette import open_palette

        found = open_palette(window.header.by_menu(), window.sidebar.passes, window.theme_switch.colours, window)
        window.theme_switch.dress(found)
        found.open_over(window)

    def first_steps() -> None:
        from gui import help_pages

        opened(lambda: help_pages.show_first_steps(window))

    def keys() -> None:
        from gui import help_pages

        opened(lambda: help_pages.show_keys(window, window.header.keys()))

    def glossary() -> None:
        from gui import help_pages

        opened(lambda: help_pages.show_glossary(window))

    def schema() -> None:
        from gui.about import show_schema

        opened(lambda: show_schema(window))

    def about() -> None:
        from gui.about import show_about

        opened(lambda: show_about(window))

    return [
        Command("Help", "palette", "Command palette…", palette, ("Ctrl+K", "Ctrl+Shift+P"), hint=PALETTE_HINT),
        Command("Help", "firstSteps", "First steps", first_steps, ("F1",), separated=True),
        Command("Help", "keys", "Keys", keys, ("Ctrl+/",)),
        Command("Help", "glossary", "Glossary", glossary, ("Shift+F1",), hint=GLOSSARY_HINT),
        Command("Help", "schema", "Session file schema", schema, separated=True),
        Command("Help", "about", "About Tickscope", about),
    ]
