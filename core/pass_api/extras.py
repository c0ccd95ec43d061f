"""Packages that only some passes need: whether they are there, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from core.messages.reason import Reason


def missing(package: str, extra: str) -> Reason | None:
    """Why a pass that imports ``package`` cannot be used; None where the package is there.

    The remedy is the fact ``command``, the rest of the clause the fact ``why``.
    """
    if find_spec(package) is not None:
        return None
    why = Reason("pass_api.needs-package", package=package)
    return Reason("pass_api.with-command", why=why, command=f"pip install 'tickscope[{extra}]'")
