"""The roofline: least times and gains from made-up numbers, the work counted on tiny models, and what reports predict."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    Qwen2MoeConfig,
    T5Config,
)

from core import machine_facts
from core.config import PassConfig
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.prediction import ceilings as limits
from core.prediction import layer_costs
from core.prediction.ceilings import READ_BYTES, ceilings, operators_of
from core.prediction.work import work_of
from core.quantization import grouped
from core.records import roofline
from core.records.roofline import Ceilings, ForwardCost, MatMul, ModelState, ShapeTiming, Step
from tests.support.tiny import subject, tiny_llama

CEILINGS = Ceilings(2, ((10**6, 4e9), (10**8, 1e9)), {"float32": 1e11, "bfloat16": 1e12}, 1000.0)
DECODE, PREFILL = Step("decode", 1, 1), Step("prefill", 100, 1)
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128}


def product(**changes: Any) -> MatMul:
    """A layer of 50 million float32 weights: 200 MB, which no cache of ``CEILINGS`` holds."""
    return replace(MatMul("a", 5000, 10_000, 50_000_000, 200_000_000, "float32", "float32"), **changes)


def state(*products: MatMul, operators: int | None = 0, timed: ShapeTiming | None = None) -> ModelState:
    return ModelState(ForwardCost(products, operators), CEILINGS, {} if timed is None else {"decode": (timed,)})


def seen(name: str, taken_ns: float, least_ns: float = 1e8) -> ShapeTiming:
    return ShapeTiming(("layers.0.up", "layers.1.up"), (5000, 10_000, name), 1, 10**8, taken_ns, least_ns)


# -- arithmetic -----------------------------------------------------------------------------------------------------------


def test_read_speed_is_that_of_the_size_and_between_two_sizes_by_their_logs() -> None:
    assert [CEILINGS.read_per_s(size) for size in (0, 10**3, 10**6, 10**7, 10**8, 10**12)] == [
        pytest.approx(value) for value in (4e9, 4e9, 4e9, 2.5e9, 1e9, 1e9)
    ]


def test_a_step_takes_as_long_as_reading_or_as_multiplying() -> None:
    one = state(product())
    assert roofline.step_ns(one, DECODE) == pytest.approx(0.2e9)  # 200 MB at 1 GB/s
    assert roofline.step_ns(one, Step("prefill", 1000, 1)) == pytest.approx(1e9)  # 2 × 50 M × 1000 at 100 G/s
    assert roofline.step_ns(state(product(), operators=500), DECODE) == pytest.approx(0.2e9 + 500_000)
    assert roofline.step_ns(state(product(), operators=500), DECODE, operators=False) == pytest.approx(0.2e9)


def test_layers_take_as_many_times_longer_as_those_of_their_shape_that_were_tried() -> None:
    tried = seen("float32", 3e8)  # three times as long as it must
    small = product(path="b", inputs=10)
    other = product(path="c", form="int8")
    for products, expected in (((product(),), 0.6e9), ((product(), small), 1.2e9), ((other,), 0.2e9)):
        assert roofline.step_ns(state(*products, timed=tried), DECODE) == pytest.approx(expected)
    assert roofline.step_ns(state(product(), timed=tried), DECODE, tried=False) == pytest.approx(0.2e9)


def test_operators_inside_of_tried_layers_take_what_they_took_there_and_not_what_those_between_layers_take() -> None:
    """Two layers of 0.2 s that call ten operators of 1 ms each, tried at twice that; 5 operators between, of 30 ms."""
    slow_between = replace(CEILINGS, operator_ns=3e7)
    tried = ShapeTiming(("a", "b"), (5000, 10_000, "float32"), 1, 10**8, 2 * 0.42e9, 0.42e9, operators=10, operator_ns=1e6)
    work = ForwardCost((product(), product(path="b")), operators=25)
    found = ModelState(work, slow_between, {"decode": (tried,)})
    assert roofline.operators_between(found, DECODE) == 5
    assert roofline.in_layers_ns(found, DECODE) == pytest.approx(2 * 2 * (0.2e9 + 1e7))  # as they were tried
    assert roofline.step_ns(found, DECODE) == pytest.approx(0.84e9 + 5 * 3e7)
    assert roofline.step_ns(found, DECODE, operators=False) == pytest.approx(2 * 2 * 0.2e9)  # as in one graph
    assert roofline.step_ns(found, DECODE, tried=False) == pytest.approx(0.42e9 + 5 * 3e7)


def test_the_head_sees_one_position_of_a_prompt_and_an_encoder_no_decode() -> None:
    many = ForwardCost((product(), product(head=True), product(once=True)), 0)
    assert roofline.step_operations(many, PREFILL) == 2 * 50e6 * (100 + 1 + 100)
    assert roofline.step_bytes(many, DECODE) == 400_000_000
    assert roofline.step_ns(ModelState(many, CEILINGS), DECODE) == pytest.approx(0.4e9)


def test_experts_are_read_as_far_as_rows_choose_them() -> None:
    expert = product(share=0.25)
    assert [expert.read_bytes(rows) for rows in (0, 1, 2, 4, 100)] == [0, 50e6, 100e6, 200e6, 200e6]


def test_unpacking_writes_and_reads_the_weight_at_its_own_size() -> None:
    packed = product(held_bytes=10**8, direct_rows=8, unpacked_bytes=10**6, unpacked_arithmetic="bfloat16", form="int8")
    direct = roofline.product_ns(packed, 8, CEILINGS, 1e9)
    assert direct == pytest.approx(0.1e9)
    assert roofline.product_ns(packed, 9, CEILINGS, 1e9) == pytest.approx(0.1e9 + 2e6 / 4e9 * 1e9)


def test_gain_is_the_bytes_ratio_where_reading_takes_the_time() -> None:
    before, after = state(product()), state(product(held_bytes=100_000_000, form="int8"))
    found, sentence = roofline.predict(before, after, (PREFILL, DECODE))
    assert found == {"prefill": pytest.approx(2.0), "decode": pytest.approx(2.0)}
    assert "A token reads 191 MiB → 95.4 MiB of weights at 1.00 GB/s." in str(sentence)
    assert "But" not in str(sentence)


def test_operators_take_their_part_of_the_gain() -> None:
    before, after = state(product(), operators=100_000), state(product(held_bytes=100_000_000), operators=200_000)
    found, sentence = roofline.predict(before, after, (DECODE,))
    assert found == {"decode": pytest.approx((0.2 + 0.1) / (0.1 + 0.2))}
    assert str(sentence).endswith("Each forward also calls 100000 → 200000 operators of about 1.00 µs.")


def test_the_gain_is_that_of_the_layers_that_were_tried_and_the_sentence_says_so() -> None:
    half = product(held_bytes=100_000_000, form="int8")
    before = state(product(), timed=seen("float32", 2e8, 2e8))
    found, slow = roofline.predict(before, state(half, timed=seen("int8", 1.6e8)), (DECODE,))
    assert found == {"decode": pytest.approx(1.25)}
    assert "That alone would be 2.00×; tried with 1 row, layers such as layers.0.up took 1.60 times as long as it" in str(slow)
    assert "now allows, so 1.25× is expected." in str(slow)
    _, agreeing = roofline.predict(before, state(half, timed=seen("int8", 1.1e8)), (DECODE,))
    assert "tried" not in str(agreeing)
    worse = state(product(), timed=seen("float32", 4e8, 2e8))
    found, fast = roofline.predict(worse, state(half, timed=seen("int8", 1e8)), (DECODE,))
    assert found == {"decode": pytest.approx(4.0)}
    assert "took 2.00 times as long as it before allows, so 4.00× is expected." in str(fast)


def test_nothing_changed_is_said_and_no_gain_is_made_up() -> None:
    assert roofline.predict(state(product()), state(product()), (DECODE,)) == ({}, roofline.UNCHANGED)
    fewer = replace(state(product()), ceilings=replace(CEILINGS, threads=1, reads=((1, 5e8),)))
    assert roofline.predict(state(product()), fewer, (DECODE,))[0] == {"decode": pytest.approx(0.5)}


def test_a_graph_gains_the_operators() -> None:
    found, sentence = roofline.compiled_gain(state(product(), operators=100_000), DECODE)
    assert found == {"decode": pytest.approx(1.5)}
    assert "100000 operators of about 1.00 µs" in str(sentence)
    slow = state(product(), operators=100_000, timed=seen("float32", 2e8))
    assert roofline.compiled_gain(slow, DECODE)[0] == {"decode": pytest.approx(1.25)}
    assert roofline.compiled_gain(state(product(), operators=None), DECODE)[0] == {}


# -- counting -------------------------------------------------------------------------------------------------------------


def gpt2() -> torch.nn.Module:
    return AutoModelForCausalLM.from_config(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64)).eval()


def bert() -> torch.nn.Module:
    return AutoModel.from_config(BertConfig(**SIZES)).eval()


def moe() -> torch.nn.Module:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
    return AutoModelForCausalLM.from_config(Qwen2MoeConfig(**SIZES, **experts, num_key_value_heads=2)).eval()


def test_every_linear_layer_is_a_product_and_embeddings_are_none() -> None:
    found = {one.path: one for one in work_of(tiny_llama())}
    assert len(found) == 3 * 7 + 1
    up = found["model.layers.0.mlp.up_proj"]
    assert (up.inputs, up.outputs, up.macs, up.held_bytes, up.form, up.share) == (64, 128, 8192, 32768, "float32", 1.0)
    assert [path for path, one in found.items() if one.head] == ["lm_head"]
    transposed = {one.path: one for one in work_of(gpt2())}["transformer.h.0.mlp.c_fc"]
    assert (transposed.inputs, transposed.outputs) == (64, 256)


def test_of_experts_a_row_reads_those_it_is_sent_to() -> None:
    found = {one.path: one for one in work_of(moe())}["model.layers.0.mlp.experts"]
    held = 4 * (64 * 64 + 64 * 32)  # four experts: gate with up, and down
    assert (found.share, found.macs, found.held_bytes) == (0.5, held // 2, 4 * held)


def test_an_encoder_beside_a_decoder_runs_once() -> None:
    config = T5Config(d_model=32, d_ff=64, d_kv=8, num_layers=1, num_heads=4, vocab_size=64)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    assert {one.path.split(".")[0] for one in work_of(model) if one.once} == {"encoder"}
    found = plan.apply_all(Subject(model, "text2text-generation", Execution(1), 8, 1), [PassConfig("bfloat16")])[0]
    assert set(found.predicted) == {"decode"}


def test_operators_are_counted_without_questions_of_shape() -> None:
    x = torch.ones(2, 3)
    assert operators_of(lambda: (x + 1).view(x.shape[0], -1).sum()) == 3


# a part of the bytes of float32: weights and scales
PARTS = {
    "bfloat16": (1 / 2, "bfloat16"),
    "int8_weight_only": (1 / 4 + 2 / 256, "int8 weights"),
    "int8_dynamic": (1 / 4 + 8 / 256, "int8"),  # a float32 scale and a sum for each row
    "float8_weight_only": (1 / 4 + 4 / 256, "float8 weights"),
    "int4_weight_only": (1 / 8 + 8 / 256, "int4 weights"),  # a scale and a zero in bfloat16 for each group of 32
    "bitsandbytes": (1 / 8 + 3 / 256, "bitsandbytes Linear4bit"),  # a scale of 2 or 4 bytes, as the processor likes it
}


@pytest.mark.parametrize(("pass_id", "expected"), PARTS.items())
def test_bytes_of_changed_layers_are_what_they_hold(pass_id: str, expected: tuple[float, str]) -> None:
    model = tiny_llama(1)
    before = {one.path: one for one in work_of(model)}["model.layers.0.mlp.up_proj"]
    plan.apply_all(subject(model), [PassConfig(pass_id)])
    after = {one.path: one for one in work_of(model)}["model.layers.0.mlp.up_proj"]
    part, form = expected
    exact = 0.03 if pass_id == "bitsandbytes" else 1e-9
    assert after.held_bytes == pytest.approx(before.held_bytes * part, rel=exact)
    assert (after.macs, after.form) == (before.macs, form)


@pytest.mark.parametrize(("bits", "part"), [(8, 1 / 4 + 2 / 128), (4, 1 / 8 + 4 / 128)])
def test_grouped_layers_hold_their_scales_and_unpack_for_many_rows(bits: int, part: float) -> None:
    linear = torch.nn.Linear(64, 128)
    (found,) = work_of(torch.nn.Sequential(grouped.grouped_linear(linear, bits)))
    assert found.held_bytes == linear.weight.nbytes * part
    assert (found.form, found.arithmetic, found.unpacked_arithmetic) == (f"int{bits} groups", "int8", "bfloat16")
    assert (found.direct_rows, found.unpacked_bytes) == (grouped.MOST_ROWS, 64 * 128 * 2)


def test_autocast_reads_all_and_casts_on_every_call() -> None:
    one = work_of(tiny_llama(1), "bfloat16")[0]
    assert (one.direct_rows, one.unpacked_bytes, one.held_bytes) == (0, 64 * 64 * 2, 64 * 64 * 4)


# -- predicting -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that only reads memory: operators cost nothing, products nothing."""
    flat = Ceilings(1, ((1, 1e9),), {"float32": 1e30}, 0.0)
    monkeypatch.setattr(layer_costs, "ceilings", lambda: flat)
    monkeypatch.setattr(layer_costs.LayerCosts, "_timed", lambda *_: ())


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(("pass_id", "expected"), [("bfloat16", 2.0), ("int8_weight_only", 3.88), ("int8_dynamic", 3.6)])
def test_reports_predict_the_bytes_ratio(pass_id: str, expected: float) -> None:
    (report,) = plan.apply_all(subject(tiny_llama()), [PassConfig(pass_id)], prompt=4)
    assert report.predicted["decode"] == pytest.approx(expected, rel=0.03)
    assert "A token reads 496 KiB →" in str(report.prediction)
    assert "A prefill of 4 positions" in str(report.prediction)


