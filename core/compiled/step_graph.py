"""Compiled steps: one forward of fixed shape as one graph of torch's inductor, kept on disk for the next start.

Dynamo captures the forward once. From then on the graph is called directly with the tensors that dynamo had given it, found
again by where they came from (a weight, an argument, a layer of the KV cache), without dynamo's guards: those take half a
millisecond a step, and capturing takes longer than a whole second start may. What the guards would look at is either part of
the name under which a graph is kept, or compared at each call. What is kept is a C++ library (see ``step_library``), which
needs neither dynamo nor inductor to be imported again.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.compiled.step_library import compile_library, load_library, with_constants
from core.compiled.step_plan import (
    Plan,
    cache_shape,
    fits,
    inputs_of,
    output_class,
    parts_of,
    places_of,
    read,
    signature,
    written,
)
from core.disk_space import is_full, require_to_compile
from core.error_text import said
from core.errors import Refusal
from core.folders import cache_folder
from core.machine_cache import draft_of, keep, set_aside, usable
from core.messages.reason import Reason
from profilers.tick_op import ticks_in

if TYPE_CHECKING:
    import torch

_numbers = itertools.count()


class StepGraph:
    """One compiled form of a forward function, with a code object of its own.

    Dynamo keeps graphs by code object, and all models of a class share theirs (through transformers' decorators, those of all
    classes do); it would run a graph made for another model as long as its guards hold, and they do not look at hooks.

    Args:
        plain: the model's forward, which runs what is not to be compiled.
        twin: the twin of the model that is compiled.
        settings: inductor's.
        key: names graph and machine: the graph becomes a library and is kept on disk. None: it is called from Python.
        captured: told of the ticks in each graph before it is compiled or after it was found on disk.
        freezing: whether inductor takes the weights for constants.
        backend: dynamo's name of who compiles.
    """

    def __init__(
        self,
        plain: Callable[..., Any],
        twin: torch.nn.Module,
        settings: dict[str, Any],
        key: str | None,
        captured: Callable[[Sequence[int]], None] | None = None,
        *,
        freezing: bool = False,
        backend: str = "inductor",
    ) -> None:
        self.plain = plain
        self.freezing = freezing
        self.compiled = 0  # graphs compiled in this process; more than one: the step was compiled anew
        self._backend = backend
        self._twin = twin
        self._settings = settings
        self.key = key
        self._captured = captured
        self._ticks: tuple[int, ...] = ()
        self._plan: Plan | None = None
        self._call: Callable[..., Any] | None = None  # what was compiled last
        self._direct: Callable[..., Any] | None = None  # what the plan calls
        self._constants: dict[str, str] = {}  # of the library compiled last: weights' paths
        self._draft: Path | None = None  # of the library compiled last, which becomes an entry once it is known how to call it
        self._seen: Sequence[Any] = ()
        self._gave: Sequence[Any] = ()
        self._weights: dict[str, Any] = {}
        self._code: types.CodeType | None = None
        self.from_disk = key is not None and self._find()

    @cached_property
    def guarded(self) -> Callable[..., Any]:
        """The step as dynamo runs it: captured at the first call, and again where its guards fail."""
        import torch

        forward = self._twin.forward

        def step(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        name = f"step_{next(_numbers)}"  # code objects compare by value: an equal one would count as this one
        self._code = step.__code__.replace(co_name=name)
        own = types.FunctionType(self._code, step.__globals__, name, None, step.__closure__)
        guards = {"guard_filter_fn": _guards_that_can_fail}
        me = weakref.ref(self)

        def compiles(graph: Any, inputs: Any) -> Callable[..., Any]:  # dynamo keeps backends for good, and self holds the model
            known = me()
            assert known is not None
            return known._compile(graph, inputs)

        made: Callable[..., Any] = torch.compile(own, backend=compiles, fullgraph=True, dynamic=False, options=guards)
        return made

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """One step; compiles at the first call."""
        plan = self._plan
        if plan is not None and not args and fits(plan, kwargs):
            return self._directly(plan, kwargs)
        before = _python_state(torch_private.cache_given(kwargs))
        output = self.guarded(*args, **kwargs)
        pure = before == _python_state(torch_private.cache_given(kwargs))  # else the step is more than its graph
        if plan is None and not args and self._call is not None and pure:
            self._plan = self._planned(kwargs, output)
            if self._plan is not None:
                self._direct = self._call  # calls of other shapes compile others
                if self.key is not None:
                    self._keep(self._plan)
        self._seen = self._gave = ()
        return output

    def settled_elsewhere(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether there is a graph for another length than this call's: one for each would not be worth its compile time."""
        return self._plan is not None and self._plan.cache[1] == 0 and not fits(self._plan, kwargs)

    def drop(self) -> None:
        """Let the compiled code go; graphs of other models stay."""
        if self._code is not None:
            torch_private.forget_code(self._code)
        self._forget_draft()
        self._plan = self._call = self._direct = None
        self._weights.clear()

    # -- compiling --------------------------------------------------------------------------------------------------------

    def _compile(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        """Dynamo's backend."""
        if self._captured is not None:
            self._ticks = tuple(ticks_in(graph.graph))
            self._captured(self._ticks)
        self.compiled += 1
        if self.key is not None:
            return self._as_library(graph, inputs)
        if self._backend != "inductor":
            return torch_private.backend(self._backend)(graph, inputs)
        call = torch_private.compile_graph(graph, inputs, self._settings)
        if self.freezing:  # the constants were taken from dynamo's context
            return call
        self._call = call
        return self._noted(call, range(len(inputs)))

    def _as_library(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Compiled into a folder that becomes the graph's own when it is known how to call it."""
        state = self._state()
        own, constants, left = with_constants(graph, inputs, {id(tensor): path for path, tensor in state.items()})
        self._forget_draft()
        require_to_compile(self._folder().parent)
        try:
            self._draft = draft = draft_of(self._folder().with_name(f"{self.key}-{self.compiled}"))
            compile_library(own, [inputs[number] for number in left], self._settings, draft)
        except BaseException as error:
            self._forget_draft()
            if isinstance(error, OSError):
                raise Refusal(
                    Reason("compiled.graph-not-kept", parent=str(self._folder().parent), problem=said(error))
                ) from error
            if is_full(error):
                raise Refusal(Reason("compiled.disk-filled")) from error
            raise
        self._constants = constants
        self._call = load_library(draft, {name: state[path] for name, path in constants.items()})
        return self._noted(self._call, left)

    def _noted(self, call: Callable[..., Any], left: Sequence[int]) -> Callable[..., Any]:
        """``call`` with those of dynamo's inputs that are left; the first time it is noted what they were."""
        me = weakref.ref(self)

        def noted(*args: Any) -> Any:
            known = me()
            given = [args[number] for number in left]
            gave = call(*given)
            if known is not None and known._plan is None:
                known._seen, known._gave = given, gave
            return gave

        return noted

    def _planned(self, kwargs: Mapping[str, Any], output: Any) -> Plan | None:
        """How to call the graph without dynamo, or None where that cannot be told."""
        import torch

        cache = torch_private.cache_given(kwargs)
        known = {id(tensor): place for place, tensor in places_of(self._state(), kwargs)}
        parts = parts_of(output, self._gave, cache)
        if parts is None or torch.is_grad_enabled() or not all(id(tensor) in known for tensor in self._seen):
            return None
        shapes, others = signature(kwargs)
        places = tuple(known[id(tensor)] for tensor in self._seen)
        made = (type(output).__module__, type(output).__name__)
        return Plan(places, shapes, others, cache_shape(cache), made, parts, self._ticks, self._constants)

    def _state(self) -> dict[str, Any]:
        if not self._weights:
            self._weights = {**dict(self._twin.named_buffers()), **dict(self._twin.named_parameters())}
        return self._weights

    def _directly(self, plan: Plan, kwargs: Mapping[str, Any]) -> Any:
        assert self._direct is not None
        gave = self._direct(*inputs_of(plan.places, self._state(), kwargs))
        cache = torch_private.cache_given(kwargs)
        return output_class(plan.output)(**{name: cache if number < 0 else gave[number] for name, number in plan.parts})

    # -- on disk ----------------------------------------------------------------------------------------------------------

    def _folder(self) -> Path:
        return cache_folder() / "graphs" / str(self.key)

    def _find(self) -> bool:
        """Take the graph that an earlier run has kept under this key, if it can be used."""
        folder, state = self._folder(), self._state()
        if not usable(folder, code=True):
            return False
        try:
            plan = read(folder / "plan.json")
            self._direct = load_library(folder, {name: state[path] for name, path in plan.constants.items()})
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            set_aside(folder, Reason("compiled.cannot-be-used", error=type(error).__name__))
            return False
        self._plan, self._ticks = plan, plan.ticks
        if self._captured is not None:
            self._captured(plan.ticks)
        return True

    def _keep(self, plan: Plan) -> None:
        """Keep it for the next start; where that cannot be done, the next start compiles again."""
        draft = self._draft
        if draft is None:
            return
        with contextlib.suppress(OSError):
            (draft / "plan.json").write_text(written(plan), encoding="utf-8")
            keep(draft, self._folder())
        self._forget_draft()  # the loaded library lives on without its file

    def _forget_draft(self) -> None:
        if self._draft is not None:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft = None


def _python_state(cache: Any) -> list[Any]:
    """What a KV cache keeps beside tensors; a step that changes it does so in Python, outside of its graph."""
    import torch

    layers = getattr(cache, "layers", ())
    return [(name, value) for layer in layers for name, value in vars(layer).items() if not isinstance(value, torch.Tensor)]


def _guards_that_can_fail(guards: Sequence[Any]) -> list[bool]:
    """All but those on the twin, which nobody but its graph has: half of the time between a call and its first kernel.

    (Of 30 blocks: 0.8 of 1.5 ms. The names are those of ``step`` above.)
    """
    return [not guard.name.startswith(("forward.__self__", "L['forward'].__self__")) for guard in guards]
