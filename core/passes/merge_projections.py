"""Merged projections: gate and up, and query, key and value, each computed by one larger linear layer.

How: the owner (an attention or MLP module) computes the merged product first and hands it to its own unchanged ``forward`` in
the place of its input; the projections that it used to call only cut their part out of it. Nothing is remembered between
calls, so graphs, twins and clocks see plain modules, and quantising passes find one ordinary ``nn.Linear``. This is right for
every owner that uses its input for nothing but these projections and its leading dimensions. Whether it does is not assumed:
one owner of each class is tried on a small input, and left as it is where the model's result changes by more than rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from core import torch_private
from core.compiled.key import graph_key
from core.error_text import said
from core.errors import Refusal
from core.machine_facts import remembered
from core.messages.reason import Reason, worded
from core.models.sample_inputs import MODEL_ERRORS, small_call
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from profilers.torch_private import children_of, has_forward_hooks

if TYPE_CHECKING:
    import torch

GATE_UP = (("gate_proj", "up_proj"), ("wi_0", "wi_1"), ("w1", "w3"))
"""Names of the two layers of a gated MLP: Llama and its kin, T5 1.1, Mixtral's older experts."""

QKV = (
    ("q_proj", "k_proj", "v_proj"),  # Llama and its kin, OPT, BART, Whisper
    ("query", "key", "value"),  # BERT and its kin, ViT
    ("q", "k", "v"),  # T5
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
)

CROSS = ("cross", "encoder_attn", "EncDecAttention")
"""Words in paths of attention whose keys come from elsewhere: query and key have different inputs there."""

ROUNDING = {"float32": 1e-4, "float64": 1e-8}
ROUNDING_OF_HALF = 3e-2
"""Relative difference of the result that is still rounding; a product in the wrong place gives about 1."""


@dataclass(frozen=True)
class MergeProjectionsOptions:
    """Which projections are merged."""

    gate_up: bool = field(
        default=True,
        metadata={"label": "Gate and up", "help": "The two layers of a gated MLP that read the same input become one"},
    )
    qkv: bool = field(
        default=True,
        metadata={"label": "Query, key and value", "help": "The three layers of self-attention that read the same input"},
    )

    def __post_init__(self) -> None:
        if not (self.gate_up or self.qkv):
            raise ValueError(worded("pass.merge_projections.both-off", "both gate_up and qkv are off; switch one of them on"))


@dataclass(frozen=True)
class _Group:
    """Layers of one owner that can become one."""

    path: str
    owner: torch.nn.Module
    names: tuple[str, ...]
    merged: str  # the name of the layer they become


@passes.register
class MergeProjections(Pass):
    """One product instead of two or three; the same numbers up to rounding."""

    id = "merge_projections"
    title = "Merged projections"
    summary = "Gate and up, and query, key and value, as one larger product each"
    phase = Phase.KERNEL
    options: ClassVar[type | None] = MergeProjectionsOptions
    changes_weights = True
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task == "module":
            return Reason("passes.projections-of-transformers")
        return None

    def apply(self, subject: Subject, options: MergeProjectionsOptions) -> PassReport:
        model = subject.model
        groups = list(_groups(model, options))
        if not groups:
            raise Refusal(Reason("passes.nothing-to-merge"))
        answer = small_call(model)
        if answer is None:
            raise Refusal(Reason("passes.merging-not-tried"))
        trial = remembered(f"merge {graph_key(model, {}, asdict(options))}", lambda: _tried(answer, groups))
        refused = {(str(kind), tuple(names)) for kind, names in trial["refused"]}
        groups = [group for group in groups if _kind(group) not in refused]
        if not groups:
            names = ", ".join(sorted({kind for kind, _ in refused}))
            raise Refusal(Reason("passes.merging-changes-results", names=names))
        for group in groups:
            subject.progress.check()
            _merge(group)
        notes = [_tried_so(trial["difference"])]
        notes += [
            worded("pass.merge_projections.apart", APART, kind=kind, names=" + ".join(names)) for kind, names in sorted(refused)
        ]
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            len(groups),
            _summary(groups),
            notes=tuple(notes),
            predicted={"prefill": 1.0, "decode": 1.0, "forward": 1.0},
            prediction=Reason("passes.fewer-calls"),
        )


# -- finding --------------------------------------------------------------------------------------------------------------


def _groups(model: torch.nn.Module, options: MergeProjectionsOptions) -> Iterator[_Group]:
    """All that could be merged, in module order."""
    holders = Counter(
        id(held) for module in model.modules() for held in torch_private.own_parameters(module).values() if held is not None
    )
    for path, owner in model.named_modules():
        if options.gate_up and (names := _present(owner, GATE_UP, holders)):
            yield _Group(path, owner, names, "gate_up_proj")
        if options.qkv and not any(word in path for word in CROSS) and (names := _present(owner, QKV, holders)):
            yield _Group(path, owner, names, "qkv_proj")


