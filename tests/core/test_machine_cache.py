"""What is kept on disk: whole or not there, checked before use, never code that others can have put there."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import machine_cache, machine_facts, private_folders
from core.errors import Refusal
from core.machine_cache import DAMAGED, MOST_DAMAGED, RECORD, draft_of, keep, read_document, usable, write_document


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(folder: Path) -> Path:
    draft = draft_of(folder)
    (draft / "step.so").write_bytes(b"code" * 100)
    (draft / "inner").mkdir()
    (draft / "inner" / "plan.json").write_text("{}")
    keep(draft, folder)
    return folder


def entry(root: Path, name: str = "a") -> Path:
    return made(root / "graphs" / name)


def flip(path: Path) -> None:
    """One bit, in the middle, with the time of change that the system gives it."""
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def test_an_entry_is_usable_as_it_was_written_and_leaves_no_draft(root: Path) -> None:
    folder = entry(root)
    assert usable(folder, code=True)
    assert usable(folder, code=False)
    assert [one.name for one in folder.parent.iterdir()] == ["a"]
    assert folder.stat().st_mode & 0o777 == 0o700
    entry(root)  # in place of the other
    assert usable(folder, code=True)
    assert not usable(root / "graphs" / "none", code=True)


def test_two_programs_that_keep_one_entry_at_the_same_moment_leave_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "graphs" / "a"
    first = draft_of(folder)
    (first / "step.so").write_bytes(b"code")
    other = first.rename(first.with_name("of-another"))
    keep(other, folder)
    whole = folder.rename(folder.with_name("as-kept"))
    replace = Path.replace

    def overtaken(path: Path, target: Path) -> Path:
        if target == folder:
            whole.rename(folder)
        return replace(path, target)

    second = draft_of(folder)
    (second / "step.so").write_bytes(b"code")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", overtaken)
        keep(second, folder)
    assert usable(folder, code=True)


@pytest.mark.parametrize("code", [True, False])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "record cut", "record odd", "record huge", "nested", "a file"])
def test_whatever_fails_is_set_aside_and_said_once(root: Path, code: bool, how: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = entry(root)
    library, record = folder / "step.so", folder / RECORD
    if how == "cut":
        library.write_bytes(library.read_bytes()[:50])
    elif how == "flipped":
        flip(library)
    elif how == "gone":
        library.unlink()
    elif how == "a file":
        folder.rename(folder.with_name("away"))
        folder.write_text("no folder")
    else:
        odd = {"record odd": '{"files": [1]}', "record cut": record.read_text()[:30], "record huge": " " * (2 << 20)}
        record.write_text(odd.get(how, "[" * 100_000))
    with caplog.at_level(logging.WARNING):
        assert not usable(folder, code=code)
        assert not folder.exists()
        assert not usable(folder, code=code)
    assert len(caplog.records) == 1
    assert "set aside" in caplog.text
    assert (root / "graphs" / f"a{DAMAGED}").exists()
    entry(root)
    assert usable(folder, code=code)


def test_only_few_are_set_aside(root: Path) -> None:
    for number in range(5):
        folder = entry(root, str(number))
        (folder / "step.so").write_bytes(b"")
        assert not usable(folder, code=True)
    assert len(list((root / "graphs").glob(f"*{DAMAGED}"))) == MOST_DAMAGED


def test_what_older_versions_left_is_made_anew_without_a_word(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = entry(root)
    (folder / RECORD).unlink()
    assert not usable(folder, code=False)
    assert not folder.exists()
    assert not caplog.records


def test_data_is_read_through_once_for_each_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = entry(root)
    os.utime(folder / "step.so", (1, 1))  # as after a copy
    read = []
    digest = machine_cache._digest
    monkeypatch.setattr(machine_cache, "_digest", lambda path: read.append(path.name) or digest(path))
    assert usable(folder, code=False)
    assert usable(folder, code=False)
    assert read == ["step.so"]
    assert usable(folder, code=True)  # code is read each time
    assert read.count("step.so") == 2


def test_code_that_others_can_have_written_is_not_loaded(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = entry(root)
    (folder / "step.so").chmod(0o666)
    assert usable(folder, code=False)
    assert not usable(folder, code=True)
    assert "could be written to by others" in caplog.text
    folder = entry(root)
    (folder / "more.so").write_bytes(b"not ours")
    assert not usable(folder, code=True)


def test_a_cache_that_others_could_write_to_is_closed_and_its_code_made_anew(root: Path) -> None:
    first, second, data = entry(root), entry(root, "b"), made(root / "gguf" / "c")
    root.chmod(0o777)
    assert not usable(first, code=True)
    assert root.stat().st_mode & 0o777 == 0o700
    assert not usable(second, code=True)  # also what is asked for only now
    assert usable(data, code=False)
    (root / "graphs").chmod(0o775)
    third = entry(root, "d")
    assert not usable(third, code=True)


def test_a_cache_of_another_user_holds_no_code_of_ours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = entry(root)
    monkeypatch.setattr(machine_cache, "others_can_write", lambda path: path == root)
    with pytest.raises(Refusal, match="name a folder of your own in TICKSCOPE_CACHE"):
        usable(folder, code=True)


def test_a_draft_that_cannot_be_kept_leaves_the_old_entry_or_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "graphs" / "a"
    draft = draft_of(folder)
    monkeypatch.setattr(os, "fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    (draft / "x").write_text("x")
    with pytest.raises(OSError, match="No space"):
        keep(draft, folder)
    assert not folder.exists()


@pytest.mark.parametrize("how", ["file", "link to nowhere"])
def test_what_is_in_the_place_of_a_part_is_set_aside(root: Path, how: str) -> None:
    part = root / "machine"
    root.mkdir(exist_ok=True)
    if how == "file":
        part.write_text("in the way")
    else:
        part.symlink_to(root / "nowhere")
    write_document(part / "x.json", {"a": 1})
    assert read_document(part / "x.json") == {"a": 1}
    assert os.path.lexists(root / "machine.damaged")


def test_a_file_that_was_added_to_data_is_not_taken_up(root: Path) -> None:
    folder = root / "gguf" / "x"
    draft = machine_cache.draft_of(folder)
    (draft / "model.safetensors").write_bytes(b"weights")
    machine_cache.keep(draft, folder)
    (folder / ".record.json.1-2").write_text("a draft of another process")
    assert machine_cache.usable(folder, code=False)
    (folder / "adapter_config.json").write_text("{}")
    assert not machine_cache.usable(folder, code=False)


# -- documents ---------------------------------------------------------------------------------------------------------------


ODD = ["", "null", "[1]", "3", '{"sha256": 1, "kept": {"a": 2}}', '{"sha256": "", "kept": [1]}', "[" * 100_000, " " * (2 << 20)]


@pytest.mark.parametrize("text", ODD)
def test_an_odd_document_is_set_aside_and_written_anew(root: Path, text: str) -> None:
    path = root / "machine" / "x.json"
    write_document(path, {"a": [1, 2.5]})
    assert read_document(path) == {"a": [1, 2.5]}
    path.write_text(text)
    assert read_document(path) == {}
    assert not path.exists()
    write_document(path, {"b": 1})
    assert read_document(path) == {"b": 1}


def test_a_changed_number_is_not_believed(root: Path) -> None:
    path = root / "machine" / "x.json"
    write_document(path, {"ceilings": 10.5})
    path.write_text(path.read_text().replace("10.5", "99.5"))
    assert read_document(path) == {}


def test_what_an_older_version_remembered_is_found_out_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_facts, "others_s", lambda: 0.0)
    machine_facts.forget()
    path = machine_facts._file()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"a": "odd"}))
    assert machine_facts.remembered("a", lambda: 1) == 1
    assert read_document(path) == {"a": 1}
    machine_facts.forget()


# -- what killed processes leave -----------------------------------------------------------------------------------------------


def killed(code: str, folder: Path) -> None:
    """A process that leaves something and is gone without a chance to tidy up."""
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", f"import os, signal; {code}; os.kill(os.getpid(), signal.SIGKILL)"], env=environment)


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    killed(
        "from pathlib import Path; from core.machine_cache import draft_of;"
        "from core.private_folders import temporary_folder as t; (t('onnx') / 'x').write_text('x');"
        f"(draft_of(Path('{root}/aot/k')) / 'x').write_text('x')",
        temporary,
    )
    (left,) = temporary.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    assert len(list((root / "aot").iterdir())) == 1
    mine = draft_of(root / "aot" / "mine")
    living = temporary / f"tickscope-{private_folders.process_mark()}-abc"
    living.mkdir()
    reused = temporary / f"tickscope-{os.getpid()}-12345-abc"  # this number, but another process
    reused.mkdir()
    old = temporary / "tickscope-123.baseline"
    old.write_text("")
    os.utime(old, (1, 1))
    link = temporary / "tickscope-999999-1-link"
    (tmp_path / "precious").mkdir()
    link.symlink_to(tmp_path / "precious")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    machine_cache.sweep()
    assert sorted(temporary.iterdir()) == sorted([living, link])
    assert list((root / "aot").iterdir()) == [mine]
    assert (tmp_path / "precious").exists()


def test_nothing_of_a_process_that_ends_is_left(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    code = "from core.private_folders import temporary_folder as t; print(t('a'), t('a'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first != second
    assert list(tmp_path.iterdir()) == []
