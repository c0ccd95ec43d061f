"""What a run is asked to do: one frozen tree that the form, the command line, the engine and the session file share."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import NoneType
from typing import Any

from core.messages.catalogue import translated
from core.messages.reason import Reason

DTYPES = ("float32", "bfloat16", "float16")

"""Where a run is carried out: on a thread of the program's own process, or in a process of its own."""

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
            raise ValueError(Reason("config.no-model"))
        if self.dtype not in DTYPES:
            raise ValueError(Reason("config.no-dtype", dtype=self.dtype, known=DTYPES))


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
            raise ValueError(Reason("config.threads", threads=self.threads))


@dataclass(frozen=True)
class WorkloadField:
    """How one field of a workload is asked for: all that form, switches, validation, comparisons and file know of it.

    Args:
        label: what people call it.
        help: what it is, as a form explains it and a switch of the command line does.
        minimum, maximum: of a number; the maximum is that of the form alone.
        none: what None is called where it is a value too, with which the program or the model decides.
        asked: whether it says what is asked, and not how often: equal workloads may differ in the others.
        unless: fields that have the say where they are set.
        fits: kinds of models that have a use for it, "" for all: "text", "images", "sound", "questions" (that are asked about a
            text), "continues" (text generation) or "writes" (all that give tokens).
        place: where it stands among the small fields of the form, 0 for none there. ``seldom``: among those out of sight.
        metavar: what stands for its value in the help of its switch, "" where it has none of its own.
        name, kind, optional, default: as the dataclass says them.
    """

    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    none: str = ""
    asked: bool = True
    unless: tuple[str, ...] = ()
    fits: str = ""
    place: int = 0
    seldom: bool = False
    metavar: str = ""
    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None

    @property
    def called(self) -> str:
        """The label in the language that is spoken."""
        return translated(f"workload.{self.name}.label", self.label)

    @property
    def explained(self) -> str:
        """The help in the language that is spoken."""
        return translated(f"workload.{self.name}.help", self.help)


def _asked(default: Any, label: str, told: str, **more: Any) -> Any:
    return field(default=default, metadata={"asked": WorkloadField(label, told, **more)})


_MOST_TOKENS = 1_000_000


