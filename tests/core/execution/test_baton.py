"""The baton lets jobs take turns in one thread, and ends them all when one fails."""

from __future__ import annotations

import pytest
import torch

from core.errors import Cancelled
from core.execution.interleaver import Interleaver


def test_jobs_go_on_for_a_turn_each_and_turn_round() -> None:
    baton, seen, told = Interleaver(), [], []

    def job(name: str, turns: int) -> None:
        for turn in range(turns):
            seen.append(f"{name}{turn}")
            baton.yield_turn()

    baton.run([lambda: job("a", 4), lambda: job("b", 2)], told.append)
    assert seen == ["a0", "b0", "b1", "a1", "a2", "a3"]
    assert told[:4] == [0, 1, 1, 0]
    seen.clear()
    baton.run([lambda: job("a", 1), lambda: job("b", 1)], told.append, backwards=True)
    assert seen == ["b0", "a0"]


def test_each_job_has_its_own_grad_mode_and_the_callers_stays() -> None:
    baton, modes = Interleaver(), []

    def without() -> None:
        with torch.no_grad():
            baton.yield_turn()
            modes.append(("without", torch.is_grad_enabled()))
            baton.yield_turn()

    def with_grad() -> None:
        for _ in range(3):
            modes.append(("with", torch.is_grad_enabled()))
            baton.yield_turn()

    assert torch.is_grad_enabled()
    baton.run([without, with_grad], lambda _number: None)
    assert torch.is_grad_enabled()
    assert set(modes) == {("without", False), ("with", True)}


def test_where_one_fails_the_others_are_unwound_and_the_error_comes_out() -> None:
    baton, ended = Interleaver(), []

    def failing() -> None:
        baton.yield_turn()
        raise ValueError("no")

    def going_on() -> None:
        try:
            while True:
                baton.yield_turn()
        except Cancelled:
            ended.append("unwound")
            raise

    with pytest.raises(ValueError, match="no"):
        baton.run([going_on, failing], lambda _number: None)
    assert ended == ["unwound"]
    baton.yield_turn()  # outside of a run it does nothing


def test_a_job_that_never_began_is_dropped() -> None:
    def failing() -> None:
        raise Cancelled

    begun: list[bool] = []
    with pytest.raises(Cancelled):
        Interleaver().run([failing, lambda: begun.append(True)], lambda _number: None)
    assert begun == []
