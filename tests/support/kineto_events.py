"""Made-up Kineto events, as ``kineto_results.events()`` gives them, for what no machine at hand can run."""

from __future__ import annotations

from dataclasses import dataclass, field

THREAD, STREAM = 4711, 7


@dataclass
class FakeEvent:
    """One raw event; everything that is asked of it is a method, as in torch."""

    text: str
    start: int
    duration: int
    kind: str = "cpu_op"
    lane: int = THREAD
    correlation: int = 0
    linked: int = 0
    operations: int = 0
    size: int = 0
    sizes: list[list[int]] = field(default_factory=list)
    hidden: bool = False

    def name(self) -> str:
        return self.text

    def activity_type(self) -> str:
        return self.kind

    def start_ns(self) -> int:
        return self.start

    def duration_ns(self) -> int:
        return self.duration

    def device_resource_id(self) -> int:
        return self.lane

    def correlation_id(self) -> int:
        return self.correlation

    def linked_correlation_id(self) -> int:
        return self.linked

    def flops(self) -> int:
        return self.operations

    def nbytes(self) -> int:
        return self.size

    def shapes(self) -> list[list[int]]:
        return self.sizes

    def is_hidden_event(self) -> bool:
        return self.hidden