@dataclass(frozen=True)
class WorkloadConfig:
    """What is asked of the model. ``prompt_tokens`` set: that many random tokens instead of ``prompt``.

    Text generation is greedy and of fixed length (``new_tokens`` exactly) so that runs can be compared.
    Encoders ignore ``new_tokens``. ``warmup`` requests come first and never count. None for ``warmup`` or ``repeats`` leaves
    the number to ``core.analysis.stopping``: until the latency has settled, and until it is known well enough.

    A new field is declared here alone (``WorkloadField``); ``workload_fields`` is what everybody else reads.

    ``prompts`` are as many different ones, of one batch. ``chat``: prompts are put into the model's chat template; None: where
    the model has one and was trained to answer (a finished run says which it was). ``image`` and ``audio`` are paths of files;
    None: a made-up image of ``image_size`` pixels a side, ``audio_seconds`` of made-up sound, or what the model is made for.
    """

    prompt: str = _asked(
        "What is the capital of France?",
        "Prompt",
        "The text that the model continues or encodes",
        unless=("prompt_tokens", "prompts"),
        fits="text",
    )
    prompt_tokens: int | None = _asked(
        None,
        "Input tokens",
        "That many random tokens instead of the text",
        minimum=1,
        maximum=_MOST_TOKENS,
        none="prompt",
        fits="text",
        place=8,
        seldom=True,
        metavar="N",
    )
    new_tokens: int = _asked(
        64,
        "New tokens",
        "How many tokens to generate; encoders have no use for it",
        minimum=1,
        maximum=_MOST_TOKENS,
        fits="writes",
        place=1,
        metavar="N",
    )
    batch: int = _asked(
        1,
        "Batch",
        "How many inputs at once; a set of prompts needs as many as it holds",
        minimum=1,
        maximum=4096,
        place=2,
        metavar="N",
    )
    repeats: int | None = _asked(
        None,
        "Repeats",
        "How many measured requests; auto stops once the latency is known well enough, and says why it stopped",
        minimum=1,
        maximum=10_000,
        none="auto",
        asked=False,
        place=3,
        metavar="N|auto",
    )
    warmup: int | None = _asked(
        None,
        "Warm-up",
        "Requests before those that count; auto goes on until they get no faster, 10 seconds at most; 0 is none",
        minimum=0,
        maximum=1000,
        none="auto",
        asked=False,
        place=6,
        seldom=True,
        metavar="N|auto",
    )
    seed: int = _asked(0, "Seed", "Of random tokens and random weights", metavar="N")
    question: str = _asked("", "Question", "What is asked about the context", fits="questions", metavar="TEXT")
    image: str | None = _asked(
        None, "Image", "The picture to look at; without one a made-up one is taken", fits="images", metavar="FILE"
    )
    image_size: int | None = _asked(
        None,
        "Size, px",
        "Pixels a side of the made-up image; auto: what it is made for",
        minimum=1,
        maximum=8192,
        none="auto",
        unless=("image",),
        fits="images",
        place=4,
        metavar="PIXELS|auto",
    )
    audio: str | None = _asked(
        None, "Sound", "The speech to hear; without one a made-up one is taken", fits="sound", metavar="FILE"
    )
    audio_seconds: float | None = _asked(
        None,
        "Seconds",
        "Length of the made-up sound; auto: what the model is made for",
        maximum=3600,
        none="auto",
        unless=("audio",),
        fits="sound",
        place=5,
        metavar="S|auto",
    )
    prompts: tuple[str, ...] | None = _asked(
        None, "Prompt set", "Different prompts in one batch", unless=("prompt_tokens",), fits="text"
    )
    chat: bool | None = _asked(
        None,
        "Chat",
        "Put prompts into the model's chat template; auto does so for instruct models that have one",
        none="auto",
        unless=("prompt_tokens",),
        fits="continues",
        place=7,
        seldom=True,
        metavar="auto",
    )

    def __post_init__(self) -> None:
        for name, one in workload_fields().items():
            value = getattr(self, name)
            if one.minimum is not None and value is not None and value < one.minimum:
                raise ValueError(Reason("config.too-small", name=name.replace("_", " "), value=value, minimum=one.minimum))
        if self.prompt_tokens is None and self.prompts is None and not self.prompt.strip():
            raise ValueError(Reason("config.prompt-empty"))
        if self.prompts is not None and not all(prompt.strip() for prompt in self.prompts or ("",)):
            raise ValueError(Reason("config.prompts-empty"))

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of the model, by field: two workloads are the same exactly where this is equal.

        The one list for everything that holds runs against each other: comparisons, noise floors, speed × quality. A field that
        another one overrules is None, so that a prompt left in the form does not count beside a number of tokens.
        """
        found: dict[str, Any] = {}
        for name, one in workload_fields().items():
            if one.asked:
                overruled = any(getattr(self, other) is not None for other in one.unless)
                found[name] = None if overruled else getattr(self, name)
        return found


@cache
def workload_fields() -> Mapping[str, WorkloadField]:
    """The fields of a workload as they are declared, by name in their order."""
    kinds = typing.get_type_hints(WorkloadConfig)
    found = {}
    for one in fields(WorkloadConfig):
        parts = typing.get_args(kinds[one.name]) if NoneType in typing.get_args(kinds[one.name]) else (kinds[one.name],)
        kind = next(typing.get_origin(part) or part for part in parts if part is not NoneType)
        told: WorkloadField = one.metadata["asked"]
        found[one.name] = replace(told, name=one.name, kind=kind, optional=NoneType in parts, default=one.default)
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
            raise ValueError(Reason("config.quality-tokens", tokens=self.tokens))


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
            raise ValueError(Reason("config.pass-twice"))


@dataclass(frozen=True)
class ABTestConfig:
    """Several runs that take turns, request by request (A B B A …), so that they can be judged against each other.

    The first side is what the others are compared with. An A/A test has the same configuration twice and finds the floor below
    which this machine cannot tell two configurations apart. It ends when every other side is decided or hopeless, or at a cap.
    """

    sides: tuple[RunConfig, ...]
    most_rounds: int = 60  # a round is one request of every side
    most_seconds: float = 300.0  # of measuring; loading, compiling and warm-up are not counted
    early: bool = True  # end as soon as it is decided; an A/A test never does

    def __post_init__(self) -> None:
        if not 2 <= len(self.sides) <= 8:
            raise ValueError(Reason("config.sides", sides=len(self.sides)))
        first = self.sides[0]
        if any(side.workload != first.workload for side in self.sides):
            raise ValueError(Reason("config.workloads-differ"))
        if self.most_rounds < 2 or self.most_seconds <= 0:
            raise ValueError(Reason("config.caps"))

    @property
    def same(self) -> bool:
        """Whether all sides are one configuration (an A/A test)."""
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
