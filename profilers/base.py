"""What an instrument is: something attached for the length of a run that writes to the recorder and is always removed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from profilers.trace import Recorder


class Instrument(Protocol):
    """An instrument that lives in the sampler thread or around the run.

    ``check`` says in a sentence why the instrument cannot work here, or None. ``attached`` starts it and always removes it.
    """

    id: str
    title: str
    summary: str

    def check(self) -> str | None: ...

    def attached(self, recorder: Recorder) -> AbstractContextManager[Any]: ...
