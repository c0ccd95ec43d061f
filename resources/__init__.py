"""Data that ships with Tickscope: fonts, icons, the style sheet. Read through ``importlib.resources``, never by file name."""

from __future__ import annotations

from importlib.resources import files

FONTS = ("Inter-Regular.otf", "Inter-Medium.otf", "Inter-SemiBold.otf")


def text(name: str) -> str:
    """A text file by its path below ``resources``, e.g. ``icons/down.svg``."""
    return files(__name__).joinpath(*name.split("/")).read_text(encoding="utf-8")


def data(name: str) -> bytes:
    """A file's bytes by its path below ``resources``."""
    return files(__name__).joinpath(*name.split("/")).read_bytes()


def path(name: str) -> str:
    """A file's path with forward slashes, for Qt style sheets, which take pictures only from files."""
    return str(files(__name__).joinpath(*name.split("/"))).replace("\\", "/")


def fonts() -> list[bytes]:
    """The bundled fonts."""
    return [data(f"fonts/{name}") for name in FONTS]


def passages() -> list[str]:
    """The text that quality is measured on where the user gives none, piece by piece: about 3,500 tokens, our own words.

    Prose, dialogue, code, a table, instructions and questions in several languages, in an order in which kinds alternate.
    """
    pieces = sorted(files(__name__).joinpath("text").iterdir(), key=lambda piece: piece.name)
    return [piece.read_text(encoding="utf-8").strip() for piece in pieces if piece.name.endswith(".txt")]
