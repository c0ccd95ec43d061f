"""What a model source is, what it tells before loading, and what a loaded model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from core import units
from core.config import ModelConfig
from core.messages.reason import Reason
from core.progress import Progress
from core.registry import Registry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """What a kind of model does. ``generates``: token by token. ``modality``: what it is given (text, image, speech, …)."""

    title: str
    generates: bool = False
    modality: str = "text"


TASKS: Mapping[str, Task] = {
    "text-generation": Task("Text generation", generates=True),
    "embedding": Task("Text embedding"),
    "classification": Task("Text classification"),
    "token-classification": Task("Token classification"),
    "question-answering": Task("Question answering"),
    "seq2seq": Task("Text to text", generates=True),
    "image-classification": Task("Image classification", modality="image"),
    "image-text": Task("Image and text to text", generates=True, modality="image-text"),
    "speech": Task("Speech to text", generates=True, modality="speech"),
    "speech-ctc": Task("Speech to text at once", modality="speech"),
    "audio-classification": Task("Sound classification", modality="speech"),
    "audio-feature-extraction": Task("Sound to features", modality="speech"),
    "object-detection": Task("Object detection", modality="image"),
    "image-segmentation": Task("Image segmentation", modality="image"),
    "depth-estimation": Task("Depth estimation", modality="image"),
    "image-feature-extraction": Task("Image to features", modality="image"),
    "forward": Task("One forward", modality="tensors"),
    "module": Task("Python module", modality="tensors"),
}
"""Every task by its id, as in ``ModelFacts.task``."""


def generates(task: str | None) -> bool:
    """Whether models of this task give token after token; an unknown one (None, an imported trace) is taken to."""
    return not task or task not in TASKS or TASKS[task].generates


def parameters_in_words(parameters: int | None, active: int | None) -> str:
    """``134.5 M parameters``; of a mixture of experts also how many of them work on one token."""
    working = f", {units.count(active)} active" if active is not None and active != parameters else ""
    return f"{units.count(parameters)} parameters{working}"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model. Before loading it comes from config and file sizes; None: not known (yet)."""

    spec: str  # the full spec that loads it again
    name: str  # for people, e.g. "SmolLM2-135M-Instruct"
    architecture: str  # class name, e.g. "LlamaForCausalLM"
    task: str  # one of TASKS
    parameters: int | None
    layers: int | None  # transformer blocks
    dtype: str  # as loaded
    weight_bytes: int | None  # in that dtype
    file_bytes: int | None
    context_length: int | None  # longest sequence in positions; None: it has no limit, or none that is known
    has_tokenizer: bool
    stored_as: str = ""  # how the file holds the weights, e.g. "GGUF Q4_1", "safetensors float32", "random weights"
    load_bytes: int | None = None  # most memory that loading takes, for the fit check
    active_parameters: int | None = None  # that work on one token of a mixture of experts; None: all of them, or not known
    packed: bool = False  # its files hold the weights in few bits, and they stay so whatever the dtype (GPTQ, AWQ, fp8 …)
    keeps_cache: bool = True  # its configuration lets ``generate`` keep keys and values from one token to the next
    context_is_soft: bool = False  # a longer sequence runs all the same: it is only more than the model was made for
    notes: tuple[Reason, ...] = ()  # sentences for people about what is special in how it runs


@dataclass(frozen=True)
class Listing:
    """One model that is there (or would be) without looking further: for ``tickscope models`` and the picker."""

    spec: str
    title: str
    available: bool
    reason: Reason | None = None


@dataclass
class LoadedModel:
    """A model in memory, exactly as its source gives it until passes change it. Owned by the worker thread.

    ``processor`` makes inputs of images or sound (transformers' image processor, feature extractor or both with a tokenizer);
    where there is none, ``no_processor`` may say why. ``example`` are the inputs that a Python entry gave with its module, by
    the names of its forward.
    """

    model: torch.nn.Module
    tokenizer: Any | None
    facts: ModelFacts
    config: ModelConfig
    load_ns: int
    rss_before_bytes: int
    rss_after_bytes: int
    processor: Any | None = None
    no_processor: Reason | None = None
    example: Mapping[str, Any] | None = None


class Source(Protocol):
    """One way to get a model. ``rest`` is the spec without its ``id:`` prefix."""

    id: str
    title: str
    hint: str  # what to type, e.g. "ORG/NAME or ORG/NAME@REVISION"

    def listed(self) -> list[Listing]:
        """Models of this source that are at hand. Fast; no torch."""
        ...

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """Facts without loading weights and without importing torch; ``Refusal`` if it cannot be loaded."""
        ...

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """Load onto ``device`` ("cpu", "cuda", ...) in eval mode. Reports progress, honours cancel, raises ``Refusal``."""
        ...


sources: Registry[Source] = Registry("model source", "core.models")
