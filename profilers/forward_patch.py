"""The forward patch: the one place that replaces a module's ``forward``, in a fixed order, and restores it bit for bit.

A patch lies on a set of modules and is pushed and popped as a whole. What several patches do to one module is stacked by their
``Order``, whichever came first; a patch pushed below others is called by them from then on. Each module has its own dict again
once the last one is popped.

The layer clock goes on and off some 400 layers in every traced moment. So everything is made beforehand, and where no other
patch touches the same modules a push is one assignment a layer, in the instance's dict: ``Module.__setattr__`` costs 20 times
as much.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

from profilers.torch_private import CALL_SLOT, has_any_hooks

if TYPE_CHECKING:
    import torch

Forward = Callable[..., Any]
Wrap = Callable[[Forward], Forward]
"""Makes what is called of what was called until now."""


class Order(IntEnum):
    """Who is called first: of two patches on a module the greater one, and of equals the one pushed last."""

    PASS = 0  # computes otherwise, for as long as a pass is on
    FRAME = 1  # opens and closes moments
    CLOCK = 2
    LABEL = 3  # names layers in a profiler's record
    CANCEL = 4


class Slot(Enum):
    """Where in a module's dict a patch goes."""

    FORWARD = "the method"
    CALL = "in place of ``_call_impl``, where the module allows it: a call then has no frame more than without the patch"
    BOTH = "wherever a call is looked up"


_FORWARD, _CALL = "forward", CALL_SLOT
_ABSENT: Any = object()

# Cancelling pushes from another thread, or from a signal's handler in the midst of a push.
_lock = threading.RLock()


class _Ground:
    """What a module has without any patch."""

    __slots__ = ("forward", "impl", "module", "plain")

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.forward = module.__dict__.get(_FORWARD, _ABSENT)
        self.impl = module.__dict__.get(_CALL, _ABSENT)
        self.plain: Forward = module.forward


class _Part:
    """A patch on one of its modules."""

    __slots__ = ("_below", "_made", "_wrap", "ground", "slot")

    def __init__(self, ground: _Ground, wrap: Wrap, slot: Slot) -> None:
        self.ground = ground
        self.slot = Slot.FORWARD if slot is Slot.CALL and not _takes_calls(ground) else slot
        self._wrap = wrap
        self._below, self._made = ground.plain, wrap(ground.plain)

    def over(self, below: Forward) -> Forward:
        """What is called, when ``below`` is what it calls."""
        if below != self._below:  # a bound method is another object each time
            self._below, self._made = below, self._wrap(below)
        return self._made

    def places(self) -> Iterator[tuple[dict[str, Any], str, Any, Forward]]:
        """Dict, key, what is there without and what with the patch, if it is the only one."""
        if self.slot is not Slot.CALL:
            yield self.ground.module.__dict__, _FORWARD, self.ground.forward, self._made
        if self.slot is not Slot.FORWARD:
            yield self.ground.module.__dict__, _CALL, self.ground.impl, self._made


