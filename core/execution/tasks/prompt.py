"""The prompt as token ids: texts tokenised anew for each request, or that many random tokens."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.config import WorkloadConfig
from core.errors import Refusal
from core.execution.tasks import chat
from core.execution.tasks.accepted import accepted, check_tokens, tokenized
from core.execution.tasks.base import Inputs
from core.execution.workload import text_config
from core.messages.reason import Reason
from core.models.base import LoadedModel

if TYPE_CHECKING:
    import torch


class Prompt:
    """Makes the inputs of each request. Text is tokenised anew each time, since that is part of what a user waits for.

    Different prompts make sequences of different lengths: the shorter ones are filled up, on the left for a model that goes on
    writing at the right, and the mask leaves what was filled in out.
    """

    def __init__(self, loaded: LoadedModel, workload: WorkloadConfig, device: str) -> None:
        self._loaded = loaded
        self._tokenizer: Any = loaded.tokenizer
        self._workload = workload
        self._device = device
        if workload.prompt_tokens is None and loaded.tokenizer is None:
            raise Refusal(Reason("execution.no-tokenizer"))
        self._chat = chat.in_chat(loaded, workload)
        self._vocabulary = int(getattr(text_config(loaded.model), "vocab_size", 0)) or 1000

    def length(self) -> int:
        """Tokens per sequence, found without making the whole batch (which may not fit)."""
        if self._workload.prompt_tokens is not None:
            return self._workload.prompt_tokens
        different = list(dict.fromkeys(chat.texts(self._loaded, self._workload)))
        rows = tokenized(self._loaded, different, add_special_tokens=not self._chat)["input_ids"]
        for ids in rows:
            check_tokens(ids, self._loaded)
        if len({len(ids) for ids in rows}) > 1 and not _leaves_padding_out(self._loaded.model):
            raise Refusal(Reason("execution.padding-not-left-out", name=self._loaded.facts.name))
        return max(len(ids) for ids in rows)

    def inputs(self) -> Inputs:
        """The inputs of one request (the same ones each time)."""
        import torch

        count, batch = self._workload.prompt_tokens, self._workload.batch
        if count is None:
            start = time.perf_counter_ns()
            encoded = self._encoded(chat.texts(self._loaded, self._workload))
            tokenize_ns = time.perf_counter_ns() - start
            given = accepted(encoded, self._loaded.model)
            tensors = {name: tensor.to(self._device) for name, tensor in given.items()}
            return Inputs(tensors, int(tensors["input_ids"].shape[1]), tokenize_ns)
        generator = torch.Generator().manual_seed(self._workload.seed)
        ids = torch.randint(0, self._vocabulary, (1, count), generator=generator)
        ids = ids.expand(batch, count).contiguous().to(self._device)
        return Inputs({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, count, None)

    def _encoded(self, written: list[str]) -> dict[str, torch.Tensor]:
        """What the tokenizer gives for the texts, as tensors [batch, longest]."""
        if len(set(written)) == 1:
            return dict(tokenized(self._loaded, written, add_special_tokens=not self._chat, return_tensors="pt"))
        encoded = tokenized(self._loaded, written, add_special_tokens=not self._chat)
        known = {"input_ids": _filler(self._tokenizer), "attention_mask": 0, "token_type_ids": 0}
        left = self._loaded.facts.task == chat.CHAT_TASK
        if "attention_mask" not in encoded:
            encoded["attention_mask"] = [[1] * len(row) for row in encoded["input_ids"]]
        return {name: _padded(rows, known[name], left=left) for name, rows in encoded.items() if name in known}


def _leaves_padding_out(model: Any) -> bool:
    """Whether the model attends only to what a mask says. One that keeps a state has padding run through it (RWKV, Mamba)."""
    return "attention_mask" in inspect.signature(model.forward).parameters and not torch_private.keeps_state(model)


def _filler(tokenizer: Any) -> int:
    """The token that stands where there is none; which one does not matter, since the mask leaves it out."""
    named = (getattr(tokenizer, name, None) for name in ("pad_token_id", "eos_token_id"))
    return next((token for token in named if isinstance(token, int)), 0)


def _padded(rows: list[list[int]], filler: int, *, left: bool) -> torch.Tensor:
    """Rows of one length, [rows, longest]."""
    import torch

    longest = max(len(row) for row in rows)
    filled = [(longest - len(row)) * [filler] for row in rows]
    return torch.tensor([fill + row if left else row + fill for row, fill in zip(rows, filled, strict=True)])
