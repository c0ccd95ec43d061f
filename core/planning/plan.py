"""The plan: which passes may be on together, with which options, in which order, and what applying them did."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from core.config import PassConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.model_parts.linears import head_in_rows, output_head
from core.model_parts.weights import held_bytes
from core.models.base import ModelFacts
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes, title_of
from core.pass_api.options import typed
from core.pass_api.subject import Subject
from core.planning.conflicts import clause
from core.planning.kernels import as_run, kernels_by_layer
from core.prediction.layer_costs import LayerCosts
from core.targets.base import TargetFacts

if TYPE_CHECKING:
    import torch

KERNEL_PHASES = (Phase.KERNEL, Phase.PRECISION, Phase.QUANTIZE, Phase.COMPILE, Phase.ENGINE)
"""Phases whose passes change which kernels run, and so report them."""


def order(choices: Iterable[PassConfig]) -> tuple[PassConfig, ...]:
    """The choices in the order in which they apply, whatever the order of clicks, their options typed.

    ``Refusal`` for an unknown pass or option.
    """
    return tuple(typed(choice) for choice in sorted(choices, key=lambda choice: (get(choice.id).phase, choice.id)))


def get(pass_id: str) -> Pass:
    """The pass of that id; ``Refusal`` naming those that exist."""
    try:
        return passes.get(pass_id)
    except ValueError as error:
        raise Refusal(str(error)) from error


def reasons(model: ModelFacts | None, target: TargetFacts, chosen: Collection[str]) -> dict[str, Reason | None]:
    """For every pass why it cannot be used now, as a short clause, or None.

    Args:
        model: facts of the chosen model; None while none is chosen.
        target: facts of the chosen target.
        chosen: ids of the passes that are on. A pass that is on conflicts with the others, not with itself.
    """
    result: dict[str, Reason | None] = {}
    for one in passes:
        others = frozenset(chosen) - {one.id}
        result[one.id] = one.check(PassContext(model, target, others)) or clause(one.id, others)
    return result


def refuse_impossible(choices: Sequence[PassConfig], model: ModelFacts | None, target: TargetFacts) -> None:
    """``Refusal`` for the first choice that cannot be used with this model, target and the other choices."""
    chosen = [get(choice.id).id for choice in choices]
    found = reasons(model, target, chosen)
    for pass_id in chosen:
        if (reason := found[pass_id]) is not None:
            raise Refusal(Reason("planning.cannot-be-used", id=pass_id, why=reason))


# -- applying -------------------------------------------------------------------------------------------------------------


def apply_all(
    subject: Subject, choices: Iterable[PassConfig], probe: Callable[[], object] | None = None, prompt: int | None = None
) -> tuple[PassReport, ...]:
    """Apply the chosen passes to ``subject`` in phase order.

    All choices are checked against each other, and options that nobody has read yet are read, before the first one changes
    anything. If a pass fails half-way, ``subject.undo`` must be closed, and changed weights must be loaded again.

    Args:
        subject: the model; changed in place.
        choices: the passes that are on, in any order.
        probe: performs a small real piece of the workload; profiled once to name the kernels that ran. None: not named.
        prompt: positions that the workload puts in at once, for predictions; None: as many as it has in all.

    Returns:
        One report per pass in the order applied, with the time it took and the weights' bytes before and after.

    Raises:
        Refusal: two passes conflict, options are wrong, or a pass found nothing to change.
    """
    steps = _agreed(choices)
    reports = []
    held = held_bytes(subject) if steps else 0
    looks = _kernel_signatures(subject.model)
    ledger = LayerCosts(subject, prompt)
    for one, options in steps:
        applying = Reason("planning.applying", title=title_of(one))
        subject.progress.report(applying)  # some compile kernels or try layers, which may take a while
        ledger.before(one)
        start = perf_counter_ns()
        report = one.apply(subject, options)
        took = perf_counter_ns() - start
        if one.phase in KERNEL_PHASES:
            looks_before, looks = looks, _kernel_signatures(subject.model)
            subject.changed_by |= {path: one.id for path, look in looks.items() if look != looks_before.get(path)}
        before, held = held, held_bytes(subject)
        report = ledger.after(one, report)
        reports.append(_completed(report, before, held, took))
    reports = _with_head_in_rows(subject, reports)
    if probe is not None and any(one.phase in KERNEL_PHASES for one, _ in steps):
        with as_run(subject):
            if subject.execution.step is not None:
                probe()  # compiles, which would drown the kernels
            return credited(reports, kernels_by_layer(subject, probe), subject.changed_by)
    return tuple(reports)


def _agreed(choices: Iterable[PassConfig]) -> list[tuple[Pass, Any]]:
    """Passes and their options in phase order; ``Refusal`` where two conflict."""
    ordered = order(choices)
    chosen = frozenset(choice.id for choice in ordered)
    for choice in ordered:
        if (reason := clause(choice.id, chosen - {choice.id})) is not None:
            raise Refusal(Reason("planning.conflict", id=choice.id, why=reason))
    return [(get(choice.id), choice.options) for choice in ordered]


def _with_head_in_rows(subject: Subject, reports: list[PassReport]) -> list[PassReport]:
    """After a pass that left products of 16 bits to torch, its slow path for the head is gone round; the report says so."""
    place = next((place for place, report in enumerate(reports) if get(report.id).phase == Phase.PRECISION), None)
    weight = getattr(output_head(subject.model), "weight", None)
    if place is None or weight is None or weight.device.type != "cpu" or subject.execution.runtime is not None:
        return reports
    start = perf_counter_ns()
    take_back = head_in_rows(subject.model)
    if take_back is None:
        return reports
    subject.undo.callback(take_back)
    note = Reason("planning.head-in-rows")
    took_ns = reports[place].apply_ns + perf_counter_ns() - start
    reports[place] = dataclasses.replace(reports[place], notes=(*reports[place].notes, note), apply_ns=took_ns)
    return reports


def with_notes(
    reports: Iterable[PassReport], afterwards: Mapping[str, Callable[[], tuple[Reason, ...]]]
) -> tuple[PassReport, ...]:
    """The reports with the notes that their passes could only make once they had run."""
    return tuple(
        dataclasses.replace(report, notes=tuple(dict.fromkeys((*report.notes, *afterwards[report.id]()))))
        if report.id in afterwards
        else report
        for report in reports
    )


def named(reports: Iterable[PassReport], kernels: tuple[str, ...]) -> tuple[PassReport, ...]:
    """The reports with the kernels that ran, for those passes that change which kernels run."""
    return tuple(
        dataclasses.replace(report, kernels=kernels) if get(report.id).phase in KERNEL_PHASES else report for report in reports
    )


def credited(
    reports: Iterable[PassReport], ran: Mapping[str, Mapping[str, int]], changed_by: Mapping[str, str]
) -> tuple[PassReport, ...]:
    """The reports, each with the kernels that ran in the modules that its pass was the last to change.

    Args:
        reports: of all passes that were applied.
        ran: how often each kernel ran, by layer (``kernels_by_layer``); all under "" (a compiled graph): each pass reports all.
        changed_by: the pass by module (``Subject.changed_by``). Kernels elsewhere are the precision's, which is that of all.
    """
    reports = tuple(reports)
    if set(ran) <= {""}:
        return named(reports, tuple(name for name, _ in Counter(ran.get("", {})).most_common()))
    kernels: dict[str, Counter[str]] = {}
    precision = next((report.id for report in reports if get(report.id).phase == Phase.PRECISION), "")
    for path, names in ran.items():
        above = path
        while above and above not in changed_by:
            above = above.rpartition(".")[0]
        kernels.setdefault(changed_by.get(above, precision), Counter()).update(names)
    found: list[PassReport] = []
    for report in reports:
        found += named([report], tuple(name for name, _ in kernels.get(report.id, Counter()).most_common()))
    return tuple(found)


def _kernel_signatures(model: torch.nn.Module) -> dict[str, tuple[Any, ...]]:
    """What decides, by module path, which kernels a module runs: its class, and the classes and dtypes of what it holds."""
    looks: dict[str, tuple[Any, ...]] = {}
    for path, module in model.named_modules():
        held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        looks[path] = (type(module), *((type(tensor), tensor.dtype) for tensor in held))
    return looks


def _completed(report: PassReport, before: int, after: int, took_ns: int) -> PassReport:
    summary = report.summary
    if before != after:
        summary = Reason("planning.and-bytes", what=summary, before_bytes=before, after_bytes=after)
    return dataclasses.replace(report, summary=summary, weight_bytes_before=before, weight_bytes_after=after, apply_ns=took_ns)
