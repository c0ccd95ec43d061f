"""Speech to text: sound of a WAV file or made up, written down token after token, or all at once (CTC)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.execution.moments import Frame
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.generating import Generating
from core.execution.tasks.once import Once, labelled
from core.execution.tasks.seq2seq import start_token
from core.execution.tasks.sounds import Sounds
from core.models.base import LoadedModel
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch


@form_kinds.register
class SpeechToText:
    """Encoder-decoders that listen, such as Whisper."""

    id = "speech"
    tasks: ClassVar[tuple[str, ...]] = ("speech",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Listening:
        return Listening(loaded, Sounds(loaded, workload, device))


@form_kinds.register
class SpeechAtOnce:
    """Encoders that write a letter or a pause for each piece of the sound (CTC), such as wav2vec 2.0."""

    id = "speech-ctc"
    tasks: ClassVar[tuple[str, ...]] = ("speech-ctc",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result is the likeliest sign of each piece by its number, [batch, pieces]."""
        tokenizer = loaded.tokenizer

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            signs: torch.Tensor = output.logits.argmax(-1)
            return signs

        def tell(signs: torch.Tensor, inputs: Inputs) -> str | None:
            return str(tokenizer.decode(signs.long().tolist())) if tokenizer is not None else None

        return Once(Sounds(loaded, workload, device), read, tell)


@form_kinds.register
class SoundClassification:
    """Encoders that say what kind of sound it is."""

    id = "audio-classification"
    tasks: ClassVar[tuple[str, ...]] = ("audio-classification",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result are the probabilities of the labels, [batch, labels]."""
        return labelled(Sounds(loaded, workload, device), loaded.model.config)


class Listening(Generating):
    """Asks an encoder-decoder that listens. The language is found once before the run, so that no request has to do it."""

    def __init__(self, loaded: LoadedModel, sounds: Sounds) -> None:
        super().__init__(sounds, loaded.tokenizer, start_token(loaded.model), start=None, encodes=True)
        if "force_unique_generate_call" in inspect.signature(loaded.model.generate).parameters:
            # Whisper's own generate would listen again from where it wrote the last time stamp, as often as that takes.
            self.arguments["force_unique_generate_call"] = True
        self._sounds = sounds
        self._several = bool(getattr(loaded.model.generation_config, "is_multilingual", False))

    def frames(self, subject: Subject) -> tuple[Frame, ...]:
        if self._several and "language" not in self.arguments:
            self.arguments["language"] = self._language(subject) if self._sounds.real else "en"
        return super().frames(subject)

    def _language(self, subject: Subject) -> str:
        """The language of the sound as the model hears it."""
        import torch

        named = {token: name.strip("<|>") for name, token in subject.model.generation_config.lang_to_id.items()}
        with torch.no_grad():
            heard = subject.model.detect_language(**self.inputs().tensors)
        return named.get(int(heard[0]), "en")
