"""Image and text to text: a prompt about an image, or made-up pieces of both; then token after token."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import Inputs, Maker, form_kinds
from core.execution.tasks.generating import Generating
from core.execution.tasks.image_tokens import Placeholders
from core.execution.tasks.pictures import USUAL_SIDE, made_up, read_image, sides
from core.execution.tasks.placing import placed
from core.execution.workload import refuse_size, text_config
from core.messages.reason import Reason
from core.models.base import LoadedModel

LARGEST_SIDE = 8192
"""Pixels a side of a made-up image for a processor; a larger one is only made smaller again."""


@form_kinds.register
class ImageAndText:
    """Models that write about an image."""

    id = "image-text"
    tasks: ClassVar[tuple[str, ...]] = ("image-text",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Generating:
        kind = MadeUp if workload.prompt_tokens is not None else Prompted
        maker: Maker = kind(loaded, workload, device)
        encodes = bool(getattr(loaded.model.config, "is_encoder_decoder", False))
        return Generating(maker, loaded.tokenizer, {}, start=None, encodes=encodes)


class Prompted:
    """Makes the inputs of a prompt and an image through the model's own processor; without a file, the image is made up."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        if loaded.processor is None:
            why = loaded.no_processor or Reason("execution.no-processor")
            raise Refusal(Reason("execution.image-prompt-not-read", name=loaded.facts.name, why=why))
        self._model = loaded.model
        self._processor = loaded.processor
        self._workload = workload
        self._device = device
        if workload.image is None:
            side = workload.image_size or self._usual_side()
            if side > LARGEST_SIDE:
                raise Refusal(Reason("execution.image-side-too-large", side=side, largest_side=LARGEST_SIDE))
            self._image = _noise(side, workload.seed)
        self._length = self.inputs().length  # looks at the file now, not in the first request

    def length(self) -> int:
        return self._length

    def inputs(self) -> Inputs:
        batch = self._workload.batch
        start = time.perf_counter_ns()
        image = read_image(self._workload.image) if self._workload.image is not None else self._image
        encoded = self._processor(images=[[image]] * batch, text=[self._text()] * batch, return_tensors="pt")
        took_ns = time.perf_counter_ns() - start
        tensors = {name: placed(value, self._model, self._device) for name, value in encoded.items()}
        return Inputs(tensors, int(tensors["input_ids"].shape[1]), took_ns)

    def _text(self) -> str:
        """The prompt in the model's own words for a talk about an image, or after its sign for one."""
        prompt = self._workload.prompt
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            return str(self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
        return f"{getattr(self._processor, 'image_token', None) or '<image>'}\n{prompt}"

    def _usual_side(self) -> int:
        vision = getattr(self._model.config, "vision_config", None)
        return sides(getattr(vision, "image_size", None)) or USUAL_SIDE


class MadeUp:
    """Makes random tokens and a made-up image; the image's tokens stand before the others."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        import torch

        if workload.image is not None:
            raise Refusal(Reason("execution.image-needs-words"))
        assert workload.prompt_tokens is not None
        self._model = loaded.model
        self._device = device
        vision = getattr(loaded.model.config, "vision_config", None)
        side = workload.image_size or sides(getattr(vision, "image_size", None)) or USUAL_SIDE
        refuse_size(3 * 4 * side**2 * workload.batch, f"A batch of {workload.batch} images of {side} pixels a side")
        self._image = Placeholders(loaded, side, device)
        vocabulary = int(getattr(text_config(loaded.model), "vocab_size", 0)) or 1000
        low = min([vocabulary, *self._image.special])  # the signs for images are no words
        generator = torch.Generator().manual_seed(workload.seed)
        words = torch.randint(0, max(low, 1), (1, workload.prompt_tokens), generator=generator)
        self._ids = torch.cat([self._image.ids, words], 1).expand(workload.batch, -1).contiguous()
        self._pixels = self._image.tensors(workload.batch, made_up, workload.seed)

    def length(self) -> int:
        return int(self._ids.shape[1])

    def inputs(self) -> Inputs:
        import torch

        tensors: dict[str, Any] = {"input_ids": self._ids, "attention_mask": torch.ones_like(self._ids), **self._pixels}
        tensors |= self._image.marks(self._ids)
        return Inputs({name: placed(value, self._model, self._device) for name, value in tensors.items()}, self.length(), None)


def _noise(side: int, seed: int) -> Any:
    """A made-up image for a processor."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
