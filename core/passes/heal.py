"""Heal: teaches a model that was made smaller to answer as the original does, for a few minutes on a text."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import psutil

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.weights import weight_bytes
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.pruning import calibration, expectation, healing

NEEDED = frozenset({"layer_drop", "mlp_width", "head_removal", "sparse_mask"})
STATES = 3
"""Per trained weight: its gradient and AdamW's two moments."""


LOADING = worded("pass.heal.loading", "Loading the original to learn from")


@dataclass(frozen=True)
class HealOptions:
    """How long, on what, and how boldly."""

    steps: int = field(default=100, metadata={"label": "Steps", "help": "One sequence each", "minimum": 1, "maximum": 100000})
    tokens: int = field(
        default=128, metadata={"label": "Tokens per step", "help": "Length of a sequence", "minimum": 8, "maximum": 4096}
    )
    learning_rate: float = field(
        default=1e-4,
        metadata={
            "label": "Learning rate",
            "help": "Of AdamW; lower it if healing goes out of bounds",
            "minimum": 1e-7,
            "maximum": 0.1,
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={"label": "Temperature", "help": "Above 1 unlikely words count more", "minimum": 0.1, "maximum": 10.0},
    )
    text: str = field(
        default="",
        metadata={"label": "Text", "help": "Path of a text file to heal on; empty: a text that ships for this alone"},
    )


@passes.register
class Heal(Pass):
    """Short knowledge distillation; the original is in memory only while it lasts."""

    id = "heal"
    title = "Heal"
    summary = "Trains the smaller model briefly to answer as the original: regains some quality"
    phase = Phase.HEAL
    options: ClassVar[type | None] = HealOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.PRUNES})
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.same-shapes"))

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None:
            if context.model.task != "text-generation":
                return Reason("passes.only-generation-healed")
            if context.model.dtype != "float32":
                return Reason("passes.trains-in-float32", dtype=context.model.dtype)
        return None if context.others & NEEDED else Reason("passes.nothing-to-heal")

    def apply(self, subject: Subject, options: HealOptions) -> PassReport:
        model: Any = subject.model
        if subject.original is None or not _trains(subject):
            raise Refusal(Reason("passes.heal-needs-original"))
        tokens = calibration.tokens(
            model, subject.tokenizer, options.text, options.tokens * (options.steps + 2 * healing.HELD_OUT)
        )
        data = healing.sequences(tokens.ids, options.tokens)
        _refuse_without_room(model, options)
        subject.progress.report(LOADING, None)
        teacher = subject.original()
        plan = healing.Plan(options.steps, options.tokens, options.learning_rate, options.temperature)
        try:
            healed = healing.heal(model, teacher, data, plan, subject.progress)
        finally:
            del teacher
            gc.collect()
        predicted, prediction = expectation.nothing_gained(subject.task)
        summary = worded(
            "pass.heal.done",
            "{steps} steps on {tokens:count} tokens: KLD {before:.3g} → {after:.3g}",
            steps=options.steps,
            tokens=healed.tokens_seen,
            before=healed.before,
            after=healed.after,
        )
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            healed.matrices,
            summary,
            notes=_notes(healed, tokens),
            predicted=predicted,
            prediction=prediction,
        )


def _trains(subject: Subject) -> bool:
    import torch

    model: Any = subject.model
    dtypes = {value.dtype for value in model.parameters()}
    causal = not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return subject.task == "text-generation" and causal and dtypes == {torch.float32}


def _refuse_without_room(model: Any, options: HealOptions) -> None:
    """The original is checked by whoever loads it; this is what training takes besides."""
    trained = sum(value.nbytes for value in healing.trainable(model))
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    logits = 4 * 4 * options.tokens * vocabulary  # the teacher's and the student's, their logarithms and gradients
    needed = STATES * trained + logits + weight_bytes(model)  # at least a second copy of the model, which is the teacher
    free = psutil.virtual_memory().available
    if needed > free:
        raise Refusal(Reason("passes.heal-memory-too-small", needed_bytes=needed, free_bytes=free))


def _notes(healed: healing.Healed, tokens: calibration.Tokens) -> tuple[Reason, ...]:
    notes = [
        worded(
            "pass.heal.measured-on",
            "KLD to the original in nats, on {count} tokens that were held out; the text is {source}.",
            count=healed.held_out_tokens,
            source=tokens.source,
        ),
        worded(
            "pass.heal.trained",
            "The training part was seen {times:.1f} times; embeddings and the head were not trained.",
            times=healed.rounds,
        ),
    ]
    if healed.after >= healed.before:
        notes.append(
            worded(
                "pass.heal.in-vain",
                "Healing did not bring the model nearer to the original; try a lower learning rate or more steps.",
            )
        )
    return tuple(notes)
