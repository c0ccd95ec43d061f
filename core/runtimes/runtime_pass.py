"""Replacing: what passes share whose engine runs an exported model: when they can, handing the model over, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason
from core.model_parts.weights import weight_bytes
from core.pass_api.base import CPU_ONLY, Pass, PassContext, PassReport, none_because
from core.pass_api.extras import missing
from core.pass_api.subject import Runtime, Subject
from core.runtimes.engine_clock import EngineClock, Observed
from core.runtimes.exporting import Exported, Sample, experimental, unexportable
from core.runtimes.forward_swap import Engine, release_weights, replace_forward


class Replacement(Engine, Observed, Protocol):
    """An engine that can run a model, be observed, and be counted."""

    nodes: int
    weight_bytes: int

    def close(self) -> None:
        """Let go of what it holds, in memory and on disk."""
        ...


def why_not(context: PassContext, packages: Sequence[str], extra: str) -> Reason | None:
    """Why the engine cannot be had for this target and model, as a short clause, or None."""
    if context.target.id != "cpu":
        return CPU_ONLY
    if (why := _missing(packages, extra)) is not None:
        return why
    if context.model is None:
        return None
    if context.model.dtype != "float32":
        return Reason("runtimes.takes-float32", dtype=context.model.dtype)
    return unexportable(context.model.task)


def require(title: str, packages: Sequence[str], extra: str) -> None:
    """``Refusal`` with the command that installs them where one of these packages is missing."""
    if (why := _missing(packages, extra)) is not None:
        raise Refusal(Reason("runtimes.engine-missing", title=title, why=why))


def _missing(packages: Sequence[str], extra: str) -> Reason | None:
    return next((why for package in packages if (why := missing(package, extra)) is not None), None)


def replaced(
    subject: Subject,
    one: Pass,
    options: Any,
    engine: Replacement,
    exported: Exported,
    sample: Sample,
    *,
    smaller: str | None,
    precision: Reason | str,
    computes: Reason | str,
) -> PassReport:
    """Let ``engine`` run the subject's model from here on, and report it.

    Args:
        subject: still with its weights.
        one: the pass.
        options: of the pass.
        engine: holds the graph.
        exported: the graph that it was made of.
        sample: of the model's inputs.
        smaller: how weights were made smaller ("int8"); None: not at all.
        precision: for the summary ("int8 products").
        computes: in what it computes, for the notes.
    """
    predicted, prediction = _expected_gain(subject, engine, smaller=smaller)
    _hand_over(subject, one.id, engine, exported, sample)
    notes = (
        Reason("runtimes.computes-in", what=computes, threads=threads_in_words(subject.execution.threads)),
        Reason("runtimes.temporary-file", file_bytes=engine.weight_bytes),
        experimental(exported),
    )
    return PassReport(
        one.id,
        one.title,
        asdict(options),
        sum(1 for _ in subject.model.modules()),
        Reason("runtimes.runs-nodes", engine=engine.name, nodes=engine.nodes, precision=precision),
        notes=notes,
        predicted=predicted,
        prediction=prediction,
    )


def _hand_over(subject: Subject, pass_id: str, engine: Replacement, exported: Exported, sample: Sample) -> None:
    """From here on ``engine`` runs the subject's model, whose weights are let go; ``subject.undo`` closes it.

    Args:
        subject: gets the runtime; all of its modules count as changed by the pass.
        pass_id: of the pass.
        engine: holds the graph.
        exported: the graph that it was made of.
        sample: of the model's inputs, for the census.
    """
    model, generates = subject.model, exported.generates  # nothing below may hold the graph: its constants are torch's weights
    patch = replace_forward(model, engine, generates=generates)
    release_weights(model)

    def undo() -> None:
        patch.pop()
        engine.close()

    subject.undo.callback(undo)
    clock = EngineClock(model, engine, lambda: _small_pass(model, sample))
    subject.execution.runtime = Runtime(engine.name, engine.weight_bytes, clock, clock.census)
    subject.changed_by |= {path: pass_id for path, _ in model.named_modules()}


def _small_pass(model: Any, sample: Sample) -> None:
    """A small prefill and one decode, or one forward."""
    import torch

    with torch.no_grad():
        if not sample.cache:
            model(**sample.inputs)
            return
        ids = sample.inputs["input_ids"]
        cache = torch_private.cache_left(model(input_ids=ids))
        model(input_ids=ids[:, :1], **{sample.cache: cache})


def threads_in_words(count: int) -> Reason:
    """As in "1 thread", "2 threads"."""
    return Reason("runtimes.threads", n=count)


def _expected_gain(subject: Subject, engine: Replacement, *, smaller: str | None) -> tuple[Mapping[str, float], Reason]:
    """What a report predicts, before the weights are let go, and the sentence for it.

    Args:
        subject: still with its weights.
        engine: that holds the graph.
        smaller: how weights were made smaller ("int8"); None: not at all.

    Returns:
        gain of decode, where every weight is read for each token, by the bytes of weights before and after.
    """
    if smaller is None:
        return {}, none_because(Reason("runtimes.same-bytes"))
    gain = weight_bytes(subject.model) / max(1, engine.weight_bytes)
    sentence = Reason("runtimes.fewer-bytes", times=gain, form=smaller)
    return {"decode": gain}, sentence
