"""Disk space: refused before it is too late, and recognised when it was."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from core import disk_space
from core.errors import Refusal
from core.messages.reason import of_text


def test_what_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    disk_space.require(1, (tmp_path / "not" / "there",), of_text("A thing"))
    with pytest.raises(Refusal, match=r"A thing needs [0-9.]+ \S+ in .* is free; free some space there"):
        disk_space.require(1 << 60, (tmp_path,), of_text("A thing"))


def test_a_full_disk_is_recognised_through_what_others_wrap_around_it() -> None:
    def wrapped(inner: Exception) -> Exception:
        try:
            try:
                raise inner
            except Exception as error:
                raise RuntimeError("compiling failed") from error
        except RuntimeError as outer:
            return outer

    assert disk_space.is_full(wrapped(OSError(errno.ENOSPC, "full")))
    assert disk_space.is_full(wrapped(ValueError("as: can't write: No space left on device")))
    assert not disk_space.is_full(wrapped(OSError(errno.EACCES, "no")))
    assert not disk_space.is_full(None)
