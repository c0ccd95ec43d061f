"""Small made-up inputs that any transformers model can be called with, for looking at what a change to it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BATCH, TOKENS = 2, 5

MODEL_ERRORS = (RuntimeError, TypeError, AttributeError, ValueError, IndexError, KeyError, NotImplementedError)
"""What models raise for inputs or changes that do not suit them."""


def sample_inputs(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """Keyword arguments of one small call, the same ones each time; None where the model takes what we cannot make up.

    Text models get ids [2, 5], image models pixels [2, channels, height, width], speech models features [2, bins, frames].
    """
    import torch

    config: Any = getattr(model, "config", None)
    maker = _MAKERS.get(getattr(model, "main_input_name", ""))
    if config is None or maker is None:
        return None
    generator = torch.Generator().manual_seed(0)
    made = maker(config, generator)
    if getattr(config, "is_encoder_decoder", False):
        made["decoder_input_ids"] = _ids(config, generator)
    first = next(model.parameters())
    return {
        name: tensor.to(first.device, first.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in made.items()
    }


def small_call(model: torch.nn.Module) -> Callable[[], list[torch.Tensor]] | None:
    """A function that gives the model's results for a small input, and for one decode step after it where there is a cache.

    The results are float32, the same ones each time while the model is the same. None: see ``sample_inputs``.
    """
    import torch

    inputs = sample_inputs(model)
    if inputs is None:
        return None

    def call() -> list[torch.Tensor]:
        with torch.no_grad():
            output = model(**inputs)
            results = [first_result(output).float()]
            cache = getattr(output, "past_key_values", None)
            if cache is not None and "decoder_input_ids" not in inputs and "input_ids" in inputs:
                step = {"input_ids": inputs["input_ids"][:, -1:], "past_key_values": cache}
                results.append(first_result(model(**step)).float())
        return results

    return call


def first_result(output: Any) -> torch.Tensor:
    """The first floating-point tensor in what a model returned."""
    import torch

    values = output.values() if hasattr(output, "values") else output if isinstance(output, tuple | list) else (output,)
    return next(value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point())


def _ids(config: Any, generator: torch.Generator) -> torch.Tensor:
    import torch

    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = int(getattr(text, "vocab_size", 0)) or 1000
    return torch.randint(min(4, vocabulary - 1), vocabulary, (BATCH, TOKENS), generator=generator)  # not the special ones


def _text(config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"input_ids": _ids(config, generator)}


def _pixels(config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    own = getattr(config, "vision_config", config)
    size = getattr(own, "image_size", 32)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return {"pixel_values": torch.randn(BATCH, getattr(own, "num_channels", 3), height, width, generator=generator)}


def _features(config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    frames = 2 * int(getattr(config, "max_source_positions", 8))  # Whisper takes exactly so many
    bins = int(getattr(config, "num_mel_bins", 80))
    return {"input_features": torch.randn(BATCH, bins, frames, generator=generator)}


_MAKERS = {"input_ids": _text, "pixel_values": _pixels, "input_features": _features}
