"""Quality cost: how far a model's answers moved from those of the same model unoptimized, as numbers with standard errors.

The definitions are those of llama.cpp's ``tools/perplexity``: the Kullback-Leibler divergence KLD = Σ p·(ln p − ln q) over the
full vocabulary with p of the unoptimized model and q of the optimized one, Δp = q − p of the true next token, and the ratio of
perplexities as ln(PPL q / PPL p) = mean(nll q − nll p). Positions of one window depend on each other, so standard errors of
means are taken over windows (the cluster-robust ones of Liang and Zeger, 1986, with the factor G/(G − 1)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.records.run import Estimate

if TYPE_CHECKING:
    import torch

LEAST_LOG_P = -16.0
"""Terms of less probable tokens are left out of the sum, as llama.cpp does: 16-bit logits say nothing about them."""

CHUNK_CELLS = 4 << 20
"""Positions times vocabulary that are worked on at once: six float32 tensors of 16 MB."""

WORST_DB, BEST_DB = -200.0, 300.0
"""Bounds of a signal-to-noise ratio, so that it stays a number: noise that is infinite, and noise that float32 cannot hold."""


@dataclass(frozen=True)
class Scores:
    """What was seen at each scored position, float64 [n] on the CPU.

    ``kld`` in nats; ``same_top`` 1 where both models like the same token best; ``nll_before`` and ``nll_after`` are −ln of the
    probability of the token that really comes next, None where there is no such token. ``windows`` are the numbers of positions
    that lie in one window (or belong to one example), in their order; () where positions are independent.
    """

    kld: torch.Tensor
    same_top: torch.Tensor
    nll_before: torch.Tensor | None = None
    nll_after: torch.Tensor | None = None
    windows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.kld)


def score(before: torch.Tensor, after: torch.Tensor, targets: torch.Tensor | None = None) -> Scores:
    """Compare logits [n, vocabulary] of one window position by position, in float32 and in chunks.

    Args:
        before: logits of the unoptimized model, up to a constant per position, of any float type.
        after: logits of the optimized model.
        targets: the tokens that really come next, int64 [n].

    Raises:
        ValueError: the two have different shapes.
    """
    import torch

    if before.shape != after.shape:
        raise ValueError(f"logits of the shapes {tuple(before.shape)} and {tuple(after.shape)} cannot be compared")
    rows = max(1, CHUNK_CELLS // max(1, before.shape[-1]))
    pieces = []
    for start in range(0, len(before), rows):
        part = slice(start, start + rows)
        pieces.append(_score(before[part], after[part], None if targets is None else targets[part]))
    if not pieces:
        return Scores(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    return replace(joined(pieces), windows=(len(before),))


def _score(before: torch.Tensor, after: torch.Tensor, targets: torch.Tensor | None) -> Scores:
    import torch

    log_p, log_q = before.float().cpu().log_softmax(-1), after.float().cpu().log_softmax(-1)
    terms = torch.where(log_p > LEAST_LOG_P, log_p.exp() * (log_p - log_q), 0.0)
    kld = terms.sum(-1, dtype=torch.float64).clamp(min=0.0)  # rounding may take it below, which a divergence never is
    same = (log_p.argmax(-1) == log_q.argmax(-1)).double()
    if targets is None:
        return Scores(kld, same)
    chosen = targets.cpu()[:, None]
    return Scores(kld, same, -log_p.gather(-1, chosen)[:, 0].double(), -log_q.gather(-1, chosen)[:, 0].double())


def joined(pieces: Sequence[Scores]) -> Scores:
    """The positions of several pieces, one after another; all pieces have targets or none has."""
    import torch

    befores = [piece.nll_before for piece in pieces if piece.nll_before is not None]
    afters = [piece.nll_after for piece in pieces if piece.nll_after is not None]
    return Scores(
        torch.cat([piece.kld for piece in pieces]),
        torch.cat([piece.same_top for piece in pieces]),
        torch.cat(befores) if befores else None,
        torch.cat(afters) if afters else None,
        tuple(size for piece in pieces for size in piece.windows),
    )


def language_figures(scores: Scores) -> dict[str, Estimate]:
    """The figures of a language model; without KLD and its kin where the optimized model's logits are not all numbers."""
    import torch

    figures = {"same_top": mean(scores.same_top, scores.windows)}
    if not bool(torch.isfinite(scores.kld).all()):
        return figures
    figures["kld_mean"] = mean(scores.kld, scores.windows)
    figures["kld_p99"] = Estimate(float(scores.kld.quantile(0.99)))
    figures["kld_max"] = Estimate(float(scores.kld.max()))
    if scores.nll_before is not None and scores.nll_after is not None:
        figures["ln_ppl_ratio"] = mean(scores.nll_after - scores.nll_before, scores.windows)
        figures["rms_dp"] = _root_mean_square((-scores.nll_after).exp() - (-scores.nll_before).exp(), scores.windows)
    return figures


