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


def passages(folder: str = "text") -> list[str]:
    """A text that comes along, piece by piece, all our own words.

    ``text`` is what quality is measured on where the user gives nothing: about 3,500 tokens of prose, dialogue, code, a table,
    instructions and questions in several languages, in an order in which kinds alternate. ``code`` is the second text beside
    it, of another kind: programs, configuration, markup and a log, about 1,500 tokens. ``calibration`` is like ``text`` and
    shares no sentence with it: what passes look at models with, on which nothing is judged.
    """
    pieces = sorted(files(__name__).joinpath(folder).iterdir(), key=lambda piece: piece.name)
    return [piece.read_text(encoding="utf-8").strip() for piece in pieces if piece.name.endswith(".txt")]
