"""OpenVINO: holds one exported graph as an infer request, with a second request that has its performance counters on.

A language model's keys and values stay inside the request. The cache that ``generate`` carries has their shapes only, so that
lengths and bytes can be told; before a traced moment the state is handed over to the other request, and back after it.

Its counters tell, in whole µs, the mean over all passes so far. So what one pass took is told from two means, and is the less
certain the more passes there were; what was told too much or too little is made up for in the next ones.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from core import torch_private
from core.disk_space import require
from core.errors import Refusal
from core.messages.reason import Reason
from core.private_folders import temporary_folder
from core.runtimes.exporting import Exported, blank_inputs
from core.runtimes.forward_swap import grow
from core.runtimes.nodes import Node, Ran, completed

if TYPE_CHECKING:
    import torch

MOST_OBSERVED = 64
"""Passes after which the profiled request is opened anew: after n passes a node's time is known to about n µs."""

_MULTIPLIES = ("FullyConnected", "MatMul", "Attention", "Convolution", "Convolve")


@contextmanager
def layer_names() -> Iterator[dict[str, str]]:
    """While it lasts, an export through OpenVINO's exporter notes the layer of each operation of the traced graph.

    Yields:
        path by the operation's name, which is what its nodes' names in OpenVINO begin with; filled by the export. Empty where
        this version of transformers converts in another way.
    """
    found: dict[str, str] = {}

    def note(graph: Any) -> None:
        for node in graph.graph.nodes:
            stack = node.meta.get("nn_module_stack")
            if stack:
                found[node.name] = list(stack.values())[-1][0]

    with torch_private.seeing_openvino_conversions(note):
        yield found