def _present(owner: torch.nn.Module, known: tuple[tuple[str, ...], ...], holders: Counter[int]) -> tuple[str, ...]:
    """The first of the known sets of names under which the owner has plain linear layers of one input; () if none.

    Layers with hooks are not plain (merging would pass them by), nor are those whose weight another module holds too.
    """
    import torch

    for names in known:
        layers: list[Any] = [children_of(owner).get(name) for name in names]
        plain = [layer for layer in layers if type(layer) is torch.nn.Linear and holders[id(layer.weight)] == 1]
        if len(plain) < len(names) or any(has_forward_hooks(layer) for layer in plain):
            continue
        if len({(layer.in_features, layer.weight.dtype, layer.weight.device) for layer in plain}) == 1:
            return names
    return ()


def _kind(group: _Group) -> tuple[str, tuple[str, ...]]:
    return type(group.owner).__name__, group.names


# -- trying ---------------------------------------------------------------------------------------------------------------


def _tried(answer: Callable[[], list[Any]], groups: list[_Group]) -> dict[str, Any]:
    """The kinds of owner whose result would change, and by how much merging all others changes the model's."""
    try:
        before = answer()
    except MODEL_ERRORS as error:
        raise Refusal(Reason("passes.merging-fails", problem=said(error))) from error
    refused = _unfit(groups, answer, before)
    back = [_merge(group) for group in groups if _kind(group) not in refused]
    difference = _difference(before, answer())
    for put_back in reversed(back):
        put_back()
    return {"refused": sorted(refused), "difference": difference}


def _unfit(groups: list[_Group], answer: Callable[[], list[Any]], before: list[Any]) -> set[tuple[str, tuple[str, ...]]]:
    """The kinds of owner whose result would change: one of each is merged, looked at, and put back."""
    refused = set()
    for kind, group in {_kind(group): group for group in reversed(groups)}.items():
        allowed = ROUNDING.get(str(next(group.owner.parameters()).dtype).removeprefix("torch."), ROUNDING_OF_HALF)
        put_back = _merge(group)
        try:
            fits = _difference(before, answer()) <= allowed
        except MODEL_ERRORS:
            fits = False
        put_back()
        if not fits:
            refused.add(kind)
    return refused


def _difference(before: list[Any], after: list[Any]) -> float:
    """The largest relative difference of the results, by norm; infinite where shapes differ."""
    if [one.shape for one in before] != [one.shape for one in after]:
        return float("inf")
    found = max(float((one - other).norm() / one.norm().clamp(min=1e-30)) for one, other in zip(before, after, strict=True))
    return found if found == found else float("inf")  # NaN


# -- merging --------------------------------------------------------------------------------------------------------------


def _merge(group: _Group) -> Callable[[], None]:
    """Merge one group; returns what puts the layers back as they were."""
    import torch

    owner, children = group.owner, children_of(group.owner)
    kind: Any = type(owner)
    parts: list[Any] = [children[name] for name in group.names]
    order = list(children)
    merged = torch.nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=False, device="meta")
    merged.weight = torch.nn.Parameter(torch.cat([part.weight.detach() for part in parts]), requires_grad=False)
    if any(part.bias is not None for part in parts):
        biases = [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias.detach() for part in parts]
        merged.bias = torch.nn.Parameter(torch.cat(biases), requires_grad=False)
    start = 0
    for name, part in zip(group.names, parts, strict=True):
        children[name] = _part_class()(start, part.out_features).train(part.training)
        start += part.out_features
    children[group.merged] = merged.train(owner.training)
    owner.__class__ = _merging_class(kind, group.merged)

    def put_back() -> None:
        owner.__class__ = kind
        del children[group.merged]
        for name, part in zip(group.names, parts, strict=True):
            children[name] = part
        assert list(children) == order

    return put_back


@lru_cache(maxsize=1)
def _part_class() -> Any:
    """The class of what stands in a projection's place, made when torch is there."""
    import torch

    class Part(torch.nn.Module):
        """Cuts its columns out of the merged product [..., all of them]."""

        def __init__(self, start: int, width: int) -> None:
            super().__init__()
            self.start, self.out_features = start, width

        def forward(self, merged: torch.Tensor) -> torch.Tensor:
            return merged.narrow(-1, self.start, self.out_features)

        def extra_repr(self) -> str:
            return f"{self.start} to {self.start + self.out_features}"

    return Part


@lru_cache
def _merging_class(kind: Any, merged: str) -> Any:
    """The owner's class with the merged product in the place of its input. It keeps the name, which people and stages read."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        product = getattr(self, merged)
        if args:
            return kind.forward(self, product(args[0]), *args[1:], **kwargs)
        return kind.forward(self, **{**kwargs, "hidden_states": product(kwargs["hidden_states"])})

    body = {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), body)


APART = "{kind}: {names} left apart, its result would change."


def _tried_so(difference: float) -> Reason:
    if not difference:
        words = "Tried on a small input: the result is the same bit for bit."
        return worded("pass.merge_projections.same", words)
    words = "Tried on a small input: the result differs by {difference:.0e} of its size."
    return worded("pass.merge_projections.differs", words, difference=difference)


def _summary(groups: list[_Group]) -> Reason:
    counts = Counter(group.names for group in groups)
    before = sum(len(group.names) for group in groups)
    what = ", ".join(f"{count} × {' + '.join(names)}" for names, count in counts.items())
    words = "{before} layers → {after}: {what}"
    return worded("pass.merge_projections.done", words, before=before, after=len(groups), what=what)
