"""The stand-in: puts an engine's forward in the place of the model's, and keeps everything else of the model as it was.

The model stays the object that ``generate``, the moments and the layers' paths know; only its own forward is another one, and
its weights are let go.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason
from profilers.forward_patch import Forward, ForwardPatch, Order

if TYPE_CHECKING:
    import torch

_NEEDS_TORCH = ("inputs_embeds", "labels", "output_hidden_states", "output_attentions")


class Engine(Protocol):
    """A runtime that holds one exported graph."""

    name: str  # with its version, for people
    wants: frozenset[str]  # the forward's arguments that were traced

    def step(self, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        """New positions of language models: logits [batch, kept, vocabulary]. ``cache``, one of plain layers, grows by them."""
        ...

    def call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """One forward of all other models, which returns what the model does."""
        ...


def replace_forward(model: torch.nn.Module, engine: Engine, *, generates: bool) -> ForwardPatch:
    """From here on the engine runs the model, until the patch is popped. ``generates``: with a cache of keys and values."""
    made = _stepping(engine) if generates else _calling(engine)

    def run_by_engine(plain: Forward) -> Forward:
        signature = inspect.signature(plain)

        @functools.wraps(plain)  # generate looks at the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            if args:
                kwargs = {**signature.bind_partial(*args).arguments, **kwargs}
            if any(kwargs.get(name) is not None and kwargs[name] is not False for name in _NEEDS_TORCH):
                asked = next(name for name in _NEEDS_TORCH if kwargs.get(name) not in (None, False))
                raise Refusal(Reason("runtimes.fixed-graph", name=engine.name, asked=asked))
            return made(**kwargs)

        return forward

    patch = ForwardPatch(Order.PASS, [(model, run_by_engine)])
    patch.push()
    return patch


def release_weights(model: torch.nn.Module) -> None:
    """Give the parameters' memory back. They keep their names, shapes and types, which layers and reports are told by."""
    import torch

    for parameter in model.parameters():
        parameter.data = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)


def _stepping(engine: Engine) -> Any:
    import torch
    from transformers import DynamicCache
    from transformers.modeling_outputs import CausalLMOutputWithPast

    field = torch_private.cache_field()

    def forward(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **rest: Any,
    ) -> Any:
        batch, new = input_ids.shape
        given = torch_private.cache_given(rest)
        cached = 0 if given is None else int(given.get_seq_length())
        # a cache that the model made itself may have layers of other kinds; from the first step on it is ours
        cache = given if cached else DynamicCache()
        if attention_mask is not None and not bool(attention_mask.all()):
            raise Refusal(Reason("runtimes.no-padding", name=engine.name))
        inputs = {"input_ids": input_ids}
        if "position_ids" in engine.wants:
            if position_ids is None:
                position_ids = torch.arange(cached, cached + new)
            inputs["position_ids"] = position_ids.expand(batch, new)
        keeps = "logits_to_keep" in engine.wants
        if keeps:
            inputs["logits_to_keep"] = _positions(logits_to_keep, new)
        logits = engine.step(inputs, cache)
        if not keeps:
            logits = logits[:, _positions(logits_to_keep, new)]
        return CausalLMOutputWithPast(logits=logits, **{field: cache})

    return forward


def _positions(keep: int | torch.Tensor, new: int) -> torch.Tensor:
    """The positions, of ``new``, that get logits; ``keep`` counts the last ones, 0: all."""
    import torch

    if not isinstance(keep, int):
        return keep
    return torch.arange(max(0, new - keep) if keep else 0, new)


def _calling(engine: Engine) -> Any:
    import torch

    defaults = {"attention_mask": torch.ones_like, "token_type_ids": torch.zeros_like}

    def forward(**given: Any) -> Any:
        inputs = {name: value for name, value in given.items() if name in engine.wants and value is not None}
        for name in engine.wants - inputs.keys():
            inputs[name] = defaults[name](given["input_ids"])
        return engine.call(inputs)

    return forward


def grow(cache: Any, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Give a cache of plain layers these keys and values, each [batch, heads, positions, width]."""
    from transformers.cache_utils import DynamicLayer

    while len(cache.layers) < len(layers):
        cache.layers.append(DynamicLayer())
    for layer, (keys, values) in zip(cache.layers, layers, strict=True):
        if not layer.is_initialized:
            layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
