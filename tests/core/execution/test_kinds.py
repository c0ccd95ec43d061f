"""Each kind of model from its spec to what came out: the right moments and stages, and a fitting result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core import units
from core.analysis.summary import summarize
from core.clock.gate import Gate
from core.commands import report
from core.config import ModelConfig, RunConfig, WorkloadConfig
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare, recording
from core.execution.tasks.base import form_of
from core.models import catalog
from core.models.base import parameters_in_words
from core.progress import Progress
from core.records.run import Run
from gui.setup.model_picker import facts_line
from profilers.trace import KINDS
from tests.support import tiny_kinds as kinds
from tests.support.tiny_models import save_model

NEW_TOKENS = 4
GENERATED = ["prefill", *["decode"] * (NEW_TOKENS - 1)]


def run(spec: str, *, trust: bool = False, holder: ModelSlot | None = None, **workload: Any) -> Run:
    """Two requests of a model, the first clean and the second traced."""
    asked = {"repeats": 2, "warmup": 0, "new_tokens": NEW_TOKENS} | workload
    model = ModelConfig(spec, trust_remote_code=trust)
    config = RunConfig(model, workload=WorkloadConfig(**asked), profilers=("layer_clock",))
    holder = holder or ModelSlot()
    holder.load(config.model, "cpu", Progress())
    prepared = prepare(config, holder, Progress())
    made = recording(config, prepared, Gate(), Progress())
    made.carry_out(prepared)
    return made.run()


def moment_kinds(done: Run) -> list[str]:
    return [KINDS[kind] for kind in done.trace.moments["kind"]]


def stages(done: Run) -> dict[str, str]:
    return {layer.path: layer.stage for layer in done.trace.layers}


def spent(done: Run) -> dict[str, int]:
    """Self time of each stage over all traced moments."""
    spans = done.trace.spans
    found: dict[str, int] = {}
    for layer, self_ns in zip(spans["layer"], spans["self_ns"], strict=True):
        stage = done.trace.layers[layer].stage
        found[stage] = found.get(stage, 0) + int(self_ns)
    return found


ONCE = {
    "token classification": (kinds.TOKENS, {"prompt_tokens": 7, "batch": 2}, 7),
    "question answering": (kinds.ANSWERS, {"prompt_tokens": 7}, 7),
    "image classification": (kinds.VIT, {"batch": 2}, 16),
    "convolutional network": (kinds.RESNET, {"image_size": 64}, 4),
    "speech at once": (kinds.WAV2VEC2, {"audio_seconds": 0.1}, 38),
}


@pytest.mark.parametrize("kind", ONCE)
def test_models_that_give_everything_at_once(kind):
    spec, workload, length = ONCE[kind]
    done = run(spec, **workload)
    assert moment_kinds(done) == ["forward", "forward"]
    assert done.trace.requests["input_tokens"].tolist() == [length, length]
    assert done.trace.requests["output_tokens"].tolist() == [1, 1]
    first, second = done.trace.outputs
    assert first.values == second.values
    assert first.finish_reason == "forward"
    traced = done.trace.moments["duration_ns"][1]
    assert sum(spent(done).values()) == traced


def test_what_the_results_say():
    tokens = run(kinds.TOKENS, prompt_tokens=5).trace.outputs[0]
    assert len(tokens.values) == 5
    assert set(tokens.values) <= {0.0, 1.0, 2.0}
    assert tokens.text == ", ".join(f"LABEL_{int(value)}" for value in tokens.values)
    answer = run(kinds.ANSWERS, prompt_tokens=9).trace.outputs[0]
    first, last, probability = answer.values
    assert 0 <= first <= last < 9
    assert 0 < probability < 1
    assert answer.text == f"tokens {int(first)} to {int(last)} {probability:.2f}"
    image = run(kinds.VIT).trace.outputs[0]
    assert sum(image.values) == pytest.approx(1)
    best = int(np.argmax(image.values))
    assert image.text.startswith(f"LABEL_{best} {image.values[best]:.2f}, LABEL_{1 - best}")


@pytest.mark.parametrize(("spec", "batch"), [(kinds.T5, 2), (kinds.BART, 1)], ids=["t5", "bart"])
def test_text_to_text_is_encoded_once_and_then_decoded(spec, batch):
    done = run(spec, prompt_tokens=6, batch=batch)
    assert moment_kinds(done) == ["encode", *GENERATED] * 2
    moments = done.trace.moments
    assert moments["tokens"][:3].tolist() == [6 * batch, batch, batch]
    assert moments["context"][:4].tolist() == [0, 0, 1, 2]
    assert (moments["latency_ns"][[0, 5]] < 0).all()  # nothing can be seen yet when the encoder is done
    assert [len(output.token_ids) for output in done.trace.outputs] == [NEW_TOKENS] * 2
    assert done.trace.requests["output_tokens"].tolist() == [NEW_TOKENS] * 2
    assert done.facts.model.layers == 4
    found = stages(done)
    crossing = [path for path in found if path.endswith(("EncDecAttention", "encoder_attn"))]
    assert {found[path] for path in crossing} == {"attention"}
    assert len(crossing) == 2
    assert set(spent(done)) >= {"embed", "attention", "mlp", "norm", "head"}


def test_the_tokens_of_a_translator_are_those_of_plain_generate():
    holder = ModelSlot()
    done = run(kinds.BART, prompt_tokens=6, holder=holder)
    form = form_of(holder.loaded, done.config.workload, "cpu")
    tensors = form.inputs().tensors
    plain = holder.loaded.model.generate(**tensors, max_new_tokens=4, min_new_tokens=4, do_sample=False, num_beams=1)
    assert [list(output.token_ids) for output in done.trace.outputs] == [plain[0, 1:].tolist()] * 2
    assert "forward" not in holder.loaded.model.get_encoder().__dict__


@pytest.mark.parametrize(
    ("spec", "images", "batch"),
    [(kinds.LLAVA, 16, 2), (kinds.SMOLVLM, 4, 1), (kinds.QWEN2_VL, 6, 2)],
    ids=["llava", "smolvlm", "qwen2_vl"],
)
def test_image_and_text(spec, images, batch):
    """The image is seen within the prefill; its tokens stand before those of the prompt."""
    done = run(spec, prompt_tokens=7, image_size=32, batch=batch)
    assert moment_kinds(done) == GENERATED * 2
    assert done.trace.moments["tokens"][:2].tolist() == [batch * (7 + images), batch]
    assert done.trace.requests["input_tokens"].tolist() == [7 + images] * 2
    assert [len(output.token_ids) for output in done.trace.outputs] == [NEW_TOKENS] * 2
    found = stages(done)
    patches = next(path for path in found if path.endswith(("patch_embedding", "patch_embed")))
    assert found[patches] == "embed"
    block = next(path for path in found if path.startswith(("model.vision", "model.visual")) and path.endswith(".1.mlp"))
    assert found[block] == "mlp"
    assert {found.get(block.replace("mlp", name), "attention") for name in ("attn", "self_attn")} == {"attention"}


def test_speech_is_encoded_once_and_then_written():
    done = run(kinds.WHISPER, batch=2)
    assert moment_kinds(done) == ["encode", *GENERATED] * 2
    assert done.trace.requests["input_tokens"].tolist() == [50, 50]
    assert [len(output.token_ids) for output in done.trace.outputs] == [NEW_TOKENS] * 2
    assert done.facts.model.context_length == 40
    found = stages(done)
    assert found["model.decoder.layers.0.encoder_attn"] == "attention"
    assert found["proj_out"] == "head"


@pytest.mark.parametrize(
    ("spec", "experts", "among", "chosen"), [(kinds.QWEN2_MOE, 48 * 32, 8, 2), (kinds.MIXTRAL, 192 * 32, 4, 1)]
)
def test_of_a_mixture_only_the_chosen_experts_work(spec, experts, among, chosen):
    done = run(spec, prompt_tokens=5)
    facts = done.facts.model
    assert facts.parameters - facts.active_parameters == 2 * experts * (among - chosen)
    words = parameters_in_words(facts.parameters, facts.active_parameters)
    assert words.endswith(f", {units.count(facts.active_parameters)} active")
    assert words in facts_line(facts)
    told = summarize(done)
    assert told["model"]["active_parameters"] == facts.active_parameters
    assert words in report.text(told)
    assert moment_kinds(done) == GENERATED * 2
    found = stages(done)
    assert found["model.layers.0.mlp.experts"] == "mlp"
    assert found["model.layers.0.mlp.gate"] == "mlp"  # the router


def test_active_parameters_are_told_before_loading_and_not_for_dense_models(tmp_path):
    save_model(tmp_path, "qwen2_moe", num_experts=4, num_experts_per_tok=1, moe_intermediate_size=16)
    described = catalog.describe(ModelConfig(str(tmp_path)))
    loaded = catalog.load(ModelConfig(str(tmp_path)), "cpu", Progress()).facts
    assert described.active_parameters == loaded.active_parameters
    assert loaded.parameters - loaded.active_parameters == 2 * 3 * (3 * 16 * 32)
    assert catalog.describe(ModelConfig(kinds.BERT)).active_parameters is None
