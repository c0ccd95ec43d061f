"""Replacing: what a pass does once its engine holds the model: hand the model over, say so to the subject, and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from core.engines.engine_clock import EngineClock, Observed
from core.engines.exporting import Exported, Sample
from core.engines.stand_in import Engine, let_go, replace_forward
from core.passes.base import Subject
from core.passes.weights import weight_bytes


class Replacement(Engine, Observed, Protocol):
    """An engine that can run a model, be observed, and be counted."""

    nodes: int
    weight_bytes: int

    def close(self) -> None:
        """Let go of what it holds, in memory and on disk."""
        ...


def hand_over(subject: Subject, pass_id: str, engine: Replacement, exported: Exported, sample: Sample) -> None:
    """From here on ``engine`` runs the subject's model, whose weights are let go; ``subject.undo`` closes it.

    Args:
        subject: gets engine, bytes, clock and census; all of its modules count as changed by the pass.
        pass_id: of the pass.
        engine: holds the graph.
        exported: the graph that it was made of.
        sample: of the model's inputs, for the census.
    """
    model, generates = subject.model, exported.generates  # nothing below may hold the graph: its constants are torch's weights
    replace_forward(model, engine, generates=generates)
    let_go(model)

    def undo() -> None:
        model.__dict__.pop("forward", None)
        engine.close()

    subject.undo.append(undo)
    clock = EngineClock(model, engine, lambda: _small_pass(model, sample, generates=generates))
    subject.engine, subject.engine_bytes = engine.name, engine.weight_bytes
    subject.clock, subject.census = clock, clock.census
    subject.changed_by |= {path: pass_id for path, _ in model.named_modules()}


def _small_pass(model: Any, sample: Sample, *, generates: bool) -> None:
    """A small prefill and one decode, or one forward."""
    import torch

    with torch.no_grad():
        if not generates:
            model(**sample.inputs)
            return
        ids = sample.inputs["input_ids"]
        cache = model(input_ids=ids).past_key_values
        model(input_ids=ids[:, :1], past_key_values=cache)


def threads_in_words(count: int) -> str:
    """As in "1 thread", "2 threads"."""
    return f"{count} thread{'' if count == 1 else 's'}"


def expected_gain(subject: Subject, engine: Replacement, *, smaller: str | None) -> tuple[Mapping[str, float], str]:
    """What a report predicts, before the weights are let go, and the sentence for it.

    Args:
        subject: still with its weights.
        engine: that holds the graph.
        smaller: how weights were made smaller ("int8"); None: not at all.

    Returns:
        gain of decode, where every weight is read for each token, by the bytes of weights before and after.
    """
    if smaller is None:
        return {}, "None: the same bytes and operations; what another engine gains lies in its kernels and fused operations."
    gain = weight_bytes(subject.model) / max(1, engine.weight_bytes)
    sentence = f"Decode reads every weight once a token, and they take {gain:.2g} times fewer bytes as {smaller}."
    return {"decode": gain}, sentence
