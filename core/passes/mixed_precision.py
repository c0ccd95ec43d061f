"""Mixed precision: the model in bfloat16 but for some blocks or layers, which keep float32.

A kept module gets a subclass of its own class that casts what comes in and what goes out. So paths, attributes and copies of
the module stay what they were, the layer clock finds its ``forward`` where it looks for it, and a graph compiler sees plain
casts; hooks or a wrapper around ``forward`` on the instance would break one or the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.blocks import find_blocks, ranges
from core.model_parts.linears import matches, output_head
from core.model_parts.weights import cast
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch

_NUMBERS = re.compile(r"\d+(-\d+)?")


@dataclass(frozen=True)
class MixedPrecisionOptions:
    """What keeps float32."""

    keep: str = field(
        default="0",
        metadata={
            "label": "Keep in float32",
            "help": "Block numbers from 0, such as 0-3+26-29, and words or patterns of layers, such as down_proj or lm_head",
        },
    )

    def __post_init__(self) -> None:
        if not _parts(self.keep):
            raise ValueError(
                worded(
                    "pass.mixed_precision.keep-empty",
                    "keep is empty; give block numbers such as 0-3+26-29, or words such as lm_head",
                )
            )


@passes.register
class MixedPrecision(Pass):
    """Casts weights to bfloat16, but for the kept modules, and the values at the borders between the two."""

    id = "mixed_precision"
    title = "Mixed precision"
    summary = "bfloat16 but for chosen blocks or layers, which keep float32"
    phase = Phase.PRECISION
    options: ClassVar[type | None] = MixedPrecisionOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CASTS, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.dtype != "float32":
            return Reason("passes.for-float32", dtype=context.model.dtype)
        return None

    def apply(self, subject: Subject, options: MixedPrecisionOptions) -> PassReport:
        import torch

        model = subject.model
        numbers = _numbers(model, options.keep)
        roots = _roots(model, options.keep, numbers)
        kept = {id(inner): inner for root in roots.values() for inner in root.modules()}
        changed = cast(model, torch.bfloat16, kept.values())
        if changed == 0:
            raise Refusal(Reason("passes.mixed-precision-casts-nothing"))
        head = output_head(model)
        for path, root in roots.items():
            stays = root is head or _next_is_kept(path, numbers, roots)
            root.output_dtype = None if stays else torch.bfloat16
            kind: Any = type(root)
            root.__class__ = _casting_class(kind)
        words = [path for path in roots if not path.rpartition(".")[2].isdigit()]
        parts: list[Reason | str] = []
        if numbers:
            parts.append(worded("pass.mixed_precision.blocks", "blocks {blocks}", blocks=ranges(numbers)))
        if words:
            many = len(words) > 1
            parts.append(worded("pass.mixed_precision.layers", "{count} layers", count=len(words)) if many else words[0])
        done = "{count} modules → bfloat16; {kept:and} in float32"
        summary = worded("pass.mixed_precision.done", done, count=changed, kept=tuple(parts))
        note = worded(
            "pass.mixed_precision.cache",
            "Kept blocks have their part of the KV cache in float32 too; positions and masks reach them rounded to bfloat16.",
        )
        return PassReport(self.id, self.title, asdict(options), changed, summary, notes=(note,) if numbers else ())


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r"[\s,+]+", text) if part]


def _numbers(model: torch.nn.Module, text: str) -> list[int]:
    """The block numbers in the option, in order; ``Refusal`` for one that the model does not have."""
    parts = [part for part in _parts(text) if _NUMBERS.fullmatch(part)]
    if not parts:
        return []
    count = len(find_blocks(model)[1])
    found: set[int] = set()
    for part in parts:
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span or span[-1] >= count:
            raise Refusal(Reason("passes.mixed-precision-no-such-blocks", part=part, most=count - 1))
        found |= set(span)
    return sorted(found)


def _roots(model: torch.nn.Module, text: str, numbers: Sequence[int]) -> dict[str, torch.nn.Module]:
    """The outermost kept modules by path, with those that share a weight with one (a tied embedding with a kept head)."""
    words = "+".join(part for part in _parts(text) if not _NUMBERS.fullmatch(part))
    found: dict[str, torch.nn.Module] = {}
    if numbers:
        start, blocks = find_blocks(model)
        found = {f"{start}.{number}": blocks[number] for number in numbers}
    if words:
        named = [(path, one) for path, one in model.named_modules() if path and matches(path, words)]
        if not named:
            raise Refusal(Reason("passes.mixed-precision-no-such-layer", words=words))
        for path, one in named:
            callable_one = type(one).forward is not _no_forward()
            if callable_one and not any(path == above or path.startswith(f"{above}.") for above in found):
                found[path] = one
    shared = {id(weight) for root in found.values() for weight in root.parameters()}
    inside = {id(inner) for root in found.values() for inner in root.modules()}
    for path, one in model.named_modules():
        if id(one) not in inside and any(id(weight) in shared for weight in one.parameters(recurse=False)):
            found[path] = one
    if not found:
        raise Refusal(Reason("passes.mixed-precision-layer-computes-not", words=words))
    return found


def _no_forward() -> Any:
    """The forward of modules that have none, such as lists of layers."""
    import torch

    return torch.nn.Module.forward


def _next_is_kept(path: str, numbers: Sequence[int], roots: Mapping[str, torch.nn.Module]) -> bool:
    """Whether a block's output goes right into another kept block, so that rounding it between them would be a loss."""
    above, _, number = path.rpartition(".")
    return number.isdigit() and int(number) in numbers and f"{above}.{int(number) + 1}" in roots


@lru_cache(maxsize=64)
def _casting_class(kind: Any) -> Any:
    """A subclass that computes in float32; ``output_dtype`` of the instance is what goes out (None: as it is)."""
    import torch

    class Float32(kind):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(*_as(args, torch.float32), **_as(kwargs, torch.float32))
            return outputs if self.output_dtype is None else _as(outputs, self.output_dtype)

    Float32.__name__, Float32.__qualname__ = kind.__name__, kind.__qualname__
    return Float32


def _as(value: Any, dtype: torch.dtype) -> Any:
    """The value with its floating-point tensors cast, in tuples, lists and plain dicts too; caches are left alone."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)([_as(one, dtype) for one in value])
    if type(value) is dict:
        return {name: _as(one, dtype) for name, one in value.items()}
    return value
