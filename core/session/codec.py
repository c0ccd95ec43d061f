"""Turns the dataclass trees of a run (config, facts) into JSON text and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any, TypeVar

import msgspec
import numpy as np

from core.config import CONSENTS, ABTestConfig, RunConfig
from core.messages.catalogue import ENGLISH
from core.messages.reason import TEXT, Reason, as_reason
from core.models.base import ModelFacts
from core.pass_api.base import PassReport
from core.pass_api.options import read_run
from core.records.run import RunFacts
from core.session.older_sentences import recognised, without_empty

Kind = TypeVar("Kind")

IN_WORDS: Mapping[type, tuple[str, ...]] = {ModelFacts: ("notes",), PassReport: ("summary", "notes"), RunFacts: ("error",)}
"""Fields whose reasons a file holds in English words, as it did before there were codes, for whoever queries it; beside them
``said`` has code and facts."""

_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


def to_json(value: Any) -> str:
    """JSON text of anything made of dataclasses, mappings, sequences, strings and numbers (numpy's too)."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def facts_to_json(facts: RunFacts) -> str:
    """JSON text of ``facts`` without the environment, which has its own table."""
    return to_json(replace(facts, environment={}))


def config_from_json(text: str) -> RunConfig:
    """The config that ``to_json`` wrote; unknown keys are ignored, missing ones take their defaults.

    Options of passes are typed, as far as this version knows them (``options.read``).
    Whoever made the file may have allowed its code to run. Whoever opens it has not, so no consent comes from a file.
    """
    values = value_from_json(text)
    if isinstance(values, dict) and isinstance(values.get("workload"), dict):
        values["workload"].setdefault("chat", False)  # before there was a choice, prompts were given as they are
    config = read_run(_structured(values, RunConfig))
    return replace(config, model=replace(config.model, trust_remote_code=False, allow_pickle=False, force=False))


def group_config_from_json(text: str) -> ABTestConfig | None:
    """What ``to_json`` wrote of the configuration of a group, without anybody's consents; None where it makes no sense."""
    try:
        values = value_from_json(text)
        if values is None:
            return None
        sides = tuple(config_from_json(json.dumps(side)) for side in values["sides"])
        return replace(_structured(values, ABTestConfig), sides=sides)
    except Exception:  # noqa: BLE001 - an odd configuration of a group must not hide its runs, whatever its decoder raises
        return None


def consents_in(text: str) -> tuple[str, ...]:
    """What the maker of a run allowed its model to do (of ``CONSENTS``), to be asked of this person before it is done again."""
    model = value_from_json(text)["model"]
    return tuple(name for name in CONSENTS if model.get(name))


def facts_from_json(text: str, environment: dict[str, Any]) -> RunFacts:
    """The facts that ``facts_to_json`` wrote, with the environment put back."""
    facts = _structured(value_from_json(text), RunFacts)
    quality = None if facts.quality is None else recognised(facts.quality)
    return replace(facts, environment=environment, quality=quality, passes=tuple(map(without_empty, facts.passes)))


def structured(text: str, kind: type[Kind]) -> Kind:
    """What ``to_json`` wrote of a dataclass (or of a tuple of them) in this very program: nothing is left out or presumed."""
    return _structured(json.loads(text), kind)


def _structured(values: Any, kind: type[Kind]) -> Kind:
    for one, of in _in_words(values, kind):
        said = one.pop("said", None)
        if isinstance(said, dict):
            one.update({name: said[name] for name in IN_WORDS[of] if name in said})
    return msgspec.convert(values, kind, strict=False, dec_hook=_special)  # a whole number may have been written as 2.0


def _in_words(values: Any, kind: type) -> list[tuple[dict[str, Any], type]]:
    """What of a JSON tree is of a kind that holds reasons in words, with that kind."""
    if not isinstance(values, dict) or kind not in (RunFacts, ModelFacts):
        return []
    found: list[tuple[Any, type]] = [(values, kind)]
    if kind is RunFacts:
        reports = values.get("passes")
        found += [
            (values.get("model"), ModelFacts),
            *((one, PassReport) for one in (reports if isinstance(reports, list) else ())),
        ]
    return [(one, of) for one, of in found if isinstance(one, dict)]


def _worded(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a dataclass with those reasons in English words, and with code and facts where they have any."""
    plain = {one.name: getattr(value, one.name) for one in fields(value)}
    said: dict[str, Any] = {}
    for name in names:
        given = plain[name]
        several = tuple(map(as_reason, given if isinstance(given, tuple) else () if given is None else (given,)))
        words = [one.say(ENGLISH) for one in several]
        if any(one.code != TEXT for one in several):
            said[name] = given
        plain[name] = words if isinstance(given, tuple) else words[0] if words else None
    return plain | {"said": said} if said else plain


def _special(kind: type, value: Any) -> Any:
    if kind is Reason:
        return Reason.from_json(value)
    raise TypeError(f"{kind.__name__} cannot be read from JSON")


def value_from_json(text: str) -> Any:
    """What a JSON text says; halves of a character, which no file and no window takes, are written out."""
    value = json.loads(text)
    return _whole(value) if _HALVES.search(text) else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Reason):
        return value.as_json()
    if type(value) in IN_WORDS:
        return _worded(value, IN_WORDS[type(value)])
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
