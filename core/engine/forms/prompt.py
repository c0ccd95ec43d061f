"""The prompt as token ids: a text tokenised anew for each request, or that many random tokens."""

from __future__ import annotations

import time

from core.config import WorkloadConfig
from core.engine.forms.accepted import accepted, check_tokens, tokenized
from core.engine.forms.base import Inputs
from core.engine.workload import text_config
from core.errors import Refusal
from core.models.base import LoadedModel


class Prompt:
    """Makes the inputs of each request. Text is tokenised anew each time, since that is part of what a user waits for."""

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._loaded = loaded
        self._tokenizer = loaded.tokenizer
        self._workload = workload
        self._device = device
        if workload.prompt_tokens is None and loaded.tokenizer is None:
            raise Refusal("This model has no tokenizer, so it cannot read a prompt; give a number of prompt tokens instead.")
        self._vocabulary = int(getattr(text_config(loaded.model), "vocab_size", 0)) or 1000

    def length(self) -> int:
        """Tokens per sequence, found without making the whole batch (which may not fit)."""
        if self._workload.prompt_tokens is not None:
            return self._workload.prompt_tokens
        ids = tokenized(self._loaded, self._workload.prompt)["input_ids"]
        check_tokens(ids, self._loaded)
        return len(ids)

    def inputs(self) -> Inputs:
        """The inputs of one request (the same ones each time)."""
        import torch

        count, batch = self._workload.prompt_tokens, self._workload.batch
        if count is None:
            start = time.perf_counter_ns()
            encoded = self._tokenizer([self._workload.prompt] * batch, return_tensors="pt")  # type: ignore[misc]
            tokenize_ns = time.perf_counter_ns() - start
            given = accepted(encoded, self._loaded.model)
            tensors = {name: tensor.to(self._device) for name, tensor in given.items()}
            return Inputs(tensors, int(tensors["input_ids"].shape[1]), tokenize_ns)
        generator = torch.Generator().manual_seed(self._workload.seed)
        ids = torch.randint(0, self._vocabulary, (1, count), generator=generator)
        ids = ids.expand(batch, count).contiguous().to(self._device)
        return Inputs({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, count, None)
