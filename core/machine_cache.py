"""What is kept on disk to save making it again: written whole or not at all, checked before use, set aside where it fails.

An entry is a folder. Beside its files lies a record of their sizes and digests, written last. Before an entry is used its files
are held against the record: data by size and time of change, and by digest where one of these differs; code always by digest,
and only where nobody but this user (or root) can have put it there. An entry that fails is renamed, said in a warning, and made
anew by whoever needs it. An entry without a record, as older versions have left them, is made anew without a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import Refusal
from core.folders import cache_folder
from core.messages.reason import Reason
from core.private_folders import is_alive, make_private, others_can_write, process_mark, sweep_temporary

RECORD = "record.json"
DAMAGED = ".damaged"
CODE = ("native", "graphs", "aot")
"""Parts of the cache whose entries are loaded as code."""

MOST_DAMAGED = 2
"""Entries set aside that are kept beside the good ones, for whoever wants to know what happened."""

MOST_RECORD_BYTES = 1 << 20

NO_FOLDER = Reason("machine_cache.no-folder")
NOT_AS_WRITTEN = Reason("machine_cache.not-as-written")
LEFT = Reason("machine_cache.left-by-older-version")

log = logging.getLogger("tickscope.cache")


def draft_of(folder: Path) -> Path:
    """Where this process writes what shall become that entry; made, empty, and removed at a later start if it is left."""
    draft = folder.with_name(f".{folder.name}.{process_mark()}")
    _make_part(folder.parent)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    return draft


def keep(draft: Path, folder: Path) -> None:
    """Make a whole draft the entry ``folder``, in place of what was there; ``OSError`` where that cannot be done.

    Where another process keeps the same entry at the same moment, one of the two stays.
    """
    files = {}
    for path in sorted(one for one in draft.rglob("*") if one.is_file()):
        _settle(path)
        facts = path.stat()
        name = path.relative_to(draft).as_posix()
        files[name] = {"size": facts.st_size, "changed_ns": facts.st_mtime_ns, "sha256": _digest(path)}
    _write_whole(draft / RECORD, {"version": 1, "files": files})
    _settle(draft)
    old = folder.with_name(f".{folder.name}.old.{process_mark()}")
    with contextlib.suppress(FileNotFoundError):
        folder.replace(old)
    try:
        draft.replace(folder)
    except OSError:
        if not (folder / RECORD).is_file():
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    _settle(folder.parent)


def usable(folder: Path, *, code: bool) -> bool:
    """Whether there is an entry that is as it was written. One that is not is set aside, and a warning says so.

    Args:
        folder: the entry.
        code: something of it is loaded as code: then it must have been out of everybody else's reach as well.

    Raises:
        Refusal: code would lie where another user can put his own.
    """
    if code:
        _guard(folder)
    if not folder.is_dir():
        if folder.is_symlink() or folder.exists():
            set_aside(folder, NO_FOLDER)
        return False
    try:
        trouble = _trouble(folder, code)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        trouble = Reason("machine_cache.cannot-be-checked", error=type(error).__name__)
    if trouble is None:
        return True
    set_aside(folder, None if trouble == LEFT else trouble)
    return False


def set_aside(entry: Path, trouble: Reason | None) -> None:
    """Rename an entry that cannot be used, and say why; ``trouble`` goes on from its name. None: remove it without a word."""
    if not trouble:
        _remove(entry)
        return
    log.warning(Reason("machine_cache.set-aside", entry=str(entry), trouble=trouble))
    aside = entry.with_name(entry.name + DAMAGED)
    with contextlib.suppress(OSError):
        _remove(aside)
        entry.replace(aside)
        os.utime(aside)
        older = sorted(entry.parent.glob(f"*{DAMAGED}"), key=lambda one: one.lstat().st_mtime_ns, reverse=True)
        for one in older[MOST_DAMAGED:]:
            _remove(one)


def sweep() -> None:
    """Remove what processes which are no more have left here and in the temporary folder, and code of older versions."""
    sweep_temporary()
    with contextlib.suppress(OSError):
        for old in [entry for kind in CODE for entry in cache_folder().glob(f"{kind}/*")]:
            if not old.name.startswith(".") and not old.name.endswith(DAMAGED) and not (old / RECORD).is_file():
                _remove(old)
        for left in [*cache_folder().glob("*/.*.*"), *cache_folder().glob("*/*.tmp")]:
            plain = left.name.removesuffix(".tmp").split(".")
            mark = next((part for part in reversed(plain) if part.partition("-")[0].isdigit()), "")
            if mark and not is_alive(mark):
                _remove(left)


@cache
def sweep_once() -> None:
    """``sweep``, the first time in a process."""
    sweep()


# -- a single document of JSON -----------------------------------------------------------------------------------------------


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Keep a small JSON object with its digest; ``OSError`` where that cannot be done."""
    _make_part(path.parent)
    _write_whole(path, {"sha256": _digest_of(content), "kept": content})


