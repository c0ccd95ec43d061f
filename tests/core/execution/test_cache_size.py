"""The size of every kind of cache is the memory of its tensors, worked out here from their shapes."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, cache_utils

from core.clock.gate import Gate
from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.execution.cache_size import cache_bytes, cache_in
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare, recording
from core.progress import Progress
from core.records.run import Run
from tests.support import tiny_kinds as kinds
from tests.support.tiny import TINY_BERT, TINY_LLAMA

HEADS, WIDTH, BATCH = 2, 8, 3
ONE = 2 * HEADS * WIDTH * BATCH * 4  # bytes of keys and values of one position in one layer
COUNTER = 8  # static layers keep their length as a tensor

CONFIG = LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=HEADS, num_hidden_layers=2)


def states(positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (BATCH, HEADS, positions, WIDTH)
    return torch.randn(shape), torch.randn(shape)


def filled(cache: cache_utils.Cache, *lengths: int, layers: int = 2) -> cache_utils.Cache:
    """The cache after so many positions came at once, one length after another."""
    for length in lengths:
        for layer in range(layers):
            cache.update(*states(length), layer)
    return cache


def of(*layers: object) -> cache_utils.Cache:
    return cache_utils.Cache(layers=list(layers))


class GroupedLayer(cache_utils.QuantizedLayer):
    """Quantizes to (numbers, what is known of them), as HQQ's does."""

    def _quantize(self, tensor, axis):
        return tensor.to(torch.int8), {"scale": torch.ones(5), "zero": torch.ones(5), "shape": tensor.shape}

    def _dequantize(self, quantized):
        return quantized[0].float()


