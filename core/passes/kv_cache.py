"""KV cache: of fixed size from the start, or kept in 8-bit floating point."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.weights import weight_bytes
from core.models.sample_inputs import MODEL_ERRORS, sample_inputs
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes, without_cache
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject

STATIC, FP8 = "static", "fp8"


@dataclass(frozen=True)
class KvCacheOptions:
    """Which cache."""

    kind: str = field(
        default=STATIC,
        metadata={
            "label": "Kind",
            "help": "static sets its whole length aside at once; fp8 keeps 8 bits a number and unpacks all at every token",
            "choices": (STATIC, FP8),
        },
    )


@passes.register
class KvCache(Pass):
    """Replaces the growing cache. Not lossless: 8 bits round, and a longer cache is summed in another order."""

    id = "kv_cache"
    title = "KV cache"
    summary = "A cache of fixed size, or one in 8-bit floating point"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = KvCacheOptions
    changes_weights = False
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CACHES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task != "text-generation":
            return Reason("passes.growing-cache-only")
        return without_cache(context)

    def apply(self, subject: Subject, options: KvCacheOptions) -> PassReport:
        model: Any = subject.model
        if subject.task != "text-generation":
            raise Refusal(Reason("passes.kv-cache-generates"))
        before = bytes_per_token(model)
        if before is None:
            raise Refusal(Reason("passes.no-kv-cache", model=type(model).__name__))
        if options.kind == STATIC:
            added, report = _static(subject, before)
        else:
            added, report = _fp8(subject, before)
        subject.execution.generation.update(added)

        def undo() -> None:
            for name in added:
                subject.execution.generation.pop(name, None)
            torch_private.forget_longest_cache(model)

        subject.undo.callback(undo)
        layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
        return PassReport(self.id, self.title, asdict(options), layers, **report)


def bytes_per_token(model: Any) -> int | None:
    """Bytes that the model's own growing cache takes for each token of a sequence; None where it has none.

    Measured by a small call and not computed, since architectures share heads, compress keys, or skip layers.
    """
    import torch

    inputs = sample_inputs(model)
    if inputs is None:
        return None
    try:
        with torch.no_grad():
            cache = torch_private.cache_left(model(**inputs, use_cache=True))
    except MODEL_ERRORS:
        return None
    held = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    if not held or any(tensor is None for tensor in held):
        return None
    return sum(tensor.nbytes for tensor in held if tensor is not None) // inputs["input_ids"].numel()


def _static(subject: Subject, per_token: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of ``generate`` and the report's fields."""
    if not torch_private.takes_static_cache(subject.model):
        raise Refusal(Reason("passes.no-static-kv-cache", model=type(subject.model).__name__))
    # disable_compile: generate would compile by itself where there is a GPU, which is a pass of its own
    added = {"cache_implementation": "static", "max_cache_len": subject.max_length, "disable_compile": True}
    whole = per_token * subject.max_length * subject.batch
    weights = weight_bytes(subject.model)
    return added, {
        "summary": worded(
            "pass.kv_cache.static",
            "static cache of {positions} positions, {token_bytes:size} per token",
            positions=subject.max_length,
            token_bytes=per_token,
        ),
        "notes": (
            worded(
                "pass.kv_cache.set-aside",
                "{whole_bytes:size} are set aside at once, and each token reads all of them, the empty ones too.",
                whole_bytes=whole,
            ),
        ),
        "predicted": {"prefill": 1.0, "decode": (weights + whole / 2) / (weights + whole)},
        "prediction": Reason("passes.weights-and-cache"),
    }


def _fp8(subject: Subject, per_token: int) -> tuple[dict[str, Any], dict[str, Any]]:
    from transformers.cache_utils import QuantizedCache

    try:
        QuantizedCache(backend="fp8", config=subject.model.config)
    except ValueError as error:
        raise Refusal(Reason("passes.fp8-cache-impossible", model=type(subject.model).__name__)) from error
    item = next(subject.model.parameters()).element_size()
    packed = per_token // item  # one byte a number; the two scales of each layer are nothing
    return {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}, {
        "summary": worded(
            "pass.kv_cache.fp8",
            "fp8 cache, {before_bytes:size} → {after_bytes:size} per token",
            before_bytes=per_token,
            after_bytes=packed,
        ),
        "notes": (
            worded(
                "pass.kv_cache.unpacked",
                "Saves memory, not time: the whole cache is unpacked in every layer at every token.",
            ),
        ),
        "prediction": none_because(Reason("passes.unpacked-copy")),
    }
