"""Made-up inputs for any transformers model, from what its forward takes and what its config says of sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import Refusal
from core.messages.reason import Reason

if TYPE_CHECKING:
    import torch

RATE = 16_000
"""Samples of sound a second."""
FRAME_S = 0.01
"""Time from one column of a spectrogram to the next."""
USUAL_SIDE = 224


@dataclass(frozen=True)
class Amount:
    """How much is made up: for ``side`` (pixels of an image) and ``samples`` (of sound) None is what the model is made for."""

    batch: int = 1
    tokens: int = 16
    side: int | None = None
    samples: int | None = None


def made_up_inputs(model: torch.nn.Module, amount: Amount, seed: int = 0) -> dict[str, torch.Tensor]:
    """Keyword arguments of one call of ``model``, the same ones for the same seed, on the CPU and in float32 or int64.

    What is made: everything its forward cannot do without, its main input, and one input for each thing that it says it reads
    (text, image, sound). ``Refusal`` where one of them cannot be made up, or the model has no config.
    """
    import torch

    config: Any = getattr(model, "config", None)
    name = type(model).__name__
    if config is None or not hasattr(model, "main_input_name"):
        raise Refusal(Reason("models.config-says-no-inputs", name=name))
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, torch.Tensor] = {}
    names = _wanted(model, config)
    if not names:
        raise Refusal(Reason("models.inputs-not-made-up", name=name))
    for wanted in names:
        make = _MAKERS.get(wanted)
        if make is None:
            raise Refusal(Reason("models.input-not-made-up", name=name, wanted=wanted))
        made[wanted] = make(config, amount, generator)
    return made


def placed_like(model: torch.nn.Module, made: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs where the model's first weight is, those with fractions in its dtype."""
    first = next(model.parameters())
    return {
        name: tensor.to(first.device, first.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in made.items()
    }


def _wanted(model: Any, config: Any) -> list[str]:
    """Names of the arguments that are made."""
    parameters = inspect.signature(model.forward).parameters
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    wanted = [name for name, one in parameters.items() if one.default is one.empty and one.kind not in kinds]
    reads = model.input_modalities if not isinstance(model.input_modalities, str) else [model.input_modalities]
    names = [model.main_input_name, *(name for kind in reads for name in _BY_KIND.get(kind, ()))]
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    known = [name for name in names if name in _MAKERS]
    wanted += [name for name in known if name in parameters or (anything and name == model.main_input_name)]
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        wanted.append("decoder_input_ids")
    found = list(dict.fromkeys(wanted))
    if "input_features" in found and "input_values" in found:
        found.remove("input_values")
    return found


def text_config_of(config: Any) -> Any:
    """The part of a config that speaks of text; the whole where there is none, or where several could be meant."""
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):
        parts = (getattr(config, name, None) for name in ("decoder", "text_encoder", "text_config"))
        return next((part for part in parts if getattr(part, "vocab_size", None)), config)


def room_for_text(config: Any) -> int | None:
    """How many tokens the model reads at most, as far as its config says so."""
    length = getattr(text_config_of(config), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def side_of_image(config: Any, asked: int | None = None) -> tuple[int, int]:
    """Height and width of an image: as asked, else what the model is made for."""
    if asked is not None:
        return asked, asked
    part = _image_part(config)
    value = next((size for owner in (part, config) if (size := getattr(owner, "image_size", None))), USUAL_SIDE)
    if isinstance(value, Mapping):
        value = [value.get("height") or value.get("shortest_edge"), value.get("width") or value.get("shortest_edge")]
    sides = value if isinstance(value, list | tuple) else (value, value)
    return int(sides[0]), int(sides[-1])


def _image_part(config: Any) -> Any:
    parts = (getattr(config, name, None) for name in ("vision_config", "backbone_config", "encoder"))
    return next((part for part in parts if hasattr(part, "num_channels") or hasattr(part, "image_size")), config)


def _ids(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    import torch

    vocabulary = int(getattr(text_config_of(config), "vocab_size", 0) or 0) or 1000
    shape = (amount.batch, amount.tokens)
    return torch.randint(min(4, vocabulary - 1), vocabulary, shape, generator=generator)  # not the special ones


def _ones(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.ones(amount.batch, amount.tokens, dtype=torch.long)


def _boxes(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.zeros(amount.batch, amount.tokens, 4, dtype=torch.long)


def _pixels(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    import torch

    part = _image_part(config)
    channels = int(getattr(part, "num_channels", None) or getattr(config, "num_channels", None) or 3)
    frames = getattr(config, "num_frames", None)
    several = (int(frames),) if isinstance(frames, int) and not hasattr(config, "backbone_config") else ()
    return torch.randn(amount.batch, *several, channels, *side_of_image(config, amount.side), generator=generator)


def _sound(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    """The sound itself, or a spectrogram [frames, bands] for models whose config gives that size."""
    import torch

    bands, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    if isinstance(bands, int) and isinstance(frames, int) and not hasattr(config, "conv_dim"):
        return torch.randn(amount.batch, frames, bands, generator=generator)
    return torch.randn(amount.batch, amount.samples or RATE, generator=generator)


def _features(config: Any, amount: Amount, generator: torch.Generator) -> torch.Tensor:
    """A spectrogram as the model has it: [bands, frames] for Whisper, [1, frames, bands] for CLAP, else [frames, bands]."""
    import torch

    sound = getattr(config, "audio_config", config)
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel", "feature_size")
    bands = next((int(size) for name in names if (size := getattr(sound, name, None))), 80)
    if hasattr(sound, "spec_size"):
        frames = int(sound.spec_size) ** 2 // bands
        return torch.randn(amount.batch, 1, frames, bands, generator=generator)
    frames = max(1, round((amount.samples or RATE) / RATE / FRAME_S))
    if hasattr(sound, "max_source_positions") and not hasattr(sound, "input_feat_per_channel"):
        return torch.randn(amount.batch, bands, 2 * int(sound.max_source_positions), generator=generator)
    return torch.randn(amount.batch, frames, bands, generator=generator)


_MAKERS: Mapping[str, Callable[[Any, Amount, torch.Generator], torch.Tensor]] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "attention_mask": _ones,
    "bbox": _boxes,
    "pixel_values": _pixels,
    "input_values": _sound,
    "input_features": _features,
}
_BY_KIND = {
    "text": ("input_ids",),
    "image": ("pixel_values",),
    "video": ("pixel_values",),
    "audio": ("input_features", "input_values"),
}
