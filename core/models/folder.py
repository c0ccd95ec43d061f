"""Models in a Hugging Face folder: config.json with safetensors, whole or sharded (pickled weights when allowed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import paths
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models import experts, known, loading, packed
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.models.files import blocks, context_length, find_weights, has_tokenizer, read_config, text_part
from core.models.json_file import words
from core.models.memory import ITEM_BYTES
from core.paths import shown
from core.progress import Progress


def describe_folder(folder: Path, config: ModelConfig, *, spec: str, name: str) -> ModelFacts:
    """Facts of a model folder from its config and file headers; ``Refusal`` if it cannot be loaded."""
    settings = read_config(folder)
    task, architecture = task_from_config(settings, config, name)
    packing = packed.quantization(settings)
    weights = find_weights(folder, allow_pickle=config.allow_pickle, packing=packing)
    layers = blocks(settings)
    if layers is not None and weights.tensors is not None and layers > weights.tensors:
        # transformers would build them all, one by one, before it looks at the weights
        raise Refusal(Reason("models.more-layers-than-weights", name=name, layers=layers, tensors=weights.tensors))
    item = ITEM_BYTES[config.dtype]
    parameters = weights.parameters
    if weights.pickled:
        # A pickle must not be opened to look: the size of its tensors is the size of its files, in the dtype of the config.
        stored = str(settings.get("dtype") or settings.get("torch_dtype") or "float32")
        parameters = weights.file_bytes // ITEM_BYTES.get(stored, 4)
    assert parameters is not None
    weight_bytes = weights.tensor_bytes if packing and not weights.pickled else parameters * item
    return ModelFacts(
        spec=spec,
        name=name,
        architecture=architecture,
        task=task,
        parameters=parameters,
        layers=layers,
        dtype=config.dtype,
        weight_bytes=weight_bytes,
        file_bytes=weights.file_bytes,
        context_length=context_length(folder, settings),
        has_tokenizer=has_tokenizer(folder),
        stored_as=weights.stored_as,
        # safetensors are mapped and converted tensor by tensor; a pickle is wholly in memory beside the model.
        load_bytes=weight_bytes + (weights.file_bytes if weights.pickled else weights.largest_tensor_bytes),
        packed=bool(packing),
        active_parameters=experts.active(parameters, weights.expert_parameters, text_part(settings)),
    )


def load_folder(
    folder: Path,
    config: ModelConfig,
    device: str,
    progress: Progress,
    *,
    spec: str,
    name: str,
    watch: loading.Stopwatch | None = None,
) -> LoadedModel:
    """Check a model folder and load it."""
    progress.report(Reason("models.checking-files"))
    facts = describe_folder(folder, config, spec=spec, name=name)
    loading.import_libraries(progress, facts.task, facts.architecture)
    return loading.load_checked(folder, config, facts, device, progress, watch or loading.Stopwatch())


def task_from_config(settings: dict[str, Any], config: ModelConfig, name: str) -> tuple[str, str]:
    """Task and class of the model that a config.json describes; ``Refusal`` if its code is unknown or not trusted."""
    model_type = settings.get("model_type")
    named = next(iter(words(settings.get("architectures"))), None)
    own_code = settings.get("auto_map")
    if not isinstance(model_type, str) or not known.is_known(model_type):
        if not own_code:
            what = Reason("models.names-no-architecture")
            if model_type:
                what = Reason("models.the-architecture", name=shown(str(model_type)))
            raise Refusal(Reason("models.config-names-unknown", name=name, what=what))
        if not config.trust_remote_code:
            raise Refusal(Reason("models.own-code", name=name))
    return known.task_of(str(model_type), named, is_decoder=bool(settings.get("is_decoder")))


@sources.register
class Folder:
    """A folder as ``save_pretrained`` or the hub lays it out."""

    id = "folder"
    title = "Folder"
    hint = "path of a folder with config.json and model.safetensors"

    def listed(self) -> list[Listing]:
        """None: folders are found by their owner."""
        return []

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """See ``describe_folder``."""
        folder = paths.typed(rest)
        return describe_folder(folder, config, spec=config.spec, name=folder.resolve().name)

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """See ``load_folder``."""
        folder = paths.typed(rest)
        return load_folder(folder, config, device, progress, spec=config.spec, name=folder.resolve().name)
