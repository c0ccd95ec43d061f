"""Quality: what a model's passes cost, measured against the same model before they were applied."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from core.analysis import quality as measures
from core.engine import answers, forced, layer_error
from core.engine.baseline import Baseline, Part, call_of
from core.engine.holder import Prepared
from core.errors import Cancelled, Refusal
from core.models.base import LoadedModel
from core.passes.base import Subject
from core.passes.guessed import ARGUMENTS as GUESSING
from core.passes.kernels import as_run
from core.progress import Progress
from core.session.run import Figure, Quality

if TYPE_CHECKING:
    import torch

NEAR_TIE = 0.02
"""Two best tokens whose log-probabilities lie this close may change places by rounding alone."""

MEASURING = "Measuring quality"


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
        raise Refusal(measured.notes[0] if measured.notes else "Nothing that this kind of model says can be compared.")
    return Quality(
        measured.figures,
        baseline.text,
        measured.positions,
        baseline.described,
        layers,
        measured.equal if lossless else None,
        tuple(dict.fromkeys((*baseline.notes, *measured.notes))),
        time.perf_counter_ns() - start,
    )


def cost_of(prepared: Prepared, device: str, progress: Progress, *, lossless: bool) -> tuple[Quality | None, str | None]:
    """The cost of a run's passes, measured or known already, or why there is none. A cancel is one reason among others."""
    standard = prepared.standard
    if standard is None or standard.baseline is None:
        return None, standard.why if standard is not None else None
    baseline, part = standard.baseline, Part()
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
        part.why = "cancelled before it was known"
    return quality, part.why


