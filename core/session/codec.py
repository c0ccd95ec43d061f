"""Turns the dataclass trees of a run (config, facts) into JSON text and back."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np

from core.config import RunConfig
from core.session.run import RunFacts


@cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter  # 30 ms, and not needed before the first file

    return make_converter()


def to_json(value: Any) -> str:
    """JSON text of anything made of dataclasses, mappings, sequences, strings and numbers (numpy's too)."""
    return json.dumps(_converter().unstructure(value), default=_plain, ensure_ascii=False)


def facts_to_json(facts: RunFacts) -> str:
    """JSON text of ``facts`` without the environment, which has its own table."""
    return to_json(replace(facts, environment={}))


def config_from_json(text: str) -> RunConfig:
    """The config that ``to_json`` wrote; unknown keys are ignored, missing ones take their defaults."""
    config: RunConfig = _converter().structure(json.loads(text), RunConfig)
    return config


def facts_from_json(text: str, environment: dict[str, Any]) -> RunFacts:
    """The facts that ``facts_to_json`` wrote, with the environment put back."""
    facts: RunFacts = _converter().structure(json.loads(text), RunFacts)
    return replace(facts, environment=environment)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
