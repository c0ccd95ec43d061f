"""Packages that only some passes need: whether they are there, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec


def missing(package: str, extra: str) -> str | None:
    """Why a pass that imports ``package`` cannot be used, with the command as the remedy; None where the package is there."""
    if find_spec(package) is not None:
        return None
    return f"needs {package}: pip install 'tickscope[{extra}]'"
