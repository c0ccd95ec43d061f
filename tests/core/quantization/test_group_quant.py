"""Grouped int8 and int4: what the kernels compute, on this processor and in plain loops, and what the pass changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core import native
from core.config import PassConfig
from core.errors import Refusal
from core.model_parts.weights import weight_bytes
from core.planning import plan
from core.quantization import grouped
from tests.support.tiny import subject, tiny_llama

IDS = torch.tensor([[5, 9, 2, 7, 1]])


def sqnr_db(exact: torch.Tensor, found: torch.Tensor) -> float:
    return float(10 * torch.log10(exact.float().square().sum() / (exact.float() - found.float()).square().sum()))


@pytest.fixture(scope="module", params=["this processor", "plain loops"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The operators as the app has them, and those that other processors get, under another name."""
    native.load()
    if request.param == "this processor":
        return torch.ops.tickscope
    library = tmp_path_factory.mktemp("plain") / "plain.so"
    source = library.with_suffix(".cpp")
    text = native.resources.text(native.SOURCE).replace("(tickscope,", "(tickscope_plain,")
    source.write_text(text.replace("#define VNNI 1", "#define VNNI 0"))
    native.compile_source(source, library)
    torch.ops.load_library(str(library))
    return torch.ops.tickscope_plain


def packed_by(kernels: Any, weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    packed, scale, shift = grouped.quantize(weight, bits)
    for one in (packed, scale, shift):
        one.zero_()
    kernels.grouped_quantize(weight, packed, scale, shift, bits)
    return packed, scale, shift


def integers(packed: torch.Tensor) -> torch.Tensor:
    """[rows, groups, 32] of what lies as the kernel reads it."""
    if packed.shape[2] == 4:
        packed = torch.cat([packed & 15, packed >> 4], dim=2)
    return packed.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)


def by_row(numbers: torch.Tensor) -> torch.Tensor:
    """Scales or shifts as [rows, groups, 1]."""
    return numbers.permute(0, 2, 1).flatten(0, 1)[..., None].float()


@pytest.mark.parametrize(("bits", "least_db"), [(8, 40.0), (4, 19.0)])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 96), (50, 100), (17, 33)])
def test_products_are_those_of_the_rounded_weights(kernels: Any, bits: int, least_db: float, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs)
    packed = packed_by(kernels, weight, bits)
    values, scale = integers(packed[0]), by_row(packed[1])
    like = torch.empty(0, dtype=torch.bfloat16)
    rounded = kernels.grouped_weight(*packed, like, inputs, outputs, bits).float()
    exact = values * scale + by_row(packed[2]) if bits == 4 else (values.float() - 128) * scale
    assert torch.allclose(rounded, exact.flatten(1)[:outputs, :inputs], rtol=5e-3, atol=2e-2 * float(weight.abs().max()) / 127)
    assert sqnr_db(weight, exact.flatten(1)[:outputs, :inputs]) > least_db
    for dtype in (torch.float32, torch.bfloat16):
        for rows in (1, 2, 3, 4, 5, 9):
            x = torch.randn(rows, inputs).to(dtype)
            y = kernels.grouped_linear(x, *packed, outputs, bits)
            assert y.shape == (rows, outputs)
            assert y.dtype == dtype
            assert sqnr_db(x.float() @ exact.flatten(1)[:outputs, :inputs].T, y) > 36  # activations are of 8 bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_weight_goes_to_the_nearest_integer_and_a_narrower_range_only_where_it_is_nearer(
    kernels: Any, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    weight = torch.randn(33, 70).to(dtype)
    padded = torch.zeros(48, 96)
    padded[:33, :70] = weight.float()
    groups = padded.view(48, 3, 32)
    packed, scale, _ = packed_by(kernels, weight, 8)
    largest = groups.abs().amax(-1, keepdim=True)
    assert torch.equal(by_row(scale), (largest / 127).half().float())
    inverse = by_row(scale).reciprocal().nan_to_num(posinf=0)
    assert torch.equal(integers(packed).float() - 128, (groups * inverse).round().clamp(-127, 127))
    packed, scale, shift = packed_by(kernels, weight, 4)
    errors = (integers(packed) * by_row(scale) + by_row(shift) - groups).square().sum(-1)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((high - low) / 15).half().float()
    inverse = step.reciprocal().nan_to_num(posinf=0)
    whole = ((groups - low.half().float()) * inverse).round().clamp(0, 15) * step + low.half().float()
    assert bool((errors <= (whole - groups).square().sum(-1) + 1e-6).all())
    assert bool((errors < (whole - groups).square().sum(-1) * 0.9).any())


