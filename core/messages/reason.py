"""A sentence or a clause for people as a value: a code that programs read, and the facts that it is told with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Union

from core import units
from core.messages.catalogue import ENGLISH, template

Fact = Union[str, int, float, bool, None, tuple["Fact", ...], "Reason"]
"""What a sentence is told with: a name, a number in the unit that the fact's name ends on, several, or a clause."""

TEXT = "text"
"""The code of words that come from elsewhere as they are: of an older file, of a library's error, of another floor."""

DEPTH = 8
"""So deep clauses may lie in each other; a file that goes deeper was made to do harm."""

_SHOWN = ("clock", "count", "duration", "number", "percent", "rate", "ratio", "signed_duration", "signed_percent", "size")
_UNITS: Mapping[str, Callable[[Any], str]] = {name: getattr(units, name) for name in _SHOWN}

_BREAKS = {code: chr(0x2400 + code) for code in (0x0A, 0x0B, 0x0C, 0x0D)} | dict.fromkeys((0x85, 0x2028, 0x2029), "␤")
"""Names and words of others are told in one line: a break in them could forge the next sentence."""

_BETWEEN = {"and": "messages.and", "or": "messages.or", "sentences": "messages.between-sentences"}
"""What stands between several facts, by the format that a template asks for; else a comma."""


class Reason:
    """``Reason("session.newer", name="a.tickscope", version=9)``: what is meant; ``str`` gives the words.

    Programs compare ``code`` and read ``facts``, and never the words. The code is a literal wherever one is made, so that a
    test can hold codes and names of facts against the catalogue. A fact called ``n`` chooses between the catalogue's plural
    forms. ``written`` are the words that a file has beside the code, for a code that this version does not know.
    """

    __slots__ = ("code", "facts", "written")  # no dataclass, which codecs take apart by themselves

    code: str
    facts: Mapping[str, Fact]
    written: str

    def __init__(self, code: str, /, **facts: Fact) -> None:
        object.__setattr__(self, "code", code)
        object.__setattr__(self, "facts", facts)
        object.__setattr__(self, "written", "")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a reason is a value: its {name} does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.code, dict(self.facts), self.written)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reason) and (self.code, self.facts) == (other.code, other.facts)

    def __str__(self) -> str:
        return self.say()

    def __repr__(self) -> str:
        return f"Reason({', '.join([repr(self.code), *(f'{name}={fact!r}' for name, fact in self.facts.items())])})"

    def __hash__(self) -> int:
        return hash((self.code, tuple(self.facts)))

    def say(self, language: str | None = None) -> str:
        """The words in a language of the catalogue; None: in the one that is spoken."""
        words = template(self.code, self.facts.get("n"), language)
        if words is None:
            return self.written or self.code
        try:
            return _Words(language, self.code).vformat(words, (), self.facts)
        except (LookupError, TypeError, ValueError):  # facts of a file, which may be anything
            return self.written or self.code

    def as_json(self) -> dict[str, Any]:
        """What files hold: code and facts, and beside them the English words for whoever reads the file without Tickscope."""
        facts = {name: _fact_json(fact) for name, fact in self.facts.items()}
        return {"code": self.code, "facts": facts, "text": self.say(ENGLISH)}

    @classmethod
    def from_json(cls, value: Any) -> Reason:
        """What ``as_json`` gave, or the plain sentence of a file from before there were codes.

        Raises:
            ValueError: it is neither.
        """
        return _read(value, DEPTH)


def of_text(text: str) -> Reason:
    """Words as they are, of which nothing more is known."""
    return Reason(TEXT, text=text)


def worded(code: str, /, *english: str, **facts: Fact) -> Reason:
    """A reason whose English template stands where it is made, for what is one file to add (a pass, say).

    Another language has its words under the code, as those of every other reason; files hold code, facts and English words.

    Args:
        code: ``pass.<id>.<what>``.
        english: the template, or two where ``n`` chooses: for one of it, and for any other number.
        facts: as of every reason.
    """
    words = english[0] if facts.get("n") == 1 else english[-1]
    return _remade(code, facts, _Words(ENGLISH, code).vformat(words, (), facts))


def as_reason(given: Reason | str) -> Reason:
    """What is a reason already as it is, and words from elsewhere (a library, another floor) as they are."""
    return given if isinstance(given, Reason) else of_text(given)


class _Words(Formatter):
    """Puts facts into a template: ``{name}``, ``{name!r}``, ``{weight_bytes:size}``, ``{why:capital}``, ``{sentence:clause}``
    (a sentence without its full stop), ``{sentence:lower}``.

    Several facts are joined by commas, or as in ``{choices:or}``. A text is told in one line, where it is not the whole
    sentence (``TEXT``).
    """

    def __init__(self, language: str | None, code: str) -> None:
        self._language = language
        self._whole = code == TEXT

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name  # a name as it is: no attribute and no item of a fact

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Reason):
            value = value.say(self._language)
        elif isinstance(value, str) and not self._whole:
            value = value.translate(_BREAKS)
        if isinstance(value, tuple):
            between = template(_BETWEEN[format_spec], language=self._language) if format_spec in _BETWEEN else None
            parts = (self.format_field(one, "" if between else format_spec) for one in value)
            return (between or ", ").join(parts)
        if format_spec == "capital":
            return f"{value[:1].upper()}{value[1:]}"
        if format_spec == "lower":
            return f"{str(value)[:1].lower()}{str(value)[1:]}"
        if format_spec == "clause":
            return str(value).rstrip(".。")
        return _UNITS[format_spec](value) if format_spec in _UNITS else format(value, format_spec)


def _fact_json(fact: Fact) -> Any:
    if isinstance(fact, Reason):
        return fact.as_json()
    return [_fact_json(one) for one in fact] if isinstance(fact, tuple) else fact


def _read(value: Any, depth: int) -> Reason:
    if isinstance(value, str):
        return of_text(value)
    if not isinstance(value, dict) or not isinstance(value.get("code"), str) or not isinstance(value.get("facts"), dict):
        raise ValueError("a reason is a code with facts, or a sentence")
    facts = {str(name): _read_fact(fact, depth - 1) for name, fact in value["facts"].items()}
    return _remade(value["code"], facts, str(value.get("text", "")))


def _remade(code: str, facts: Mapping[str, Fact], written: str) -> Reason:
    found = Reason(code, **facts)
    object.__setattr__(found, "written", written)
    return found


def _read_fact(fact: Any, depth: int) -> Fact:
    if depth < 0:
        raise ValueError("the facts of a reason lie too deep in each other")
    if isinstance(fact, dict):
        return _read(fact, depth)
    return tuple(_read_fact(one, depth - 1) for one in fact) if isinstance(fact, list) else fact
