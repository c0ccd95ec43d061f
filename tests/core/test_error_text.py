"""What an error says can be had from any error, and no handler of whatever may be raised asks for it in another way."""

from __future__ import annotations

import ast

import pytest

from core import error_text
from core.disk_space import is_full
from core.errors import Cancelled, Refusal
from core.execution.failure import what_failed
from core.execution.outcome import of_error
from core.execution.workload import is_out_of_memory
from core.messages.reason import Reason
from tests.support.folders import ROOT


class Mute(RuntimeError):
    """Neither its message nor its attributes can be had, and none can be set."""

    def __str__(self) -> str:
        raise LookupError("no message")

    __repr__ = __str__

    def __getattr__(self, name: str) -> object:
        raise LookupError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise LookupError(name)


class NoText(RuntimeError):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Quits(RuntimeError):
    def __str__(self) -> str:
        raise SystemExit(3)


class RaisesItself(BaseException):
    def __str__(self) -> str:
        raise self


HOSTILE = (Mute, NoText, Quits, RaisesItself)


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - any error at all
        return caught


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_job_that_fails_with_any_error_is_told_with_its_kind_and_the_name_of_the_error(kind: type[BaseException]) -> None:
    notice = of_error(raised(kind()), "run")
    assert (notice.kind, notice.job) == ("failed", "run")
    assert kind.__name__ in notice.text
    assert kind.__name__ in notice.detail
    assert "in raised" in notice.detail


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_error_can_be_asked_what_it_is_about(kind: type[BaseException]) -> None:
    error = raised(kind())
    assert not is_full(error)
    assert not is_out_of_memory(error)
    assert error_text.said(error) == ""
    assert error_text.first_line(error) == error_text.named(error) == str(error_text.reason_of(error)) == kind.__name__
    assert str(what_failed(error)) == f"{kind.__name__}: no message" == str(what_failed(error))


def test_an_error_is_told_by_its_message_and_a_refusal_by_its_reason() -> None:
    error = ValueError("\n first\nsecond ")
    assert error_text.said(error) == "first\nsecond"
    assert error_text.first_line(error) == "first"
    assert error_text.named(error) == "ValueError: first\nsecond"
    reason = Reason("session.was-removed")
    assert error_text.reason_of(Refusal(reason)) is reason


def test_an_endless_message_is_cut() -> None:
    assert len(error_text.said(ValueError("x" * (2 * error_text.MOST)))) == error_text.MOST


def test_a_cancel_in_the_middle_of_a_message_goes_through() -> None:
    class Late(ValueError):
        def __str__(self) -> str:
            raise Cancelled

    with pytest.raises(Cancelled):
        error_text.said(Late())


WIDE = {"Exception", "BaseException", "RuntimeError", "MODEL_ERRORS", "EXPORT_FAILURES", "SystemExit"}


def plain_askings(tree: ast.AST) -> list[int]:
    """Lines where the message of an error that may be anybody's is asked for plainly."""
    return [
        line
        for scope in ast.walk(tree)
        for name in wide_errors(scope)
        for node in ast.walk(scope)
        for line in asked_plainly(node, name)
    ]


def wide_errors(scope: ast.AST) -> list[str]:
    if isinstance(scope, ast.ExceptHandler) and scope.name and scope.type is not None:
        caught = {node.id for node in ast.walk(scope.type) if isinstance(node, ast.Name)}
        return [scope.name] if caught & WIDE else []
    if isinstance(scope, ast.FunctionDef):
        given = [one for one in scope.args.args if one.annotation is not None]
        named = [one.arg for one in given if {"Exception", "BaseException"} & set(ast.unparse(one.annotation).split(" | "))]
        futures = [
            node.targets[0].id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            if ast.unparse(node.value).endswith(".exception()")
        ]
        return named + futures
    return []


def asked_plainly(node: ast.AST, name: str) -> list[int]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr") and node.args:
        asked = node.args[0]
    elif isinstance(node, ast.FormattedValue):
        asked = node.value
    else:
        return []
    return [asked.lineno] if isinstance(asked, ast.Name) and asked.id == name else []


def test_the_search_for_plain_askings_finds_them() -> None:
    text = "try:\n    pass\nexcept Exception as e:\n    print(str(e), f'{e}')\ndef f(e: BaseException):\n    return repr(e)\n"
    assert plain_askings(ast.parse(text)) == [6, 4, 4]


def test_no_handler_of_whatever_may_be_raised_asks_for_its_message_plainly() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{line}"
        for floor in ("core", "gui")
        for file in sorted((ROOT / floor).rglob("*.py"))
        if file.name != "error_text.py"
        for line in plain_askings(ast.parse(file.read_text("utf-8")))
    }
    assert not found