@pytest.mark.usefixtures("made_up")
def test_each_pass_of_a_stack_is_predicted_from_what_the_one_before_left() -> None:
    reports = plan.apply_all(subject(tiny_llama()), [PassConfig("bfloat16"), PassConfig("int8_weight_only")])
    assert [report.predicted["decode"] for report in reports] == [pytest.approx(2.0), pytest.approx(1.94, rel=0.01)]


@pytest.mark.usefixtures("made_up")
def test_an_encoder_has_a_forward_only_and_a_structure_pass_keeps_its_own_words() -> None:
    reports = plan.apply_all(subject(bert(), "embedding"), [PassConfig("layer_drop"), PassConfig("bfloat16")])
    assert [set(report.predicted) for report in reports] == [{"forward"}, {"forward"}]
    assert "products per token" in str(reports[0].prediction)
    assert "A forward of 64 positions" in str(reports[1].prediction)


MODELS: dict[str, Callable[[], torch.nn.Module]] = {"llama": tiny_llama, "gpt2": gpt2, "moe": moe}
ALONE = ["threads", "allocator", "autocast", "mixed_precision", "merge_projections", "attention", "compile_decode"]


@pytest.mark.parametrize("model", MODELS)
def test_every_report_predicts_something_or_says_why_not(model: str) -> None:
    options = {"attention": {"implementation": "eager"}}
    for pass_id in ALONE:
        if (pass_id, model) == ("merge_projections", "gpt2"):
            continue  # has one product already
        made = subject(MODELS[model]().requires_grad_(requires_grad=False))
        (report,) = plan.apply_all(made, [PassConfig(pass_id, options.get(pass_id, {}))])
        made.undo.close()
        assert report.prediction, pass_id
        assert bool(report.predicted) or str(report.prediction).startswith("None"), pass_id
        assert all(gain > 0 for gain in report.predicted.values())


