"""Tiny random models for tests that need a real ``generate`` loop but no real weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.config import ModelConfig
from core.models.base import LoadedModel, ModelFacts
from core.pass_api.subject import Execution, Subject

if TYPE_CHECKING:
    import torch

TINY_LLAMA = (
    "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=3&num_attention_heads=4"
    "&num_key_value_heads=2&vocab_size=256&max_position_embeddings=4096"
)
TINY_BERT = (
    "arch:bert?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=2&vocab_size=128"
    "&max_position_embeddings=64"
)


def tiny_llama(layers: int = 3, hidden: int = 64) -> torch.nn.Module:
    """A Llama with random weights, the same ones each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)


def loaded(model: Any, task: str = "text-generation") -> LoadedModel:
    """A model as if a source had loaded it."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = ModelFacts(
        spec="test:tiny",
        name="tiny",
        architecture=type(model).__name__,
        task=task,
        parameters=parameters,
        layers=model.config.num_hidden_layers,
        dtype="float32",
        weight_bytes=4 * parameters,
        file_bytes=None,
        context_length=4096,
        has_tokenizer=False,
    )
    return LoadedModel(model, None, facts, ModelConfig("test:tiny"), 1, 0, 0)


def subject(model: Any, task: str = "text-generation", max_length: int = 64) -> Subject:
    """A model as passes and engine see it."""
    return Subject(model, task, Execution(1), max_length, 1)
