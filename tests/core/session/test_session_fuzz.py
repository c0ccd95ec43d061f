"""A small seeded run of changed session files, in this process; the long runs are ``benchmarks.fuzz_sessions``."""

import shutil

import pytest

from benchmarks.fuzz_sessions import SAMPLE, mutated, tried
from core.session.store import SessionStore


@pytest.mark.parametrize("first", [0, 1000])
def test_changed_session_files_are_shown_or_refused_with_a_sentence(tmp_path, first):
    told = [tried(mutated(seed, tmp_path / f"{seed}.tickscope")) for seed in range(first, first + 10)]
    assert [one for one in told if one.partition(":")[0] not in ("shown", "refused")] == []
    assert "shown" in told
    assert any(one.startswith("refused") for one in told)


@pytest.mark.parametrize("seed", [2651, 12594])
def test_a_number_that_sizes_an_array_has_an_end(tmp_path, seed):
    """Two thousand million guessed tokens of a forward pass took more than twenty seconds and tens of gigabytes."""
    assert tried(mutated(seed, tmp_path / "it.tickscope")).startswith("refused: Run")


def test_the_sound_file_is_shown(tmp_path):
    assert tried(shutil.copy(SAMPLE, tmp_path)) == "shown"  # a copy: opening it brings it up to date


def test_what_is_no_sentence_is_found(monkeypatch, tmp_path):
    def bare(*_):
        raise KeyError("inside")

    monkeypatch.setattr(SessionStore, "runs", bare)
    assert tried(shutil.copy(SAMPLE, tmp_path)).startswith("exception:")
