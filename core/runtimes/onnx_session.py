"""ONNX Runtime: holds one exported graph in a session, with a second session for traced moments.

Its profiler belongs to a session and tells everything once, in a file, when it ends. So a profiled session serves several
traced moments, then it is ended and read, and the next traced moment opens another one; all of that between moments.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.disk_space import require
from core.messages.reason import Reason
from core.private_folders import temporary_folder
from core.runtimes.exporting import Exported, blank_inputs
from core.runtimes.forward_swap import grow
from core.runtimes.nodes import NO_MOMENT_NS, Node, Ran, completed

if TYPE_CHECKING:
    import torch

MOST_OBSERVED = 32
"""Passes that one profiled session serves. Its record takes about half a kilobyte a node and pass, and opening the next one
takes as long as the first."""

LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}

_MULTIPLIES = ("MatMul", "Gemm", "Attention", "Conv")
_SCOPES = "pkg.torch.onnx.name_scopes"


class OnnxEngine:
    """One exported graph in ONNX Runtime on the CPU.

    Args:
        exported: the graph; written to a folder of its own, from which sessions map it.
        threads: within one operator.
        level: of its own graph optimisation, a key of ``LEVELS``.
    """

    def __init__(self, exported: Exported, threads: int, level: str) -> None:
        import onnx_ir
        import onnxruntime

        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        self._threads, self._level = threads, level
        self._metadata = exported.metadata
        self._generates = exported.generates
        self.wants = frozenset(exported.metadata.kwargs) - {*torch_private.CACHE_NAMES}
        graph = exported.program.graph
        self.nodes = sum(1 for _ in graph)
        self.weight_bytes = _weight_bytes(exported.program)
        self._paths = _paths(graph)
        self._folder = temporary_folder("onnx")
        try:
            require(self.weight_bytes, (self._folder,), Reason("runtimes.graph-for-onnxruntime"))
            onnx_ir.save(exported.program, self._folder / "model.onnx", external_data="model.onnx.data")
            self._plain = self._open(profiled=False)
        except BaseException:
            self.close()
            raise
        self._profiled: Any = None
        self._observing = False
        self._starts: list[int] = []

    # -- running ----------------------------------------------------------------------------------------------------------

    def step(self, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        """See ``core.runtimes.forward_swap.Engine``. Keys and values are the engine's own memory, given back to it uncopied."""
        runner = self._runner()
        self._note_start()
        return self._pass(runner, inputs, cache)

    def _pass(self, runner: Any, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        session = runner.session
        given = dict(inputs)
        batch = inputs["input_ids"].shape[0]
        wanted = session.get_inputs()
        for spec in wanted:
            if spec.name.startswith("input."):
                given[spec.name] = _cached(cache, spec, batch)
        binding, kept = session.io_binding(), []
        for spec in wanted:
            tensor = given[spec.name].contiguous()
            # an empty tensor has no address, which the session refuses; of a stand-in it reads nothing
            memory = tensor if tensor.numel() else tensor.new_empty(1)
            kept.append(memory)
            binding.bind_input(spec.name, "cpu", 0, _element(spec.type), list(tensor.shape), memory.data_ptr())
        names = [spec.name for spec in session.get_outputs()]
        for name in names:
            binding.bind_output(name, "cpu", 0)
        session.run_with_iobinding(binding)
        found = dict(zip(names, torch_private.onnx_outputs(runner, binding), strict=True))
        states = {tuple(name.split(".")[-2:]): tensor for name, tensor in found.items() if name.startswith("output.")}
        count = sum(what == "keys" for _, what in states)
        grow(cache, [(states[str(layer), "keys"], states[str(layer), "values"]) for layer in range(count)])
        logits: torch.Tensor = found["logits"]
        return logits

    def call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """See ``core.runtimes.forward_swap.Engine``."""
        runner = self._runner()
        self._note_start()
        return runner(**inputs)

    def close(self) -> None:
        """Let go of sessions and files."""
        self._plain = self._profiled = None
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- observing --------------------------------------------------------------------------------------------------------

    def observe(self, on: bool) -> None:
        """See ``core.runtimes.engine_clock.Observed``. A session just opened packs weights in its first pass, so that is one of
        no moment.
        """
        self._observing = on
        if on and self._profiled is None:
            from transformers import DynamicCache

            self._profiled = self._open(profiled=True)
            self._starts.append(NO_MOMENT_NS)
            inputs = blank_inputs(self._metadata)
            if self._generates:
                self._pass(self._profiled, inputs, DynamicCache())
            else:
                self._profiled(**inputs)

    def observed(self, *, everything: bool = False) -> list[Ran]:
        """See ``core.runtimes.engine_clock.Observed``; the profiled session ends with what it tells."""
        if self._profiled is None or not self._starts or (len(self._starts) < MOST_OBSERVED and not everything):
            return []
        record = Path(self._profiled.session.end_profiling())
        self._profiled = None
        starts, self._starts = self._starts, []
        events = json.loads(record.read_text(encoding="utf-8"))
        record.unlink()
        return _passes(events, starts, self._paths)

    def _runner(self) -> Any:
        return self._profiled if self._observing else self._plain

    def _note_start(self) -> None:
        if self._observing:
            self._starts.append(time.perf_counter_ns())

    def _open(self, *, profiled: bool) -> Any:
        """A session with the runner of transformers around it, which knows the outputs' classes."""
        import onnxruntime
        from transformers.exporters.runners.runner_onnx import OnnxModelRunner

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[self._level])
        options.log_severity_level = 3
        if profiled:
            options.enable_profiling = True
            options.profile_file_prefix = str(self._folder / "profile")
        path = str(self._folder / "model.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return OnnxModelRunner(self._metadata, session)


def _cached(cache: Any, spec: Any, batch: int) -> torch.Tensor:
    """The cached tensor for one input of the graph; an empty one where nothing is cached yet."""
    import torch

    _, _, _, layer, what = spec.name.split(".")
    if cache.layers:
        tensor: torch.Tensor = getattr(cache.layers[int(layer)], what)
        return tensor
    return torch.empty(batch, spec.shape[1], 0, spec.shape[3])


def _element(kind: str) -> int:
    """ONNX's number of a tensor's element type, such as "tensor(float)"."""
    import onnx

    names = {"float": "FLOAT", "double": "DOUBLE"}
    name = kind.removeprefix("tensor(").removesuffix(")")
    return int(getattr(onnx.TensorProto, names.get(name, name.upper())))


def _weight_bytes(model: Any) -> int:
    """Bytes of all constants of a graph: its initialisers and the tensors in constant nodes."""
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    for node in model.graph:
        if node.op_type == "Constant":
            held += sum(getattr(attribute.value, "nbytes", 0) for attribute in node.attributes.values())
    return int(held)


def _paths(graph: Any) -> dict[str, str]:
    """The layer's path of every node by its name; those that an optimiser made have none of their own."""
    import ast

    known: dict[str, str] = {}
    uses: list[tuple[str, list[str]]] = []
    for node in graph:
        scopes = node.metadata_props.get(_SCOPES)
        if scopes is not None:
            known[node.name] = ast.literal_eval(scopes)[-2]  # the last one is the operation itself
        makers = (value.producer() for value in node.inputs if value is not None)
        uses.append((node.name, [maker.name for maker in makers if maker is not None]))
    return completed(known, uses)


def _passes(events: Sequence[Mapping[str, Any]], starts: Sequence[int], paths: Mapping[str, str]) -> list[Ran]:
    """The profiled passes of a session's record, in their order.

    Args:
        events: of the record; times in µs on a clock of its own.
        starts: when each pass was called, as ``perf_counter_ns``.
        paths: the layer's path by node.
    """
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])
    nodes = sorted((event for event in events if event["cat"] == "Node"), key=lambda event: event["ts"])
    found = []
    place = 0
    for run, start_ns in zip(runs, starts, strict=False):
        inside = []
        while place < len(nodes) and nodes[place]["ts"] <= run["ts"] + run["dur"]:
            inside.append(_node(nodes[place], paths))
            place += 1
        found.append(Ran(start_ns, tuple(inside)))
    return found


def _node(event: Mapping[str, Any], paths: Mapping[str, str]) -> Node:
    """One node's event. What the runtime fused has a name that begins with one that it fused: "node_MatMul_140/Fusion"."""
    name = event["name"].removesuffix("_kernel_time")
    path = paths.get(name)
    if path is None:
        path = paths.get(name.partition("/")[0], "")
    kind = event["args"]["op_name"]
    kernel = f"{kind} ({event['args']['provider']})" if any(word in kind for word in _MULTIPLIES) else None
    return Node(path, 1000 * int(event["dur"]), kernel)
