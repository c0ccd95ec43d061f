"""The gate lets guests in between moments only, and waits for them, but not for ever."""

from __future__ import annotations

import threading

from core.clock.gate import Gate, PauseClient


def painter_of(gate: Gate, limit_s: float = 5.0) -> tuple[PauseClient, threading.Event]:
    woken = threading.Event()
    return gate.guest(woken.set, limit_s), woken


def test_nobody_wanted_a_pause_until_somebody_asks() -> None:
    gate = Gate()
    guest, woken = painter_of(gate)
    assert not gate.wanted
    guest.ask()
    assert gate.wanted
    assert not woken.is_set()


def test_a_pause_lasts_until_every_guest_has_left() -> None:
    gate = Gate()
    first, first_woken = painter_of(gate)
    second, second_woken = painter_of(gate)
    first.ask()
    second.ask()
    pause = threading.Thread(target=gate.pause)
    pause.start()
    assert first_woken.wait(5)
    first.leave()
    assert second_woken.wait(5)
    assert second.inside
    assert pause.is_alive()
    second.leave()
    pause.join(5)
    assert not pause.is_alive()
    assert (first.overran, second.overran) == (0, 0)


def test_a_guest_that_stays_too_long_is_not_waited_for() -> None:
    gate = Gate()
    guest, _ = painter_of(gate, limit_s=0.01)
    guest.ask()
    assert gate.pause() > 0
    assert guest.overran == 1
    assert not guest.inside


def test_a_dismissed_guest_lets_the_worker_go() -> None:
    gate = Gate()
    guest, woken = painter_of(gate, limit_s=60)
    guest.ask()
    pause = threading.Thread(target=gate.pause)
    pause.start()
    assert woken.wait(5)
    gate.dismiss(guest)
    pause.join(5)
    assert not pause.is_alive()


def test_painting_counts_as_disturbance_only_while_the_clock_runs() -> None:
    gate = Gate()
    gate.disturb(5)
    assert gate.take_disturbance() == 0
    gate.clock_runs = True
    gate.disturb(5)
    gate.disturb(7)
    assert gate.take_disturbance() == 12
    assert gate.take_disturbance() == 0
