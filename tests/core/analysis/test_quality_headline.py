"""The headline of a quality cost: the worse way of reading, two texts, errors over windows, files quantized before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import resources
from core.analysis import quality as measures
from core.analysis.facts import quality_json
from core.analysis.quality_headline import headline
from core.analysis.speed_quality import cost_of, point
from core.commands import quality_report
from core.config import ModelConfig, PassConfig, QualityConfig, RunConfig, TargetConfig, WorkloadConfig
from core.execution.eval_data import SHIPPED, SHIPPED_CODE, EvalData, read_material
from core.export.speed_quality import axis_title, point_table
from core.models.stored import stored_quantized
from core.program import Program
from core.records.run import Estimate, Quality
from gui.views import quality_text
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_quality import with_passes

FP8_CACHE = Quality(
    {
        "kld_mean": Estimate(0.0, 0.0),
        "same_top": Estimate(1.0, 0.0),
        "decode_kld_mean": Estimate(0.0070, 0.0004),
        "decode_same_top": Estimate(0.97, 0.01),
        "token_agreement": Estimate(0.41),
    },
    "shipped text",
    512,
)
"""A cache in eight bits, which a text that is read in one go never touches."""


# -- which of the two ways ------------------------------------------------------------------------------------------------


def test_a_cost_that_only_decoding_has_is_the_headline() -> None:
    found = headline(FP8_CACHE)
    assert found is not None
    assert (found.name, found.cost, found.path) == ("decode_kld_mean", 0.0070, "decode")
    assert found.costs == {"bulk": 0.0, "decode": 0.0070}
    assert cost_of(FP8_CACHE) == (0.0070, 0.0004, "kld", "decode", 0.0, 0.0070)


def test_bulk_is_the_headline_where_it_is_worse_and_decoding_where_they_are_equal() -> None:
    def of(bulk: float, decode: float) -> str:
        found = headline(Quality({"kld_mean": Estimate(bulk), "decode_kld_mean": Estimate(decode)}))
        assert found is not None
        return found.path

    assert of(0.0035, 0.0006) == "bulk"
    assert of(0.0006, 0.0035) == "decode"
    assert of(0.002, 0.002) == "decode"
    alone = headline(Quality({"kld_mean": Estimate(0.002)}))
    assert alone is not None
    assert alone.path == ""


@pytest.mark.parametrize("broken", ["", "decode_"])
def test_a_way_whose_logits_are_no_numbers_is_never_hidden_by_the_other(broken: str) -> None:
    other = "decode_" if broken == "" else ""
    figures = {f"{broken}same_top": Estimate(0.1), f"{other}same_top": Estimate(0.99), f"{other}kld_mean": Estimate(0.001)}
    found = headline(Quality(figures))
    assert found is not None
    assert (found.kind, found.name, found.cost) == ("disagreement", f"{broken}same_top", pytest.approx(0.9))


def test_everything_that_tells_a_cost_names_the_way_that_is_meant() -> None:
    run = with_passes(synthetic_run(), "kv_cache", quality=FP8_CACHE)
    told = quality_text.told(run)
    assert (told.value, told.unit) == ("0.007", "KLD")
    assert told.below == "decoding · bulk 0 · same top 97 %"
    assert "0.007 ± 0.0004 nats while decoding (the worse way; 0 ± 0 read in one go)" in told.sentence
    as_json = quality_json(run)
    assert as_json is not None
    assert as_json["headline"] == {"figure": "decode_kld_mean", "value": 0.0070, "error": 0.0004, "path": "decode"}
    section = quality_report.cost({"quality": as_json, "passes": [1], "unavailable": []})
    assert section.rows[0] == ("headline: KLD, mean, while decoding", "0.007", "± 0.0004")
    placed = point(run)
    assert placed is not None
    assert (placed.cost, placed.cost_path) == (0.0070, "decode")
    assert axis_title([placed]) == "KLD to the unoptimized model, nats (worse of bulk and decode)"
    table = point_table([placed])
    assert (table["cost_path"], table["cost_bulk"], table["cost_decode"]) == (["decode"], [0.0], [0.0070])


# -- two texts ------------------------------------------------------------------------------------------------------------


def test_a_disagreement_is_told_beside_the_headline() -> None:
    figures = {
        "kld_mean": Estimate(0.010, 0.001, 512, 4),
        "second_kld_mean": Estimate(0.05, 0.004, 256, 4),
        "same_top": Estimate(0.95, 0.01, 512, 4),
    }
    run = with_passes(
        synthetic_run(),
        "layer_drop",
        quality=Quality(figures, "shipped text", 512, second_text=SHIPPED_CODE, second_positions=256),
    )
    told = quality_text.told(run)
    assert "code 0.05" in told.below
    assert "On shipped code 0.05 ± 0.004; the two disagree by more than chance allows" in told.sentence
    as_json = quality_json(run)
    assert as_json is not None
    assert as_json["texts_disagree"] == ["kld_mean"]
    section = quality_report.cost({"quality": as_json, "passes": [1], "unavailable": []})
    assert ("KLD, mean (shipped code)", "0.05", "± 0.004") in section.rows
    assert "The two texts disagree by more than chance allows: KLD, mean." in section.note


def test_the_texts_share_no_sentence() -> None:
    def sentences(folder: str) -> set[str]:
        return set(EvalData("", tuple(resources.passages(folder)), 16).sentences(10_000))

    judged, code, fitted = (sentences(folder) for folder in ("text", "code", "calibration"))
    assert min(len(judged), len(code), len(fitted)) > 40
    assert not judged & fitted
    assert not judged & code
    assert not code & fitted


def test_a_text_that_a_pass_was_fitted_to_is_not_judged_on(tmp_path: Path) -> None:
    mine, same, other = (tmp_path / name for name in ("mine.txt", "same.txt", "other.txt"))
    mine.write_text("One sentence here. Another one there.\nAnd a third.", encoding="utf-8")
    same.write_text("One sentence here.\nAnother one there. And a third.\n", encoding="utf-8")
    other.write_text("Nothing of the kind.", encoding="utf-8")
    asked = QualityConfig(text=str(mine))
    found = read_material(asked, [str(same)])
    assert found.name == SHIPPED
    assert "fitted to mine.txt" in str(found.note)
    apart = read_material(asked, [str(other)])
    assert (apart.name, apart.second_name, apart.note) == ("mine.txt", SHIPPED, None)


def by_letters(path: Path) -> None:
    """A tokenizer whose tokens are single letters, so that no two pieces of a text are alike."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:;=_()"
    words = {word: number for number, word in enumerate(["[UNK]", "<s>", "</s>", *letters[:61]])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.save(str(path))


def test_a_model_that_reads_text_is_judged_on_both(tmp_path: Path) -> None:
    from tests.support.tiny_models import save_model, save_tokenizer

    folder = tmp_path / "speaker"
    save_model(folder, "llama", "AutoModelForCausalLM")
    save_tokenizer(folder)
    by_letters(folder / "tokenizer.json")
    program = Program(tmp_path / "session.tickscope")
    workload = WorkloadConfig(prompt="w1 w2 w3", new_tokens=12, repeats=1, warmup=0)
    choices = (PassConfig("kv_cache", {"kind": "fp8"}),)
    asked = RunConfig(
        ModelConfig(str(folder)), choices, TargetConfig("cpu", 1), workload, ("layer_clock",), quality=QualityConfig(tokens=256)
    )
    program.start(asked)
    assert program.join(120)
    done = program.live()
    program.close()
    assert done is not None
    quality = done.facts.quality
    assert quality is not None, done.facts.unavailable
    assert (quality.text, quality.second_text) == (SHIPPED, SHIPPED_CODE)
    assert quality.second_positions > 0
    figures = quality.figures
    assert figures["kld_mean"].value == figures["second_kld_mean"].value == 0  # a text read in one go touches no cache
    assert figures["decode_kld_mean"].value > 0
    assert figures["second_decode_kld_mean"].value > 0
    assert figures["decode_kld_mean"].error is not None
    found = headline(quality)
    assert found is not None
    assert found.path == "decode"


# -- errors over windows --------------------------------------------------------------------------------------------------


def test_positions_of_one_window_are_no_independent_witnesses() -> None:
    values = torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64)
    assert measures.mean(values, (2, 2)) == Estimate(2.0, 1.0, 4, 2)  # √(2/1 · ((−2)² + 2²)) / 4
    assert measures.mean(values, (1, 1, 1, 1)) == measures.mean(values)
    assert measures.mean(values, (4,)) == Estimate(2.0, None, 4, 1)


