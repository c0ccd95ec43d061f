"""Engines: models exported to ONNX Runtime and OpenVINO give the same results, times by layer, and come back as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig, T5Config

from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.model_slot import ModelSlot, PreparedModel
from core.model_parts.weights import weight_bytes
from core.pass_api.base import PassReport, passes
from core.pass_api.subject import Execution, Subject
from core.passes.onnxruntime import OnnxRuntimeOptions
from core.planning import plan
from core.progress import Progress
from core.runtimes import exporting, nodes, onnx_session
from core.runtimes.nodes import Node, Ran, completed, span_columns
from core.runtimes.runtime_pass import replaced
from core.targets.base import targets
from profilers.trace import Recorder
from tests.core.passes.test_passes import CPU, CUDA, facts

IDS = torch.arange(12).reshape(2, 6) + 3
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
TINY = "arch:bert?hidden_size=64&intermediate_size=128&num_hidden_layers=1&num_attention_heads=4&vocab_size=64"


def llama() -> torch.nn.Module:
    return AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA))


def gpt2() -> torch.nn.Module:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config)


def bert() -> torch.nn.Module:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64}
    return AutoModel.from_config(BertConfig(**sizes))


def made(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


@dataclass
class Pair:
    """A model in torch and the same one in an engine."""

    plain: torch.nn.Module
    subject: Subject
    report: PassReport

    @property
    def model(self) -> torch.nn.Module:
        return self.subject.model


def pair(build: Callable[[], torch.nn.Module], task: str, choice: PassConfig) -> Pair:
    plain = made(build)
    subject = Subject(copy.deepcopy(plain), task, Execution(1), 64, 2)
    (report,) = plan.apply_all(subject, [choice])
    return Pair(plain, subject, report)


@pytest.fixture(scope="module", params=[("onnxruntime", llama), ("onnxruntime", gpt2), ("openvino", llama), ("openvino", gpt2)])
def language(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A language model in each engine; exporting takes seconds, so it is made once."""
    engine, build = request.param
    found = pair(build, "text-generation", PassConfig(engine))
    yield found
    found.subject.undo.close()


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def encoder(request: pytest.FixtureRequest) -> Iterator[Pair]:
    found = pair(bert, "embedding", PassConfig(request.param))
    yield found
    found.subject.undo.close()


def tokens(model: Any, ids: torch.Tensor, count: int = 8) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **fixed).tolist()


def in_a_moment(subject: Subject, recorder: Recorder, moment: int, call: Callable[[], Any]) -> tuple[Any, int, int]:
    """The call as a traced moment makes it: its result, start and length."""
    subject.execution.runtime.clock.install()
    start = perf_counter_ns()
    result = call()
    duration = perf_counter_ns() - start
    subject.execution.runtime.clock.remove()
    assert subject.execution.runtime.clock.collect(recorder, moment, start, duration) is None
    return result, start, duration


def by_path(recorder: Recorder, model: torch.nn.Module, moment: int) -> dict[str, tuple[int, int, int]]:
    """Start, duration and own time of each layer in one moment."""
    paths = [path for path, _ in model.named_modules()]
    spans = recorder.spans.view()
    rows = np.flatnonzero(spans["moment"] == moment)
    return {
        paths[spans["layer"][row]]: tuple(int(spans[name][row]) for name in ("start_ns", "duration_ns", "self_ns"))
        for row in rows
    }


