"""Sound: a WAV file read with Python's own library, or made up, and what a model is given of it."""

from __future__ import annotations

import time
import wave
from typing import TYPE_CHECKING, Any

from core import paths, torch_private
from core.config import WorkloadConfig
from core.error_text import said
from core.errors import Refusal
from core.execution.tasks.base import Inputs
from core.execution.tasks.pictures import made_up
from core.execution.tasks.placing import placed
from core.execution.workload import refuse_size
from core.messages.reason import Reason
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

USUAL_RATE = 16_000
USUAL_SECONDS = 10.0
MOST_SECONDS = 3600
MOST_CHANNELS = 64
RATES = (1_000, 1_000_000)
"""Samples a second that a sound can have: a file of 2 kB with one a second would become 40 minutes."""

FRAME_S = 0.01
"""Time from one column of a log-mel spectrogram to the next; the encoder then takes two as one (Whisper, arXiv 2212.04356)."""


class Sounds:
    """Makes the inputs of each request: the file read and prepared anew, or made-up sound that stays the same."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._model = loaded.model
        self._config = loaded.model.config
        self._extractor = loaded.processor
        self._workload = workload
        self._device = device
        self._rate = int(getattr(loaded.processor, "sampling_rate", 0) or USUAL_RATE)
        self.real = workload.audio is not None
        columns = getattr(self._config, "max_source_positions", None) if self._spectral else None
        self._longest_s = 2 * columns * FRAME_S if isinstance(columns, int) else None
        if workload.audio is not None:
            if self._extractor is None:
                why = loaded.no_processor or Reason("execution.no-feature-extractor")
                raise Refusal(Reason("execution.sounds-not-read", name=loaded.facts.name, why=why))
            seconds = len(read_wav(workload.audio, self._rate)) / self._rate
        else:
            seconds = self._seconds(workload.audio_seconds)
        if self._longest_s is not None and seconds > self._longest_s:
            raise Refusal(
                Reason("execution.longer-than-it-hears", name=loaded.facts.name, longest_s=self._longest_s, seconds=seconds)
            )
        self._samples = round(seconds * self._rate)
        refuse_size(4 * self._samples * workload.batch, f"A batch of {workload.batch} × {seconds:g} s of sound")
        self._pieces = self._positions()

    def length(self) -> int:
        """Pieces of the sound that the encoder sees."""
        return self._pieces

    def inputs(self) -> Inputs:
        if self._extractor is None:
            name, shape = self._made_up_shape()
            made = made_up((1, *shape), self._workload.seed).expand(self._workload.batch, *shape).contiguous()
            return Inputs({name: placed(made, self._model, self._device)}, self._pieces, None)
        start = time.perf_counter_ns()
        if self._workload.audio is not None:
            sound = read_wav(self._workload.audio, self._rate)
        else:
            sound = 0.1 * made_up((self._samples,), self._workload.seed).numpy()
        batch = [sound] * self._workload.batch
        encoded = self._extractor(batch, sampling_rate=self._rate, return_tensors="pt")
        took_ns = time.perf_counter_ns() - start
        tensors = {name: placed(value, self._model, self._device) for name, value in encoded.items()}
        return Inputs(tensors, self._pieces, took_ns if self.real else None)

    @property
    def _spectral(self) -> bool:
        """Whether the model is given a spectrogram and not the sound itself."""
        return getattr(self._model, "main_input_name", "") == "input_features"

    def _seconds(self, asked: float | None) -> float:
        if asked is not None and asked <= 0:
            raise Refusal(Reason("execution.no-length-of-sound", asked=asked))
        return asked if asked is not None else self._longest_s or USUAL_SECONDS

    def _positions(self) -> int:
        if self._longest_s is not None:
            return int(self._config.max_source_positions)  # whatever the sound, it is filled up with silence
        name, shape = self._made_up_shape()
        lengths = torch_private.sound_positions(self._model)
        if name != "input_values" or lengths is None:
            return int(shape[0])
        pieces = int(lengths(self._samples))
        if pieces < 1:
            raise Refusal(Reason("execution.sound-too-short"))
        return pieces

    def _made_up_shape(self) -> tuple[str, tuple[int, ...]]:
        """What the model's first argument is called, and its shape for one sound."""
        if not self._spectral:
            frames, bands = getattr(self._config, "max_length", None), getattr(self._config, "num_mel_bins", None)
            if isinstance(frames, int) and isinstance(bands, int) and not hasattr(self._config, "conv_dim"):
                return "input_values", (frames, bands)  # a picture of the sound, always of one size
            return "input_values", (self._samples,)
        bands = int(
            getattr(self._config, "num_mel_bins", 0)
            or getattr(self._config, "feature_projection_input_dim", 0)
            or getattr(self._config, "input_feat_per_channel", 0)
            or 80
        )
        if self._longest_s is not None and self._config.model_type == "whisper":
            return "input_features", (bands, 2 * int(self._config.max_source_positions))
        return "input_features", (max(1, round(self._samples / self._rate / FRAME_S)), bands)


