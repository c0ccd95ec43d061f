"""Answers: what models that do not simply continue a text say to a set of examples, in a form that can be compared."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.analysis.quality import embedding_figures, joined, language_figures, mean, score, sqnr_db
from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.eval_data import EvalData, Labelled
from core.execution.layer_error import first_tensor
from core.execution.tasks.base import form_of
from core.execution.tasks.generating import greedily
from core.execution.tasks.placing import placed
from core.messages.reason import Reason
from core.models.base import TASKS, LoadedModel, generates
from core.progress import Progress
from core.records.run import Estimate

if TYPE_CHECKING:
    import torch

EXAMPLES: Mapping[str, int] = {"text": 24, "image": 8, "image-text": 3, "speech": 3, "tensors": 4}
"""Examples by what a model is given; a second of sound takes a model longer than a sentence."""

GENERATED = 16
"""Tokens that an encoder-decoder writes about each example; these are then read back by both models (teacher forcing)."""

LAST_POSITIONS = 32
"""Positions of a long answer over a vocabulary that are compared: there is no room for a picture's hundreds."""

RANDOM_LENGTH = 24
"""Tokens of an example for a model without tokenizer."""


@dataclass(frozen=True)
class TaskOutput:
    """What a model said to one example.

    ``kind``: "vocabulary" or "classes" (logits [n, choices]), "embedding" [n, size], or "numbers" [1, count] of no known
    meaning. ``targets`` are the tokens that should follow, int64 [n], for a vocabulary.
    """

    kind: str
    values: torch.Tensor
    targets: torch.Tensor | None = None


@dataclass(frozen=True)
class Example:
    """The arguments of one call of the model's forward; ``written`` are the tokens it wrote about them, [1, length].

    ``arguments`` are what its ``generate`` is told beside them.
    """

    tensors: Mapping[str, Any]
    written: torch.Tensor | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def examples(loaded: LoadedModel, material: EvalData, device: str) -> Iterator[Example]:
    """Examples for this kind of model, made as requests are made, the same ones each time.

    Raises:
        Refusal: none of the text fits the model's context.
    """
    task = TASKS[loaded.facts.task]
    most = 8 if loaded.facts.task == "seq2seq" else EXAMPLES.get(task.modality, 4)
    texts = material.sentences(most if task.modality == "text" else 1)
    limit = loaded.facts.context_length
    made = 0
    for seed in range(most):
        text = texts[seed % len(texts)]
        form = form_of(loaded, _workload(loaded, text, seed), device)
        tensors = dict(form.inputs().tensors)
        ids = tensors.get("input_ids")
        if ids is None or limit is None or ids.shape[-1] <= limit:
            made += 1
            yield Example(tensors, arguments=getattr(form, "arguments", {}))
        if task.modality == "text" and seed + 1 >= len(texts) and loaded.tokenizer is not None:
            break
    if not made:
        raise Refusal(Reason("execution.no-sentence-short-enough", limit=limit, name=loaded.facts.name))


def labelled_example(loaded: LoadedModel, one: Labelled, device: str) -> Example:
    """One of the user's examples."""
    workload = _workload(loaded, one.text or "-", 0)
    tensors = dict(form_of(loaded, replace(workload, image=one.image or None), device).inputs().tensors)
    limit, ids = loaded.facts.context_length, tensors.get("input_ids")
    if limit is not None and ids is not None and ids.shape[-1] > limit:
        tensors = {name: value[..., :limit] if value.shape == ids.shape else value for name, value in tensors.items()}
    return Example(tensors)


def _workload(loaded: LoadedModel, text: str, seed: int) -> WorkloadConfig:
    if loaded.tokenizer is None:
        return WorkloadConfig(prompt_tokens=min(RANDOM_LENGTH, loaded.facts.context_length or RANDOM_LENGTH), seed=seed)
    return WorkloadConfig(prompt=text, question="What is this about?", seed=seed)


def is_encoder_decoder(model: Any) -> bool:
    """Whether an encoder reads the inputs and a decoder writes the answer."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def written(model: Any, example: Example, generation: Mapping[str, Any]) -> torch.Tensor:
    """What the model writes about an example, greedily: int64 [1, length], on the CPU."""
    arguments = {**example.arguments, **generation}
    return greedily(model, _placed(example.tensors, model), GENERATED, arguments).cpu()


def _placed(tensors: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The arguments in the numbers that the model's weights have now."""
    return {name: placed(value, model, getattr(model, "device", "cpu")) for name, value in tensors.items()}


