"""Continuous batching: transformers' paged cache and schedule, in which sequences of a batch come and go one by one.

``generate_batch`` runs it in a thread of its own; here the same steps are taken in the worker thread, so that moments, tests
and the cancel work as always, and the model's ``generate`` keeps its meaning for everyone who calls it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core import torch_private
from core.error_text import said
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_can_be_given, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch

NOTES = (
    worded("pass.continuous_batching.visible", "A token counts as visible when every sequence of the batch has it."),
    worded(
        "pass.continuous_batching.alike",
        "All sequences of a batch are alike here, so nothing is won by their coming and going; it pays where lengths differ.",
    ),
)


@dataclass(frozen=True)
class ContinuousBatchingOptions:
    """How much goes into one forward, and how the cache is divided."""

    max_batch_tokens: int = field(
        default=256,
        metadata={
            "label": "Tokens in a forward",
            "help": "At most so many, of all sequences together; longer prompts are read in parts",
            "minimum": 8,
            "maximum": 65536,
        },
    )
    page_size: int = field(
        default=16,
        metadata={"label": "Tokens in a page", "help": "The cache is given out in pages", "minimum": 4, "maximum": 1024},
    )
    num_blocks: int | None = field(
        default=None, metadata={"label": "Pages in all", "help": "Empty: just as many as the batch needs", "minimum": 1}
    )


@passes.register
class ContinuousBatching(Pass):
    """Puts transformers' continuous batching in the place of the model's ``generate``."""

    id = "continuous_batching"
    title = "Continuous batching"
    summary = "Paged cache, and a schedule in which sequences of a batch come and go one by one"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = ContinuousBatchingOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        Exclusion(
            frozenset({Group.CACHES, Group.COMPILES, "chunked_prefill", "attention"}),
            Reason("passes.own-paged-cache"),
        ),
        Exclusion(frozenset({"autocast", "mixed_precision"}), Reason("passes.paged-cache-one-precision")),
    )
    unpredictable: ClassVar[Reason | None] = none_can_be_given(Reason("passes.schedule-not-work"))

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task != "text-generation":
            return Reason("passes.batched-texts-only")
        return None

    def apply(self, subject: Subject, options: ContinuousBatchingOptions) -> PassReport:
        model: Any = subject.model
        name = type(model).__name__
        if subject.batch < 2:
            raise Refusal(Reason("passes.batching-needs-a-batch"))
        if not torch_private.takes_paged_cache(model) or not hasattr(model, "init_continuous_batching"):
            raise Refusal(Reason("passes.batching-needs-paged-attention", name=name))
        needed = _pages(subject.batch, subject.max_length, options.page_size)
        blocks = options.num_blocks if options.num_blocks is not None else needed
        if blocks < needed:
            raise Refusal(Reason("passes.batching-needs-pages", needed=needed, page_size=options.page_size, blocks=blocks))
        schedule = _Schedule(model, options, blocks)
        schedule.try_out(name)
        before = model.__dict__.get("generate")
        model.__dict__["generate"] = schedule.generate
        subject.undo.callback(lambda: _put_back(model, before))
        summary = worded(
            "pass.continuous_batching.done",
            "{batch} sequences, {blocks} pages of {page} tokens, up to {most} tokens a forward",
            batch=subject.batch,
            blocks=blocks,
            page=options.page_size,
            most=options.max_batch_tokens,
        )
        return PassReport(
            self.id,
            self.title,
            asdict(options) | {"num_blocks": blocks},
            0,
            summary,
            notes=NOTES,
            prediction=self.unpredictable,
        )


def _pages(batch: int, length: int, page_size: int) -> int:
    """Pages for so many sequences of so many tokens; a last one of each may be begun."""
    return batch * (-(-length // page_size) + 1)


def _put_back(model: Any, before: Any) -> None:
    if before is None:
        model.__dict__.pop("generate", None)
    else:
        model.__dict__["generate"] = before


class _Schedule:
    """transformers' batch processor for one model, stepped by hand."""

    def __init__(self, model: Any, options: ContinuousBatchingOptions, blocks: int) -> None:
        self._model = model
        self._options = options
        self._blocks = blocks
        config = copy.deepcopy(model.generation_config)
        config.do_sample = False
        config.num_return_sequences = 1
        # Requests are of fixed length, as elsewhere: the end of the text must not be chosen.
        ends = config.eos_token_id
        config.suppress_tokens = None if ends is None else [ends] if isinstance(ends, int) else list(ends)
        config.eos_token_id = -1
        self._config = config
        self._open()

    def _open(self) -> None:
        """Set the cache aside."""
        from transformers.generation import ContinuousBatchingConfig

        settings = ContinuousBatchingConfig(
            num_blocks=self._blocks,
            page_size=self._options.page_size,
            max_batch_tokens=self._options.max_batch_tokens,
            allow_block_sharing=False,  # the sequences of our batches are alike, so all but one would cost nothing
            use_cuda_graph=False,
            use_async_batching=False,
            auto_switch_to_flash=False,
        )
        before = torch_private.attention_implementation(self._model.config)
        with _quiet():
            self._manager = self._model.init_continuous_batching(
                generation_config=self._config, continuous_batching_config=settings
            )
            self._attention = torch_private.attention_implementation(self._model.config)
            self._processor = torch_private.batch_processor(self._manager)
        if self._attention != before:
            self._model.set_attn_implementation(before)

    def try_out(self, name: str) -> None:
        """Generate one token for two sequences; ``Refusal`` where the model cannot be batched so."""
        import torch

        try:
            self.generate(torch.zeros((2, 2), dtype=torch.long, device=self._model.device), max_new_tokens=1)
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
            raise Refusal(Reason("passes.batching-fails", name=name, problem=said(error))) from error

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        max_new_tokens: int = 20,
        stopping_criteria: Any = (),
        **_ignored: Any,
    ) -> torch.Tensor:
        """Continue every sequence greedily by exactly ``max_new_tokens``.

        Args:
            input_ids: [batch, length]; what ``attention_mask`` marks with 0 is left out.
            attention_mask: the same shape, or None.
            max_new_tokens: how many.
            stopping_criteria: called whenever every sequence has one more token; they cannot stop it.

        Returns:
            Prompts and new tokens, [batch, length + max_new_tokens].
        """
        import torch

        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        needed = _pages(len(input_ids), input_ids.shape[1] + max_new_tokens, self._options.page_size)
        if needed > self._blocks:  # somebody asks for more than the workload
            self._blocks = needed
            self._open()
        prompts = [row[kept.bool()].tolist() for row, kept in zip(input_ids, mask, strict=True)]
        with torch.no_grad(), self._paged_attention(), _quiet():
            names = self._manager.add_requests(prompts, max_new_tokens=max_new_tokens)
            try:
                new = self._run(names, input_ids, stopping_criteria)
            finally:
                self._processor.reset()  # also after a cancel
                self._drain()
        return torch.cat([input_ids, new], dim=1)

    def _run(self, names: list[str], input_ids: torch.Tensor, criteria: Any) -> torch.Tensor:
        """Step until all are done; the new tokens, [batch, new]."""
        import torch

        states: dict[str, Any] = {}
        shown = 0
        while self._processor.prepare_next_batch():
            states |= self._processor.scheduler.active_requests
            torch_private.generation_step(self._processor, self._model)
            self._processor.update_batch()
            tokens = [states[name].generated_tokens if name in states else [] for name in names]
            ready = min(len(mine) for mine in tokens)
            if ready > shown:
                shown = ready
                grown = torch.tensor([mine[:ready] for mine in tokens], device=input_ids.device)
                for criterion in criteria:
                    criterion(torch.cat([input_ids, grown], dim=1), None)
        failed = next((states[name].error for name in names if name in states and states[name].error), None)
        if failed or not shown:
            raise RuntimeError(failed or "no token came out")
        return grown

    def _drain(self) -> None:
        results = self._manager.output_router.output_queue
        while not results.empty():
            results.get_nowait()

    @contextmanager
    def _paged_attention(self) -> Iterator[None]:
        """While it lasts the model's attention is one that reads pages; afterwards it is what it was."""
        before = torch_private.attention_implementation(self._model.config)
        if before != self._attention:
            self._model.set_attn_implementation(self._attention)
        try:
            yield
        finally:
            if before != self._attention:
                self._model.set_attn_implementation(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Its logger warns of settings that are meant."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
