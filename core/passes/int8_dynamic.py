"""int8 dynamic: torch's own eager int8 linear layers, activations quantised on the fly. Needs no compiler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from core.errors import Refusal
from core.passes.base import PassContext, PassReport, Phase, Subject, passes
from core.passes.linears import as_linear, linear_paths, replace


@dataclass(frozen=True)
class Int8DynamicOptions:
    """Which layers, and how fine the weight scales are."""

    include_head: bool = field(
        default=True,
        metadata={
            "label": "Also the output head",
            "help": "A head that shares its weight with the embedding gets an int8 copy; the embedding stays float32",
        },
    )
    skip: str = field(
        default="",
        metadata={
            "label": "Leave in float32",
            "help": "Layers whose path contains one of these words, such as down_proj; separate them by a space or +",
        },
    )
    granularity: str = field(
        default="tensor",
        metadata={
            "label": "Scales per",
            "help": "One scale per weight matrix (torch's default), or one per output channel (more exact)",
            "choices": ("tensor", "channel"),
        },
    )


@passes.register
class Int8Dynamic:
    """``torch.ao.quantization.quantize_dynamic`` on every linear layer."""

    id = "int8_dynamic"
    title = "int8 dynamic"
    summary = "Weights and activations in int8, in torch's eager kernels (CPU)"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Int8DynamicOptions
    changes_weights = True
    lossless: ClassVar[bool] = False

    def check(self, context: PassContext) -> str | None:
        if context.target.id != "cpu":
            return "its kernels are for the CPU"
        if context.model is not None and context.model.dtype != "float32":
            return f"its kernels need a float32 model, this one is {context.model.dtype}"
        return None

    def apply(self, subject: Subject, options: Int8DynamicOptions) -> PassReport:
        import torch

        quantize = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
        if quantize is None:
            raise Refusal("This torch no longer has quantize_dynamic; use the pass int8_weight_only instead.")
        model = subject.model
        paths = [path for path in linear_paths(model, options.include_head, options.skip) if path]
        if not paths:
            raise Refusal("int8 dynamic found no linear layer to change here; switch the pass off or skip fewer layers.")
        for path in paths:
            if (linear := as_linear(module := model.get_submodule(path))) is not module:
                replace(model, path, linear)
        with _quiet():
            qconfigs = torch.ao.quantization.qconfig
            chosen = (
                qconfigs.default_dynamic_qconfig if options.granularity == "tensor" else qconfigs.per_channel_dynamic_qconfig
            )
            quantize(model, dict.fromkeys(paths, chosen), dtype=torch.qint8, inplace=True)
        changed = sum(not isinstance(model.get_submodule(path), torch.nn.Linear) for path in paths)
        return PassReport(
            self.id, self.title, asdict(options), changed, f"{changed} layers → int8 ({torch.backends.quantized.engine})"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says on this path: that torch.ao and its tensors will go one day, and about observers' ranges."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor, torch\.", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script_method` is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"Please use quant_min and quant_max", category=UserWarning)
        yield
