"""The window's frame: what is dropped on it, how it fits its screen, and what it remembers of its layout."""

from __future__ import annotations

import gc

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication

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
