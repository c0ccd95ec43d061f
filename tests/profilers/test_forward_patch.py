"""Tests of the forward patch: whatever is pushed and popped, calls go through it in order and nothing is left behind."""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from profilers.forward_patch import ForwardPatch, Order, Slot, has_own_forward, keeping_forward
from tests.support.folders import ROOT


class Leaf(torch.nn.Module):
    """Notes in ``calls`` that it was reached."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self) -> None:
        self.calls.append("own")


def noting(calls: list[str], name: str) -> Callable[[Any], Any]:
    def wrap(below: Any) -> Any:
        def forward() -> None:
            calls.append(name)
            below()

        return forward

    return wrap


def replaced(leaf: Leaf) -> None:
    """An instance's own forward, as other libraries leave it."""
    leaf.__dict__["forward"] = lambda: leaf.calls.append("own")


def compiled(leaf: Leaf) -> None:
    """As ``Module.compile`` leaves it."""
    leaf.__dict__["_compiled_call_impl"] = leaf._call_impl


def hooked(leaf: Leaf) -> None:
    leaf.register_forward_pre_hook(lambda *_: None)


def leaves(calls: list[str], chance: random.Random) -> list[Leaf]:
    made = [Leaf(calls) for _ in range(chance.randint(1, 6))]
    for leaf in made:
        chance.choice((replaced, compiled, hooked, *[lambda _: None] * 3))(leaf)
    return made


def contents(module: torch.nn.Module) -> dict[str, Any]:
    return dict(module.__dict__)


@pytest.mark.parametrize("seed", range(150))
def test_pushes_and_pops_in_any_order_keep_the_order_of_calls_and_restore_every_dict(seed: int) -> None:
    chance, calls = random.Random(seed), []
    layers = leaves(calls, chance)
    before = [contents(leaf) for leaf in layers]
    patches: list[tuple[str, list[Leaf], ForwardPatch]] = []

    def make() -> None:
        order = chance.choice(list(Order)[:-1])  # a cancel calls nothing below it
        on = chance.sample(layers, chance.randint(1, len(layers)))
        name = f"{order.name} {len(patches)}"
        slot = chance.choice((Slot.FORWARD, Slot.CALL))
        patches.append((name, on, ForwardPatch(order, [(leaf, noting(calls, name)) for leaf in on], slot)))

    pushed: list[int] = []
    for _ in range(40):
        if not patches or chance.random() < 0.15:
            make()
        number = chance.randrange(len(patches))
        if number in pushed:
            pushed.remove(number)
            patches[number][2].pop()
        else:
            pushed.append(number)
            patches[number][2].push()
        for leaf in layers:
            on = [number for number in pushed if any(leaf is one for one in patches[number][1])]
            stack = sorted(on, key=lambda number: patches[number][2].order)  # stable: of equals the last is the outermost
            calls.clear()
            leaf()
            assert calls == [*[patches[number][0] for number in reversed(stack)], "own"]
    chance.shuffle(pushed)
    for number in pushed:
        patches[number][2].pop()
    assert [contents(leaf) for leaf in layers] == before
    assert [list(leaf.__dict__) for leaf in layers] == [list(one) for one in before], "in the same sequence"


@pytest.mark.parametrize("seed", range(30))
def test_a_cancel_stands_above_all_and_survives_what_is_pushed_and_popped_below_it(seed: int) -> None:
    chance, calls = random.Random(seed), []
    layers = leaves(calls, chance)
    before = [contents(leaf) for leaf in layers]

    def instead(_forward: Any) -> Any:
        return lambda: calls.append("cancelled")

    cancel = ForwardPatch(Order.CANCEL, [(leaf, instead) for leaf in layers], Slot.BOTH)
    clock = ForwardPatch(Order.CLOCK, [(leaf, noting(calls, "clock")) for leaf in layers], Slot.CALL)
    actions = [cancel.push, clock.push, clock.pop, clock.push]
    chance.shuffle(actions)
    for action in actions:
        action()
    for leaf in layers:
        calls.clear()
        leaf()
        leaf.forward()
        assert calls == ["cancelled"] * 2
    cancel.pop()
    clock.push()
    for leaf in layers:
        calls.clear()
        leaf()
        assert calls == ["clock", "own"], "popped from above, it leaves the clock"
    clock.pop()
    assert [contents(leaf) for leaf in layers] == before


def test_pushing_and_popping_twice_is_pushing_and_popping_once() -> None:
    leaf = Leaf([])
    before = contents(leaf)
    patch = ForwardPatch(Order.FRAME, [(leaf, noting(leaf.calls, "frame"))])
    patch.pop()
    patch.push()
    patch.push()
    leaf()
    assert leaf.calls == ["frame", "own"]
    patch.pop()
    patch.pop()
    assert contents(leaf) == before
    assert len(patch) == 1


def test_a_patch_that_nobody_can_pop_any_more_is_the_modules_own() -> None:
    leaf = Leaf([])
    patch = ForwardPatch(Order.PASS, [(leaf, noting(leaf.calls, "pass"))])
    patch.push()
    del patch
    gc.collect()
    given = leaf.__dict__["forward"]
    above = ForwardPatch(Order.FRAME, [(leaf, noting(leaf.calls, "frame"))])
    above.push()
    leaf()
    assert leaf.calls == ["frame", "pass", "own"]
    above.pop()
    assert leaf.__dict__["forward"] is given


def test_what_others_leave_on_an_instance_is_put_back() -> None:
    leaf = Leaf([])
    before = contents(leaf)

    def replace_and_fail() -> None:
        with keeping_forward(leaf):
            replaced(leaf)
            assert has_own_forward(leaf)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_and_fail()
    assert contents(leaf) == before
    replaced(leaf)
    before = contents(leaf)
    with keeping_forward(leaf):
        del leaf.__dict__["forward"]
    assert contents(leaf) == before


def test_nobody_else_replaces_a_forward() -> None:
    names = re.compile(r"""__dict__(\[|\.\w+\()\s*["'](forward|_compiled_call_impl)["']|\.(forward|_compiled_call_impl) = """)
    found = [path for folder in ("profilers", "core", "gui", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in found if names.search(path.read_text("utf-8"))] == ["forward_patch.py"]
