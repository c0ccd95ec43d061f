"""What makes two runs comparable, each condition declared once, with those that ask for it: floors, verdicts, points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.config import RunConfig
from core.pass_api.base import any_pass
from core.records.run import RunFacts

FLOOR, VERDICT, POINT = "floor", "verdict", "point"
"""Who asks: a noise floor, found again only where all is alike; a comparison, which names what differs; and a picture of speed
against quality, which shows no run beside one that was measured under other conditions.
"""

MODEL, WORKLOAD, TARGET, MACHINE = "model", "workload", "target", "machine"
VERSIONS, TORCH, VARIABLES, THREADS = "versions", "torch", "variables", "threads"
"""What conditions are about: those of one group are told together."""


def _bound(config: RunConfig) -> bool:
    return False


@dataclass(frozen=True)
class Condition:
    """One thing that two runs may have alike.

    Args:
        id: its name in ``floors.json``, ``part.name`` where it stands in a part of it. To change one is to forget all floors.
        group: what it is about.
        scopes: who asks for it.
        of: its value in a run, ready for JSON; None where it is not known.
        free: whether a run leaves it open, because a pass of its own sets it: then it keeps no two points apart.
    """

    id: str
    group: str
    scopes: frozenset[str]
    of: Callable[[RunConfig, RunFacts], Any]
    free: Callable[[RunConfig], bool] = _bound

    @property
    def name(self) -> str:
        """Its own name, without that of its part."""
        return self.id.rpartition(".")[2]


def _environment(group: str, scopes: set[str], *names: str) -> tuple[Condition, ...]:
    """What the environment of a run says under these names."""

    def of(name: str) -> Callable[[RunConfig, RunFacts], Any]:
        return lambda config, facts: facts.environment.get(name)

    return tuple(Condition(f"environment.{name}", group, frozenset(scopes), of(name)) for name in names)


def _sets_threads(config: RunConfig) -> bool:
    return any_pass(config.passes, lambda one: one.sets_threads)


_ALL = {FLOOR, VERDICT, POINT}

CONDITIONS: tuple[Condition, ...] = (
    Condition("model.spec", MODEL, frozenset({FLOOR, POINT}), lambda config, facts: config.model.spec),
    Condition("model.dtype", MODEL, frozenset({FLOOR, POINT}), lambda config, facts: config.model.dtype),
    Condition("model.seed", MODEL, frozenset({POINT}), lambda config, facts: config.model.seed),
    Condition("target.id", TARGET, frozenset(_ALL), lambda config, facts: config.target.id),
    Condition("target.name", TARGET, frozenset(_ALL), lambda config, facts: facts.target.name if facts.target else None),
    Condition("threads", THREADS, frozenset(_ALL), lambda config, facts: facts.threads, _sets_threads),
    Condition("workload", WORKLOAD, frozenset(_ALL), lambda config, facts: config.workload.asked),
    *_environment(MACHINE, {FLOOR, VERDICT}, "machine", "os"),
    *_environment(MACHINE, _ALL, "cpu_model"),
    *_environment(MACHINE, {FLOOR, VERDICT}, "cpu_features", "cpu_affinity", "cpu_quota", "cpu_governor"),
    *_environment(MACHINE, {VERDICT}, "cpu_boost"),
    *_environment(MACHINE, {FLOOR, VERDICT}, "power_source", "smt_active", "memory_bytes"),
    *_environment(MACHINE, {VERDICT}, "allocator", "transparent_hugepages"),
    *_environment(MACHINE, {FLOOR}, "cpu_cores_logical"),
    *_environment(VERSIONS, {FLOOR, VERDICT}, "python", "tickscope"),
    *_environment(VERSIONS, _ALL, "torch", "transformers"),
    *_environment(VERSIONS, {FLOOR, VERDICT}, "torchao", "numpy"),
    *_environment(VERSIONS, {VERDICT}, "tokenizers", "accelerate", "triton"),
    *_environment(VERSIONS, {FLOOR, VERDICT}, "os_release"),
    *_environment(TORCH, {VERDICT}, "torch_cpu_capability", "torch_libraries", "torch_matmul_precision", "torch_deterministic"),
    *_environment(VARIABLES, {FLOOR, VERDICT}, "variables"),
)


def asked_by(scope: str) -> tuple[Condition, ...]:
    """The conditions of a scope, in their order."""
    return tuple(one for one in CONDITIONS if scope in one.scopes)