class _Measurement:
    """One cost under way: what is known so far."""

    def __init__(self, subject: Subject, baseline: Baseline, progress: Progress, device: str) -> None:
        self.figures: dict[str, Figure] = {}
        self.notes: list[str] = []
        self.positions = 0
        self.equal: bool | None = None
        self._subject = subject
        self._model: Any = subject.model
        self._baseline = baseline
        self._progress = progress
        self._device = device

    # -- language models ---------------------------------------------------------------------------------------------------

    def language(self, before: Mapping[str, Any]) -> None:
        """A text read in one go, the decoding path, and greedy tokens."""
        laid = self._baseline.windows
        assert laid is not None
        with Part("a text read in one go", self.notes):
            pieces = []
            for number, row in enumerate(laid.bulk):
                self._progress.report(MEASURING, 0.4 * number / len(laid.bulk))
                after = forced.bulk_logits(self._model, row, laid.scored)
                pieces.append(measures.score(before["bulk"][number], after, laid.targets[number]))
            self._language_figures(measures.joined(pieces))
        if laid.decode is None:
            self.notes.append("The workload is too short for the decoding path: ask for at least three tokens in all.")
            return
        with self._as_run():
            with Part("the decoding path", self.notes):
                self._decoding(laid, before["decode"])
            self._progress.report(MEASURING, 0.7)
            with Part("equality of tokens", self.notes):
                self._tokens(forced.greedy(self._model, _some(laid.greedy), len(self._baseline.tokens[0]), self._generation))

    @property
    def _generation(self) -> Mapping[str, Any]:
        return self._subject.generation

    def _as_run(self) -> AbstractContextManager[None]:
        return as_run(self._subject)

    def _decoding(self, laid: forced.Windows, before: torch.Tensor) -> None:
        if not GUESSING.isdisjoint(self._generation):
            self.notes.append(
                "Tokens are guessed and checked several at a time, so the decoding path is judged by its tokens alone."
            )
            return
        windows = _some(laid.decode)
        pieces = []
        for number, batch in enumerate(windows.split(laid.batch)):
            self._progress.report(MEASURING, 0.4 + 0.3 * number * laid.batch / len(windows))
            after = forced.decoded_logits(self._model, batch, laid.prompt, self._generation)
            first = number * laid.batch
            for row, logits in enumerate(after):
                targets = batch[row, laid.prompt + 1 :]
                pieces.append(measures.score(before[first + row], logits, targets))
        scores = measures.joined(pieces)
        if "same_top" not in self.figures:
            self.notes.append("The figures are those of the decoding path.")
            self._language_figures(scores)
        found = measures.language_figures(scores)
        self.figures |= {f"decode_{name}": found[name] for name in ("kld_mean", "same_top") if name in found}

    def _language_figures(self, scores: measures.Scores) -> None:
        self.figures |= measures.language_figures(scores)
        self.positions = len(scores)
        bad = measures.unusable(scores)
        if bad:
            self.notes.append(
                f"At {bad} of {len(scores)} positions its logits are no finite numbers: it cannot be used like this."
            )

    def _tokens(self, after: list[list[int]]) -> None:
        before = self._baseline.tokens
        equal, total = measures.equal_tokens(before, after)
        self.figures["token_agreement"] = Figure(equal / total)
        self.equal = before == after
        if not self.equal:
            self.notes += self._why_unequal(after)

    def _why_unequal(self, after: list[list[int]]) -> list[str]:
        """Where the tokens part, if two of them were about equally good there: then it is no fault of a lossless pass."""
        for row, (ours, theirs) in enumerate(zip(self._baseline.tokens, after, strict=True)):
            place = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
            if place is None or row >= len(self._baseline.margins):
                continue
            margin = self._baseline.margins[row][place]
            if margin < NEAR_TIE or (not self._baseline.exact and margin < 10 * NEAR_TIE):
                return [
                    f"The first token that differs (number {place + 1}) was a near tie: the two best were {margin:.2g} apart "
                    "in log-probability, which rounding alone can turn."
                ]
            return [f"The first token that differs is number {place + 1}."]
        return []

    # -- all others --------------------------------------------------------------------------------------------------------

    def others(self, before: Mapping[str, Any], loaded: LoadedModel) -> None:
        """Answers to the examples."""
        found = self._baseline
        with Part("the answers", self.notes):
            after = []
            for number, example in enumerate(found.examples):
                self._progress.report(MEASURING, 0.6 * number / len(found.examples))
                after.append(answers.answer(self._model, example, loaded.facts.task))
            rows = zip(before["kinds"], before["values"], before["targets"], strict=True)
            figures, self.positions = answers.figures([answers.Answer(*row) for row in rows], after)
            self.figures |= figures
            if not figures:
                self.notes.append("All outputs are equal bit for bit.")
        if any(example.written is not None for example in found.examples):
            with Part("equality of tokens", self.notes), self._as_run():
                ours = [_some(example.written)[0].tolist() for example in found.examples]
                theirs = [answers.written(self._model, example, self._generation)[0].tolist() for example in found.examples]
                equal, total = measures.equal_tokens(ours, theirs)
                self.figures["token_agreement"] = Figure(equal / total)
                self.equal = ours == theirs

    def accuracy(self, loaded: LoadedModel) -> None:
        """Share of the user's examples that each of the two gets right."""
        found = self._baseline
        if not found.labelled:
            return
        import torch

        with Part("accuracy", self.notes):
            hits = answers.hits(self._model, loaded, found.labelled, self._device, self._progress)
            self.figures["accuracy"] = measures.share(torch.tensor(hits, dtype=torch.float64))
            self.figures["accuracy_before"] = measures.share(torch.tensor(found.hits, dtype=torch.float64))

    def layers(self, before: Mapping[str, torch.Tensor], places: Mapping[Any, str]) -> dict[str, float | None]:
        """Layer error by path; empty where another engine runs the model, whose layers nobody can look into."""
        if self._subject.engine is not None:
            self.notes.append(f"{self._subject.engine} does not show what single layers give.")
            return {}
        with Part("the layers' error", self.notes):
            return layer_error.errors(self._model, before, places, call_of(self._model, self._baseline)) if before else {}
        return {}


def _some(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor
