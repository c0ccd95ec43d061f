"""A small seeded run of changed files through every cheap reader, in this process; the long runs are ``benchmarks.fuzz``."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.fuzz import judged, run_here, run_in_children
from benchmarks.fuzz_kinds import KINDS, Kind
from benchmarks.mutations import mutated_bytes, mutated_json

CHEAP = [name for name in KINDS if not name.startswith("load-")]


@pytest.mark.parametrize("name", CHEAP)
def test_every_reader_answers_changed_files_with_a_result_or_a_sentence(name, tmp_path):
    assert list(run_here(KINDS[name], tmp_path, 20, range(60))) == []


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_reader_takes_the_sound_file_that_changes_begin_with(name, tmp_path):
    """Else all would be refused and nothing tested."""
    kind = KINDS[name]
    kind.make(tmp_path)
    kind.read(tmp_path)


def kind_that(reader) -> Kind:
    return Kind("made-up", "given.txt", lambda _: b"abc", reader, mutated_bytes)


def test_what_is_no_sentence_is_found(tmp_path):
    def bare(_: Path) -> None:
        raise KeyError("inside")

    def silent_about_the_file(_: Path) -> None:
        from core.errors import Refusal

        raise Refusal("Something is wrong.")

    assert judged(kind_that(bare), tmp_path, b"") is not None
    assert judged(kind_that(bare), tmp_path, b"")[0] == "bare"  # type: ignore[index]
    assert judged(kind_that(silent_about_the_file), tmp_path, b"")[0] == "unnamed"  # type: ignore[index]
    assert judged(kind_that(lambda _: None), tmp_path, b"") is None


def test_what_never_ends_is_found(tmp_path):
    def endless(_: Path) -> None:
        while True:
            pass

    found = list(run_here(kind_that(endless), tmp_path, 0, range(1), seconds=0.05))
    assert [one.what for one in found] == ["hang"]


def test_a_child_that_dies_is_found_and_the_rest_is_judged_in_another():
    assert list(run_in_children(KINDS["prompt"], 5, 40)) == []
    found = list(run_in_children(kind_that(lambda _: None), 5, 2))  # a child knows no kind of this name
    assert [(one.number, one.what, one.why) for one in found] == [
        (0, "signal", "exit status 1"),
        (1, "signal", "exit status 1"),
    ]


def test_changes_are_the_same_for_the_same_numbers():
    for change in (lambda dice: mutated_bytes(b"some bytes of a file", dice), lambda dice: mutated_json('{"a": [1]}', dice)):
        assert [change(random.Random(n)) for n in range(20)] == [change(random.Random(n)) for n in range(20)]
        assert len({change(random.Random(n)) for n in range(20)}) > 10


def test_a_small_sound_file_takes_little_memory(tmp_path):
    """2.4 kB with one sample a second would become 20 minutes at the model's rate."""
    import wave

    from core.errors import Refusal
    from core.execution.tasks.sounds import read_wav

    with wave.open(str(tmp_path / "slow.wav"), "wb") as file:
        file.setparams((1, 2, 1, 0, "NONE", "not compressed"))
        file.writeframes(bytes(2400))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match=r"slow\.wav is of 16 bits, 1 channels and 1 samples a second"):
            read_wav(str(tmp_path / "slow.wav"), 16_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_with_another_formats_content_is_not_given_to_another_program(tmp_path):
    from core.errors import Refusal
    from core.execution.tasks.pictures import read_image

    (tmp_path / "cat.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(Refusal, match=r"cat\.png is not an image that can be read; give one of PNG, JPEG"):
        read_image(str(tmp_path / "cat.png"))
