"""The sampler: one thread that reads the sampled instruments at their periods and reports how late it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from profilers.base import Instrument, Reading
from profilers.trace import Recorder


class PartLostError(RuntimeError):
    """A part of a reading is gone (one device of several); the text says which and why. The reading goes on without it."""


@dataclass
class _Place:
    instrument: Instrument
    reading: Reading
    period_s: float
    due_s: float


class Sampler:
    """Samples instruments into one recorder from ``start`` until ``stop``.

    ``on_failure(instrument id, sentence)`` is called on the sampler thread when an instrument fails; the others go on.

    A reading may have ``facts()``, collected into ``facts`` when it is closed, and ``resume()``, called instead of ``sample()``
    after a rest, where its values are about the time since the last sample.
    """

    def __init__(
        self, recorder: Recorder, instruments: Sequence[Instrument], on_failure: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        """By instrument id what its reading tells about itself; complete after ``stop``."""
        self._recorder = recorder
        self._instruments = instruments
        self._on_failure = on_failure
        self._wake = threading.Event()
        self._stopping = False
        self._resting = False
        self._thread = threading.Thread(target=self._run, name="tickscope-sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until every handle is closed."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def resting(self) -> bool:
        """Whether sampling is suspended (another run has its turn). Set from any thread; takes effect within a millisecond.

        One sample is taken where a rest begins and one where it ends, so that counters that only go up can be told apart.
        """
        return self._resting

    @resting.setter
    def resting(self, resting: bool) -> None:
        if resting != self._resting:
            self._resting = resting
            self._wake.set()

    def _run(self) -> None:
        places = self._open()
        late = self._recorder.track("sampler_late", "ns")
        while places:
            wake_s = min(place.due_s for place in places)
            woken = self._wake.wait(max(0.0, wake_s - time.perf_counter()))
            if self._stopping:
                break
            if woken and self._resting:
                self._rest(places)
                continue
            self._wake.clear()
            now_s = time.perf_counter()
            if now_s < wake_s:  # woken to rest and to go on in one
                continue
            self._recorder.sample(late, (now_s - wake_s) * 1e9)
            for place in [place for place in places if place.due_s <= now_s]:
                place.due_s = max(place.due_s + place.period_s, now_s)
                self._sample(places, place)
        if not self._resting:  # once more, so that a run shorter than a period has a beginning and an end
            for place in list(places):
                self._sample(places, place)
        for place in places:
            self._close(place)

    def _rest(self, places: list[_Place]) -> None:
        """Wait until the run has its turn again, or its end."""
        for place in list(places):
            self._sample(places, place)
        while self._resting and not self._stopping:
            self._wake.clear()
            if self._resting and not self._stopping:  # neither changed before the flag was cleared
                self._wake.wait()
        if self._stopping:
            return
        for place in list(places):
            self._sample(places, place, resumed=True)
            place.due_s = time.perf_counter() + place.period_s

    def _sample(self, places: list[_Place], place: _Place, *, resumed: bool = False) -> None:
        read = getattr(place.reading, "resume", place.reading.sample) if resumed else place.reading.sample
        try:
            read()
        except PartLostError as lost:
            self._on_failure(place.instrument.id, str(lost))
        except (OSError, RuntimeError, ValueError) as error:  # a vanished device, a closed file; others go on
            places.remove(place)
            self._close(place)
            self._on_failure(place.instrument.id, f"{place.instrument.title} stopped: {error}.")

    def _close(self, place: _Place) -> None:
        facts: Callable[[], dict[str, Any]] | None = getattr(place.reading, "facts", None)
        if facts is not None:
            self.facts[place.instrument.id] = facts()
        place.reading.close()

    def _open(self) -> list[_Place]:
        places = []
        for instrument in self._instruments:
            assert instrument.period_s is not None, f"{instrument.id} is not sampled"
            try:
                reading = instrument.open(self._recorder)
            except (OSError, RuntimeError, ValueError) as error:
                self._on_failure(instrument.id, f"{instrument.title} could not start: {error}.")
                continue
            places.append(_Place(instrument, reading, instrument.period_s, time.perf_counter()))
        return places
