"""The jobs that load a model and let it go."""

from __future__ import annotations

from core.config import LoadConfig, ModelConfig, TargetConfig, UnloadConfig
from core.execution.jobs.base import Job, JobContext, JobKind, job_kinds
from core.execution.preparation import probed
from core.messages.reason import Reason
from core.notices import Notice

LOADING = Reason("execution.loading")


def load(context: JobContext, model: ModelConfig, target: TargetConfig) -> None:
    """Load a model, or find it loaded; ``Refusal`` where it cannot be had."""
    context.stage("loading")
    context.progress.report(LOADING, None)
    facts = probed(target)
    before = context.slot.loaded
    model_facts = context.slot.load(model, facts.id, context.progress)
    loaded = context.slot.loaded
    assert loaded is not None
    if loaded is not before:
        context.loaded(model_facts, loaded.load_ns)
        grown = max(0, loaded.rss_after_bytes - loaded.rss_before_bytes)
        sentence = Reason("execution.loaded", name=model_facts.name, took_ns=loaded.load_ns, grown_bytes=grown)
        context.listener.tell(Notice("loaded", sentence))


class Load(Job):
    """Loads a model and leaves it there."""

    kind = "load"

    def __init__(self, config: LoadConfig) -> None:
        self._config = config

    def carry_out(self, context: JobContext) -> None:
        load(context, self._config.model, self._config.target)


class Unload(Job):
    """Lets the model go."""

    kind = "unload"

    def __init__(self, config: UnloadConfig) -> None:
        self._config = config

    def carry_out(self, context: JobContext) -> None:
        context.slot.unload()
        context.listener.tell(Notice("unloaded", Reason("execution.unloaded")))


job_kinds.register(lambda: JobKind(Load.kind, LoadConfig, Load))
job_kinds.register(lambda: JobKind(Unload.kind, UnloadConfig, Unload))
