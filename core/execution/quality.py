"""Quality: what a model's passes cost, measured against the same model before they were applied."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from core.analysis import quality as measures
from core.analysis.quality_headline import SECOND
from core.errors import Cancelled, Refusal
from core.execution import layer_error, task_outputs, teacher_forcing
from core.execution.baseline import LAYERS_ERROR, Baseline, Tolerate, call_of
from core.execution.model_slot import PreparedModel
from core.messages.reason import Reason
from core.models.base import LoadedModel
from core.pass_api.subject import Subject
from core.passes.speculative import ARGUMENTS as GUESSING
from core.planning.kernels import as_run
from core.progress import Progress
from core.records.run import Estimate, Quality

if TYPE_CHECKING:
    import torch

NEAR_TIE = 0.02
"""Two best tokens whose log-probabilities lie this close may change places by rounding alone."""

MEASURING = Reason("execution.measuring")


def cost(
    subject: Subject,
    loaded: LoadedModel,
    baseline: Baseline,
    progress: Progress,
    *,
    device: str = "cpu",
    places: Mapping[Any, str] | None = None,
    lossless: bool = False,
) -> Quality:
    """What the passes cost: the model's answers now against those of ``baseline``. Call it outside of any moment.

    Args:
        subject: the model with its passes.
        loaded: the same model as its source gave it (tokenizer and facts).
        baseline: of the same model, material and room.
        progress: told how far it is; may cancel.
        device: where the model is.
        places: ``layer_error.places`` of this very model before its passes; None: layers are held against those of their path.
        lossless: all passes claim to keep every token.

    Raises:
        Refusal: nothing of it could be measured; says why.
    """
    start = time.perf_counter_ns()
    measured = _Measurement(subject, baseline, progress, device)
    progress.report(MEASURING, 0.0)
    before = baseline.read()
    measured.language(before) if baseline.windows is not None else measured.others(before, loaded)
    progress.report(MEASURING, 0.8)
    measured.accuracy(loaded)
    layers = measured.layers(before.get("layers", {}), places or {})
    if not measured.positions and not layers:
        raise Refusal(measured.notes[0] if measured.notes else Reason("execution.nothing-to-compare"))
    return Quality(
        measured.figures,
        baseline.text,
        measured.positions,
        baseline.described,
        layers,
        measured.equal if lossless else None,
        tuple(dict.fromkeys((*baseline.notes, *measured.notes))),
        time.perf_counter_ns() - start,
        baseline.second_text if measured.second_positions else "",
        measured.second_positions,
    )


def cost_of(
    prepared: PreparedModel, device: str, progress: Progress, *, lossless: bool
) -> tuple[Quality | None, Reason | None]:
    """The cost of a run's passes, measured or known already, or why there is none. A cancel is one reason among others."""
    standard = prepared.standard
    if standard is None or standard.baseline is None:
        return None, standard.why if standard is not None else None
    baseline, part = standard.baseline, Tolerate()
    quality = baseline.result(standard.passes)
    if quality is not None:
        return quality, None
    try:
        with part:
            quality = cost(
                prepared.subject,
                prepared.loaded,
                baseline,
                progress,
                device=device,
                places=standard.places,
                lossless=lossless,
            )
            baseline.results.append((standard.passes, quality))
    except Cancelled:
        part.why = Reason("execution.cancelled-before-known")
    return quality, part.why


