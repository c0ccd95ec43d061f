"""llama.cpp: runs the model's own GGUF file in llama.cpp, so that its numbers stand beside those of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from core import paths
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.weights import weight_bytes
from core.models.base import TASKS
from core.pass_api.base import CPU_ONLY, Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import RUNS_ELSEWHERE, Exclusion, Group
from core.pass_api.extras import missing
from core.pass_api.subject import Subject
from core.runtimes.llama_binding import Binding, Settings, open_file, package
from core.runtimes.llama_engine import LlamaEngine, file_of, hand_over, key_shapes
from core.runtimes.runtime_pass import threads_in_words

LEAST_CONTEXT = 512
"""Positions there is room for at least: quality is measured on texts of half that, however short the workload is."""

GRAIN = 256
"""llama.cpp rounds its context up to this by itself."""


OPENING = worded("pass.llama_cpp.opening", "Opening the file in llama.cpp")


@dataclass(frozen=True)
class LlamaCppOptions:
    """Which file runs, and how its weights lie in memory."""

    file: str | None = field(
        default=None,
        metadata={
            "label": "File",
            "help": "Another GGUF file of the same vocabulary, say of another quantisation; empty: that which was loaded",
        },
    )
    repack: bool = field(
        default=True,
        metadata={
            "label": "Repack weights",
            "help": "Let llama.cpp rearrange weights for this processor as it opens the file, as it does by itself",
        },
    )


@passes.register
class LlamaCpp(Pass):
    """Opens the GGUF file in llama.cpp and lets it run the model."""

    id = "llama_cpp"
    title = "llama.cpp"
    summary = "llama.cpp runs the model's GGUF file in place of torch"
    phase = Phase.ENGINE
    options: ClassVar[type | None] = LlamaCppOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.REPLACES_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        RUNS_ELSEWHERE,
        Exclusion(frozenset({Group.PRUNES, Group.CASTS}), Reason("passes.runs-its-own-file")),
    )

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id != "cpu":
            return CPU_ONLY
        if package() is None:
            return missing("cyllama", "llama")
        if context.model is not None and context.model.task != "text-generation":
            task = context.model.task
            return Reason("passes.takes-generation", task=TASKS[task].title.lower() if task in TASKS else task)
        return None

    def apply(self, subject: Subject, options: LlamaCppOptions) -> PassReport:
        if package() is None:
            raise Refusal(Reason("passes.llama-missing", why=missing("cyllama", "llama")))
        if subject.batch > 1:
            raise Refusal(Reason("passes.llama-one-sequence"))
        path = _file(subject, options)
        subject.progress.report(OPENING, None)
        context = -(-max(subject.max_length, LEAST_CONTEXT) // GRAIN) * GRAIN
        binding = open_file(path, Settings(subject.execution.threads, context, options.repack))
        try:
            shapes = key_shapes(subject.model.config)
            _require_same_vocabulary(subject, binding, path)
        except BaseException:
            binding.close()
            raise
        gain = weight_bytes(subject.model) / max(1, binding.weight_bytes)
        modules = sum(1 for _ in subject.model.modules())
        hand_over(subject, self.id, LlamaEngine(binding, context, shapes), binding.weight_bytes)
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            modules,
            worded(
                "pass.llama_cpp.done",
                "llama.cpp {build} runs {file} ({kind})",
                build=str(binding.build),
                file=path.name,
                kind=str(binding.kind),
            ),
            notes=_notes(subject, binding, path),
            predicted={"decode": gain},
            prediction=Reason("passes.fewer-bytes-in-file", times=gain),
        )


def _file(subject: Subject, options: LlamaCppOptions) -> Path:
    """The file to open; ``Refusal`` where there is none."""
    found = paths.typed(options.file) if options.file else file_of(subject.model)
    if found is None:
        raise Refusal(Reason("passes.llama-needs-gguf"))
    if not found.is_file():
        raise Refusal(Reason("passes.llama-no-file", found=str(found)))
    return found


def _require_same_vocabulary(subject: Subject, binding: Binding, path: Path) -> None:
    """Tokens are the model's own, so the file must know as many."""
    own = int(getattr(subject.model.config.get_text_config(), "vocab_size", 0))
    if own != binding.vocabulary:
        raise Refusal(Reason("passes.llama-other-vocabulary", name=path.name, vocabulary=binding.vocabulary, own=own))


def _through(binding: Binding) -> Reason:
    package = str(binding.package)
    if binding.features:
        words = "Through {package}: {features}."
        return worded("pass.llama_cpp.through", words, package=package, features=str(binding.features))
    words = "Through {package}, which does not say which instructions its kernels use."
    return worded("pass.llama_cpp.through-unknown", words, package=package)


def _notes(subject: Subject, binding: Binding, path: Path) -> tuple[Reason, ...]:
    notes = [
        worded(
            "pass.llama_cpp.computes",
            "Computes with {threads}, weights as {file} holds them, keys and values in 16 bits.",
            threads=threads_in_words(subject.execution.threads),
            file=path.name,
        ),
        _through(binding),
        worded("pass.llama_cpp.tells-not", "llama.cpp does not tell which kernels it ran, nor when its layers begin and end."),
    ]
    if binding.copies_logits:
        notes.append(
            worded(
                "pass.llama_cpp.copies",
                "This package gives predictions as a list of Python numbers: for a vocabulary of 50,000 that takes 1 to 3 ms "
                "of every step, which llama.cpp itself does not need. Where llama-cpp-python is installed, it is used instead.",
            )
        )
    return tuple(notes)
