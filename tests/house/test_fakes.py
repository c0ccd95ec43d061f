"""The fakes of tests have the interface of what they stand for: a change there that a fake does not follow fails here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from core.execution.foresight import Foresight
from core.models.base import Source
from core.pass_api.base import Pass
from core.program import Program
from core.session.store import SessionStore
from profilers.base import Instrument
from tests.cli import test_ab, test_cli
from tests.gui.setup import test_gui_setup
from tests.gui.views import test_gui_quality, test_gui_views
from tests.support.fakes import FakeForesight, FakeProgram
from tests.support.synthetic_quality import FakePass


def public(kind: type) -> dict[str, Callable[..., Any] | property]:
    """A class's own public methods and properties, those of its bases included."""
    found = {name: value for base in reversed(kind.__mro__[:-1]) for name, value in vars(base).items()}
    return {
        name: value for name, value in found.items() if name[0] != "_" and (inspect.isfunction(value) or _is_property(value))
    }


def _is_property(value: object) -> bool:
    return isinstance(value, property)


def differences(fake: type, real: type) -> list[str]:
    """Public methods of a fake that the real class has not, or that cannot be called as the real one's."""
    theirs, wrong = public(real), []
    for name, mine in public(fake).items():
        if name not in theirs:
            wrong.append(f"{name}: {real.__name__} has none")
        elif _is_property(mine) != _is_property(theirs[name]):
            wrong.append(f"{name}: a property on one side only")
        elif not _is_property(mine) and not takes_all(inspect.signature(mine), inspect.signature(theirs[name])):  # type: ignore[arg-type]
            wrong.append(f"{name}{inspect.signature(mine)}: real is {inspect.signature(theirs[name])}")  # type: ignore[arg-type]
    return wrong


def takes_all(mine: inspect.Signature, theirs: inspect.Signature) -> bool:
    """Whether a fake has the same parameters by name, order, kind, and whether they have a default."""

    def told(signature: inspect.Signature) -> list[tuple[str, Any, bool]]:
        return [(one.name, one.kind, one.default is one.empty) for one in signature.parameters.values()]

    return told(mine) == told(theirs)


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakeProgram, Program),
        (test_ab.FakeProgram, Program),
        (test_cli.FakeProgram, Program),
        (FakeForesight, Foresight),
        (FakePass, Pass),
        (test_gui_setup.FakeSource, Source),
        (test_gui_setup.FakeInstrument, Instrument),
        (test_gui_quality.FakeStore, SessionStore),
        (test_gui_views.FakeStore, SessionStore),
    ],
)
def test_a_fake_is_called_as_what_it_stands_for(fake: type, real: type) -> None:
    assert public(fake)
    assert differences(fake, real) == []


class Real:
    def load(self, spec: str, *, force: bool = False) -> None: ...

    @property
    def busy(self) -> bool:
        return False


class Renamed:
    def load(self, model: str, *, force: bool = False) -> None: ...


class Positional:
    def load(self, spec: str, force: bool = False) -> None: ...


class Method:
    def busy(self) -> bool:
        return False


class More:
    def unload(self) -> None: ...


@pytest.mark.parametrize("fake", [Renamed, Positional, Method, More])
def test_each_way_to_differ_is_seen(fake: type) -> None:
    assert len(differences(fake, Real)) == 1
    assert differences(Real, Real) == []
