"""Options of passes: a dataclass says what there is, and window, command line and file are read by it, once each."""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any

import msgspec

from core.config import PassConfig, RunConfig
from core.error_text import reason_of
from core.errors import Refusal
from core.messages.catalogue import translated
from core.messages.reason import Reason
from core.pass_api.base import Pass, passes

DECLARED = ("label", "help", "minimum", "maximum", "step", "choices")
"""What a field's metadata may say of an option."""

_WORDS = {"yes": True, "on": True, "1": True, "true": True, "no": False, "off": False, "0": False, "false": False}


_KINDS = (bool, int, float, str)


@dataclass(frozen=True)
class Option:
    """One field of an options dataclass, as its type and its metadata say it.

    ``kind`` is bool, int, float or str; ``optional``: None is a value too, with which the pass decides by itself.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    label: str = ""
    help: str = ""
    owner: str = ""  # the dataclass that declares it, which several passes may share

    @property
    def called(self) -> str:
        """The label in the language that is spoken."""
        return translated(f"option.{self.owner}.{self.name}.label", self.label)

    @property
    def explained(self) -> str:
        """The help in the language that is spoken."""
        return translated(f"option.{self.owner}.{self.name}.help", self.help) if self.help else ""

    def typed(self, given: Any) -> Any:
        """``given`` (text, or a value of about its type) as a value of its kind, whatever its limits; else ``ValueError``."""
        word = given.strip().lower() if isinstance(given, str) else given
        if self.optional and word in (None, "", "none"):
            return None
        if self.kind is bool:
            given = _WORDS.get(str(word), given)
        elif self.kind is str and isinstance(given, int | float) and not isinstance(given, bool):
            given = str(given)
        elif self.kind is not str:
            given = word
        found: Any = msgspec.convert(given, self.kind, strict=False)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(found)
        return found

    def value(self, given: Any) -> Any:
        """As ``typed``, of its choices and within its limits."""
        found = self.typed(given)
        if found is None:
            return None
        outside = (self.minimum is not None and found < self.minimum) or (self.maximum is not None and found > self.maximum)
        if outside or (self.choices is not None and found not in self.choices):
            raise ValueError(found)
        return found

    @property
    def wanted(self) -> Reason:
        """What may be given for it, as part of a sentence."""
        if self.choices is not None:
            return Reason("pass_api.one-of", choices=tuple(str(choice) for choice in self.choices))
        if self.kind is bool:
            return Reason("pass_api.true-or-false")
        noun = Reason("pass_api.text")
        if self.kind is int:
            noun = Reason("pass_api.whole-number")
        elif self.kind is float:
            noun = Reason("pass_api.number")
        if self.minimum is not None and self.maximum is not None:
            return Reason("pass_api.from-to", noun=noun, low=self.minimum, high=self.maximum)
        return noun if self.minimum is None else Reason("pass_api.at-least", noun=noun, low=self.minimum)


@cache
def declared(options: type | None) -> Mapping[str, Option]:
    """The options that a dataclass declares, by name in its order; none where there is no dataclass."""
    if options is None:
        return MappingProxyType({})
    kinds = typing.get_type_hints(options)
    return MappingProxyType(
        {one.name: _option(one, kinds[one.name], _owner(options, one.name)) for one in dataclasses.fields(options)}
    )


def _owner(options: type, name: str) -> str:
    """The class that declares a field, of those that ``options`` is made of."""
    return next(one.__name__ for one in options.__mro__ if name in inspect.get_annotations(one))


def _option(field: dataclasses.Field[Any], hint: Any, owner: str) -> Option:
    parts = typing.get_args(hint) or (hint,)  # "int | None" is a union of two
    (kind,) = (part for part in parts if part is not NoneType)
    assert kind in _KINDS, f"{field.name} is a {kind}, for which there is neither a field in a form nor a text"
    told = {
        "label": field.name.replace("_", " "),
        **{name: field.metadata[name] for name in DECLARED if name in field.metadata},
    }
    return Option(field.name, kind, NoneType in parts, None if field.default is MISSING else field.default, **told, owner=owner)


def parse(one: Pass, given: Mapping[str, Any]) -> Any:
    """A pass's options from names and values: text from a command line, what a form says, or what a file holds.

    Returns:
        An instance of ``one.options``; an empty mapping for a pass without options.

    Raises:
        Refusal: an unknown name or a bad value; names the valid ones.
    """
    known = declared(one.options)
    unknown = [name for name in given if name not in known]
    if unknown and not known:
        raise Refusal(Reason("pass_api.no-options", id=one.id, option=unknown[0]))
    if unknown:
        raise Refusal(Reason("pass_api.no-such-option", id=one.id, option=unknown[0], options=tuple(known)))
    values = {name: _value(one.id, known[name], value) for name, value in given.items()}
    try:
        return {} if one.options is None else one.options(**values)
    except ValueError as error:
        raise Refusal(Reason("pass_api.options-do-not-fit", id=one.id, problem=reason_of(error))) from error


def _value(pass_id: str, option: Option, given: Any) -> Any:
    try:
        return option.value(given)
    except ValueError:
        wanted = option.wanted
        bad = Reason("pass_api.bad-option", option=option.name, id=pass_id, value=repr(given), wanted=wanted)
        raise Refusal(bad) from None


def typed(choice: PassConfig) -> PassConfig:
    """The choice with every option of its pass, each of its type, so that equal setups are equal wherever they came from.

    ``Refusal`` for a pass that there is not, and as ``parse``.
    """
    return PassConfig(choice.id, parse(passes.get(choice.id), choice.options)) if _unread(choice) else choice


def read(choice: PassConfig) -> PassConfig:
    """As ``typed``, but what a file says is never refused.

    Options of another version's pass, or that this machine does not allow (more threads than it has), stay a mapping, in which
    whatever has a type here is of it. Whoever applies them is refused.
    """
    one = passes.find(choice.id)
    if one is None or not _unread(choice):
        return choice
    try:
        return typed(choice)
    except Refusal:
        known = declared(one.options)
        return PassConfig(choice.id, {name: _if_readable(known.get(name), value) for name, value in choice.options.items()})


def _if_readable(option: Option | None, given: Any) -> Any:
    try:
        return given if option is None else option.typed(given)
    except ValueError:
        return given


def _unread(choice: PassConfig) -> bool:
    return isinstance(choice.options, Mapping)


def typed_run(config: RunConfig) -> RunConfig:
    """The run with the options of all its passes ``typed``."""
    return replace(config, passes=tuple(map(typed, config.passes)))


def read_run(config: RunConfig) -> RunConfig:
    """The run with the options of all its passes ``read``."""
    return replace(config, passes=tuple(map(read, config.passes)))


def by_name(options: Any) -> dict[str, Any]:
    """Values of options by name, whether or not this version has a dataclass for them."""
    return dict(options) if isinstance(options, Mapping) else dataclasses.asdict(options)