# -- the same results -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_generate_gives_the_same_tokens(language: Pair) -> None:
    for ids in (IDS, IDS[:1], IDS[:, :3]):
        assert tokens(language.model, ids) == tokens(language.plain, ids)
    torch.testing.assert_close(language.model(IDS).logits, language.plain(IDS).logits, rtol=0, atol=1e-4)
    last = language.model(IDS, logits_to_keep=1).logits
    torch.testing.assert_close(last, language.plain(IDS).logits[:, -1:], rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_cache_says_how_long_it_is_and_how_many_bytes(language: Pair) -> None:
    from core.execution.cache_size import cache_bytes

    ours, theirs = (model(IDS, use_cache=True).past_key_values for model in (language.model, language.plain))
    assert ours.get_seq_length() == theirs.get_seq_length() == 6
    assert cache_bytes(ours) == cache_bytes(theirs) > 0


def test_what_a_fixed_graph_cannot_do_is_refused(language: Pair) -> None:
    with pytest.raises(Refusal, match="without padding"):
        language.model(IDS, attention_mask=torch.tensor([[0] + 5 * [1], 6 * [1]]))
    with pytest.raises(Refusal, match="output_hidden_states"):
        language.model(IDS, output_hidden_states=True)


@torch.no_grad()
def test_an_encoder_gives_the_same_embeddings(encoder: Pair) -> None:
    mask = torch.ones_like(IDS)
    mask[0, 4:] = 0
    for ids, seen in ((IDS, mask), (IDS[:1], mask[:1]), (IDS[:, :2], mask[:, :2])):
        ours, theirs = (model(input_ids=ids, attention_mask=seen) for model in (encoder.model, encoder.plain))
        torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, rtol=0, atol=1e-4)
    torch.testing.assert_close(encoder.model(IDS).last_hidden_state, encoder.plain(IDS).last_hidden_state, rtol=0, atol=1e-4)


# -- what is reported -----------------------------------------------------------------------------------------------------


def test_the_report_says_engine_bytes_precision_and_that_the_exporter_is_experimental(encoder: Pair) -> None:
    report, subject = encoder.report, encoder.subject
    assert subject.execution.runtime is not None
    assert subject.execution.runtime.name in str(report.summary)
    assert report.changed_modules == sum(1 for _ in encoder.model.modules())
    assert report.weight_bytes_after == subject.execution.runtime.weight_bytes
    assert 0.9 < report.weight_bytes_after / weight_bytes(encoder.plain) < 1.1
    assert weight_bytes(encoder.model) < 0.05 * weight_bytes(encoder.plain), "torch's weights are still there"
    assert any("float32" in note and "1 thread." in note for note in map(str, report.notes))
    assert any("experimental" in note for note in map(str, report.notes))
    assert not report.predicted
    assert "kernels" in str(report.prediction)


@torch.no_grad()
def test_layer_times_of_traced_moments(language: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "MOST_OBSERVED", 2)  # so that the second moment brings both
    subject, model, recorder = language.subject, language.model, Recorder()
    start = model(IDS)
    traced, *first = in_a_moment(subject, recorder, 0, lambda: model(IDS[:, :1], past_key_values=start.past_key_values))
    clean = model(IDS[:, 1:2], past_key_values=traced.past_key_values)
    again, *second = in_a_moment(subject, recorder, 2, lambda: model(IDS[:, 2:3], past_key_values=clean.past_key_values))
    whole = language.plain(torch.cat([IDS, IDS[:, :3]], 1)).logits[:, -1:]
    torch.testing.assert_close(again.logits, whole, rtol=0, atol=1e-4)  # handed over twice, and nothing was lost
    assert again.past_key_values.get_seq_length() == 9
    blocks = "model.layers" if "layers" in "".join(path for path, _ in model.named_modules()) else "transformer.h"
    for moment, (start_ns, duration_ns) in ((0, first), (2, second)):
        spans = by_path(recorder, model, moment)
        root = spans.pop("")
        assert root[:2] == (start_ns - recorder.origin_ns, duration_ns)
        count = model.config.num_hidden_layers
        assert {"lm_head", *(f"{blocks}.{index}" for index in range(count))} <= set(spans)
        assert 0 < sum(spans[f"{blocks}.{index}"][1] for index in range(count)) <= duration_ns
        own = sum(self_ns for _, _, self_ns in spans.values()) + root[2]
        assert own == pytest.approx(duration_ns, abs=len(spans))
        for path, (begin, length, _) in spans.items():
            above = spans.get(path.rpartition(".")[0], root)
            assert above[0] <= begin, path
            assert begin + length <= above[0] + above[1] + len(spans), path


