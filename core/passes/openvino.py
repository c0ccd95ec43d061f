"""OpenVINO: runs the model in that engine, exported as one graph, with smaller weights if wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import RUNS_ELSEWHERE, Exclusion, Group
from core.pass_api.subject import Subject
from core.runtimes.exporting import Exported, Sample, export, quiet, sample_of
from core.runtimes.openvino_request import OpenVINOEngine, computes_in_bfloat16, layer_names
from core.runtimes.runtime_pass import replaced, require, why_not

if TYPE_CHECKING:
    import torch

EXPORTING = worded("pass.openvino.exporting", "Exporting to OpenVINO")
COMPILING = worded("pass.openvino.compiling", "Compiling the graph in OpenVINO")

_WORDS = {"f32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class OpenVINOOptions:
    """In what it computes and how weights are kept."""

    precision: str = field(
        default="f32",
        metadata={
            "label": "Precision",
            "help": "Left to itself OpenVINO computes in bfloat16 where the processor can; here it is what you choose",
            "choices": ("f32", "bf16"),
        },
    )
    weights: str = field(
        default="none",
        metadata={
            "label": "Weights",
            "help": "int8: one scale a row; int4: one scale for each group of weights; both by NNCF, without data",
            "choices": ("none", "int8", "int4"),
        },
    )


@passes.register
class OpenVINO(Pass):
    """Exports the model to OpenVINO's own graph and lets OpenVINO run it."""

    id = "openvino"
    title = "OpenVINO"
    summary = "OpenVINO runs the model as one fused graph in place of torch"
    phase = Phase.ENGINE
    options: ClassVar[type | None] = OpenVINOOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.REPLACES_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        RUNS_ELSEWHERE,
        Exclusion(frozenset({Group.CASTS}), Reason("passes.precision-of-its-own")),
    )

    def check(self, context: PassContext) -> Reason | None:
        return why_not(context, ("openvino",), "openvino")

    def apply(self, subject: Subject, options: OpenVINOOptions) -> PassReport:
        require(self.title, ("openvino",) if options.weights == "none" else ("openvino", "nncf"), "openvino")
        if options.precision == "bf16" and not computes_in_bfloat16():
            raise Refusal(Reason("passes.openvino-no-bfloat16"))
        subject.progress.report(EXPORTING, None)
        sample = sample_of(subject.model, subject.task)
        with layer_names() as names:
            exported = _exported(subject.model, sample, options)
        subject.progress.report(COMPILING, None)
        engine = OpenVINOEngine(exported, names, subject.execution.threads, options.precision)
        smaller = None if options.weights == "none" else options.weights
        dtype = _WORDS[options.precision]
        words = "{dtype}, weights in {smaller}"
        precision = worded("pass.openvino.precision", words, dtype=dtype, smaller=smaller) if smaller else dtype
        return replaced(
            subject, self, options, engine, exported, sample, smaller=smaller, precision=precision, computes=precision
        )


def _exported(model: torch.nn.Module, sample: Sample, options: OpenVINOOptions) -> Exported:
    """The model as OpenVINO's graph, with its weights compressed if wanted; ``Refusal`` where none could be."""
    from transformers.exporters import NNCFOpenVINOQuantizer, NNCFWeightCompressionConfig, OpenVINOConfig, OpenVINOExporter

    quantizer: Any = None
    with quiet():
        exporter = OpenVINOExporter()
        if options.weights != "none":
            import nncf

            int4 = options.weights == "int4"
            mode = nncf.CompressWeightsMode.INT4_SYM if int4 else nncf.CompressWeightsMode.INT8_ASYM
            quantizer = NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig(mode=mode))
    exported = export(exporter, model, sample, OpenVINOConfig(dynamic_shapes=sample.shapes or None, quantizer=quantizer))
    small = ("i4", "u4", "i8", "u8")
    if quantizer is not None and not any(
        op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in small for op in exported.program.get_ops()
    ):
        raise Refusal(Reason("passes.openvino-nothing-to-quantise", weights=options.weights))
    if exported.generates and not exported.program.get_variables():
        raise Refusal(Reason("passes.openvino-no-cache", model=type(model).__name__))
    return exported