def read_wav(path: str, rate: int) -> npt.NDArray[np.float32]:
    """The sound in a WAV file as numbers from -1 to 1, its channels averaged and brought to ``rate`` samples a second.

    In between samples it is drawn straight, which is good enough to run a model on, though not to publish its accuracy.

    Raises:
        Refusal: there is no such file, or it is no WAV file of whole numbers.
    """
    import numpy as np

    file = paths.typed(path)
    if not file.exists():
        raise Refusal(Reason("execution.no-sound-file", file=str(file)))
    if not paths.is_file(file):
        raise Refusal(Reason("execution.not-a-wav-file", file=str(file)))
    try:
        with wave.open(str(file), "rb") as sound:
            width, channels, own_rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            frames = min(sound.getnframes(), file.stat().st_size // max(1, width * channels))
            _refuse_odd(file.name, width, channels, own_rate, frames, rate)
            data = sound.readframes(frames)
    except Refusal:
        raise
    except Exception as error:  # the library's own errors, and those of numbers that no header should hold
        raise Refusal(
            Reason(
                "execution.wav-not-of-whole-numbers",
                name=file.name,
                what=paths.why(error) if said(error) else "it ends too early",
            )
        ) from error
    usable = len(data) // (width * channels) * width * channels
    if not usable:
        raise Refusal(Reason("execution.no-sound-in-file", name=file.name))
    samples = _whole_numbers(np.frombuffer(data[:usable], np.uint8), width).reshape(-1, channels).mean(1)
    if own_rate != rate:
        count = max(1, round(len(samples) * rate / own_rate))
        samples = np.interp(np.arange(count) * own_rate / rate, np.arange(len(samples)), samples)
    return samples.astype(np.float32)


def _refuse_odd(name: str, width: int, channels: int, own_rate: int, frames: int, rate: int) -> None:
    """``Refusal`` for what no recording is, and for what does not fit into memory, before any is taken."""
    if not (1 <= width <= 4 and 1 <= channels <= MOST_CHANNELS and RATES[0] <= own_rate <= RATES[1]):
        raise Refusal(Reason("execution.no-such-recording", name=name, what=8 * width, channels=channels, own_rate=own_rate))
    seconds = frames / own_rate
    if seconds > MOST_SECONDS:
        raise Refusal(Reason("execution.sound-too-long", name=name, seconds=seconds / 3600, most_seconds=MOST_SECONDS // 3600))
    # the bytes, those of 32 bits and numbers of 64, then numbers at three places while it is brought to the rate
    refuse_size(frames * channels * (width + 4 + 8) + round(seconds * rate) * 3 * 8, f"The sound in {name}")


def _whole_numbers(data: Any, width: int) -> Any:
    """Bytes as numbers from -1 to 1. Samples of one byte are from 0 to 255, longer ones signed, little end first."""
    import numpy as np

    if width == 1:
        return (data.astype(np.float64) - 128) / 128
    # The bytes become the upper ones of 32 bits, which gives 3-byte samples their sign too.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = data.reshape(-1, width)
    return wide.view("<i4").reshape(-1) / 2.0**31