def checked_census(one: Pair) -> None:
    ran = one.subject.execution.runtime.census()
    assert len(ran) > 3
    assert all(count > 0 for kernels in ran.values() for count in kernels.values())
    (credited,) = plan.credited([one.report], ran, one.subject.changed_by)
    assert credited.kernels
    if one.report.id == "onnxruntime":
        assert any("MatMul" in kernel and "CPUExecutionProvider" in kernel for kernel in credited.kernels)


def test_a_census_names_kernels_of_a_decode_by_layer(language: Pair) -> None:
    checked_census(language)


def test_a_census_names_kernels_of_an_encoder_by_layer(encoder: Pair) -> None:
    checked_census(encoder)


# -- on and off -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [PassConfig("onnxruntime", {"quantize": "int8"}), PassConfig("openvino", {"weights": "int8"})],
    ids=lambda one: one.id,
)
@torch.no_grad()
def test_int8_takes_fewer_bytes_and_off_again_the_original_is_back(choice: PassConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = exporting.Sample({"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}, {})
    monkeypatch.setattr(f"core.passes.{choice.id}.sample_of", lambda model, task: sample)  # of one size: exports much faster
    holder, model, target = ModelSlot(), ModelConfig(TINY), targets.get("cpu").probe()
    config = RunConfig(model=model, workload=WorkloadConfig(prompt_tokens=6, new_tokens=1))
    holder.load(model, "cpu", Progress())

    def prepared(*choices: PassConfig) -> PreparedModel:
        return holder.prepare(replace(config, passes=choices), target, 6, Progress())

    plain = prepared().subject.model(IDS).last_hidden_state
    on = prepared(choice)
    (report,) = on.reports
    assert on.subject.execution.runtime is not None
    assert report.weight_bytes_after < 0.4 * report.weight_bytes_before
    assert report.predicted["decode"] == pytest.approx(report.weight_bytes_before / report.weight_bytes_after)
    assert "int8" in str(report.summary)
    ours = on.subject.model(IDS).last_hidden_state
    assert torch.nn.functional.cosine_similarity(ours, plain, dim=-1).min() > 0.98
    assert not torch.equal(ours, plain)
    off = prepared()
    assert off.subject.execution.runtime is None
    assert "forward" not in off.subject.model.__dict__
    assert torch.equal(off.subject.model(IDS).last_hidden_state, plain)
    holder.unload()


def test_undo_removes_the_files() -> None:
    class Closed:
        """An engine that only counts how often it was let go."""

        name, nodes, weight_bytes, wants, count = "Example 1.0", 1, 1, frozenset({"input_ids"}), 0

        def close(self) -> None:
            self.count += 1

        def call(self, inputs: Any) -> Any:
            return inputs["input_ids"]

    model, engine = made(bert), Closed()
    subject = Subject(model, "embedding", Execution(1), 16, 1)
    exported = exporting.Exported(None, None, generates=False, drift=())
    one, sample = passes.get("onnxruntime"), exporting.Sample({}, {})
    said = {"smaller": None, "precision": "float32", "computes": "float32"}
    report = replaced(subject, one, OnnxRuntimeOptions(), engine, exported, sample, **said)
    assert str(report.summary) == "Example 1.0 runs 1 nodes in float32"
    assert torch.equal(model(IDS), IDS)
    subject.undo.close()
    assert engine.count == 1
    assert "forward" not in model.__dict__


# -- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "package"), [("onnxruntime", "onnxscript"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_the_command(one: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan.reasons(facts(), CPU, ())[one] is None
    monkeypatch.setattr("core.pass_api.extras.find_spec", lambda name: None if name == package else object())
    extra = "onnx" if one == "onnxruntime" else "openvino"
    assert str(plan.reasons(facts(), CPU, ())[one]) == f"needs {package}: pip install 'tickscope[{extra}]'"
    with pytest.raises(Refusal, match=f"needs {package}: pip install"):
        plan.apply_all(Subject(made(bert), "embedding", Execution(1), 16, 1), [PassConfig(one)])


@pytest.mark.parametrize("one", ["onnxruntime", "openvino"])
def test_what_cannot_be_exported_is_told_before(one: str) -> None:
    assert "CPU" in str(plan.reasons(facts(), CUDA, ())[one] or "")
    assert "not text to text" in str(plan.reasons(facts(task="seq2seq"), CPU, ())[one] or "")
    assert plan.reasons(facts(task="image-classification"), CPU, ())[one] is None
    assert "float32" in str(plan.reasons(facts(dtype="bfloat16"), CPU, ())[one] or "")


def test_bfloat16_is_refused_where_openvino_would_not_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.passes.openvino.computes_in_bfloat16", lambda: False)
    with pytest.raises(Refusal, match="precision=f32"):
        plan.apply_all(Subject(made(bert), "embedding", Execution(1), 16, 1), [PassConfig("openvino", {"precision": "bf16"})])


@pytest.mark.parametrize("one", ["onnxruntime", "openvino"])
def test_a_model_that_the_exporter_refuses_is_left_as_it_was(one: str) -> None:
    class Stubborn(torch.nn.Module):
        """Looks at its data, which no graph can."""

        def __init__(self) -> None:
            super().__init__()
            self.config = T5Config()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            wide = input_ids[..., None].expand(-1, -1, 4).float()
            return self.layer(wide) if input_ids.sum().item() > 3 else wide

    model = Stubborn()
    subject = Subject(model, "embedding", Execution(1), 16, 1)
    with pytest.raises(Refusal, match=r"Stubborn cannot be exported \(.*switch the engine off"):
        plan.apply_all(subject, [PassConfig(one)])
    assert subject.execution.runtime is None
    assert "forward" not in model.__dict__
    assert model(IDS).shape == (2, 6, 4)


# -- nodes and spans ------------------------------------------------------------------------------------------------------


def test_nodes_without_a_layer_take_that_of_their_users() -> None:
    known = {"mul": "model.layers.0.norm", "view": "model.layers.0.attn", "out": "lm_head"}
    uses = [("mul", []), ("matmul", ["mul"]), ("split", ["matmul"]), ("view", ["split"]), ("last", ["view"]), ("out", ["view"])]
    found = completed(known, uses)
    assert (found["matmul"], found["split"], found["last"]) == ("model.layers.0.attn",) * 3
    assert completed({}, [("alone", [])]) == {"alone": ""}


def test_spans_nest_and_never_exceed_the_moment() -> None:
    rows = {"": 0, "model": 1, "model.layers.0": 3, "model.layers.0.attn": 4, "model.layers.1": 5, "lm_head": 6}
    ran = Ran(
        1_100,
        (
            Node("model.layers.0.attn.q@1", 300),
            Node("model.layers.1", 100),
            Node("model.layers.0", 50),
            Node("", 20),
            Node("lm_head", 30),
        ),
    )
    columns = span_columns(ran, rows, 7, 1_000, 900, 1_000)
    spans = {
        int(row): tuple(int(columns[name][at]) for name in ("start_ns", "duration_ns", "self_ns"))
        for at, row in enumerate(columns["layer"])
    }
    assert spans == {
        1: (100, 450, 0),
        3: (100, 350, 50),
        4: (100, 300, 300),
        5: (450, 100, 100),
        6: (550, 30, 30),
        0: (0, 900, 420),
    }
    assert set(columns["moment"].tolist()) == {7}
    squeezed = span_columns(ran, rows, 7, 1_000, 250, 1_000)
    assert squeezed["self_ns"].min() >= 0
    assert (squeezed["start_ns"] + squeezed["duration_ns"]).max() <= 250


def test_layers_without_a_forward_have_no_row() -> None:
    rows = nodes.layer_rows(made(bert))
    assert "encoder.layer" not in rows
    assert rows[""] == 0
    assert nodes.nearest("encoder.layer", rows) == "encoder"
