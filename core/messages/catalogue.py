"""What is said under each code, by language: one gettext catalogue each, ``resources/messages/<language>.po`` and ``.mo``.

The ``.po`` is what people edit, the ``.mo`` is the same compiled (``tests/compile_messages.py``); a test holds them together.
"""

from __future__ import annotations

import gettext
import io
from functools import cache
from importlib.resources import files

import resources

ENGLISH = "en"
"""What is spoken where a language has no words for something, and what is written into files beside code and facts."""

_FOLDER = "messages"


class _Spoken:
    """The language of this process; a face sets it once, before it says anything."""

    language = ENGLISH


def languages() -> tuple[str, ...]:
    """The languages that there is a catalogue of, English first."""
    names = sorted(entry.name for entry in files(resources).joinpath(_FOLDER).iterdir())
    found = [name.removesuffix(".mo") for name in names if name.endswith(".mo")]
    return (ENGLISH, *(name for name in found if name != ENGLISH))


def speak(language: str) -> None:
    """From now on everything is said in ``language``, one of ``languages()``; ``ValueError`` for another."""
    if language not in languages():
        raise ValueError(f"there is no catalogue of {language!r}; there is {', '.join(languages())}")
    _Spoken.language = language


def template(code: str, n: object = None, language: str | None = None) -> str | None:
    """The words under a code, with the names of facts in braces; None where no catalogue has the code.

    Args:
        code: as in the catalogue, ``room.what``.
        n: the fact of that name, which chooses the form where the catalogue has several (one moment, two moments).
        language: None: the one that is spoken.
    """
    catalogue = _catalogue(language or _Spoken.language)
    for found in (catalogue.ngettext(code, code, n if isinstance(n, int) else 0), catalogue.gettext(code)):
        if found != code:  # what gettext gives where it has nothing
            return found
    return None


def translated(code: str, english: str) -> str:
    """What was declared in English (a title, a help), in the language that is spoken where its catalogue has the code."""
    return template(code) or english


@cache
def _catalogue(language: str) -> gettext.GNUTranslations:
    """A compiled catalogue, read once, with the English one behind it."""
    found = gettext.GNUTranslations(io.BytesIO(resources.data(f"{_FOLDER}/{language}.mo")))
    if language != ENGLISH:
        found.add_fallback(_catalogue(ENGLISH))
    return found


_catalogue(ENGLISH)  # 1 ms; what is wrong with files, handles or rights must be said without opening another file
