"""Asks the person at this machine before a setup from a file may run code that the file names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.config import ModelConfig
from core.models.python_entry import split_spec

CODE = "py:"
ASKED = ("trust_remote_code", "allow_pickle")
"""A model that is too large (``force``) is not asked about: refusing it offers that itself."""


def needed(model: ModelConfig, consents: Sequence[str]) -> tuple[str, ...]:
    """What this person would have to allow; ``consents`` is what the maker of the file had allowed."""
    found = {name for name in ASKED if name in consents}
    if model.spec.startswith(CODE):
        found.add("trust_remote_code")
    return tuple(name for name in ASKED if name in found)


def question(model: ModelConfig, wanted: Sequence[str]) -> str:
    """What is asked, with the path of the code."""
    if model.spec.startswith(CODE):
        try:
            what = f"The model of this run is made by the Python code {split_spec(model.spec.removeprefix(CODE))[0].absolute()}"
        except ValueError:
            what = f"The model of this run is made by Python code ({model.spec})"
    elif "trust_remote_code" in wanted:
        what = f"The model {model.spec} was run with the Python code that comes with it"
    else:
        what = f"The weights of {model.spec} are pickled, and reading them can run code"
    return f"{what}.\n\nIt will run with your rights. Do you trust it?"


def allowed(model: ModelConfig, wanted: Sequence[str]) -> ModelConfig:
    """The model with what was agreed to."""
    trust, pickled = (name in wanted for name in ASKED)
    return replace(model, trust_remote_code=trust, allow_pickle=pickled)
