"""Models in a GGUF file: dequantized once into a cached safetensors folder, and loaded from there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from core import paths
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models import known, loading
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.models.files import find_weights
from core.models.gguf_conversion import convert, converted
from core.models.gguf_header import GgufHeader, read_header
from core.models.memory import CONVERSION_BYTES, CONVERSION_FACTOR, ITEM_BYTES
from core.progress import Progress

_VARIANT = re.compile(r"[.\-_](i?q\d\w*|f16|f32|bf16|fp16|fp32)$", re.IGNORECASE)


def describe_file(path: Path, config: ModelConfig, *, spec: str, name: str | None = None) -> ModelFacts:
    """Facts of a GGUF file from its header; ``Refusal`` if it cannot be loaded."""
    header = read_header(path)
    title = name or _VARIANT.sub("", path.stem)
    layers = header.number("block_count")
    if layers is not None and layers > header.tensors > 0:
        # transformers would build them all, one by one, before it looks at the weights
        raise Refusal(Reason("models.gguf-tells-more-layers", path=str(path), layers=layers, tensors=header.tensors))
    if not header.parameters:
        raise Refusal(Reason("models.gguf-without-weights", path=str(path)))
    weight_bytes = header.parameters * ITEM_BYTES[config.dtype]
    ready = converted(path, config.dtype)
    if ready is not None:
        load_bytes = weight_bytes + find_weights(ready, allow_pickle=False).largest_tensor_bytes
    else:
        load_bytes = round(weight_bytes * CONVERSION_FACTOR) + CONVERSION_BYTES
    return ModelFacts(
        spec=spec,
        name=title,
        architecture=_architecture(header, path),
        task="text-generation",
        parameters=header.parameters,
        layers=layers,
        dtype=config.dtype,
        weight_bytes=weight_bytes,
        file_bytes=path.stat().st_size,
        context_length=header.number("context_length"),
        has_tokenizer="tokenizer.ggml.tokens" in header.values,
        stored_as=f"GGUF {header.common_type}",
        load_bytes=load_bytes,
    )


def load_file(
    path: Path, config: ModelConfig, device: str, progress: Progress, *, spec: str, name: str | None = None
) -> LoadedModel:
    """Load a GGUF file, converting it first if that was not done yet (the conversion counts into the load time)."""
    progress.report(Reason("models.checking-file"))
    facts = describe_file(path, config, spec=spec, name=name)
    loading.import_libraries(progress, facts.task, facts.architecture)
    watch = loading.Stopwatch()
    folder = converted(path, config.dtype) or convert(path, config.dtype, read_header(path), progress)
    plain = dataclasses.replace(config, trust_remote_code=False)
    return dataclasses.replace(loading.load_checked(folder, plain, facts, device, progress, watch), config=config)


def _architecture(header: GgufHeader, path: Path) -> str:
    """The class GGUF's own architecture name stands for; its spelling differs a little from transformers'."""
    plain = header.architecture.replace("-", "_")
    causal = known.classes("MODEL_FOR_CAUSAL_LM")
    for spelling in (plain, plain.replace("moe", "_moe"), f"{plain}_text", header.architecture):
        if spelling in causal:
            return causal[spelling]
    raise Refusal(
        Reason("models.gguf-architecture-unknown", path=str(path), architecture=paths.shown(header.architecture) or "unknown")
    )


@sources.register
class GgufFile:
    """One ``.gguf`` file of llama.cpp's kind."""

    id = "gguf"
    title = "GGUF file"
    hint = "path of a .gguf file"

    def listed(self) -> list[Listing]:
        """None: files are found by their owner."""
        return []

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """See ``describe_file``."""
        return describe_file(paths.typed(rest), config, spec=config.spec)

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """See ``load_file``."""
        return load_file(paths.typed(rest), config, device, progress, spec=config.spec)
