"""The list of passes in groups that fold: what is refused is greyed and says why; what ran says what it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QObject, QPoint, QSize, Qt, Signal
from PySide6.QtGui import QContextMenuEvent, QGuiApplication, QKeyEvent, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QListWidgetItem, QMenu, QWidget

from core.messages.reason import Reason
from core.pass_api.base import Pass, PassReport, summary_of, title_of
from gui.plain import plain_tip
from gui.setup.baselines import Gains
from gui.setup.pass_rows import BADGE, BUTTON, GROUP, OPEN, PassDelegate, heading_height
from gui.setup.pass_text import details, foretold, install_command, predicted_line, short_reason, tooltip
from gui.setup.switch_list import ID, LINE, SwitchList, row_height

if TYPE_CHECKING:
    from core.planning.gains import Prediction

LEAST_PASSES = 5  # below its heading; what is below the list stays within reach
FEW = 8  # so many passes need no folding
OPEN_AT_FIRST = ("Precision",)
COPY, COPIED = "Copy command", "Copied"


class PassList(SwitchList):
    """One row per pass, in phase order, below a heading per ``Phase.title``.

    Besides there is one place for a widget below a row (``open_below``), which moves with it.
    """

    filtered = Signal(int)  # how many rows a filter leaves
    predicted = Signal(bool)  # whether there is a gain to sort by

    def __init__(self, known: Iterable[Pass], parent: QWidget | None = None) -> None:
        super().__init__("passList", "Passes", parent)
        self._passes = {one.id: one for one in sorted(known, key=lambda one: (one.phase, title_of(one).lower()))}
        self._refused: dict[str, Reason] = {}
        self._reports: dict[str, PassReport] = {}
        self._measured = Gains()
        self._alone = False
        self._predictions: Mapping[str, Prediction] = {}
        self._by_gain = False
        self._copied = ""
        self._filter = ""
        self._headings: dict[str, QListWidgetItem] = {}
        self._open = {one.phase.title for one in self._passes.values() if len(self._passes) <= FEW}
        self._open |= set(OPEN_AT_FIRST)
        self._below: QWidget | None = None
        self._below_id = ""
        self._pressed = False
        self._waiting: Callable[[], None] | None = None
        self.delegate = PassDelegate(self, self.toggle, self.copy_command)
        self.setItemDelegate(self.delegate)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self._slot = QListWidgetItem()
        self._slot.setFlags(Qt.ItemFlag.NoItemFlags)
        blocked = self.blockSignals(True)
        for group in dict.fromkeys(one.phase.title for one in self._passes.values()):
            self._add_heading(group)
            for one in self._passes.values():
                if one.phase.title == group:
                    self.add(one.id, title_of(one))
                    self.item(self.count() - 1).setData(BADGE, "lossless" if one.lossless else "")
        self.addItem(self._slot)
        self.blockSignals(blocked)
        self.currentItemChanged.connect(self._on_current)
        self.describe()

    # -- what is on show --------------------------------------------------------------------------------------------------

    def rows(self) -> list[QListWidgetItem]:
        return [item for item in super().rows() if item.data(ID)]

    def is_open(self, group: str) -> bool:
        """Whether a group is unfolded; a filter unfolds all, and a list by gain has no groups."""
        return bool(self._filter) or self._by_gain or group in self._open

    def toggle(self, group: str) -> None:
        """Fold or unfold a group."""
        self._open ^= {group}
        self._fold()

    def set_filter(self, text: str) -> None:
        """Leave only passes whose title, id, summary or group has this text."""
        self._filter = text.strip().lower()
        self._fold()
        self.filtered.emit(sum(not item.isHidden() for item in self.rows()))

    def show_reasons(self, reasons: Mapping[str, Reason | None]) -> None:
        """Grey out what is refused. A pass that is on stays reachable, so that it can be switched off."""
        self._refused = {pass_id: reason for pass_id, reason in reasons.items() if reason is not None}
        self._reasons = {pass_id: str(reason) for pass_id, reason in self._refused.items()}
        self.describe()

    def show_reports(self, reports: Iterable[PassReport], measured: Gains | None = None) -> None:
        """Say in each row what the pass changed in the run just made, and what all of them gained, where that is known."""
        self._reports = {report.id: report for report in reports}
        self._measured, self._alone = measured or Gains(), len(self._reports) == 1
        self.describe()

    def show_predictions(self, found: Mapping[str, Prediction]) -> None:
        """Say in each row what its pass should gain, before anything is run."""
        if found == self._predictions:
            return
        self._predictions = dict(found)
        if self._by_gain:
            self._arrange()
        self.describe()
        self.predicted.emit(self.has_gains)

    @property
    def has_gains(self) -> bool:
        """Whether a gain is predicted of any pass."""
        return any(found.gain is not None for found in self._predictions.values())

    def sort_by_gain(self, on: bool) -> None:
        """The passes that should gain most first, without groups; or by groups."""
        if on != self._by_gain:
            self._by_gain = on
            self._arrange()
            self.describe()

    def details(self, pass_id: str) -> list[str]:
        """What a run did with the pass, in lines; none if it was not in the last run."""
        report = self._reports.get(pass_id)
        return [] if report is None else details(report, self._measured, self._alone)

    def copy_command(self, pass_id: str) -> None:
        """Put the command that installs what the pass needs on the clipboard."""
        command = install_command(self._refused.get(pass_id))
        if command:
            QGuiApplication.clipboard().setText(command)
            self._copied = pass_id
            self.describe()

    def command_menu(self, pass_id: str = "") -> QMenu | None:
        """A menu with the install command of one pass, or of all that lack a package; None if there is none to copy."""
        wanted = [pass_id] if pass_id else list(self._passes)
        missing = [one for one in wanted if install_command(self._refused.get(one))]
        if not missing:
            return None
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for one in missing:
            text = "Copy install command" if pass_id else f"Copy install command of {title_of(self._passes[one])}"
            action = menu.addAction(text)
            action.triggered.connect(lambda _=False, chosen=one: self.copy_command(chosen))
        return menu

    def open_below(self, pass_id: str, widget: QWidget | None) -> None:
        """Show a widget right below a row; None: nothing. During a click it waits, or the row would slip from the mouse."""
        if self._pressed:
            self._waiting = lambda: self.open_below(pass_id, widget)
            return
        if self._below is not None and self._below is not widget:
            self._below.hide()
        if widget is not None and widget.parent() is not self.viewport():
            widget.setParent(self.viewport())
            widget.installEventFilter(self)
        self._below, self._below_id = widget, pass_id if widget is not None else ""
        if widget is not None:
            blocked = self.blockSignals(True)
            self.takeItem(self.row(self._slot))
            self.insertItem(self.row(self.item_of(pass_id)) + 1, self._slot)
            self.blockSignals(blocked)
        self._fold()

    def scroll_to_below(self) -> None:
        """Bring what is open below a row into sight, with the row."""
        if not self._slot.isHidden():
            self.scrollToItem(self._slot)
            self.scrollToItem(self.item_of(self._below_id))

    # -- what SwitchList asks ---------------------------------------------------------------------------------------------

    def line(self, thing_id: str, on: bool) -> str:
        """What the pass changed if it ran, else what it should gain and what it is."""
        report = self._reports.get(thing_id) if on else None
        if report is not None:
            return str(report.summary)
        predicted = predicted_line(self._predictions.get(thing_id))
        return " · ".join(part for part in (predicted, summary_of(self._passes[thing_id])) if part)

    def forget(self, thing_id: str) -> None:
        """Its report is of a run in which it was switched otherwise; and what is on is to be seen."""
        self._reports.pop(thing_id, None)
        if thing_id in self.chosen():
            self._open.add(self._passes[thing_id].phase.title)

    def describe(self) -> None:
        super().describe()
        blocked = self.blockSignals(True)
        for item in self.rows():
            pass_id = item.data(ID)
            one, reason = self._passes[pass_id], self._reasons.get(pass_id, "")
            on = item.checkState() == Qt.CheckState.Checked
            refused = self._refused.get(pass_id)
            command = install_command(refused)
            item.setData(BUTTON, (COPIED if pass_id == self._copied else COPY) if command else "")
            if refused is not None and command:
                item.setData(LINE, short_reason(refused))
            item.setToolTip(tooltip(one, reason, self._told(pass_id, on)))
            if one.lossless:
                described = Qt.ItemDataRole.AccessibleDescriptionRole
                item.setData(described, f"{item.data(described)}; lossless")
        self.blockSignals(blocked)
        self._fold()

    def _told(self, pass_id: str, on: bool) -> list[str]:
        """What a tooltip says of a pass: what it did if it ran, else what it should do."""
        done = self.details(pass_id) if on else []
        return done or ([] if pass_id in self._reasons else foretold(self._predictions.get(pass_id)))

    # -- order ------------------------------------------------------------------------------------------------------------

    def _rank(self, pass_id: str) -> tuple[bool, bool, float]:
        """Order by gain: what can be used before what cannot, what is predicted before what is not, the most first."""
        found = self._predictions.get(pass_id)
        gain = None if found is None else found.gain
        return pass_id in self._reasons, gain is None, -(gain or 0.0)

    def _arrange(self) -> None:
        """Put the rows in order: by group, or by predicted gain with the headings (hidden then) at the end."""
        blocked, current = self.blockSignals(True), self.currentItem()
        items = {item.data(ID): item for item in self.rows()}
        ids = sorted(self._passes, key=self._rank) if self._by_gain else list(self._passes)
        wanted: list[QListWidgetItem] = [items[pass_id] for pass_id in ids]
        if self._by_gain:
            wanted += self._headings.values()
        else:
            groups = {self._passes[pass_id].phase.title for pass_id in ids}
            wanted = []
            for group in (title for title in self._headings if title in groups):
                wanted.append(self._headings[group])
                wanted += [items[pass_id] for pass_id in ids if self._passes[pass_id].phase.title == group]
        while self.count():
            self.takeItem(0)
        for item in wanted:
            self.addItem(item)
        below = self.row(items[self._below_id]) + 1 if self._below_id in items else self.count()
        self.insertItem(below, self._slot)
        self.setCurrentItem(current)
        self.blockSignals(blocked)

    # -- folding ----------------------------------------------------------------------------------------------------------

    def _add_heading(self, group: str) -> None:
        item = QListWidgetItem(group, self)
        item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        item.setData(GROUP, group)
        self._headings[group] = item

    def _matches(self, one: Pass) -> bool:
        return self._filter in " ".join((title_of(one), one.id, summary_of(one), one.phase.title)).lower()

    def _fold(self) -> None:
        """Hide what is folded or filtered out, and say on the headings what is on below them."""
        blocked = self.blockSignals(True)
        chosen, items = self.chosen(), {item.data(ID): item for item in self.rows()}
        for group, heading in self._headings.items():
            inside = [one for one in self._passes.values() if one.phase.title == group and self._matches(one)]
            on = [title_of(one) for one in self._passes.values() if one.phase.title == group and one.id in chosen]
            unfolded = self.is_open(group)
            for one in self._passes.values():
                if one.phase.title == group:
                    items[one.id].setHidden(not unfolded or one not in inside)
            heading.setHidden(not inside or self._by_gain)
            heading.setData(OPEN, unfolded)
            heading.setData(BADGE, "on" if on else "")
            said = f"{len(on)} on" if on and unfolded else ", ".join(on) or str(len(inside))
            heading.setData(LINE, said)
            heading.setToolTip(
                plain_tip(f"{'Fold' if unfolded else 'Unfold'} {group}" + (f": {', '.join(on)} on" if on else ""))
            )
            state = "unfolded" if unfolded else "folded"
            heading.setData(Qt.ItemDataRole.AccessibleTextRole, f"{group}, {state}, {len(inside)} passes, {len(on)} on")
        self._fit_slot()
        self.blockSignals(blocked)
        self.fit_height()
        self._place_below()
        self.viewport().update()

    def _fit_slot(self) -> None:
        widget = self._below
        shown = widget is not None and not self.item_of(self._below_id).isHidden()
        self._slot.setHidden(not shown)
        if widget is not None and shown:
            layout, width = widget.layout(), max(100, self.viewport().width())
            wraps = layout is not None and layout.hasHeightForWidth()
            height = layout.totalHeightForWidth(width) if layout is not None and wraps else widget.sizeHint().height()
            self._slot.setData(Qt.ItemDataRole.SizeHintRole, QSize(width, height + 10))

    def _place_below(self) -> None:
        widget = self._below
        if widget is None:
            return
        widget.setVisible(not self._slot.isHidden())
        if not self._slot.isHidden():
            self.doItemsLayout()
            widget.setGeometry(self.visualItemRect(self._slot).adjusted(0, 4, 0, -6))

    def _on_current(self, item: QListWidgetItem | None) -> None:
        """What a script or an arrow key makes current is to be seen."""
        if item is not None and item.data(ID) and item.isHidden() and not self._filter:
            self._open.add(self._passes[item.data(ID)].phase.title)
            self._fold()

    def fit_height(self) -> None:
        """As tall as its rows where there is room for them; it scrolls where there is none."""
        rows = sum(self.sizeHintForRow(row) for row in range(self.count()) if not self.isRowHidden(row))
        wanted = rows + 2 * self.frameWidth()
        least = min(wanted, self.least_height)
        if (self.minimumHeight(), self.maximumHeight()) != (least, wanted):
            self.setMinimumHeight(least)
            self.setMaximumHeight(wanted)

    @property
    def least_height(self) -> int:
        """Of a heading and some passes at the text size in use: fewer are no list to choose from."""
        line = self.fontMetrics().height()
        return heading_height(line) + LEAST_PASSES * row_height(line) + 2 * self.frameWidth()

    def sizeHint(self) -> QSize:
        # The least: a page that scrolls gives its parts what they ask for, and only then shares out what is left.
        return QSize(super().sizeHint().width(), self.minimumHeight())

    # -- Qt ---------------------------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._below and event.type() == QEvent.Type.LayoutRequest:
            before = self._slot.data(Qt.ItemDataRole.SizeHintRole)
            self._fit_slot()
            if self._slot.data(Qt.ItemDataRole.SizeHintRole) != before:
                self.fit_height()
                self._place_below()
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.oldSize().width() != event.size().width():
            self._fit_slot()
        self._place_below()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pressed = True
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        self._pressed = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        item = self.currentItem()
        group = item.data(GROUP) if item is not None else None
        wanted = {Qt.Key.Key_Left: False, Qt.Key.Key_Right: True}.get(Qt.Key(event.key()))
        if group and wanted is not None:
            if wanted != self.is_open(group):
                self.toggle(group)
            return
        super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        item = self.itemAt(self.viewport().mapFromGlobal(event.globalPos()))
        by_mouse = event.reason() == QContextMenuEvent.Reason.Mouse
        menu = self.command_menu(str(item.data(ID) or "") if by_mouse and item is not None else "")
        if menu is not None:
            menu.popup(event.globalPos() + QPoint(1, 1))
