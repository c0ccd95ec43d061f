"""Compiled steps: one forward of fixed shape as one graph of torch's inductor, kept on disk for the next start.

Dynamo captures the forward once. From then on the graph is called directly with the tensors that dynamo had given it, found
again by where they came from (a weight, an argument, a layer of the KV cache), without dynamo's guards: those take half a
millisecond a step, and capturing takes longer than a whole second start may. What the guards would look at is either part of
the name under which a graph is kept, or compared at each call. What is kept is a C++ library (see ``step_library``), which
needs neither dynamo nor inductor to be imported again.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import shutil
import sys
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.compiled.step_library import compile_library, load_library, size_of, with_constants
from core.errors import Refusal
from core.folders import cache_folder
from profilers.tick_op import ticks_in

if TYPE_CHECKING:
    import torch

VERSION = 2
"""Raised when graphs kept by an older Tickscope must not be used any more."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where an input of a graph comes from: ``weight`` by its path, ``argument`` by its name, ``cache`` by layer and name."""

    sort: str
    name: str
    layer: int = -1


@dataclass(frozen=True)
class Plan:
    """How a graph is called. ``shapes`` are of the tensors among the arguments; ``others`` the values of the rest, as text."""

    places: tuple[Place, ...]
    shapes: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]
    cache: tuple[str, int]  # class of the KV cache and its length in positions
    output: tuple[str, str]  # module and class of what forward returns
    parts: tuple[tuple[str, int], ...]  # its tensors, each with its number among the graph's outputs; -1: the cache as given
    ticks: tuple[int, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)  # a library's: weights' paths by their names in it
    size: int = 0  # the library's, in bytes: loading one that was cut short would end the process


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
        self._size = 0
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
        if plan is not None and not args and _fits(plan, kwargs):
            return self._directly(plan, kwargs)
        before = _python_state(kwargs.get("past_key_values"))
        output = self.guarded(*args, **kwargs)
        pure = before == _python_state(kwargs.get("past_key_values"))  # else the step is more than its graph
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
        return self._plan is not None and self._plan.cache[1] == 0 and not _fits(self._plan, kwargs)

    def drop(self) -> None:
        """Let the compiled code go; graphs of other models stay."""
        if self._code is not None:
            import torch

            torch._dynamo.reset_code(self._code)
        self._plan = self._call = self._direct = None
        self._weights.clear()

    # -- compiling --------------------------------------------------------------------------------------------------------

    def _compile(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        """Dynamo's backend."""
        import torch._dynamo
        import torch._inductor

        if self._captured is not None:
            self._ticks = tuple(ticks_in(graph.graph))
            self._captured(self._ticks)
        self.compiled += 1
        if self.key is not None:
            return self._as_library(graph, inputs)
        if self._backend != "inductor":
            return torch._dynamo.lookup_backend(self._backend)(graph, inputs)
        call: Callable[..., Any] = torch._inductor.compile(graph, inputs, options=self._settings or None)
        if self.freezing:  # the constants were taken from dynamo's context
            return call
        self._call = call
        return self._noted(call, range(len(inputs)))

    def _as_library(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Compiled into a folder that becomes the graph's own when it is known how to call it."""
        state = self._state()
        own, constants, left = with_constants(graph, inputs, {id(tensor): path for path, tensor in state.items()})
        draft = self._draft()
        try:
            compile_library(own, [inputs[number] for number in left], self._settings, draft)
        except OSError as error:
            raise Refusal(f"The graph cannot be kept in {draft.parent} ({error}); free some space there.") from error
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self._constants, self._size = constants, size_of(draft)
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

        cache = kwargs.get("past_key_values")
        known = {id(tensor): place for place, tensor in _places(self._state(), kwargs)}
        parts = _parts(output, self._gave, cache)
        if parts is None or torch.is_grad_enabled() or not all(id(tensor) in known for tensor in self._seen):
            return None
        shapes, others = _signature(kwargs)
        places = tuple(known[id(tensor)] for tensor in self._seen)
        made = (type(output).__module__, type(output).__name__)
        return Plan(places, shapes, others, _cache_shape(cache), made, parts, self._ticks, self._constants, self._size)

    def _state(self) -> dict[str, Any]:
        if not self._weights:
            self._weights = {**dict(self._twin.named_buffers()), **dict(self._twin.named_parameters())}
        return self._weights

    def _directly(self, plan: Plan, kwargs: Mapping[str, Any]) -> Any:
        assert self._direct is not None
        gave = self._direct(*_inputs(plan.places, self._state(), kwargs))
        cache = kwargs.get("past_key_values")
        return _output_class(plan.output)(**{name: cache if number < 0 else gave[number] for name, number in plan.parts})

    # -- on disk ----------------------------------------------------------------------------------------------------------

    def _folder(self) -> Path:
        return cache_folder() / "graphs" / str(self.key)

    def _draft(self) -> Path:
        return self._folder().with_name(f".{self.key}.{os.getpid()}.{self.compiled}")

    def _find(self) -> bool:
        """Take the graph that an earlier run has kept under this key, if it can be used."""
        folder, state = self._folder(), self._state()
        try:
            plan = _read(folder / "plan.json")
            if size_of(folder) != plan.size:
                return False
            self._direct = load_library(folder, {name: state[path] for name, path in plan.constants.items()})
        except (OSError, ValueError, KeyError, RuntimeError):  # none, or one that was cut short
            return False
        self._plan, self._ticks = plan, plan.ticks
        if self._captured is not None:
            self._captured(plan.ticks)
        return True

    def _keep(self, plan: Plan) -> None:
        """Keep it for the next start; where that cannot be done, the next start compiles again."""
        folder, draft = self._folder(), self._draft()
        try:
            (draft / "plan.json").write_text(_written(plan), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)  # one that could not be used
            draft.replace(folder)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)  # the loaded library lives on without its file


def graph_key(model: torch.nn.Module, settings: Mapping[str, Any], *about: object) -> str:
    """Names a graph by all that its code depends on: versions, processor, threads, the model's structure and ``about``."""
    import torch
    import transformers

    modules = [
        (path, type(module).__qualname__, module.extra_repr(), *_looks(module)) for path, module in model.named_modules()
    ]
    config = getattr(model, "config", None)
    text = repr(
        (
            *(VERSION, torch.__version__, transformers.__version__, sorted(torch.cpu.get_capabilities().items())),
            *(torch.get_num_threads(), sorted(settings.items()), about, _own_code(model)),
            config.to_json_string(use_diff=False) if config is not None else "",
            getattr(config, "_attn_implementation", ""),
            modules,
        )
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _own_code(model: torch.nn.Module) -> list[str]:
    """Digests of the files in which classes of the model are written that come with neither torch nor transformers.

    A class without a file, as one made at a prompt, may be another the next time: it gets a name that never comes again.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    names = {
        kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] not in ("torch", "transformers", "builtins")
    }
    found = []
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        try:
            found.append(hashlib.sha256(Path(file or "").read_bytes()).hexdigest())
        except OSError:
            found.append(f"{name} {os.getpid()} {id(model)}")
    return found


def _looks(module: torch.nn.Module) -> list[tuple[str, ...]]:
    held = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [(name, str(tensor.dtype), f"{(*tensor.shape,)} {tensor.stride()}", tensor.device.type) for name, tensor in held]


def _places(state: Mapping[str, Any], kwargs: Mapping[str, Any]) -> list[tuple[Place, Any]]:
    """Every tensor that a graph may be given, and where it is found."""
    import torch

    found = [(Place("weight", name), tensor) for name, tensor in state.items()]
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            found.append((Place("argument", name), value))
        elif isinstance(value, dict):
            found += [(Place(f"in {name}", key), one) for key, one in value.items() if isinstance(one, torch.Tensor)]
    for number, layer in enumerate(getattr(kwargs.get("past_key_values"), "layers", ())):
        found += [(Place("cache", name, number), one) for name, one in vars(layer).items() if isinstance(one, torch.Tensor)]
    return found


def _inputs(places: Sequence[Place], state: Mapping[str, Any], kwargs: Mapping[str, Any]) -> list[Any]:
    layers = getattr(kwargs.get("past_key_values"), "layers", ())
    found: list[Any] = []
    for place in places:
        if place.sort == "weight":
            found.append(state[place.name])
        elif place.sort == "cache":
            found.append(getattr(layers[place.layer], place.name))
        elif place.sort == "argument":
            found.append(kwargs[place.name])
        else:
            found.append(kwargs[place.sort[3:]][place.name])
    return found


def _signature(kwargs: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Shapes and types of the tensors among the arguments, and the other values but the cache, as text."""
    import torch

    shapes, others = [], []
    for name, value in kwargs.items():
        if name == "past_key_values":
            continue
        if isinstance(value, torch.Tensor):
            shapes.append((name, _shape(value)))
        elif isinstance(value, dict):
            shapes += [
                (f"{name} {key}", _shape(one) if isinstance(one, torch.Tensor) else repr(one)) for key, one in value.items()
            ]
        else:
            others.append((name, repr(value)))
    return tuple(shapes), tuple(others)


def _shape(tensor: torch.Tensor) -> str:
    """With strides: a library takes for granted those that it was compiled for."""
    return f"{(*tensor.shape,)} {tensor.stride()} {tensor.dtype}"


def _cache_shape(cache: Any) -> tuple[str, int]:
    layers = getattr(cache, "layers", None)
    keys = getattr(layers[0], "keys", None) if layers else None
    return type(cache).__name__, 0 if keys is None else int(keys.shape[-2])


def _python_state(cache: Any) -> list[Any]:
    """What a KV cache keeps beside tensors; a step that changes it does so in Python, outside of its graph."""
    import torch

    layers = getattr(cache, "layers", ())
    return [(name, value) for layer in layers for name, value in vars(layer).items() if not isinstance(value, torch.Tensor)]


def _fits(plan: Plan, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is of the shape that the graph was made for."""
    return _signature(kwargs) == (plan.shapes, plan.others) and _cache_shape(kwargs.get("past_key_values")) == plan.cache


def _parts(output: Any, gave: Sequence[Any], cache: Any) -> tuple[tuple[str, int], ...] | None:
    """Which output of the graph each part of a model's output is; None where a part is neither one of them nor the cache."""
    if not isinstance(output, dict):
        return None
    numbers = {id(tensor): number for number, tensor in enumerate(gave)} | {id(cache): -1}
    parts = tuple((name, numbers.get(id(value), -2)) for name, value in output.items())
    return None if any(number == -2 for _, number in parts) else parts


@cache
def _output_class(name: tuple[str, str]) -> Any:
    return getattr(importlib.import_module(name[0]), name[1])


def _guards_that_can_fail(guards: Sequence[Any]) -> list[bool]:
    """All but those on the twin, which nobody but its graph has: half of the time between a call and its first kernel.

    (Of 30 blocks: 0.8 of 1.5 ms. The names are those of ``step`` above.)
    """
    return [not guard.name.startswith(("forward.__self__", "L['forward'].__self__")) for guard in guards]


def _written(plan: Plan) -> str:
    return json.dumps(
        {
            "places": [[place.sort, place.name, place.layer] for place in plan.places],
            "shapes": plan.shapes,
            "others": plan.others,
            "cache": plan.cache,
            "output": plan.output,
            "parts": plan.parts,
            "ticks": plan.ticks,
            "constants": dict(plan.constants),
            "size": plan.size,
        }
    )


def _read(path: Path) -> Plan:
    kept = json.loads(path.read_text(encoding="utf-8"))
    pairs = {name: tuple((key, value) for key, value in kept[name]) for name in ("shapes", "others")}
    return Plan(
        tuple(Place(sort, name, layer) for sort, name, layer in kept["places"]),
        pairs["shapes"],
        pairs["others"],
        (str(kept["cache"][0]), int(kept["cache"][1])),
        (str(kept["output"][0]), str(kept["output"][1])),
        tuple((str(name), int(number)) for name, number in kept["parts"]),
        tuple(kept["ticks"]),
        {str(name): str(path) for name, path in kept["constants"].items()},
        int(kept["size"]),
    )