class Packed(torch.Tensor):
    """A tensor made of tensors, as quantization libraries have them."""

    @staticmethod
    def __new__(cls, numbers, scale):
        made = torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=torch.float32)
        made.numbers, made.scale = numbers, scale
        return made

    def __tensor_flatten__(self):
        return ["numbers", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("nobody needs to compute with it to know its size")


def indexed() -> cache_utils.Cache:
    layer = cache_utils.DynamicIndexedLayer()
    layer.update(*states(4))
    layer.update_indexer(torch.randn(BATCH, 4, 6))
    return of(layer)


def linear(layer: object) -> cache_utils.Cache:
    layer.update_conv_state(torch.randn(BATCH, 10, 4))
    layer.update_recurrent_state(torch.randn(BATCH, HEADS, 4, 4))
    return of(layer)


STATES = BATCH * 10 * 4 * 4 + BATCH * HEADS * 4 * 4 * 4


def crossing() -> cache_utils.Cache:
    return cache_utils.EncoderDecoderCache(filled(cache_utils.DynamicCache(), 2), filled(cache_utils.DynamicCache(), 50))


def offloaded() -> cache_utils.Cache:
    cache = filled(cache_utils.DynamicCache(), 5)
    for layer in cache.layers:
        layer.offload()
    return cache


CACHES = {
    "growing": (lambda: filled(cache_utils.DynamicCache(), 5, 1), 2 * 6 * ONE),
    "offloaded": (offloaded, 2 * 5 * ONE),
    "sliding, not full": (lambda: filled(of(cache_utils.DynamicSlidingWindowLayer(8)), 5, layers=1), 5 * ONE + COUNTER),
    # the last window of what it attended to is a view of all of that
    "sliding": (lambda: filled(of(cache_utils.DynamicSlidingWindowLayer(4)), 9, 1, layers=1), 4 * ONE + COUNTER),
    "with an index": (indexed, 4 * ONE + BATCH * 4 * 6 * 4),
    "static": (lambda: filled(cache_utils.StaticCache(CONFIG, max_cache_len=20), 5), 2 * (20 * ONE + COUNTER)),
    "static and sliding": (
        lambda: filled(of(cache_utils.StaticSlidingWindowLayer(20, 4)), 5, layers=1),
        4 * ONE + COUNTER,
    ),
    "fp8": (lambda: filled(cache_utils.QuantizedCache("fp8", CONFIG), 5, 1), 2 * (6 * ONE // 4 + 2 * 4)),
    "grouped": (lambda: filled(of(GroupedLayer()), 5, 1, layers=1), 5 * ONE // 4 + 2 * 2 * 5 * 4 + ONE),
    "encoder and decoder": (crossing, 2 * (2 + 50) * ONE),
    "linear attention": (lambda: linear(cache_utils.LinearAttentionLayer()), STATES),
    "hybrid": (
        lambda: filled(linear(cache_utils.LinearAttentionAndFullAttentionLayer()), 5, layers=1),
        STATES + 5 * ONE,
    ),
    "paged": (lambda: SimpleNamespace(cache_tensor=(pool := torch.zeros(96)), pages=[pool[:48], pool[48:]]), 96 * 4),
    "pairs of every layer": (lambda: (states(5), states(5)), 2 * 5 * ONE),
    "the same twice": (lambda: [pair := states(5), pair], 5 * ONE),
    "tensors in tensors": (lambda: {0: Packed(torch.ones(40, dtype=torch.int8), torch.ones(10))}, 40 + 40),
    "shapes alone": (lambda: [torch.empty(4, 8, dtype=torch.float16, device="meta") for _ in range(2)], 2 * 64),
    "parameters": (lambda: [torch.nn.Parameter(torch.ones(4, 8))], 128),
}


@pytest.mark.parametrize("kind", CACHES)
def test_bytes_of_a_cache_are_those_of_its_tensors(kind):
    make, expected = CACHES[kind]
    assert cache_bytes(make()) == expected


def test_every_kind_of_layer_that_transformers_has_counts():
    """A new kind of layer may keep its tensors anywhere: all that the module defines are held against what is tested here."""
    found = {name for name, kind in vars(cache_utils).items() if isinstance(kind, type) and name.endswith("Layer")}
    found |= {"DynamicCache", "StaticCache", "QuantizedCache", "EncoderDecoderCache"} & set(vars(cache_utils))
    tested = {type(layer).__name__ for make, _ in CACHES.values() for layer in getattr(make(), "layers", ())}
    alike = {
        "HQQQuantizedLayer": "GroupedLayer",
        "QuantoQuantizedLayer": "GroupedLayer",
        "QuantizedLayer": "GroupedLayer",
        "StaticIndexedLayer": "DynamicIndexedLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer": "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndStaticFullAttentionLayer": "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndStaticSlidingWindowAttentionLayer": "LinearAttentionAndFullAttentionLayer",
    }
    bases = {"BaseQuantizedLayer", "DummyLayer"}  # of which there are none, and which holds nothing
    caches = {"DynamicCache", "StaticCache", "QuantizedCache", "EncoderDecoderCache"}
    assert found - caches - bases - tested - alike.keys() == set()
    assert set(alike.values()) <= tested


def test_no_cache_has_no_size():
    for nothing in (None, cache_utils.DynamicCache(), (), of(cache_utils.DummyLayer())):
        assert cache_bytes(nothing) == -1


def test_what_leads_away_from_a_cache_does_not_count():
    model = torch.nn.Linear(4, 4)
    assert cache_bytes(SimpleNamespace(keys=torch.ones(4), owner=model, module=SimpleNamespace(weight=torch.ones(9)))) == 16


def test_where_a_model_leaves_its_cache():
    cache = object()
    for name in ("cache", "past_key_values", "cache_params", "state", "mems", "past_buckets_states"):
        assert cache_in(SimpleNamespace(**{name: cache}), {}) is cache
    assert cache_in(SimpleNamespace(logits=1), {"cache": cache}) is cache
    assert cache_in((1, 2), {}) is None


# -- in runs ----------------------------------------------------------------------------------------------------------------


def run(spec: str, *passes: PassConfig, **workload) -> Run:
    asked = {"repeats": 1, "warmup": 0, "new_tokens": 4, "prompt_tokens": 6} | workload
    config = RunConfig(ModelConfig(spec), passes, workload=WorkloadConfig(**asked), profilers=())
    holder = ModelSlot()
    holder.load(config.model, "cpu", Progress())
    prepared = prepare(config, holder, Progress())
    made = recording(config, prepared, Gate(), Progress())
    made.carry_out(prepared)
    return made.run()


TINY_MAMBA = "arch:mamba?hidden_size=32&num_hidden_layers=2&state_size=4&vocab_size=64"
TINY_MISTRAL = TINY_LLAMA.replace("llama", "mistral") + "&sliding_window=4"
LLAMA_TOKEN = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width, float32

RUNS = {
    "growing": (TINY_LLAMA, (), {}, [6 * LLAMA_TOKEN, 7 * LLAMA_TOKEN, 8 * LLAMA_TOKEN, 9 * LLAMA_TOKEN]),
    "fp8": (
        TINY_LLAMA,
        (PassConfig("kv_cache", {"kind": "fp8"}),),
        {},
        [length * LLAMA_TOKEN // 4 + 3 * 2 * 4 for length in (6, 7, 8, 9)],
    ),
    "static": (TINY_LLAMA, (PassConfig("kv_cache", {"kind": "static"}),), {}, [10 * LLAMA_TOKEN + 3 * COUNTER] * 4),
    # heads, width, layers; what the encoder read is kept beside what was written
    "translator": (kinds.T5, (), {}, [-1, *[(written + 6) * 2 * 4 * 8 * 2 * 4 for written in (1, 2, 3, 4)]]),
    "listener": (kinds.WHISPER, (), {"prompt_tokens": None}, None),
    "states": (TINY_MAMBA, (), {}, [2 * (64 * 4 + 64 * 4) * 4] * 4),
    "encoder": (TINY_BERT, (), {}, [-1]),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_tells_the_bytes_of_its_cache(kind):
    spec, passes, workload, expected = RUNS[kind]
    found = run(spec, *passes, **workload).trace.moments["kv_bytes"].tolist()
    if expected is None:  # 50 positions were heard; the decoder begins with one token or more
        token = 2 * 32 * 2 * 4
        assert found[0] == -1
        own = [size - 50 * token for size in found[1:]]
        assert own[0] > 0
        assert [later - before for before, later in pairwise(own)] == [token] * (len(own) - 1)
        return
    assert found == expected


def test_a_sliding_window_holds_less():
    found = run(TINY_MISTRAL).trace.moments["kv_bytes"].tolist()
    counters = 3 * COUNTER
    # the prompt's six are kept whole until a token comes; then the window of three and the new one
    assert found == [6 * LLAMA_TOKEN + counters, *[4 * LLAMA_TOKEN + counters] * 3]
