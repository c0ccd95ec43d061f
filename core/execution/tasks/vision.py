"""Image classification: an image of a file or made up, one forward, and the likeliest labels."""

from __future__ import annotations

import inspect
import time
from typing import Any, ClassVar

from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.once import Once, labelled
from core.execution.tasks.pictures import made_up, read_image, side_of, sides
from core.execution.tasks.placing import placed
from core.execution.workload import refuse_size
from core.messages.reason import Reason
from core.models.base import LoadedModel

STRIDE = 32
"""Pixels a side that become one position at the end of the usual convolutional network."""


@form_kinds.register
class ImageClassification:
    """Models that say what is on an image."""

    id = "image-classification"
    tasks: ClassVar[tuple[str, ...]] = ("image-classification",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        return labelled(Images(loaded, workload, device), loaded.model.config)


class Images:
    """Makes the inputs of each request: the file opened and prepared anew, or a made-up image that stays the same."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._model = loaded.model
        self._processor = loaded.processor
        self._workload = workload
        self._device = device
        self._side = side_of(loaded.model.config, workload.image_size)
        if workload.image is not None:
            if self._processor is None:
                why = loaded.no_processor or Reason("execution.no-image-processor")
                raise Refusal(Reason("execution.images-not-read", name=loaded.facts.name, why=why))
            self._pixels = self._prepared(1)["pixel_values"].shape[-2:]  # looks at the file now, not in the first request
        else:
            self._pixels = (self._side, self._side)
            refuse_size(
                3 * 4 * self._side**2 * workload.batch, f"A batch of {workload.batch} images of {self._side} pixels a side"
            )
        patch = sides(getattr(loaded.model.config, "patch_size", None)) or STRIDE
        if min(self._pixels) < patch:
            raise Refusal(Reason("execution.image-smaller-than-patch", name=loaded.facts.name, patch=patch))
        self._patches = int((self._pixels[0] // patch) * (self._pixels[1] // patch))
        self._arguments = self._interpolation(loaded)

    def length(self) -> int:
        """Pieces of the image that the model sees (at the end, for convolutional networks)."""
        return self._patches

    def inputs(self) -> Inputs:
        if self._workload.image is None:
            pixels = made_up((1, getattr(self._model.config, "num_channels", 3), *self._pixels), self._workload.seed)
            pixels = pixels.expand(self._workload.batch, -1, -1, -1).contiguous()
            return Inputs({"pixel_values": self._placed(pixels), **self._arguments}, self._patches, None)
        start = time.perf_counter_ns()
        prepared = self._prepared(self._workload.batch)
        took_ns = time.perf_counter_ns() - start
        return Inputs(
            {**{name: self._placed(value) for name, value in prepared.items()}, **self._arguments}, self._patches, took_ns
        )

    def _prepared(self, batch: int) -> dict[str, Any]:
        assert self._workload.image is not None
        assert self._processor is not None
        image = read_image(self._workload.image)
        return dict(self._processor(images=[image] * batch, return_tensors="pt"))

    def _placed(self, value: Any) -> Any:
        return placed(value, self._model, self._device)

    def _interpolation(self, loaded: LoadedModel) -> dict[str, bool]:
        """Another size than the model was made for needs its positions stretched, where it can do that."""
        made_for = getattr(loaded.model.config, "image_size", None)
        stretches = "interpolate_pos_encoding" in inspect.signature(loaded.model.forward).parameters
        if made_for is None or not stretches or all(pixels == sides(made_for) for pixels in self._pixels):
            return {}
        return {"interpolate_pos_encoding": True}
