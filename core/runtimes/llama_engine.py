"""llama.cpp as an engine: runs the GGUF file that a model was converted from, one sequence at a time.

Keys and values stay inside llama.cpp. The cache that ``generate`` carries has their shapes only, so that lengths and bytes can
be told.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.pass_api.subject import Runtime, Subject
from core.runtimes.forward_swap import grow, release_weights, replace_forward
from core.runtimes.llama_binding import Binding

if TYPE_CHECKING:
    import torch

UNTICKABLE = Reason("runtimes.llama-untickable")


class LlamaEngine:
    """An ``Engine`` (see ``core.runtimes.forward_swap``) on one file opened by llama.cpp.

    Args:
        binding: the open file.
        context: positions there is room for.
        layers: heads and width of each layer's keys, as of its values.
    """

    wants = frozenset({"input_ids", "logits_to_keep"})

    def __init__(self, binding: Binding, context: int, layers: list[tuple[int, int]]) -> None:
        self.name = f"llama.cpp {binding.build}"
        self._binding = binding
        self._context = context
        self._layers = layers
        self._cache: Any = None  # a weak reference to that of the sequence inside
        self._length = 0

    def step(self, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        """See ``core.runtimes.forward_swap.Engine``; ``Refusal`` for a second sequence, or one that does not fit."""
        import torch

        ids = inputs["input_ids"]
        batch, new = ids.shape
        cached = int(cache.get_seq_length()) if cache.layers else 0
        if batch != 1:
            raise Refusal(Reason("runtimes.one-sequence", name=self.name))
        if cached and (cached != self._length or self._cache is None or self._cache() is not cache):
            raise Refusal(Reason("runtimes.not-this-sequence", name=self.name))
        if cached + new > self._context:
            raise Refusal(Reason("runtimes.beyond-positions", name=self.name, context=self._context))
        wanted = inputs["logits_to_keep"].tolist()
        logits = self._binding.decode(ids[0].tolist(), cached, wanted)
        self._cache, self._length = weakref.ref(cache), cached + new
        shapes = [(1, heads, self._length, width) for heads, width in self._layers]
        grow(cache, [(_shape_only(shape), _shape_only(shape)) for shape in shapes])
        return torch.from_numpy(logits)[None]

    def call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """Never: llama.cpp runs language models only here."""
        raise AssertionError("llama.cpp was asked for something else than the next token")

    def close(self) -> None:
        """Give llama.cpp's memory back."""
        self._binding.close()


def hand_over(subject: Subject, pass_id: str, engine: LlamaEngine, weight_bytes: int) -> None:
    """From here on llama.cpp runs the subject's model, whose own weights are let go; ``subject.undo`` closes the file."""
    model = subject.model
    patch = replace_forward(model, engine, generates=True)
    release_weights(model)

    def undo() -> None:
        patch.pop()
        engine.close()

    subject.undo.callback(undo)
    subject.execution.runtime = Runtime(engine.name, weight_bytes, census=_unknown_kernels)
    subject.execution.untickable = UNTICKABLE
    subject.changed_by |= {path: pass_id for path, _ in model.named_modules()}


def file_of(model: Any) -> Path | None:
    """The GGUF file that this model's weights were converted from, as the conversion noted it; None: from none."""
    folder = Path(str(getattr(model, "name_or_path", "") or ""))
    try:
        named = json.loads((folder / "source.json").read_text("utf-8"))["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(str(named))


def key_shapes(config: Any) -> list[tuple[int, int]]:
    """Heads and width of the keys of every layer of a language model, by its configuration."""
    config = config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return [(heads, width)] * int(config.num_hidden_layers)


def _shape_only(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor without memory, in the 16 bits that llama.cpp keeps keys and values in."""
    import torch

    return torch.empty(shape, dtype=torch.float16, device="meta")


def _unknown_kernels() -> dict[str, dict[str, int]]:
    """llama.cpp does not tell which kernels it ran, so none is named."""
    return {}
