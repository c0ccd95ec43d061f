"""Sparse mask: sets the smallest weights to zero, to see what sparsity would cost in quality. Nothing gets faster by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import linear_paths
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.pruning import expectation, slices

if TYPE_CHECKING:
    import torch

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}
HALF_BITS = 16


ZEROING = worded("pass.sparse_mask.zeroing", "Setting weights to zero")


@dataclass(frozen=True)
class SparseMaskOptions:
    """Which weights become zero."""

    pattern: str = field(
        default="unstructured",
        metadata={
            "label": "Pattern",
            "help": "unstructured: the smallest anywhere; 2:4 and 4:8: the smaller half of every 4 or 8 inputs",
            "choices": ("unstructured", "2:4", "4:8"),
        },
    )
    share: float = field(
        default=0.3,
        metadata={"label": "Share of zeros", "help": "For the unstructured pattern", "minimum": 0.01, "maximum": 0.95},
    )
    compare: str = field(
        default="layer",
        metadata={
            "label": "Smallest of",
            "help": "layer: every layer loses the same share; model: layers of small weights lose more (unstructured only)",
            "choices": ("layer", "model"),
        },
    )


@passes.register
class SparseMask(Pass):
    """Zeros by magnitude, written into the weights themselves: no mask, buffer or hook stays behind."""

    id = "sparse_mask"
    title = "Sparse mask"
    summary = "Sets the smallest weights to zero: shows the quality cost, gains no speed here"
    phase = Phase.MASK
    options: ClassVar[type | None] = SparseMaskOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.PRUNES})

    def check(self, context: PassContext) -> Reason | None:
        return None

    def apply(self, subject: Subject, options: SparseMaskOptions) -> PassReport:
        model = subject.model
        layers = [model.get_submodule(path) for path in linear_paths(model, include_head=False) if path]
        layers = [layer for layer in layers if slices.sliceable(layer)]
        fits = [layer for layer in layers if _fits(layer, options.pattern)]
        if not fits:
            raise Refusal(Reason("passes.sparse-mask-finds-nothing", pattern=options.pattern))
        if options.pattern == "unstructured":
            groups = [fits] if options.compare == "model" else [[layer] for layer in fits]
            for place, group in enumerate(groups):
                subject.progress.report(ZEROING, place / len(groups))
                zero_smallest([layer.weight.data for layer in group], options.share)
        else:
            for place, layer in enumerate(fits):
                subject.progress.report(ZEROING, place / len(fits))
                zero_in_groups(layer, *PATTERNS[options.pattern])
        zeros = sum(int((layer.weight == 0).sum()) for layer in fits)
        held = sum(layer.weight.numel() for layer in fits)
        summary = worded(
            "pass.sparse_mask.done",
            "{share:percent} of {held:count} weights in {layers} layers set to zero",
            share=zeros / held,
            held=held,
            layers=len(fits),
        )
        predicted, prediction = expectation.nothing_gained(subject.task)
        notes = _notes(options.pattern, fits[0].weight.device.type, len(layers) - len(fits))
        return PassReport(
            self.id, self.title, asdict(options), len(fits), summary, notes=notes, predicted=predicted, prediction=prediction
        )


def zero_smallest(weights: list[torch.Tensor], share: float) -> int:
    """Set exactly ``round(share · all)`` weights of smallest magnitude to zero, in place; of equal ones the first.

    The limit is found by counting the bit patterns of the magnitudes, the upper half first: they sort as the numbers do, and no
    second copy of all weights is needed.

    Returns:
        How many are zero for it.
    """
    import torch

    count = round(share * sum(weight.numel() for weight in weights))
    if not count:
        return 0
    upper = _histogram(_bits(weight) >> HALF_BITS for weight in weights).cumsum(0)
    high = int(torch.searchsorted(upper, count))
    below = int(upper[high - 1]) if high else 0
    lower = _histogram(bits[bits >> HALF_BITS == high] & 0xFFFF for bits in map(_bits, weights)).cumsum(0)
    low = int(torch.searchsorted(lower, count - below))
    limit = high << HALF_BITS | low
    equal = count - below - (int(lower[low - 1]) if low else 0)
    for weight in weights:
        bits = _bits(weight)
        ties = (bits == limit).nonzero().flatten()[:equal]
        equal -= len(ties)
        chosen = bits < limit
        chosen[ties] = True
        weight.masked_fill_(chosen.view(weight.shape), 0)
    return count


def zero_in_groups(layer: torch.nn.Module, zeros: int, size: int) -> None:
    """Set the ``zeros`` smallest of every ``size`` neighbouring inputs of each output to zero, in place."""
    assert slices.inputs(layer) % size == 0
    weight: torch.Tensor = layer.weight.data
    by_output = weight.t() if slices.is_transposed(layer) else weight
    groups = by_output.abs().reshape(by_output.shape[0], -1, size)
    chosen = groups.topk(zeros, dim=-1, largest=False).indices
    mask = groups.bool().zero_().scatter_(-1, chosen, 1).view(by_output.shape)
    by_output.masked_fill_(mask, 0)


def _fits(layer: torch.nn.Module, pattern: str) -> bool:
    return pattern not in PATTERNS or slices.inputs(layer) % PATTERNS[pattern][1] == 0


def _bits(weight: torch.Tensor) -> torch.Tensor:
    """The magnitudes' bit patterns as integers, which sort as the magnitudes do; flat."""
    import torch

    return weight.detach().float().abs().flatten().view(torch.int32)


def _histogram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """How often each number below 2^16 occurs."""
    import torch

    total = None
    for part in parts:
        counts = torch.bincount(part, minlength=1 << HALF_BITS)
        total = counts if total is None else total + counts
    assert total is not None
    return total


def _notes(pattern: str, device: str, left_out: int) -> tuple[Reason, ...]:
    notes = [
        worded("pass.sparse_mask.quality-only", "Quality only on this target: dense kernels multiply zeros too."),
        worded("pass.sparse_mask.bytes-stay", "Bytes stay: a zero is stored like any weight."),
    ]
    if device == "cuda" and pattern == "2:4":
        notes.append(
            worded(
                "pass.sparse_mask.semi-structured",
                "2:4 gains speed only with semi-structured kernels (compute capability 8.0 or newer), which are not used here.",
            )
        )
    if left_out:
        words = "{count} layers are left as they are: their inputs are not a multiple of {size}."
        notes.append(worded("pass.sparse_mask.left-out", words, count=left_out, size=PATTERNS[pattern][1]))
    return tuple(notes)
