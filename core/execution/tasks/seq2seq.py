"""Text to text (translation, summary): an encoder reads the text once, then a decoder writes another one."""

from __future__ import annotations

from typing import Any, ClassVar

from core.config import WorkloadConfig
from core.execution.tasks.base import form_kinds
from core.execution.tasks.generating import Generating
from core.execution.tasks.prompt import Prompt
from core.models.base import LoadedModel


@form_kinds.register
class TextToText:
    """Encoder-decoders for text."""

    id = "seq2seq"
    tasks: ClassVar[tuple[str, ...]] = ("seq2seq",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Generating:
        arguments = start_token(loaded.model)
        return Generating(Prompt(loaded, workload, device), loaded.tokenizer, arguments, start=1, encodes=True)


def start_token(model: Any) -> dict[str, Any]:
    """What ``generate`` must be told for the decoder to begin; nothing where the model's configuration says it."""
    given = getattr(model, "generation_config", None)
    told = [getattr(given, name, None) for name in ("decoder_start_token_id", "bos_token_id")]
    return {} if any(token is not None for token in told) else {"decoder_start_token_id": 0}
