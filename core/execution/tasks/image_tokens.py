"""The tokens that stand for an image, where no processor says how many: the model's own vision part is asked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.error_text import first_line
from core.errors import Refusal
from core.execution.tasks.placing import placed
from core.execution.workload import text_config
from core.messages.reason import Reason
from core.models.base import LoadedModel
from core.models.sample_inputs import MODEL_ERRORS

if TYPE_CHECKING:
    import torch

_TOKEN_KEYS = ("image_token_id", "image_token_index")
_AROUND = ("vision_start_token_id", "vision_end_token_id")


@dataclass(frozen=True)
class _Image:
    """One image as a model wants it: ``shape`` of its pixels, and what else is told of it (repeated for each of a batch).

    ``in_rows``: the images of a batch lie one after another in the first dimension, in pieces.
    """

    shape: tuple[int, ...]
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)
    in_rows: bool = False


class Placeholders:
    """One image of ``side`` pixels a side as a model wants it, and the tokens that stand for it.

    ``ids`` are these tokens, [1, n]; ``special`` the numbers of all tokens that must not occur among words.
    """

    def __init__(self, loaded: LoadedModel, side: int, device: str) -> None:
        import torch

        self._model = loaded.model
        self._config = loaded.model.config
        self._takes = inspect.signature(self._model.forward).parameters
        self._side = side
        with _explained(loaded, side):
            self._image = _image(self._config, side, self._takes)
        token = next(
            (getattr(self._config, key) for key in _TOKEN_KEYS if isinstance(getattr(self._config, key, None), int)), None
        )
        if token is None and any(hasattr(self._config, key) for key in _TOKEN_KEYS):
            raise Refusal(Reason("execution.no-image-token", name=loaded.facts.name))
        self._token = token
        # Without a token for images they reach the words by cross attention (BLIP).
        count = 0 if token is None else 1 if "cross_attention_mask" in self._takes else self._count(loaded, device)
        ids = [token] * count
        around = [getattr(self._config, key, None) for key in _AROUND]
        if count and all(isinstance(one, int) for one in around):
            ids = [around[0], *ids, around[1]]
        self.ids = torch.tensor([ids], dtype=torch.long)
        self.special = {value for key, value in self._config.to_dict().items() if _is_token(key, value)}

    def tensors(self, batch: int, make: Callable[[tuple[int, ...], int], torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
        """The image for each of the batch, as ``forward`` wants it."""
        made = make(self._image.shape, seed)
        pixels = made.repeat(batch, 1) if self._image.in_rows else made.expand(batch, *made.shape[1:]).contiguous()
        beside = {name: one.repeat(batch, *[1] * (one.ndim - 1)) for name, one in self._image.beside.items()}
        return {"pixel_values": pixels, **beside}

    def marks(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Which of the tokens stand for an image, or attend to it, for models that want to be told."""
        import torch

        names = [name for name in ("mm_token_type_ids", "token_type_ids") if name in self._takes and self._token is not None]
        found = {name: (ids == self._token).to(ids.dtype) for name in names}
        if "cross_attention_mask" in self._takes:
            tiles = self._image.beside["aspect_ratio_mask"].shape[-1]
            found["cross_attention_mask"] = torch.zeros(*ids.shape, 1, tiles, dtype=torch.long)
            found["cross_attention_mask"][..., 0] = 1
        return found

    def _count(self, loaded: LoadedModel, device: str) -> int:
        """How many tokens stand for the image: as many as the vision part gives vectors."""
        import torch

        from core.execution.tasks.pictures import made_up

        with _explained(loaded, self._side):
            given = {name: placed(value, self._model, device) for name, value in self.tensors(1, made_up, 0).items()}
            with torch.no_grad():
                found = loaded.model.get_image_features(**given)
            features = getattr(found, "pooler_output", None)
            features = found if features is None else features
            parts = features if isinstance(features, list | tuple) else [features]
            width = int(text_config(loaded.model).hidden_size)
            if any(part.shape[-1] != width for part in parts):
                gives = parts[0].shape[-1]
                raise ValueError(Reason("execution.vision-does-not-fit", gives=gives, reads=width))
            return sum(part.numel() for part in parts) // width


@contextmanager
def _explained(loaded: LoadedModel, side: int) -> Iterator[None]:
    """What the model's vision part raises for the image becomes a sentence."""
    try:
        yield
    except MODEL_ERRORS as error:
        said = first_line(error, "no message").rstrip(".")
        raise Refusal(Reason("execution.image-not-made-up", side=side, name=loaded.facts.name, said=said)) from error


def _is_token(key: str, value: Any) -> bool:
    return isinstance(value, int) and key.endswith(("_token_id", "_token_index")) and not key.startswith(("bos", "eos", "pad"))


def _image(config: Any, side: int, takes: Mapping[str, Any]) -> _Image:
    """An image of that size, by what the model's forward ``takes`` and its config says."""
    import torch

    vision: Any = getattr(config, "vision_config", None)
    channels = int(getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3)
    patch, merge = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", None)
    frames = getattr(vision, "temporal_patch_size", None)
    if "image_grid_thw" in takes and isinstance(patch, int) and isinstance(merge, int):
        frames = frames if isinstance(frames, int) else 1
        pieces = max(1, side // (patch * merge)) * merge
        grid = torch.tensor([[1, pieces, pieces]])
        return _Image((pieces * pieces, channels * frames * patch * patch), {"image_grid_thw": grid}, in_rows=True)
    if "aspect_ratio_ids" in takes:  # one image in its first tile, the others empty
        tiles = int(vision.max_num_tiles)
        mask = torch.zeros(1, 1, tiles, dtype=torch.long)
        mask[..., 0] = 1
        beside = {"aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long), "aspect_ratio_mask": mask}
        return _Image((1, 1, tiles, channels, side, side), beside)
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    wants_sizes = "image_sizes" in takes and (pinpoints or getattr(vision, "model_type", "") == "pixtral")
    sizes = {"image_sizes": torch.tensor([[side, side]])} if wants_sizes else {}
    if pinpoints and wants_sizes:  # the whole image made small, and its pieces
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        own = int(vision.image_size)
        return _Image((1, image_size_to_num_patches((side, side), pinpoints, own), channels, own, own), sizes)
    if "pixel_attention_mask" in takes:
        return _Image((1, 1, channels, side, side))  # several images in a row
    return _Image((1, channels, side, side), sizes)
