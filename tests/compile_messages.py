"""``python -m tests.compile_messages``: writes the compiled catalogue beside each catalogue of sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import polib

from tests.support.folders import ROOT

FOLDER = ROOT / "resources" / "messages"


def catalogues() -> list[Path]:
    """The catalogues that people edit, one a language."""
    return sorted(FOLDER.glob("*.po"))


def compiled(path: Path) -> bytes:
    """What belongs into the ``.mo`` beside a ``.po``: the same from the same text on every machine."""
    return bytes(polib.pofile(str(path), wrapwidth=0, check_for_duplicates=True).to_binary())


def main() -> None:
    """Compile all of them."""
    for path in catalogues():
        path.with_suffix(".mo").write_bytes(compiled(path))
        sys.stdout.write(f"{path.with_suffix('.mo').name}\n")


if __name__ == "__main__":
    main()
