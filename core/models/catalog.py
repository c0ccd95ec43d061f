"""From a model's spec to its source, and the questions asked of any model: what is it, does it fit, load it."""

from __future__ import annotations

import re

from core import paths
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import Listing, LoadedModel, ModelFacts, Source, sources
from core.models.memory import Fit, fit
from core.progress import Progress

__all__ = ["Fit", "describe", "fit", "listings", "load", "parse"]

KINDS = "package:NAME, a folder, a .gguf file, hub:ORG/NAME, arch:TYPE or py:FILE.py:FUNCTION"
_PREFIX = re.compile(r"^([a-z][a-z_]+):(.*)$", re.DOTALL)  # two letters at least: C:\models is a path
_ORDER = ("package", "hub", "arch")


def parse(spec: str) -> tuple[Source, str]:
    """The source of a spec, and the spec without its prefix. ``Refusal`` if no source knows such a spec."""
    known = {source.id: source for source in sources}
    spec = spec.strip()
    prefixed = _PREFIX.match(spec)
    if prefixed and not paths.is_there(spec):
        kind, rest = prefixed.groups()
        if kind not in known:
            raise Refusal(Reason("models.no-kind-of-model", kind=kind, spec=paths.shown(spec), kinds=KINDS))
        if not rest.strip():
            raise Refusal(Reason("models.nothing-follows", kind=kind, hint=known[kind].hint))
        return known[kind], rest.strip()
    path = paths.typed(spec)
    if path.suffix.lower() == ".gguf":
        return known["gguf"], spec
    if path.suffix in (".safetensors", ".bin", ".json") and path.is_file():
        raise Refusal(Reason("models.one-file-of-a-model", spec=spec, parent=str(path.parent)))
    if paths.is_there(path) or "/" in spec or "\\" in spec or spec.startswith(("~", ".")):
        return known["folder"], spec
    raise Refusal(Reason("models.no-model", spec=paths.shown(spec), kinds=KINDS))


def describe(config: ModelConfig) -> ModelFacts:
    """Facts without loading weights or importing torch; ``Refusal`` if the model cannot be loaded."""
    source, rest = parse(config.spec)
    return source.describe(config, rest)


def load(config: ModelConfig, device: str, progress: Progress) -> LoadedModel:
    """Load the model onto ``device`` (a torch device string), in eval mode.

    Raises:
        Refusal: it cannot be loaded, in one sentence.
        Cancelled: ``progress`` was cancelled.
    """
    source, rest = parse(config.spec)
    return source.load(config, rest, device, progress)


def listings() -> list[Listing]:
    """All models at hand, packages first."""
    ordered = sorted(sources, key=lambda source: _ORDER.index(source.id) if source.id in _ORDER else len(_ORDER))
    return [listing for source in ordered for listing in source.listed()]