def computes_in_bfloat16() -> bool:
    """Whether OpenVINO has bfloat16 kernels for this processor; without them it computes in float32, whatever it is told."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOEngine:
    """One exported graph in OpenVINO on the CPU.

    Args:
        exported: the graph; written to a folder of its own and mapped from there, because its constants are the model's own
            memory, which is given back.
        names: the layer's path by traced operation (``layer_names``).
        threads: that compute.
        precision: "f32" or "bf16", in which products are computed and keys and values kept.
    """

    def __init__(self, exported: Exported, names: Mapping[str, str], threads: int, precision: str) -> None:
        import openvino

        self.name = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        self._names = names
        self._metadata = exported.metadata
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        self._bytes_each = 4 if precision == "f32" else 2
        self.wants = frozenset(exported.metadata.kwargs) - {*torch_private.CACHE_NAMES}
        self.nodes = sum(op.get_type_name() not in ("Constant", "Parameter", "Result") for op in exported.program.get_ops())
        self.weight_bytes = _weight_bytes(exported.program)
        self._states = _state_shapes(exported.program)
        self._ports = [port.get_any_name() for port in exported.program.inputs]
        self._folder = temporary_folder("openvino")
        self._core = openvino.Core()
        self._profiled: Any = None
        self._observing = False
        self._passes = 0  # of the profiled request
        self._told_ns: dict[int, int] = {}  # by node of it: what all its passes took, as far as they were told
        self._unread_ns: int | None = None  # start of a profiled pass whose counters were not read yet
        self._holder: Any = None  # the request that has the sequence's state
        self._shape = (0, 0)  # batch and positions of that state
        self._paths: dict[str, str] = {}
        try:
            require(self.weight_bytes, (self._folder,), Reason("runtimes.graph-for-openvino"))
            openvino.save_model(exported.program, self._folder / "model.xml", compress_to_fp16=False)
            self._plain = self._open(profiled=False)
        except BaseException:
            self.close()
            raise

    # -- running ----------------------------------------------------------------------------------------------------------

    def step(self, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        """See ``forward_swap.Engine``; ``Refusal`` for a sequence that is no longer the one inside the request."""
        import torch

        runner = self._runner()
        request = runner.request
        batch, new = inputs["input_ids"].shape
        cached = int(cache.get_seq_length()) if cache.layers else 0
        if cached == 0:
            request.reset_state()
        elif (batch, cached) != self._shape or self._holder is not request:
            raise Refusal(Reason("runtimes.not-this-sequence", name=self.name))
        self._note_start()
        result = self._infer(request, inputs)
        self._holder, self._shape = request, (batch, cached + new)
        kept = torch.float32 if self._bytes_each == 4 else torch.bfloat16
        shapes = [(batch, heads, cached + new, width) for heads, width in self._states]
        grow(cache, [(_shape_only(shape, kept), _shape_only(shape, kept)) for shape in shapes])
        return torch.from_numpy(result["logits"])

    def _infer(self, request: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        feed["beam_idx"] = np.arange(inputs["input_ids"].shape[0], dtype=np.int32)
        return request.infer({name: feed[name] for name in self._ports}, share_inputs=True)

    def call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """See ``core.runtimes.forward_swap.Engine``."""
        runner = self._runner()
        self._note_start()
        return runner(**inputs)

    def close(self) -> None:
        """Let go of requests and files."""
        self._plain = self._profiled = self._holder = None
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- observing --------------------------------------------------------------------------------------------------------

    def observe(self, on: bool) -> None:
        """See ``core.runtimes.engine_clock.Observed``; a sequence under way is handed over."""
        if on and (self._profiled is None or self._passes >= MOST_OBSERVED):
            self._profiled = None  # the old one's memory first
            self._profiled = self._open(profiled=True)
            self._warm()
        self._observing = on
        request = self._runner().request
        if self._holder is not None and self._holder is not request:
            states = {state.name: state for state in self._holder.query_state()}
            for state in request.query_state():
                state.state = states[state.name].state
            self._holder = request

    def observed(self, *, everything: bool = False) -> list[Ran]:
        """See ``core.runtimes.engine_clock.Observed``."""
        start_ns, self._unread_ns = self._unread_ns, None
        return [] if start_ns is None else [Ran(start_ns, self._counted())]

    def _runner(self) -> Any:
        return self._profiled if self._observing else self._plain

    def _note_start(self) -> None:
        if self._observing:
            self._unread_ns = time.perf_counter_ns()

    def _warm(self) -> None:
        """A first pass, in which the request packs weights and makes kernels; it belongs to no moment."""
        self._passes, self._told_ns = 0, {}
        inputs = blank_inputs(self._metadata)
        if self._states:
            self._infer(self._profiled.request, inputs)
        else:
            self._profiled(**inputs)
        self._counted()

    def _counted(self) -> tuple[Node, ...]:
        """What the profiled request's last pass took, node by node, as they ran."""
        import openvino

        self._passes += 1
        executed = openvino.ProfilingInfo.Status.EXECUTED
        nodes = []
        for index, info in enumerate(self._profiled.request.get_profiling_info()):
            if info.status == executed:
                told_ns = self._told_ns.get(index, 0)
                took_ns = max(0, self._passes * round(info.real_time.total_seconds() * 1e6) * 1000 - told_ns)
                self._told_ns[index] = told_ns + took_ns
                kernel = info.exec_type if any(word in info.node_type for word in _MULTIPLIES) else None
                nodes.append(Node(self._paths.get(info.node_name, ""), took_ns, kernel))
        return tuple(nodes)

    def _open(self, *, profiled: bool) -> Any:
        """A compiled graph with the runner of transformers around it, which knows the outputs' classes."""
        from transformers.exporters.runners.runner_openvino import OpenVINOModelRunner

        graph = self._core.read_model(self._folder / "model.xml")
        compiled = self._core.compile_model(graph, "CPU", {**self._config, "PERF_COUNT": profiled})
        if profiled:
            self._paths = _paths(compiled.get_runtime_model(), self._names)
        return OpenVINOModelRunner(compiled, self._metadata)


def _shape_only(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without memory: the engine holds what is in it."""
    import torch

    return torch.empty(shape, dtype=dtype, device="meta")


def _weight_bytes(program: Any) -> int:
    """Bytes of all constants of a graph, packed ones as they are packed."""
    return sum(op.get_byte_size() for op in program.get_ops() if op.get_type_name() == "Constant")


def _state_shapes(program: Any) -> list[tuple[int, int]]:
    """Heads and width of the keys (as of the values) of each layer, of a graph that keeps a cache inside."""
    shapes = {}
    for variable in program.get_variables():
        info = variable.get_info()
        name = info.variable_id
        if ".keys" in name:
            layer = int(name.partition(".layers.")[2].partition(".")[0])
            shapes[layer] = (info.data_shape[1].get_length(), info.data_shape[3].get_length())
    return [shapes[layer] for layer in sorted(shapes)]


def _paths(runtime: Any, names: Mapping[str, str]) -> dict[str, str]:
    """The layer's path of every node that a compiled graph runs, by the node's name."""
    known: dict[str, str] = {}
    uses: list[tuple[str, list[str]]] = []
    for node in runtime.get_ordered_ops():
        name = node.get_friendly_name()
        path = names.get(name.partition("/")[0])
        if path is not None:
            known[name] = path
        makers = [node.input_value(index).get_node().get_friendly_name() for index in range(node.get_input_size())]
        uses.append((name, makers))
    return completed(known, uses)
