"""Healing: a short knowledge distillation that teaches a changed model to answer as the original does.

The loss is T² · KL(teacher ‖ student) of the softened distributions, averaged over positions (Hinton et al. 2015,
arXiv:1503.02531). Embeddings and the output head stay as they are; weights that a mask set to zero stay zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.progress import Progress
from core.pruning.calibration import forward

if TYPE_CHECKING:
    import torch

HELD_OUT = 8  # sequences at most
HELD_OUT_SHARE = 0.1
WARMUP_SHARE = 0.1
LAST_RATE = 0.1  # of the learning rate, at the last step
LONGEST_GRADIENT = 1.0
SPARSE_SHARE = 0.01
"""From this share of zeros on they are a mask's, which healing keeps; weights as trained have next to none."""


@dataclass(frozen=True)
class Plan:
    """``steps`` of one sequence of ``length`` tokens each."""

    steps: int
    length: int
    learning_rate: float
    temperature: float


@dataclass(frozen=True)
class Healed:
    """Mean KL divergence to the original over the held-out positions, in nats, and what was seen."""

    before: float
    after: float
    held_out_tokens: int
    tokens_seen: int
    rounds: float  # how often the whole training part was seen
    matrices: int  # that were trained


def sequences(ids: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut tokens [count] into training and held-out sequences [n, length]; those held out are spread over the text.

    Raises:
        Refusal: the text is too short for two sequences.
    """
    count = len(ids) // length
    if count < 2:
        raise Refusal(Reason("pruning.text-too-short-to-heal", ids_count=len(ids), what=2 * length, length=length))
    cut = ids[: count * length].view(count, length)
    many = min(HELD_OUT, max(1, round(count * HELD_OUT_SHARE)))
    chosen = {(place + 1) * count // many - 1 for place in range(many)}
    train = [number for number in range(count) if number not in chosen]
    return cut[train], cut[sorted(chosen)]


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """Everything but embeddings and the output head (which may share their weight), each parameter once."""
    import torch

    head = model.get_output_embeddings()
    frozen = {
        id(value) for module in model.modules() if isinstance(module, torch.nn.Embedding) for value in module.parameters()
    }
    frozen |= {id(value) for value in head.parameters()} if head is not None else set()
    return [value for value in model.parameters() if id(value) not in frozen and value.is_floating_point()]


def heal(student: Any, teacher: Any, data: tuple[torch.Tensor, torch.Tensor], plan: Plan, progress: Progress) -> Healed:
    """Train ``student`` in place to answer as ``teacher`` on the first of ``data``, measured on the second.

    Raises:
        Refusal: the two already answer alike, or training went out of bounds.
        Cancelled: the user stopped; within a step.
    """
    import torch

    train, held_out = data
    before = divergence(student, teacher, held_out, progress)
    if before == 0:
        raise Refusal(Reason("pruning.nothing-to-heal"))
    if not math.isfinite(before):
        raise Refusal(Reason("pruning.answers-not-finite"))
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(len(train), generator=generator) for _ in range(-(-plan.steps // len(train)))])
    with _training(student) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, foreach=False)
        sparse = [value for value in parameters if value.dim() > 1 and (value == 0).float().mean().item() > SPARSE_SHARE]
        for step in range(plan.steps):
            progress.report(Reason("pruning.healing", number=step + 1, of=plan.steps), step / plan.steps)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate(step, plan.steps)
            _step(student, teacher, train[order[step]][None], plan, progress)
            for value in sparse:
                if value.grad is not None:
                    value.grad.mul_(value != 0)  # a zero without a gradient stays zero: there is no weight decay
            if not math.isfinite(torch.nn.utils.clip_grad_norm_(parameters, LONGEST_GRADIENT, foreach=False).item()):
                raise Refusal(Reason("pruning.healing-diverged", step=step + 1))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        matrices = sum(value.dim() > 1 for value in parameters)
    after = divergence(student, teacher, held_out, progress)
    seen = plan.steps * plan.length
    return Healed(before, after, held_out.numel(), seen, plan.steps / len(train), matrices)


def divergence(student: Any, teacher: Any, held_out: torch.Tensor, progress: Progress) -> float:
    """Mean KL(teacher ‖ student) over all positions of sequences [n, length], in nats."""
    import torch

    total = 0.0
    with torch.no_grad():
        for sequence in held_out:
            progress.check()
            expected, given = (_log_probabilities(model, sequence[None], 1.0) for model in (teacher, student))
            total += torch.nn.functional.kl_div(given, expected, log_target=True, reduction="sum").item()
    return max(total, 0.0) / held_out.numel()  # in this order NaN stays NaN


def rate(step: int, steps: int) -> float:
    """The learning rate's factor: rises over the first tenth of the steps, then falls on a cosine to a tenth."""
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def _step(student: Any, teacher: Any, ids: torch.Tensor, plan: Plan, progress: Progress) -> None:
    """Leave the gradients of one sequence [1, length] in the student's parameters."""
    import torch

    with torch.no_grad():
        expected = _log_probabilities(teacher, ids, plan.temperature)
    progress.check()
    given = _log_probabilities(student, ids, plan.temperature)
    progress.check()
    loss = torch.nn.functional.kl_div(given, expected, log_target=True, reduction="sum") / ids.numel()
    (plan.temperature**2 * loss).backward()


def _log_probabilities(model: Any, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """[tokens, vocabulary], float32."""
    import torch

    logits = forward(model, ids.to(next(model.parameters()).device), use_cache=False).logits[0].float()
    return torch.nn.functional.log_softmax(logits / temperature, dim=-1)


@contextmanager
def _training(student: Any) -> Iterator[list[torch.nn.Parameter]]:
    """Gradients are on for what is trained, inside only. Dropout stays off: so short a training needs none."""
    import torch

    parameters = trainable(student)
    wanted = [value.requires_grad for value in parameters]
    try:
        for value in parameters:
            value.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for value, had in zip(parameters, wanted, strict=True):
            value.requires_grad_(had)
            value.grad = None
        student.eval()