def unusable(scores: Scores) -> int:
    """Positions at which the optimized model's logits are no numbers (or give 0 to what the other thinks likely)."""
    import torch

    return int((~torch.isfinite(scores.kld)).sum())


def mean(values: torch.Tensor, windows: Sequence[int] = ()) -> Estimate:
    """Mean of float64 [n] with its standard error; none for a single value or a single window.

    Args:
        values: of all positions, window after window.
        windows: how many values each window has; (): they are independent, and the error is s/√n.
    """
    n = len(values)
    centre = values.mean()
    if not windows:
        return Estimate(float(centre), float(values.std() / math.sqrt(n)) if n > 1 else None, n, n)
    assert sum(windows) == n
    count = len(windows)
    if count < 2:
        return Estimate(float(centre), None, n, count)
    squares = sum(float(part.sum()) ** 2 for part in (values - centre).split(list(windows)))
    return Estimate(float(centre), math.sqrt(count / (count - 1) * squares) / n, n, count)


def share(hits: torch.Tensor) -> Estimate:
    """Share of ones in float64 [n], with its standard error √(p(1 − p)/(n − 1))."""
    n = len(hits)
    p = float(hits.mean())
    return Estimate(p, math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else None, n, n)


def _root_mean_square(values: torch.Tensor, windows: Sequence[int]) -> Estimate:
    """√mean(x²); its error follows from that of the mean: d√m = dm / (2√m)."""
    squares = mean(values**2, windows)
    root = math.sqrt(squares.value)
    if squares.error is None:
        return replace(squares, value=root)
    return replace(squares, value=root, error=squares.error / (2 * root) if root > 0 else 0.0)


def embedding_figures(before: torch.Tensor, after: torch.Tensor) -> dict[str, Estimate]:
    """Cosine between both models' embeddings [n, size] of the same inputs, and whether each keeps its nearest neighbour.

    ``neighbours`` needs three inputs: with two, the nearest other one is always the same.
    """
    import torch

    ours, theirs = (torch.nn.functional.normalize(values.double(), dim=-1) for values in (before, after))
    cosine = (ours * theirs).sum(-1).clamp(-1.0, 1.0)
    figures = {"cosine_mean": mean(cosine), "cosine_min": Estimate(float(cosine.min()))}
    if len(before) > 2:
        figures["neighbours"] = share((_nearest(ours) == _nearest(theirs)).double())
    return figures


def _nearest(directions: torch.Tensor) -> torch.Tensor:
    """For each of [n, size] unit vectors the number of the nearest other one."""
    return (directions @ directions.T).fill_diagonal_(-math.inf).argmax(-1)


def sqnr_db(before: torch.Tensor, after: torch.Tensor) -> float | None:
    """Signal-to-noise ratio in dB, 10·log10(Σ before² / Σ (after − before)²), within ``WORST_DB`` and ``BEST_DB``.

    None where both are equal bit for bit. Values that are no numbers on one side only are noise without bound.
    """
    import torch

    signal, other = before.float().cpu(), after.float().cpu()
    if torch.equal(signal, other) or bool(((signal == other) | (signal.isnan() & other.isnan())).all()):
        return None
    noise_power = float((other - signal).pow(2).sum(dtype=torch.float64))
    signal_power = float(signal.pow(2).sum(dtype=torch.float64))
    if not math.isfinite(noise_power) or not math.isfinite(signal_power) or signal_power == 0:
        return WORST_DB
    return BEST_DB if noise_power == 0 else min(BEST_DB, max(WORST_DB, 10 * math.log10(signal_power / noise_power)))


def equal_tokens(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many tokens come before the first that differs, over all sequences, and how many there are in all."""
    equal = total = 0
    for ours, theirs in zip(before, after, strict=True):
        total += len(ours)
        pairs = enumerate(zip(ours, theirs, strict=False))
        equal += next((place for place, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    return equal, total
