"""A step's graph as a C++ library, compiled ahead of time: called without Python between its kernels, and kept on disk.

Weights are constants that the library is given when it is loaded; they are not copied and not in the file. What it is called
with are the step's arguments and the KV cache. Loading imports nothing of torch's compiler.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private

if TYPE_CHECKING:
    import torch

Call = Callable[..., Sequence[Any]]

LIBRARY, OPERATORS = "step.so", "step.json"
"""The parts of a library; the second names the operators that are not torch's own, and is only there where it has some."""


def with_constants(
    graph: torch.fx.GraphModule, inputs: Sequence[Any], paths: Mapping[int, str]
) -> tuple[torch.fx.GraphModule, dict[str, str], list[int]]:
    """A captured graph whose weights are constants; ``graph`` itself, which dynamo still reads, stays as it is.

    Args:
        graph: as dynamo captures it: everything is an input.
        inputs: what it is given, one for each placeholder.
        paths: of tensors that are weights, by ``id``.

    Returns:
        The graph, the path of each constant by its name, and the numbers of the inputs that are left.
    """
    import torch

    made = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))  # copies no tensors
    placeholders = [node for node in made.graph.nodes if node.op == "placeholder"]
    first = next(node for node in made.graph.nodes if node.op != "placeholder")
    constants, left = {}, []
    for number, (node, tensor) in enumerate(zip(placeholders, inputs, strict=True)):
        path = paths.get(id(tensor))
        if path is None:
            left.append(number)
            continue
        name = f"weight_{number}"
        made.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
        with made.graph.inserting_before(first):
            node.replace_all_uses_with(made.graph.get_attr(name))
        made.graph.erase_node(node)
        constants[name] = path
    made.recompile()
    return made, constants, left


def compile_library(graph: torch.fx.GraphModule, inputs: Sequence[Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Compile a graph with constants, for inputs of these shapes, into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        **settings,
        "aot_inductor.output_path": str(folder / LIBRARY),
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.precompile_headers": False,  # for one graph they take twice as long, and 300 MB of the temporary folder
        "size_asserts": False,  # they ask the environment for each tensor whether they are wanted
    }
    with torch_private.outside_of_dynamo(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's words to itself
        torch_private.compile_to_library(graph, inputs, options)
    for made in folder.iterdir():
        if made.name.endswith(".wrapper.json"):
            made.rename(folder / OPERATORS)
        elif made.name != LIBRARY and made.is_file():
            made.unlink()
        elif made.is_dir():
            with contextlib.suppress(OSError):
                made.rmdir()


def load_library(folder: Path, weights: Mapping[str, torch.Tensor]) -> Call:
    """The library that lies there as a function of the graph's inputs, with these weights as its constants.

    Raises:
        RuntimeError: there is none, or it is another torch's.
    """
    runner = torch_private.library_runner(folder / LIBRARY)
    known = {name: weights[own] for name, own in runner.get_constant_names_to_original_fqns().items()}
    runner.update_constant_buffer(known, False, False, True)

    def call(*tensors: Any) -> Sequence[Any]:
        found: Sequence[Any] = runner.run(list(tensors))
        return found

    call.__dict__["weights"] = known  # the library only points to them
    return call