def answer(model: Any, example: Example, task: str) -> TaskOutput:
    """Ask the model once; what was written about the example is given to its decoder."""
    import torch

    tensors = _placed(example.tensors, model)
    if example.written is not None:
        tensors["decoder_input_ids"] = example.written[:, :-1].to(getattr(model, "device", "cpu"))
    if generates(task) and "use_cache" in inspect.signature(model.forward).parameters:
        tensors["use_cache"] = False
    with torch.no_grad():
        output = model(**tensors)
    return _read(output, example, generative=generates(task))


def _read(output: Any, example: Example, *, generative: bool) -> TaskOutput:
    """What an output means, by the names that transformers gives its parts."""
    import torch

    start, end = getattr(output, "start_logits", None), getattr(output, "end_logits", None)
    if start is not None and end is not None:
        return TaskOutput("classes", torch.cat([start, end]).float().cpu())
    logits = getattr(output, "logits", None)
    if logits is not None and logits.ndim >= 2 and logits.shape[-1] > 1:
        if generative:
            return _vocabulary(logits, example)
        return TaskOutput("classes", logits.reshape(-1, logits.shape[-1])[-512:].float().cpu())
    hidden = getattr(output, "last_hidden_state", None) if logits is None else None
    if hidden is not None:
        return TaskOutput("embedding", _pooled(hidden, example.tensors.get("attention_mask")).float().cpu())
    tensor = first_tensor(output)
    if tensor is None:
        raise ValueError(Reason("execution.no-numbers"))
    return TaskOutput("numbers", tensor.reshape(1, -1).float().cpu())


def _vocabulary(logits: torch.Tensor, example: Example) -> TaskOutput:
    """Logits [1, length, vocabulary] with the tokens that follow, as far as they are known."""
    if example.written is not None:
        return TaskOutput("vocabulary", logits[0].float().cpu(), example.written[0, 1:])
    ids = example.tensors.get("input_ids")
    if ids is None or ids.shape[-1] != logits.shape[1]:
        return TaskOutput("vocabulary", logits[0, -LAST_POSITIONS:].float().cpu())
    return TaskOutput(
        "vocabulary", logits[0, -LAST_POSITIONS - 1 : -1].float().cpu(), ids[0, -LAST_POSITIONS:][-len(logits[0]) + 1 :].cpu()
    )


def _pooled(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The mean over positions [batch, size]; those that the mask leaves out do not count."""
    if hidden.ndim != 3:
        return hidden.reshape(hidden.shape[0], hidden.shape[1], -1).mean(-1) if hidden.ndim > 3 else hidden
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(1)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def figures(before: Sequence[TaskOutput], after: Sequence[TaskOutput]) -> tuple[dict[str, Estimate], int]:
    """The figures for this kind of answer, and on how many positions or examples they rest.

    Raises:
        ValueError: the two models gave answers of different shapes.
    """
    import torch

    kind = before[0].kind
    if kind == "embedding":
        ours, theirs = torch.cat([one.values for one in before]), torch.cat([one.values for one in after])
        return embedding_figures(ours, theirs), len(ours)
    if kind == "numbers":
        ours, theirs = (torch.cat([one.values.flatten() for one in side]) for side in (before, after))
        ratio = sqnr_db(ours, theirs)
        return ({} if ratio is None else {"output_sqnr_db": Estimate(ratio)}), len(before)
    scores = joined([score(one.values, other.values, one.targets) for one, other in zip(before, after, strict=True)])
    if kind == "classes":
        return {"same_top": mean(scores.same_top, scores.windows)}, len(scores)
    return language_figures(scores), len(scores)


def hits(
    model: Any, loaded: LoadedModel, labelled: Sequence[tuple[Labelled, int]], device: str, progress: Progress
) -> list[bool]:
    """For each labelled example whether the model's best class is the right one."""
    found = []
    for one, wanted in labelled:
        progress.check()
        values = answer(model, labelled_example(loaded, one, device), loaded.facts.task).values
        found.append(int(values[-1].argmax()) == wanted)
    return found
