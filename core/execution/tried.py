"""What was tried on this machine before: compilers, exporters and native engines may end the process that tries them first."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.config import RunConfig
from core.folders import cache_folder
from core.machine_cache import read_document, write_document
from core.pass_api.base import any_pass, passes
from core.session import codec

PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "llama-cpp-python")
"""Another version of these has not been tried yet."""

MOST = 500


def is_untried(configs: Sequence[RunConfig]) -> bool:
    """Whether one of these has something done that may abort, which no run before has been through on this machine."""
    asked = [one for one in configs if any_pass(one.passes, lambda each: each.may_abort)]
    if not asked:
        return False
    known = _known()
    return any(_name(one) not in known for one in asked)


def note_tried(config: RunConfig) -> None:
    """A run of this came to its end."""
    if any_pass(config.passes, lambda each: each.may_abort):
        names = [*(one for one in _known() if one != _name(config)), _name(config)]
        with contextlib.suppress(OSError):  # then the next one gets a process of its own once more
            write_document(_path(), {"tried": names[-MOST:]})


def _known() -> list[str]:
    tried = read_document(_path()).get("tried")
    return [str(one) for one in tried] if isinstance(tried, list) else []


def _path() -> Path:
    return cache_folder() / "machine" / "tried.json"


def _name(config: RunConfig) -> str:
    """The model, what may abort and in which order, and the versions of whatever does it."""
    found = {one.id: one for one in passes}
    chosen = [choice for choice in config.passes if choice.id in found and found[choice.id].may_abort]
    asked = (config.model.spec, config.model.dtype, config.target.id, chosen)
    return hashlib.sha256(f"{codec.to_json(asked)} {_versions()}".encode()).hexdigest()[:24]


def _versions() -> str:
    found = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
