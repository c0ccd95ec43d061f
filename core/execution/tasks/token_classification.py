"""Token classification: one label for each token of the text (names, parts of speech)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from core.config import WorkloadConfig
from core.execution.tasks.base import Inputs, form_kinds
from core.execution.tasks.labels import name_of
from core.execution.tasks.once import Once
from core.execution.tasks.prompt import Prompt
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import torch

TOLD_TOKENS = 64


@form_kinds.register
class TokenClassification:
    """Models that label each token."""

    id = "token-classification"
    tasks: ClassVar[tuple[str, ...]] = ("token-classification",)

    def make(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> Once:
        """The result is the likeliest label of each token by its number, [batch, tokens]."""
        config, tokenizer = getattr(loaded.model, "config", None), loaded.tokenizer

        def read(output: Any, inputs: Inputs) -> torch.Tensor:
            labels: torch.Tensor = output.logits.argmax(-1)
            return labels

        def tell(labels: torch.Tensor, inputs: Inputs) -> str:
            names = [name_of(config, int(label)) for label in labels[:TOLD_TOKENS]]
            if tokenizer is not None and "input_ids" in inputs.tensors:
                ids = inputs.tensors["input_ids"][0, :TOLD_TOKENS].tolist()
                names = [f"{word} {name}" for word, name in zip(tokenizer.convert_ids_to_tokens(ids), names, strict=False)]
            return ", ".join(names) + (" …" if len(labels) > TOLD_TOKENS else "")

        return Once(Prompt(loaded, workload, device), read, tell)