def test_the_error_over_windows_covers_what_positions_taken_as_independent_do_not() -> None:
    """Eight windows of 64 positions that share half of their variance: the mean lies within the error two times in three."""
    generator = torch.Generator().manual_seed(3)
    within = {"windows": 0, "positions": 0}
    rounds = 400
    for _ in range(rounds):
        shared = torch.randn(8, 1, generator=generator, dtype=torch.float64)
        values = (shared + torch.randn(8, 64, generator=generator, dtype=torch.float64)).flatten()
        for name, sizes in (("windows", (64,) * 8), ("positions", ())):
            found = measures.mean(values, sizes)
            assert found.error is not None
            within[name] += abs(found.value) < found.error
    assert 0.58 < within["windows"] / rounds < 0.74  # 0.65 for Student's t with 7 degrees of freedom
    assert within["positions"] / rounds < 0.3


# -- files that were quantized before -------------------------------------------------------------------------------------


class Config:
    def __init__(self, told: Any) -> None:
        self.quantization_config = told


@pytest.mark.parametrize(
    ("stored_as", "config", "found"),
    [
        ("GGUF Q4_1", None, "GGUF Q4_1"),
        ("GGUF IQ4_XS", None, "GGUF IQ4_XS"),
        ("GGUF Q8_0", None, "GGUF Q8_0"),
        ("safetensors F8_E4M3", None, "safetensors F8_E4M3"),
        ("safetensors int8", None, "safetensors int8"),
        ("GGUF F16", None, ""),
        ("GGUF BF16", None, ""),
        ("safetensors bfloat16", None, ""),
        ("random weights", None, ""),
        ("", Config({"quant_method": "awq", "bits": 4}), "AWQ, 4 bits"),
        ("safetensors float16", Config({"quant_method": "gptq", "bits": 4}), "GPTQ, 4 bits"),
        ("safetensors bfloat16", Config({}), ""),
    ],
)
def test_a_file_of_few_bits_is_known_by_its_format(stored_as: str, config: Any, found: str) -> None:
    assert stored_quantized(stored_as, config) == found
