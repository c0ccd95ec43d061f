"""Windows: a text longer than an encoder can see is read in overlapping pieces, and the results are stitched.

Every window has the same width (the last one is moved back instead of cut short), begins and ends with the special tokens that
the whole text has at its ends, and is one forward of the model, so one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from core.execution.tasks.labels import probabilities
from core.pass_api.subject import Subject, Windows

if TYPE_CHECKING:
    import torch

PER_TOKEN = ("last_hidden_state", "start_logits", "end_logits")
"""Results with one entry per position, besides ``logits`` of three dimensions."""


@dataclass(frozen=True)
class _Cut:
    """Which positions a window reads, and how much each of its results counts in the whole."""

    positions: torch.Tensor  # of the whole text, in the order in which the window reads them [width]
    shares: torch.Tensor  # [width]; the shares of one position sum to 1 over all windows


def call_in_windows(subject: Subject, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The model's output for ``tensors``, read in the subject's windows where the text is longer than one.

    Args:
        subject: an encoder with its passes.
        tensors: arguments of its forward; ``input_ids`` [batch, length] and others of that shape.

    Returns:
        The model's own output, or one with the same fields: per-token results [batch, length, …] put side by side, and for a
        classifier of whole texts ``logits`` [batch, labels], those of the mean probabilities, windows weighted by the tokens
        that they answer for.
    """
    windows = subject.execution.windows
    length = 0 if windows is None else int(tensors["input_ids"].shape[1])
    if windows is None or length <= windows.size:
        return subject.model(**tensors)
    stitched: dict[str, Any] = {}
    config = getattr(subject.model, "config", None)
    for cut in _cuts(windows, length, *_edges(subject, tensors)):
        at = cut.positions.to(tensors["input_ids"].device)
        pieces = {
            name: tensor.index_select(1, at) if _is_per_position(tensor, length) else tensor for name, tensor in tensors.items()
        }
        _add(stitched, subject.model(**pieces), _Cut(at, cut.shares.to(at.device)), length, config)
    if "probabilities" in stitched:
        stitched["logits"] = logits_of(stitched.pop("probabilities") / length, config)
    return SimpleNamespace(**{"logits": None, **stitched})


def _edges(subject: Subject, tensors: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """How many special tokens every sequence begins and ends with; none where sequences are padded to different lengths."""
    special = set(getattr(subject.tokenizer, "all_special_ids", ()))
    mask = tensors.get("attention_mask")
    if not special or (mask is not None and not bool(mask.all())):
        return 0, 0
    rows = tensors["input_ids"].tolist()
    return min(_leading(row, special) for row in rows), min(_leading(row[::-1], special) for row in rows)


def _leading(row: list[int], special: set[int]) -> int:
    """How many of the first tokens are special, at most two (``[CLS]``, or a language's mark and it)."""
    count = 0
    while count < min(2, len(row)) and row[count] in special:
        count += 1
    return count


def _cuts(windows: Windows, length: int, before: int, after: int) -> Iterator[_Cut]:
    """The windows of a text with so many special tokens at its ends."""
    import torch

    inner = windows.size - before - after  # of the text itself
    whole = length - before - after
    step = max(1, inner - windows.overlap)
    starts = list(range(0, max(1, whole - inner), step))
    starts.append(whole - inner)
    starts = sorted(set(starts))
    counts = _counts(starts, inner, whole, windows.keep)
    first, last = torch.arange(before), torch.arange(length - after, length)
    for index, start in enumerate(starts):
        positions = torch.cat([first, torch.arange(start, start + inner) + before, last])
        ends = [torch.full((before,), float(index == 0)), torch.full((after,), float(index == len(starts) - 1))]
        yield _Cut(positions, torch.cat([ends[0], counts[index], ends[1]]))


def _counts(starts: list[int], inner: int, whole: int, keep: str) -> torch.Tensor:
    """How much each window's result counts for each of its positions [windows, inner]; see ``Windows.keep``."""
    import torch

    far = whole + inner
    at = torch.arange(inner)
    # how far inside its window each position lies; the ends of the text are no edges
    depth = torch.full((len(starts), whole), -1)
    for index, start in enumerate(starts):
        to_left = at if start > 0 else torch.full_like(at, far)
        to_right = (inner - 1 - at) if start + inner < whole else torch.full_like(at, far)
        depth[index, start : start + inner] = torch.minimum(to_left, to_right)
    if keep == "centre":
        shares = torch.nn.functional.one_hot(depth.argmax(0), len(starts)).T.float()
    else:
        seen = (depth >= 0).float()
        shares = seen / seen.sum(0)
    return torch.stack([shares[index, start : start + inner] for index, start in enumerate(starts)])


def _add(stitched: dict[str, Any], output: Any, cut: _Cut, length: int, config: Any) -> None:
    """Add one window's results to those of the windows before it."""
    for name, value in output.items():
        if name in PER_TOKEN or (name == "logits" and value.ndim == 3):
            if name not in stitched:
                stitched[name] = value.new_zeros(value.shape[0], length, *value.shape[2:])
            share = cut.shares.to(value.dtype).view(-1, *[1] * (value.ndim - 2))
            stitched[name].index_add_(1, cut.positions, value * share)
        elif name == "logits":
            part = probabilities(value.float(), config) * cut.shares.sum()
            stitched["probabilities"] = stitched.get("probabilities", 0) + part


def logits_of(told: torch.Tensor, config: Any) -> torch.Tensor:
    """The logits of which ``probabilities`` makes ``told``, [batch, labels]."""
    if told.shape[-1] == 1:
        return told
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return told.logit()
    return told.log()


def _is_per_position(tensor: torch.Tensor, length: int) -> bool:
    return tensor.ndim >= 2 and tensor.shape[1] == length