def test_looking_leaves_results_and_random_numbers_as_they_were() -> None:
    plain, made = tiny_llama(), subject(tiny_llama())
    ids = torch.arange(8).view(1, 8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    plan.apply_all(made, [PassConfig("threads")])
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(made.model(ids).logits, plain(ids).logits)
    made.undo.close()


def test_ceilings_are_positive_and_measured_once() -> None:
    found = ceilings()
    assert found == ceilings()
    assert found.threads == torch.get_num_threads()
    assert tuple(size for size, _ in found.reads) == READ_BYTES
    assert found.operator_ns > 0
    assert {"float32", "bfloat16"} <= set(found.operations_per_s)
    assert min(*(speed for _, speed in found.reads), *found.operations_per_s.values()) > 0


def test_a_disturbed_round_is_measured_again() -> None:
    rounds = iter([{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 2.0}, {"a": 5.2, "b": 8.0}, {"a": 99.0, "b": 99.0}])
    assert limits._steadied(lambda: next(rounds), lambda _: False) == {"a": 5.2, "b": 9.0}  # the third added little
    assert next(rounds)["a"] == 99.0  # and was the last


def test_what_is_unlikely_is_measured_as_often_as_it_may_be() -> None:
    calls: list[int] = []

    def same() -> dict[str, float]:
        calls.append(1)
        return {"a": 1.0}

    limits._steadied(same, lambda _: True)
    assert len(calls) == limits.MOST_ROUNDS


@pytest.mark.parametrize(
    ("able", "bfloat16", "unlikely"),
    [({"amx_bf16": True}, 150.0, True), ({"amx_bf16": True}, 900.0, False), ({"avx512_bf16": True}, 150.0, False)],
)
def test_a_matrix_unit_that_is_slower_than_float32_is_unlikely(
    able: dict[str, bool], bfloat16: float, unlikely: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert limits._unlikely_products({"float32": 261.0, "bfloat16": bfloat16}) is unlikely


def test_a_cache_that_is_slower_than_memory_is_unlikely() -> None:
    assert limits._unlikely_reads({1: 5.0, 2: 9.0, 4: 3.0})
    assert not limits._unlikely_reads({1: 9.0, 2: 9.5, 4: 3.0})


def test_a_prediction_made_while_others_computed_says_so(new_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (calm,) = plan.apply_all(subject(tiny_llama()), [PassConfig("bfloat16")], prompt=4)
    assert calm.predicted
    assert str(layer_costs.ROUGH) not in str(calm.prediction)
    machine_facts.forget()
    (new_machine / "kept").mkdir()
    monkeypatch.setenv("TICKSCOPE_CACHE", str(new_machine / "kept"))
    seconds = itertools.count(0.0, 100.0)
    monkeypatch.setattr(machine_facts, "others_s", lambda: next(seconds))
    (busy,) = plan.apply_all(subject(tiny_llama()), [PassConfig("bfloat16")], prompt=4)
    assert busy.predicted
    assert str(busy.prediction).endswith(str(layer_costs.ROUGH))


# -- remembering ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def new_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine_facts, "others_s", lambda: 0.0)
    yield tmp_path / "machine"
    machine_facts.forget()


def again(name: str, value: Any) -> Any:
    """What a later process finds."""
    machine_facts.forget()
    return machine_facts.remembered(name, lambda: value)


def test_what_was_found_is_known_at_the_next_start(new_machine: Path) -> None:
    assert machine_facts.remembered("a", lambda: {"b": (1, 2.5)}) == {"b": [1, 2.5]}
    assert machine_facts.remembered("c", lambda: 3) == 3
    assert again("a", 4) == {"b": [1, 2.5]}
    assert again("c", 4) == 3
    torch.set_num_threads(threads := torch.get_num_threads() + 1)
    try:
        assert again("c", 4) == 4  # with other threads it is another machine
    finally:
        torch.set_num_threads(threads - 1)
    assert again("c", 5) == 3


def test_what_was_measured_on_a_busy_machine_is_not_kept(new_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 1.0])
    monkeypatch.setattr(machine_facts, "others_s", lambda: next(seconds))
    assert machine_facts.remembered("a", lambda: 1) == 1
    assert machine_facts.remembered("a", lambda: 2) == 1  # in this process it is
    monkeypatch.setattr(machine_facts, "others_s", lambda: 0.0)
    assert again("a", 2) == 2
    assert again("a", 3) == 2


def test_what_others_slowed_down_is_no_ceiling(new_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions have nothing better and say that they are rough; a run's layers would be faster than "at most"."""
    found = {"reads": [[1 << 20, 1e9]], "operations_per_s": {"float32": 1e9}, "operator_ns": 1e3}
    monkeypatch.setattr(limits, "_measured", lambda: found)
    assert limits.known_ceilings() is None  # nobody asked yet
    seconds = iter([0.0, 1.0])
    monkeypatch.setattr(machine_facts, "others_s", lambda: next(seconds))
    assert limits.ceilings().operator_ns == 1e3
    assert limits.known_ceilings() is None
    machine_facts.forget()
    monkeypatch.setattr(machine_facts, "others_s", lambda: 0.0)
    assert limits.ceilings() == limits.known_ceilings()


@pytest.mark.parametrize("text", ["", '{"a": ', "[]", "\0"])
def test_a_file_that_was_cut_short_is_written_anew(new_machine: Path, text: str) -> None:
    machine_facts.remembered("a", lambda: 1)
    (kept,) = new_machine.iterdir()
    kept.write_text(text)
    assert again("a", 2) == 2
    assert again("a", 3) == 2


def test_where_nothing_can_be_kept_it_is_found_each_time(new_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSCOPE_CACHE", f"{os.devnull}/nothing")  # no folder can be made there, by root neither
    assert machine_facts.remembered("a", lambda: 1) == 1
    assert again("a", 2) == 2