class _Measurement:
    """One cost under way: what is known so far."""

    def __init__(self, subject: Subject, baseline: Baseline, progress: Progress, device: str) -> None:
        self.figures: dict[str, Estimate] = {}
        self.notes: list[Reason] = []
        self.positions = 0
        self.second_positions = 0
        self.equal: bool | None = None
        self._subject = subject
        self._model: Any = subject.model
        self._baseline = baseline
        self._progress = progress
        self._device = device

    # -- language models ---------------------------------------------------------------------------------------------------

    def language(self, before: Mapping[str, Any]) -> None:
        """A text read in one go, the decoding path, and greedy tokens; the same of a second text, without the tokens."""
        laid = self._baseline.windows
        assert laid is not None
        self._text(laid, before, "", 0.0)
        if self._baseline.second_windows is not None:
            self._text(self._baseline.second_windows, before, SECOND, 0.35)
        if laid.decode is None:
            self.notes.append(Reason("execution.too-short-for-decoding"))
            return
        self._progress.report(MEASURING, 0.7)
        with Tolerate(Reason("execution.equality-of-tokens"), self.notes), self._as_run():
            self._tokens(
                teacher_forcing.greedy(self._model, _some(laid.greedy), len(self._baseline.tokens[0]), self._generation)
            )

    def _text(self, laid: teacher_forcing.Windows, before: Mapping[str, Any], prefix: str, begin: float) -> None:
        """One text, both ways; ``prefix`` goes before the names of its figures."""
        with Tolerate(self._of(Reason("execution.read-in-one-go"), prefix), self.notes):
            pieces = []
            for number, row in enumerate(laid.bulk):
                self._progress.report(MEASURING, begin + 0.15 * number / len(laid.bulk))
                after = teacher_forcing.bulk_logits(self._model, row, laid.scored)
                pieces.append(measures.score(before[f"{prefix}bulk"][number], after, laid.targets[number]))
            self._language_figures(measures.joined(pieces), prefix)
        if laid.decode is not None:
            with Tolerate(self._of(Reason("execution.decoding-path"), prefix), self.notes), self._as_run():
                self._decoding(laid, before[f"{prefix}decode"], prefix, begin + 0.15)

    def _of(self, what: Reason, prefix: str) -> Reason:
        """A part of the measurement, with the text that it is of where that is the second one."""
        return Reason("execution.of-second-text", what=what, text=self._baseline.second_text) if prefix else what

    @property
    def _generation(self) -> Mapping[str, Any]:
        return self._subject.execution.generation

    def _as_run(self) -> AbstractContextManager[None]:
        return as_run(self._subject)

    def _decoding(self, laid: teacher_forcing.Windows, before: torch.Tensor, prefix: str, begin: float) -> None:
        if not GUESSING.isdisjoint(self._generation):
            self.notes.append(Reason("execution.judged-by-tokens"))
            return
        windows = _some(laid.decode)
        pieces: dict[tuple[int, ...], measures.Scores] = {}  # a short text's windows repeat, and tell nothing new
        for number, batch in enumerate(windows.split(laid.batch)):
            self._progress.report(MEASURING, begin + 0.2 * number * laid.batch / len(windows))
            after = teacher_forcing.decoded_logits(self._model, batch, laid.prompt, self._generation)
            first = number * laid.batch
            for row, logits in enumerate(after):
                targets = batch[row, laid.prompt + 1 :]
                pieces.setdefault(tuple(batch[row].tolist()), measures.score(before[first + row], logits, targets))
        scores = measures.joined(list(pieces.values()))
        if f"{prefix}same_top" not in self.figures:
            self.notes.append(Reason("execution.figures-of-decoding"))
            self._language_figures(scores, prefix)
        elif not prefix:
            self._say_if_unusable(scores, decoding=True)
        found = measures.language_figures(scores)
        self.figures |= {f"{prefix}decode_{name}": found[name] for name in ("kld_mean", "same_top") if name in found}

    def _language_figures(self, scores: measures.Scores, prefix: str) -> None:
        self.figures |= {f"{prefix}{name}": figure for name, figure in measures.language_figures(scores).items()}
        if prefix:
            self.second_positions = len(scores)
            return
        self.positions = len(scores)
        self._say_if_unusable(scores)

    def _say_if_unusable(self, scores: measures.Scores, *, decoding: bool = False) -> None:
        bad, positions = measures.unusable(scores), len(scores)
        if bad and decoding:
            self.notes.append(Reason("execution.unusable-while-decoding", bad=bad, n=positions))
        elif bad:
            self.notes.append(Reason("execution.unusable", bad=bad, n=positions))

    def _tokens(self, after: list[list[int]]) -> None:
        before = self._baseline.tokens
        equal, total = measures.equal_tokens(before, after)
        self.figures["token_agreement"] = Estimate(equal / total)
        self.equal = before == after
        if not self.equal:
            self.notes += self._why_unequal(after)

    def _why_unequal(self, after: list[list[int]]) -> list[Reason]:
        """Where the tokens part, if two of them were about equally good there: then it is no fault of a lossless pass."""
        for row, (ours, theirs) in enumerate(zip(self._baseline.tokens, after, strict=True)):
            place = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
            if place is None or row >= len(self._baseline.margins):
                continue
            margin = self._baseline.margins[row][place]
            if margin < NEAR_TIE or (not self._baseline.exact and margin < 10 * NEAR_TIE):
                return [Reason("execution.near-tie", number=place + 1, margin=margin)]
            return [Reason("execution.first-different-token", number=place + 1)]
        return []

    # -- all others --------------------------------------------------------------------------------------------------------

    def others(self, before: Mapping[str, Any], loaded: LoadedModel) -> None:
        """Answers to the examples."""
        found = self._baseline
        with Tolerate(Reason("execution.answers"), self.notes):
            figures, self.positions = self._answers(found.examples, before, "", loaded)
            self.figures |= figures
            if not figures:
                self.notes.append(Reason("execution.all-equal"))
        if found.second_examples:
            with Tolerate(self._of(Reason("execution.answers"), SECOND), self.notes):
                figures, self.second_positions = self._answers(found.second_examples, before, SECOND, loaded)
                self.figures |= {f"{SECOND}{name}": figure for name, figure in figures.items()}
        if any(example.written is not None for example in found.examples):
            with Tolerate(Reason("execution.equality-of-tokens"), self.notes), self._as_run():
                ours = [_some(example.written)[0].tolist() for example in found.examples]
                theirs = [
                    task_outputs.written(self._model, example, self._generation)[0].tolist() for example in found.examples
                ]
                equal, total = measures.equal_tokens(ours, theirs)
                self.figures["token_agreement"] = Estimate(equal / total)
                self.equal = ours == theirs

    def _answers(
        self, examples: Sequence[task_outputs.Example], before: Mapping[str, Any], prefix: str, loaded: LoadedModel
    ) -> tuple[dict[str, Estimate], int]:
        """The figures of one text's examples, and on how many positions they rest."""
        after = []
        for number, example in enumerate(examples):
            self._progress.report(MEASURING, (0.3 if prefix else 0.0) + 0.3 * number / len(examples))
            after.append(task_outputs.answer(self._model, example, loaded.facts.task))
        rows = zip(*(before[f"{prefix}{name}"] for name in ("kinds", "values", "targets")), strict=True)
        return task_outputs.figures([task_outputs.TaskOutput(*row) for row in rows], after)

    def accuracy(self, loaded: LoadedModel) -> None:
        """Share of the user's examples that each of the two gets right."""
        found = self._baseline
        if not found.labelled:
            return
        import torch

        with Tolerate(Reason("execution.accuracy"), self.notes):
            hits = task_outputs.hits(self._model, loaded, found.labelled, self._device, self._progress)
            self.figures["accuracy"] = measures.share(torch.tensor(hits, dtype=torch.float64))
            self.figures["accuracy_before"] = measures.share(torch.tensor(found.hits, dtype=torch.float64))

    def layers(self, before: Mapping[str, torch.Tensor], places: Mapping[Any, str]) -> dict[str, float | None]:
        """Layer error by path; empty where another engine runs the model, whose layers nobody can look into."""
        runtime = self._subject.execution.runtime
        if runtime is not None:
            self.notes.append(Reason("execution.layers-not-shown", engine=runtime.name))
            return {}
        with Tolerate(LAYERS_ERROR, self.notes):
            return layer_error.errors(self._model, before, places, call_of(self._model, self._baseline)) if before else {}
        return {}


def _some(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor
