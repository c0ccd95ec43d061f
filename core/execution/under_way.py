"""The request and the moment that are under way, as plain integers: what happens while the clock runs must cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.execution.calls import Call
from core.execution.instrumentation import Clock
from profilers.trace import NOT_MEASURED, Tag


@dataclass
class MomentUnderWay:
    """The moment just measured, kept as plain integers until the clock is stopped."""

    kind: int
    step: int
    tags: Tag
    start_ns: int
    duration_ns: int
    paused_ns: int
    call: Call
    clock: Clock | None
    cache: Any = None
    logits: Any = None  # of a model that chooses tokens by them
    drafted: int = NOT_MEASURED
    accepted: int = NOT_MEASURED


@dataclass
class RequestUnderWay:
    """The request under way. ``visible_ns`` is when its last token became visible (first: when it was accepted)."""

    row: int
    tags: Tag
    visible_ns: int
    turns: tuple[bool, ...] | None  # which gaps are traced; None: by their kind
    paused_ns: int = 0  # since then
    token_ns: int = NOT_MEASURED  # a token that became visible since the last moment was closed
    step: int = 0
    traced: bool | None = None  # the gap under way; None: nothing of it has begun
    counting: bool = True  # the gap under way, if traced, is with the processor's counters
    prefilled: bool = False
    input_tokens: int = 0
    tokens_seen: int = 0
    length: int = 0  # of the sequences so far; 0: none was seen
    latency_ns: int = 0  # of its tokens so far, together
    finite: bool = True  # its last token could be chosen
    sequences: Any = None  # prompt and tokens so far, [batch, length]