def read_document(path: Path) -> dict[str, Any]:
    """What was kept in a document; empty where there is none. One that is not as it was written is set aside."""
    try:
        if not path.is_file() and path.exists():
            raise ValueError("no file")
        if path.stat().st_size > MOST_RECORD_BYTES:
            raise ValueError("too large")
        whole = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(whole, dict) and "sha256" not in whole:
            return {}  # an older version's
        kept = whole["kept"]
        if not isinstance(kept, dict) or whole["sha256"] != _digest_of(kept):
            raise ValueError("not as it was written")
    except OSError:
        return {}
    except (ValueError, RecursionError, KeyError, TypeError):
        set_aside(path, NOT_AS_WRITTEN)
        return {}
    return kept


# -- checks ------------------------------------------------------------------------------------------------------------------


def _guard(folder: Path) -> None:
    """Folders above code must be this user's. Where others could write until now, what lies there may be theirs."""
    root = cache_folder()
    for above in reversed([one for one in folder.parents if one == root or root in one.parents]):
        if not above.exists() or not others_can_write(above):
            continue
        with contextlib.suppress(OSError):
            above.chmod(0o700)
        if others_can_write(above):
            raise Refusal(Reason("machine_cache.others-can-write", above=str(above)))
        log.warning(Reason("machine_cache.others-could-write", above=str(above)))
        for kind in CODE if above == root else ["."]:
            for record in above.glob(f"{kind}/*/{RECORD}"):
                record.unlink()


def _trouble(folder: Path, code: bool) -> Reason | None:
    """Why an entry cannot be used, as words that go on from its name; ``LEFT`` where an older version has left it."""
    record = folder / RECORD
    if not record.is_file():
        return LEFT
    if record.stat().st_size > MOST_RECORD_BYTES:
        return Reason("machine_cache.no-record")
    files = json.loads(record.read_text(encoding="utf-8"))["files"]
    there = list(folder.rglob("*"))
    if code and any(others_can_write(one) for one in (folder, *there)):
        return Reason("machine_cache.open-to-others")
    found = {one.relative_to(folder).as_posix() for one in there if one.is_file()} - {RECORD}
    if lost := sorted(set(files) - found):
        return Reason("machine_cache.lacks", name=lost[0])
    drafts = f".{RECORD}."  # another process may be renewing the record
    if added := sorted(name for name in found - set(files) if not name.startswith(drafts)):
        return Reason("machine_cache.has-foreign", name=added[0])
    return _changes(folder, files, code)


def _changes(folder: Path, files: Mapping[str, Any], code: bool) -> Reason | None:
    """As ``_trouble``, of the files themselves; notes new times of change of files that are as they were."""
    renewed = False
    for name, known in files.items():
        facts = (folder / name).stat()
        changed = facts.st_mtime_ns != known["changed_ns"]
        if facts.st_size != known["size"]:
            return Reason("machine_cache.other-size", name=name)
        if (code or changed) and _digest(folder / name) != known["sha256"]:
            return Reason("machine_cache.other-content", name=name)
        renewed |= changed
        known["changed_ns"] = facts.st_mtime_ns
    if renewed:
        with contextlib.suppress(OSError):  # it is read through again the next time
            _write_whole(folder / RECORD, {"version": 1, "files": files})
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{process_mark()}")
    try:
        draft.write_text(json.dumps(content), encoding="utf-8")
        _settle(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Have the system write a file or folder to the disk; folders cannot be asked for that everywhere."""
    if path.is_dir() and os.name == "nt":
        return
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(number)


def _make_part(part: Path) -> None:
    """Make the folder that holds entries; what is in its place, a file or a link to nowhere, is set aside."""
    if not part.is_dir() and os.path.lexists(part) and part != cache_folder():
        set_aside(part, NO_FOLDER)
    make_private(part)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
