"""The sampler: one thread that reads the sampled instruments at their periods and reports how late it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profilers.base import Instrument, Reading
from profilers.trace import Recorder


@dataclass
class _Place:
    instrument: Instrument
    reading: Reading
    period_s: float
    due_s: float


class Sampler:
    """Samples instruments into one recorder from ``start`` until ``stop``.

    ``on_failure(instrument id, sentence)`` is called on the sampler thread when an instrument fails; the others go on.
    """

    def __init__(
        self, recorder: Recorder, instruments: Sequence[Instrument], on_failure: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self._recorder = recorder
        self._instruments = instruments
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tickscope-sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until every handle is closed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        places = self._open()
        late = self._recorder.track("sampler_late", "ns")
        while places:
            wake_s = min(place.due_s for place in places)
            if self._stop.wait(max(0.0, wake_s - time.perf_counter())):
                break
            now_s = time.perf_counter()
            self._recorder.sample(late, (now_s - wake_s) * 1e9)
            for place in [place for place in places if place.due_s <= now_s]:
                place.due_s = max(place.due_s + place.period_s, now_s)
                self._sample(places, place)
        for place in list(places):  # once more, so that a run shorter than a period has a beginning and an end
            self._sample(places, place)
        for place in places:
            place.reading.close()

    def _sample(self, places: list[_Place], place: _Place) -> None:
        try:
            place.reading.sample()
        except (OSError, RuntimeError, ValueError) as error:  # a vanished device, a closed file; others go on
            places.remove(place)
            place.reading.close()
            self._on_failure(place.instrument.id, f"{place.instrument.title} stopped: {error}.")

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
