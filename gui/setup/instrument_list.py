"""What is measured in a run: a switch per instrument, folded away under a head line that says how many are on."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from gui.setup.model_picker import Background
from gui.setup.section import Section
from gui.setup.switch_list import SwitchList
from gui.theme import Palette
from profilers.base import Instrument, instruments

ORDER = ("layer_clock", "cycles", "noise", "host_memory", "utilization", "energy", "kernels", "gpu", "device_memory")
NOTES = {"kernels": "adds one slow request at the end"}


def known_instruments() -> list[Instrument]:
    """Every instrument there is, those that most runs want first."""
    found = instruments()
    return [found[name] for name in sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))]


class InstrumentList(SwitchList):
    """One row per instrument. What cannot work on this machine is greyed with the reason."""

    def __init__(self, known: Iterable[Instrument], parent: QWidget | None = None) -> None:
        super().__init__("instrumentList", "Instruments", parent)
        self._known = {one.id: one for one in known}
        for one in self._known.values():
            self.add(one.id, one.title)
        self.choose_default()
        self.describe()

    def choose_default(self) -> None:
        """On is what a run has where nobody chose, as far as it can work here."""
        self.choose(one.id for one in self._known.values() if one.by_default)

    def reasons(self) -> dict[str, str]:
        """Ask every instrument whether it can work here. Looks for drivers (20 ms and more), so not for the GUI thread."""
        return {one.id: reason for one in self._known.values() if (reason := one.check())}

    def show_reasons(self, reasons: dict[str, str]) -> None:
        """Grey out what cannot work here, and switch it off."""
        self._reasons = reasons
        self.choose(thing_id for thing_id in self.chosen() if thing_id not in reasons)
        self.describe()

    def asked(self) -> tuple[str, ...]:
        """Ids of what is on, and of what is usually on but cannot work here."""
        refused = {name for name in self._reasons if self._known[name].by_default}
        on = {*self.chosen(), *refused}
        return tuple(name for name in self._known if name in on)

    def missing(self) -> int:
        """How many cannot work here."""
        return len(self._reasons)

    def line(self, thing_id: str, on: bool) -> str:
        """What it measures, and what it costs where that is felt."""
        return NOTES.get(thing_id, self._known[thing_id].summary)

    def tip(self, thing_id: str, line: str) -> str:
        """What it measures as well as what it costs."""
        summary = self._known[thing_id].summary
        return line if line == summary or thing_id in self._reasons else f"{summary}; {line}"


class InstrumentSection(Section):
    """The head line and, while it is unfolded, the list."""

    changed = Signal()

    def __init__(self, known: Iterable[Instrument], background: Background) -> None:
        super().__init__("instrument", "INSTRUMENTS", "What is measured beside the time of each moment")
        self.list = InstrumentList(known, self)
        self.add(self.list)
        self.set_open(False)
        self.list.switched.connect(self._on_switched)
        self._say()
        background(self.list.reasons, self._on_checked)

    def asked(self) -> tuple[str, ...]:
        """Ids for the run: what is on, and what would be on if it could work here, so that the run states the reason."""
        return self.list.asked()

    def choose(self, ids: Iterable[str]) -> None:
        """Switch on those of ``ids`` that can work here."""
        self.list.choose(ids)

    def set_palette(self, palette: Palette) -> None:
        """Paint in other colours."""
        self.list.set_palette(palette)

    def _on_checked(self, future: Future[dict[str, str]]) -> None:
        if future.exception() is None:  # one that cannot even be asked tells it in the run
            self.list.show_reasons(future.result())
            self._on_switched()

    def _on_switched(self) -> None:
        self._say()
        self.changed.emit()

    def _say(self) -> None:
        missing = self.list.missing()
        self.say(f"{len(self.list.chosen())} on" + (f" · {missing} not here" if missing else ""))
