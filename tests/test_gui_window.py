"""The window's frame: what is dropped on it, how it fits its screen, and what it remembers of its layout."""

from __future__ import annotations

import gc

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QFont, QFontInfo
from PySide6.QtWidgets import QApplication, QStyleOptionViewItem

from gui.setup.switch_list import SECOND_LINE
from gui.theme import DARK, LIGHT, scaled
from tests.gui_window import close_window, make_window


@pytest.fixture
def open_window(qtbot, tmp_path):
    """Makes windows that share their settings; all are closed in the end."""
    made = []

    def make():
        made.append(make_window(tmp_path / "settings.ini"))
        return made[-1]

    yield make
    for window in made:
        close_window(window)
    made.clear()
    window = None
    gc.collect()


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
    for view in window.views:
        view.set_palette = lambda palette, view=view: dressed.append((window.views.index(view), palette.name))
    window.set_theme("light")
    assert dressed == [(0, "light")]
    window.switch_view(2)
    window.switch_view(0)
    window.switch_view(2)
    assert dressed == [(0, "light"), (2, "light")]
    assert LIGHT.raised in window.views[2].styleSheet()
    assert DARK.raised in window.views[1].styleSheet() or not window.views[1].styleSheet()