def test_zeros_and_constant_groups_come_out_as_they_are() -> None:
    native.load()
    linear = torch.nn.Linear(64, 32, bias=False)
    for constant in (0.0, 0.5, -3.0):
        torch.nn.init.constant_(linear.weight, constant)
        for bits in (8, 4):
            layer = grouped.grouped_linear(linear, bits)
            assert torch.allclose(layer(torch.zeros(1, 64)), torch.zeros(1, 32))
            assert torch.allclose(layer(torch.ones(1, 64)), torch.full((1, 32), 64 * constant), rtol=2e-2, atol=1e-6)


def test_weights_that_were_stored_as_q4_1_come_out_exactly(kernels: Any) -> None:
    torch.manual_seed(0)
    nibbles = torch.randint(0, 16, (16, 2, 32)).float()
    nibbles[..., 0], nibbles[..., 1] = 0, 15  # both ends of the range occur, as in real groups
    scale, shift = torch.rand(16, 2).half().float() * 0.1, -torch.rand(16, 2).half().float()
    weight = (nibbles * scale[..., None] + shift[..., None]).flatten(1)
    packed, found, low = packed_by(kernels, weight, 4)
    values = integers(packed).float()
    again = (values * by_row(found) + by_row(low)).flatten(1)
    assert torch.equal(values, nibbles)
    assert torch.allclose(again, weight, atol=2e-3)


@pytest.mark.parametrize("options", [{"bits": "8"}, {"bits": "4"}, {"bits": "4", "head": "as it is"}])
def test_the_pass_changes_every_linear_layer_and_says_so(options: dict[str, str]) -> None:
    model = tiny_llama()
    exact, before = model(IDS).logits, weight_bytes(model)
    made = subject(model)
    (report,) = plan.apply_all(made, [PassConfig("group_quant", options)])
    assert report.changed_modules == 7 * 3 + (options.get("head") != "as it is")
    assert weight_bytes(model) == report.weight_bytes_after < before
    assert sqnr_db(exact, model(IDS).logits) > (30 if options["bits"] == "8" else 8)
    out = model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape == (1, 9)


def test_a_head_that_shares_the_embedding_gets_a_copy_and_that_is_said() -> None:
    model = tiny_llama()
    model.lm_head.weight = model.model.embed_tokens.weight
    (report,) = plan.apply_all(subject(model), [PassConfig("group_quant")])
    assert any("copy of its own" in note for note in map(str, report.notes))
    assert model.model.embed_tokens.weight.dtype == torch.float32


def test_nothing_to_change_is_refused() -> None:
    with pytest.raises(Refusal, match="no linear layer"):
        plan.apply_all(subject(tiny_llama()), [PassConfig("group_quant", {"skip": "proj lm_head"})])


def test_a_compiler_that_fails_is_one_sentence(tmp_path: Path) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text("this is no C++;")
    with pytest.raises(Refusal, match="cannot compile"):
        native.compile_source(source, tmp_path / "x.so")
    assert list(tmp_path.glob("*.so*")) == []


def test_without_a_compiler_the_pass_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert str(native.available()) == "needs a C++ compiler (no-such-compiler is not installed)"


def test_an_owner_that_casts_to_the_weights_type_still_runs() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_ff=64, d_kv=8, num_heads=4, num_layers=2, vocab_size=64, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval().requires_grad_(requires_grad=False)
    exact = model(input_ids=IDS, decoder_input_ids=IDS).logits
    plan.apply_all(subject(model, "seq2seq"), [PassConfig("group_quant")])
    assert sqnr_db(exact, model(input_ids=IDS, decoder_input_ids=IDS).logits) > 25


def test_the_kernel_refuses_what_it_cannot_read() -> None:
    layer = grouped.grouped_linear(torch.nn.Linear(32, 16), 8)
    packed = (layer.packed, layer.scale, layer.shift)
    with pytest.raises(RuntimeError, match="float32"):
        torch.ops.tickscope.grouped_linear(torch.zeros(1, 32, dtype=torch.uint8), *packed, 16, 8)
    with pytest.raises(RuntimeError, match="size"):
        torch.ops.tickscope.grouped_linear(torch.zeros(1, 64), *packed, 16, 8)


def test_kept_kernels_that_were_cut_or_flipped_are_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))
    compiled: list[Path] = []

    def stand_in(_source: Path, target: Path) -> None:
        compiled.append(target)
        target.write_bytes(b"library" * 100)

    monkeypatch.setattr(native, "compile_source", stand_in)
    library = native._library()
    assert native._library() == library
    assert len(compiled) == 1
    for damaged in (library.read_bytes()[:50], library.read_bytes().replace(b"l", b"m")):
        library.write_bytes(damaged)
        assert native._library() == library
        assert library.read_bytes() == b"library" * 100
    assert len(compiled) == 3
    library.chmod(0o666)
    assert native._library() == library
    assert len(compiled) == 4
