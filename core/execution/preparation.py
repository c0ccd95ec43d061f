"""Preparation: from a run's configuration to a model with its passes and a recording that waits for its first request."""

from __future__ import annotations

from core.clock.gate import Gate
from core.config import RunConfig, TargetConfig
from core.errors import Refusal
from core.execution.eval_data import EvalData, check_material, read_material
from core.execution.model_slot import ModelSlot, PreparedModel
from core.execution.recording import Recording, TakingTurns
from core.execution.tasks.base import form_of
from core.execution.workload import check_memory
from core.messages.reason import Reason
from core.planning import plan
from core.progress import Progress
from core.targets.base import TargetFacts, targets


def probed(target: TargetConfig) -> TargetFacts:
    """The target's facts; ``Refusal`` where it cannot be used."""
    import torch  # noqa: F401 - with torch in memory a target's answer is final

    facts = targets.get(target.id).probe()
    if not facts.available:
        raise Refusal(Reason("execution.target-unusable", title=facts.title, reason=facts.reason))
    return facts


def prepare(config: RunConfig, holder: ModelSlot, progress: Progress) -> PreparedModel:
    """The model of ``config``, which ``holder`` has loaded, with its passes applied.

    Raises:
        Refusal: a pass cannot be used here, the workload fits neither the context nor the memory, or quality cannot be measured
            on what was named for it.
    """
    assert holder.loaded is not None
    material = _material(config, holder)
    target = targets.get(config.target.id)
    facts = target.probe()
    plan.refuse_impossible(config.passes, holder.loaded.facts, facts)
    length = form_of(holder.loaded, config.workload, target.device).length()
    prepared = holder.prepare(config, facts, length, progress, material)
    if target.device == "cpu" and not config.model.force:
        check_memory(prepared.subject.model, config.workload.batch, length, prepared.subject.max_length)
    return prepared


def _material(config: RunConfig, holder: ModelSlot) -> EvalData | None:
    """What quality is measured on; None where it is not asked for, or where no pass could cost any."""
    if config.quality is None or not config.passes or holder.loaded is None:
        return None
    fitted_to = [text for choice in config.passes if (text := getattr(choice.options, "text", ""))]
    material = read_material(config.quality, fitted_to)
    check_material(material, holder.loaded)
    return material


def recording(
    config: RunConfig, prepared: PreparedModel, gate: Gate, progress: Progress, taking_turns: TakingTurns | None = None
) -> Recording:
    """A recording of that run, with nothing recorded yet."""
    target = targets.get(config.target.id)
    return Recording(config, prepared, (target, target.probe()), gate, progress, taking_turns)
