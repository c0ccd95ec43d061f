"""A registry finds the files of its folder, once, whoever asks first."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from core import registry
from core.registry import Registry


@dataclass(frozen=True)
class Thing:
    id: str = "late"


def test_who_asks_while_another_thread_looks_waits_until_all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    things: Registry[Thing] = Registry("thing", "things")
    looking, go_on = threading.Event(), threading.Event()

    def slow(_package: str) -> list[str]:
        assert things.find("late") is None  # a module that asks while it is imported is answered at once
        looking.set()
        assert go_on.wait(10)
        things.register(Thing)
        return []

    monkeypatch.setattr(registry, "discover", slow)
    found: list[Thing | None] = []
    askers = [threading.Thread(target=lambda: found.append(things.find("late"))) for _ in range(2)]
    askers[0].start()
    assert looking.wait(10)
    askers[1].start()
    askers[1].join(0.05)
    assert not found
    go_on.set()
    for asker in askers:
        asker.join(10)
    assert found == [Thing(), Thing()]
