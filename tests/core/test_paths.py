"""Whatever is typed where a path belongs is answered, at every key."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from core import paths
from core.commands.switches import path_argument
from core.config import ModelConfig
from core.errors import Refusal
from core.machine_cache import read_document
from core.models import catalog
from core.models.files import read_safetensors
from core.models.json_file import read_json
from core.prompt_set import read_prompts
from core.session.store import SessionStore
from gui.setup.file_box import FileBox

NO_PATHS = ("a" * 5000, "/" + "a" * 300, "x\0y", "\ud800", "~nobody-of-that-name/model", "a/" * 5000)


@pytest.mark.parametrize("text", NO_PATHS)
def test_what_cannot_be_a_path_is_a_sentence(text):
    with pytest.raises(Refusal, match="is no path"):
        paths.typed(text)
    assert not paths.is_file(text)
    assert len(paths.shown(text)) <= paths.SHOWN + 40
    with pytest.raises(argparse.ArgumentTypeError, match="is no path"):
        path_argument(text)


@pytest.mark.parametrize("form", ["{}", "{}.gguf", "./{}", "py:{}.py:make", "folder:{}", "gguf:{}", "/{}/x"])
@pytest.mark.parametrize("text", NO_PATHS)
def test_a_model_of_such_a_name_is_refused(form, text):
    with pytest.raises(Refusal) as refused:
        catalog.describe(ModelConfig(form.format(text), trust_remote_code=True))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("source", ["package", "hub", "arch", "py", "x"])
@pytest.mark.parametrize("rest", [*NO_PATHS, "../..", "a--b/c", "gpt2?" + "a=1&" * 2000, "\x1b[31m"])
def test_a_spec_that_nobody_means_is_a_short_sentence(source, rest):
    with pytest.raises(Refusal) as refused:
        catalog.describe(ModelConfig(f"{source}:{rest}", trust_remote_code=True))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


def test_real_paths_are_left_alone(tmp_path):
    assert paths.typed(str(tmp_path / "not there yet")) == tmp_path / "not there yet"
    assert paths.typed("~") == Path.home()
    assert paths.is_there(tmp_path)
    assert not paths.is_file(tmp_path)


def test_text_is_read_from_ordinary_files_of_some_size_only(tmp_path):
    (tmp_path / "long.txt").write_text("a" * 2000)
    assert paths.read_text(tmp_path / "long.txt") == "a" * 2000
    with pytest.raises(OSError, match="larger than"):
        paths.read_text(tmp_path / "long.txt", 1000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="no ordinary file"):
            paths.read_text(tmp_path / "pipe")


def test_no_reader_waits_at_a_pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        return
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (read_json, read_prompts, read_safetensors, SessionStore.open):
        with pytest.raises(Refusal, match="pipe"):
            read(pipe)
    assert read_document(pipe) == {}
    assert not pipe.exists()


@pytest.mark.parametrize("text", NO_PATHS)
def test_the_windows_field_for_a_file_takes_every_key(qtbot, text):
    box = FileBox("Image", "imageEdit", "image file", "*.png", "none", "A picture.")
    qtbot.addWidget(box)
    box.line.setText(text)
    if box.filled:
        with pytest.raises(Refusal, match="There is no image file"):
            box.path()
