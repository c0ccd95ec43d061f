"""Models of none of the other kinds (features, detectors, segmentation, several inputs at once): one forward a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.error_text import first_line
from core.errors import Refusal
from core.execution.tasks.base import Inputs, Maker, form_kinds
from core.execution.tasks.once import Once, Read, Tell
from core.execution.tasks.placing import placed
from core.execution.tasks.sounds import Sounds
from core.execution.tasks.tensors import TOKENS, first_tensor
from core.execution.tasks.vision import Images
from core.execution.workload import refuse_size
from core.messages.reason import Reason
from core.models.base import TASKS, LoadedModel
from core.models.made_up import RATE, Amount, made_up_inputs, room_for_text, side_of_image
from core.models.sample_inputs import MODEL_ERRORS

if TYPE_CHECKING:
    import torch


@form_kinds.register
class SingleForward:
    """Models of any kind whose inputs can be made up from what their forward takes."""

    id = "forward"
    tasks: ClassVar[tuple[str, ...]] = (
        "forward",
        "object-detection",
        "image-segmentation",
        "depth-estimation",
        "image-feature-extraction",
        "audio-feature-extraction",
    )

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result are the numbers of the first tensor that the model gives, [batch, n]."""
        shapes: list[str] = []
        makers: dict[str, Callable[..., Maker]] = {"image": Images, "speech": Sounds}
        maker = makers.get(TASKS[loaded.facts.task].modality, MadeUpInputs)(loaded, workload, device)

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            tensor = first_tensor(output)
            assert tensor is not None  # every class of transformers gives one
            parts = dict(output.items()) if hasattr(output, "items") else {"tensor": tensor}
            shapes[:] = [f"{name} {list(value.shape)}" for name, value in parts.items() if hasattr(value, "shape")]
            return tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)

        def tell(values: torch.Tensor, inputs: Inputs) -> str:
            return ", ".join(shapes)

        return Tried(maker, read, tell, loaded)


class Tried(Once):
    """Tries the inputs before anything is measured, so that what does not suit the model is said in a sentence."""

    def __init__(self, maker: Maker, read: Read, tell: Tell, loaded: LoadedModel) -> None:
        super().__init__(maker, read, tell)
        self._loaded = loaded

    def length(self) -> int:
        """As ``Form.length``; ``Refusal`` where the model cannot be called with these inputs."""
        import torch

        name, tensors = self._loaded.facts.name, self._maker.inputs().tensors
        try:
            with torch.no_grad():
                output = self._loaded.model(**tensors)
        except MODEL_ERRORS as error:
            said = first_line(error).rstrip(".:; ")[:200]
            given = ", ".join(f"{key} {list(value.shape)}" for key, value in tensors.items() if hasattr(value, "shape"))
            raise Refusal(Reason("execution.not-callable-so", name=name, given=given, said=said)) from error
        if first_tensor(output) is None:
            raise Refusal(Reason("execution.no-tensor-for-made-up-inputs", name=name))
        return super().length()


class MadeUpInputs:
    """Makes the inputs once, and tries them, so that what does not suit the model is said before the run."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        if workload.image is not None or workload.audio is not None:
            raise Refusal(Reason("execution.made-up-inputs-only", name=loaded.facts.name))
        self._loaded = loaded
        self._device = device
        config = getattr(loaded.model, "config", None)
        room = room_for_text(config)
        tokens = workload.prompt_tokens or min(TOKENS, room or TOKENS)
        if room is not None and tokens > room:
            raise Refusal(Reason("execution.input-longer-than-room", name=loaded.facts.name, room=room, tokens=tokens))
        height, width = side_of_image(config, workload.image_size)
        seconds = workload.audio_seconds
        samples = None if seconds is None else max(1, round(seconds * RATE))
        refuse_size(
            4 * workload.batch * max(3 * height * width, samples or 0),
            f"A batch of {workload.batch} made-up inputs of this size",
        )
        amount = Amount(workload.batch, tokens, workload.image_size, samples)
        self._tensors = made_up_inputs(loaded.model, amount, workload.seed)
        self._length = next((int(value.shape[1]) for value in self._tensors.values() if value.ndim == 2), tokens)

    def length(self) -> int:
        """Of the first input with one entry per position."""
        return self._length

    def inputs(self) -> Inputs:
        model = self._loaded.model
        return Inputs({name: placed(value, model, self._device) for name, value in self._tensors.items()}, self._length, None)
