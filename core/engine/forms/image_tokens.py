"""The tokens that stand for an image, where no processor says how many: the model's own vision part is asked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.engine.forms.placing import placed
from core.engine.workload import text_config
from core.errors import Refusal
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import torch

_TOKEN_KEYS = ("image_token_id", "image_token_index")
_AROUND = ("vision_start_token_id", "vision_end_token_id")


class Placeholders:
    """One image of ``side`` pixels a side as a model wants it, and the tokens that stand for it.

    ``ids`` are these tokens, [1, n]; ``special`` the numbers of all tokens that must not occur among words.
    """

    def __init__(self, loaded: LoadedModel, side: int, device: str) -> None:
        import torch

        self._model = loaded.model
        self._config = loaded.model.config
        self._shapes = _shapes(self._config, side)
        token = next(
            (getattr(self._config, key) for key in _TOKEN_KEYS if isinstance(getattr(self._config, key, None), int)), None
        )
        if token is None:
            raise Refusal(
                f"The config of {loaded.facts.name} names no token for images, so inputs cannot be made up; "
                "load it with its processor and give a prompt."
            )
        around = [getattr(self._config, key, None) for key in _AROUND]
        count = self._count(loaded, device)
        ids = [token] * count
        if all(isinstance(one, int) for one in around):
            ids = [around[0], *ids, around[1]]
        self._token = token
        self.ids = torch.tensor([ids])
        self.special = {value for key, value in self._config.to_dict().items() if _is_token(key, value)}

    def tensors(self, batch: int, make: Callable[[tuple[int, ...], int], torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
        """The image for each of the batch, as ``forward`` wants it."""
        import torch

        shape, grid = self._shapes
        made = make(shape, seed)
        if grid is None:
            return {"pixel_values": made.expand(batch, *shape[1:]).contiguous()}
        return {"pixel_values": made.repeat(batch, 1), "image_grid_thw": torch.tensor([grid] * batch)}

    def marks(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Which of the tokens stand for an image, for models that want to be told."""
        wanted = inspect.signature(self._model.forward).parameters
        names = [name for name in ("mm_token_type_ids", "token_type_ids") if name in wanted]
        return {name: (ids == self._token).to(ids.dtype) for name in names}

    def _count(self, loaded: LoadedModel, device: str) -> int:
        import torch

        from core.engine.forms.pictures import made_up

        try:
            given = {name: placed(value, self._model, device) for name, value in self.tensors(1, made_up, 0).items()}
            with torch.no_grad():
                found = loaded.model.get_image_features(**given)
            features = getattr(found, "pooler_output", found)
            parts = features if isinstance(features, list | tuple) else [features]
            width = int(text_config(loaded.model).hidden_size)
            return sum(part.numel() for part in parts) // width
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            said = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
            raise Refusal(
                f"An image of {self._shapes[0][-1]} cannot be made up for {loaded.facts.name} ({said}); give another size, "
                "or load it with its processor and give a prompt."
            ) from error


def _is_token(key: str, value: Any) -> bool:
    return isinstance(value, int) and key.endswith(("_token_id", "_token_index")) and not key.startswith(("bos", "eos", "pad"))


def _shapes(config: Any, side: int) -> tuple[tuple[int, ...], list[int] | None]:
    """Shape of the pixels of one image, and its grid (time, height, width) for models that take an image in pieces."""
    vision = getattr(config, "vision_config", None)
    channels = int(getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3)
    patch, merge = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", None)
    frames = getattr(vision, "temporal_patch_size", None)
    if isinstance(patch, int) and isinstance(merge, int) and isinstance(frames, int):
        pieces = max(1, side // (patch * merge)) * merge
        return (pieces * pieces, channels * frames * patch * patch), [1, pieces, pieces]
    if config.model_type in ("idefics2", "idefics3", "smolvlm"):
        return (1, 1, channels, side, side), None  # several images in a row
    return (1, channels, side, side), None