class ForwardPatch:
    """Replaces the ``forward`` of some modules between ``push`` and ``pop``, which may be called again and again.

    Args:
        order: its place in the stack of each module.
        wraps: modules, each once, with what makes the new ``forward`` of the one below. Called again where that changes.
        slot: where it goes. Above a patch in the place of ``_call_impl`` it goes there too.
    """

    def __init__(self, order: Order, wraps: Iterable[tuple[Any, Wrap]], slot: Slot = Slot.FORWARD) -> None:
        self.order = order
        self._since = 0
        with _lock:
            self._parts = {id(module): _Part(_ground_of(module), wrap, slot) for module, wrap in wraps}
        self._places = [place for part in self._parts.values() for place in part.places()]

    def __len__(self) -> int:
        """How many modules it lies on."""
        return len(self._parts)

    def push(self) -> None:
        """Be on every module from now on; again: nothing. For any thread."""
        with _lock:
            if self in _pushed:
                return
            near = self._near()
            self._since = 1 + max((patch._since for patch in near), default=0)
            _pushed.add(self)  # first: whatever interrupts this, ``pop`` restores all
            if near:
                self._settle([*near, self])
                return
            for place, key, _own, made in self._places:
                place[key] = made

    def pop(self) -> None:
        """Be on no module any more: each has what it would have without this patch; again: nothing. For any thread."""
        with _lock:
            if self not in _pushed:
                return
            near = self._near()
            if near:
                self._settle(near)
            else:
                for place, key, own, _made in self._places:
                    if own is _ABSENT:
                        place.pop(key, None)
                    else:
                        place[key] = own
            _pushed.discard(self)

    def _near(self) -> list[ForwardPatch]:
        """The other patches that are on one of the same modules."""
        mine = self._parts.keys()
        return [patch for patch in _pushed if patch is not self and not mine.isdisjoint(patch._parts.keys())]

    def _settle(self, patches: list[ForwardPatch]) -> None:
        """Give each module of this patch what ``patches`` make of it."""
        stack = sorted(patches, key=lambda patch: (patch.order, patch._since))
        for key, part in self._parts.items():
            _write(part.ground, [patch._parts[key] for patch in stack if key in patch._parts])


# Weakly: a pass whose model is thrown away as a whole is never undone, and what nobody can pop is a module's own.
_pushed: weakref.WeakSet[ForwardPatch] = weakref.WeakSet()


def _ground_of(module: torch.nn.Module) -> _Ground:
    return next((patch._parts[id(module)].ground for patch in _pushed if id(module) in patch._parts), None) or _Ground(module)


def _write(ground: _Ground, parts: Iterable[_Part]) -> None:
    """Put these on a module, the lowest first."""
    forward, impl, below = ground.forward, ground.impl, ground.plain
    in_call = False
    for part in parts:
        below = part.over(below)
        if part.slot is Slot.BOTH:
            forward = impl = below
        elif in_call or part.slot is Slot.CALL:
            impl = below
        else:
            forward = below
        in_call = in_call or part.slot is not Slot.FORWARD
    for key, value in ((_FORWARD, forward), (_CALL, impl)):
        if value is _ABSENT:
            ground.module.__dict__.pop(key, None)
        else:
            ground.module.__dict__[key] = value


def _takes_calls(ground: _Ground) -> bool:
    """Whether a patch may stand in for ``_call_impl``.

    ``Module.__call__`` looks for ``_compiled_call_impl`` first and otherwise goes through ``_call_impl``, which looks for
    hooks. What stands in the first place is called instead of the second, so a call has no frame more than without it; in the
    place of ``forward`` it would have one. Only for modules without hooks, which are called as all modules are.
    """
    from torch.nn.modules import module as torch_module

    module = ground.module
    plain = type(module).__call__ is torch_module.Module.__call__ and (ground.impl is _ABSENT or ground.impl is None)
    return plain and not has_any_hooks(module)


# -- what is no patch of ours ----------------------------------------------------------------------------------------------


def has_own_forward(module: torch.nn.Module) -> bool:
    """Whether the instance has a ``forward`` that is not its class's: a patch's or somebody else's."""
    return _FORWARD in module.__dict__


def give_forward(module: torch.nn.Module, forward: Forward) -> None:
    """Give the instance this ``forward`` for good, as to a twin that is thrown away as a whole."""
    module.__dict__[_FORWARD] = forward


def remember_forward(module: torch.nn.Module) -> Callable[[], None]:
    """What puts back the ``forward`` that the instance has now, or has not, after somebody else's code replaced it."""
    own = module.__dict__.get(_FORWARD, _ABSENT)

    def restore() -> None:
        if own is _ABSENT:
            module.__dict__.pop(_FORWARD, None)
        else:
            module.__dict__[_FORWARD] = own

    return restore


@contextmanager
def keeping_forward(module: torch.nn.Module) -> Iterator[None]:
    """Whatever happens meanwhile, the instance has afterwards the ``forward`` that it has now, or has not."""
    restore = remember_forward(module)
    try:
        yield
    finally:
        restore()
