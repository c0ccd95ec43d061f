"""Python modules: their forward with the inputs that came with them, or with inputs that fit their first layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.once import Once
from core.execution.tasks.pictures import USUAL_SIDE, made_up
from core.execution.tasks.placing import placed
from core.execution.workload import refuse_size
from core.messages.reason import Reason
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import torch

TOKENS = 16
"""Positions of made-up inputs where the workload gives no number."""


@form_kinds.register
class Tensors:
    """Modules of any kind."""

    id = "tensors"
    tasks: ClassVar[tuple[str, ...]] = ("module",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result are the numbers of the first tensor that the module gives, [batch, n]."""
        shapes: list[str] = []

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            tensor = first_tensor(output)
            if tensor is None:
                raise Refusal(Reason("execution.output-without-tensor", name=loaded.facts.name, model=type(output).__name__))
            shapes[:] = [f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"]
            return tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)

        def tell(values: torch.Tensor, inputs: Inputs) -> str:
            return f"tensor {shapes[0]}"

        return Once(Examples(loaded, workload, device), read, tell)


class Examples:
    """Makes the inputs: the example that came with the module, once for each of the batch, or made-up ones."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        example = loaded.example if loaded.example is not None else _fitting(loaded, workload)
        self._model = loaded.model
        self._device = device
        self._tensors = _repeated(example, workload.batch)
        widths = [value.shape[1] for value in self._tensors.values() if getattr(value, "ndim", 0) >= 2]
        self._length = int(widths[0]) if widths else 1

    def length(self) -> int:
        """Of the first input, its second dimension."""
        return self._length

    def inputs(self) -> Inputs:
        return Inputs(
            {name: placed(value, self._model, self._device) for name, value in self._tensors.items()}, self._length, None
        )


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in what a module gave: itself, or in a tuple, list or mapping."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    parts = list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, list | tuple) else []
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def _repeated(example: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The example for a batch: what has one row is repeated, and an example with a batch of its own is left as it is."""
    if batch == 1:
        return dict(example)
    tensors = [value for value in example.values() if getattr(value, "ndim", 0) >= 1]
    if not tensors or any(tensor.shape[0] != 1 for tensor in tensors):
        raise Refusal(Reason("execution.inputs-have-a-batch"))
    repeat = {id(tensor): tensor.repeat(batch, *[1] * (tensor.ndim - 1)) for tensor in tensors}
    return {name: repeat.get(id(value), value) for name, value in example.items()}


def _fitting(loaded: LoadedModel, workload: WorkloadConfig) -> dict[str, Any]:
    """Made-up inputs for a module that came without: such as its first layer takes."""
    import inspect

    import torch

    names = [name for name, one in inspect.signature(loaded.model.forward).parameters.items() if one.default is one.empty]
    first = next(
        (module for module in loaded.model.modules() if next(module.parameters(recurse=False), None) is not None), None
    )
    tokens, side = workload.prompt_tokens or TOKENS, workload.image_size or USUAL_SIDE
    if isinstance(first, torch.nn.Embedding) and len(names) == 1:
        generator = torch.Generator().manual_seed(workload.seed)
        return {names[0]: torch.randint(0, first.num_embeddings, (1, tokens), generator=generator)}
    shape = _shape(first, tokens, side)
    if shape is None or len(names) != 1:
        raise Refusal(Reason("execution.inputs-cannot-be-guessed", name=loaded.facts.name))
    elements = 1
    for size in shape:
        elements *= size
    refuse_size(4 * elements, f"An input of {' × '.join(str(size) for size in shape)} numbers")
    return {names[0]: made_up(shape, workload.seed)}


def _shape(layer: Any, tokens: int, side: int) -> tuple[int, ...] | None:
    """Of an input that the layer takes."""
    import torch

    if isinstance(layer, torch.nn.Linear):
        return (1, tokens, layer.in_features)
    if isinstance(layer, torch.nn.Conv2d):
        return (1, layer.in_channels, side, side)
    if isinstance(layer, torch.nn.Conv1d):
        return (1, layer.in_channels, tokens)
    return None
