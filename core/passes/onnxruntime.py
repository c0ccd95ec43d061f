"""ONNX Runtime: runs the model in that engine, exported as one graph, with int8 products if wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import RUNS_ELSEWHERE, Exclusion, Group
from core.pass_api.subject import Subject
from core.runtimes.exporting import Exported, Sample, export, quiet, sample_of
from core.runtimes.onnx_session import LEVELS, OnnxEngine
from core.runtimes.runtime_pass import replaced, require, why_not

if TYPE_CHECKING:
    import torch

PACKAGES = ("onnxruntime", "onnx", "onnxscript")


EXPORTING = worded("pass.onnxruntime.exporting", "Exporting to ONNX")
OPENING = worded("pass.onnxruntime.opening", "Opening the graph in ONNX Runtime")
INT8_PRODUCTS = worded("pass.onnxruntime.int8-products", "int8 products")
INT8_WHERE = worded("pass.onnxruntime.int8-where", "int8 where it multiplies by weights, else in float32")


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How the graph is made and optimised."""

    quantize: str = field(
        default="none",
        metadata={
            "label": "Quantise",
            "help": "int8: weights ahead, activations while it runs, by ONNX Runtime's own dynamic quantiser",
            "choices": ("none", "int8"),
        },
    )
    optimization: str = field(
        default="all",
        metadata={
            "label": "Graph optimisation",
            "help": "How far ONNX Runtime may fuse operations; none shows what its optimiser is worth",
            "choices": tuple(LEVELS),
        },
    )


@passes.register
class OnnxRuntime(Pass):
    """Exports the model to ONNX and lets ONNX Runtime run it."""

    id = "onnxruntime"
    title = "ONNX Runtime"
    summary = "ONNX Runtime runs the model as one fused graph in place of torch"
    phase = Phase.ENGINE
    options: ClassVar[type | None] = OnnxRuntimeOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.REPLACES_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        RUNS_ELSEWHERE,
        Exclusion(frozenset({Group.CASTS}), Reason("passes.precision-of-its-own")),
    )

    def check(self, context: PassContext) -> Reason | None:
        return why_not(context, PACKAGES, "onnx")

    def apply(self, subject: Subject, options: OnnxRuntimeOptions) -> PassReport:
        require(self.title, PACKAGES, "onnx")
        subject.progress.report(EXPORTING, None)
        sample = sample_of(subject.model, subject.task)
        exported = _exported(subject.model, sample, options)
        subject.progress.report(OPENING, None)
        engine = OnnxEngine(exported, subject.execution.threads, options.optimization)
        int8 = options.quantize == "int8"
        return replaced(
            subject,
            self,
            options,
            engine,
            exported,
            sample,
            smaller="int8" if int8 else None,
            precision=INT8_PRODUCTS if int8 else "float32",
            computes=INT8_WHERE if int8 else "float32",
        )


def _exported(model: torch.nn.Module, sample: Sample, options: OnnxRuntimeOptions) -> Exported:
    """The model as an ONNX graph, quantised if wanted; ``Refusal`` where nothing in it could be quantised."""
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    quantizer: Any = None
    with quiet():
        exporter = OnnxExporter()
        if options.quantize == "int8":
            quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
    # not with ort_fusions="cpu": of SmolLM2 it made a FusedMatMul that ONNX Runtime 1.31 refuses to run
    config = OnnxConfig(dynamic_shapes=sample.shapes or None, quantizer=quantizer)
    exported = export(exporter, model, sample, config)
    if quantizer is not None and not any("Integer" in node.op_type for node in exported.program.graph):
        raise Refusal(Reason("passes.onnx-nothing-to-quantise"))
    return exported
