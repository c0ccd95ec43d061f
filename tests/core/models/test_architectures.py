"""Models that people load: a handful of the list in ``benchmarks``, by task and by class, each run once as the app does it."""

from __future__ import annotations

import pytest
import torch
import transformers

from benchmarks.architectures import ARCHITECTURES, Architecture, run, spec_of
from core.config import ModelConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import form_of
from core.models import catalog, known
from core.models.made_up import Amount, made_up_inputs
from core.models.sample_inputs import sample_inputs
from core.progress import Progress
from tests.core.execution import test_kinds


def one(model_type: str, task: str | None = None) -> Architecture:
    return next(each for each in ARCHITECTURES if each.type == model_type and (each.more or {}).get("task") == task)


ONCE, WRITES = "2 forward", "2 prefill, 4 decode"
FEATURES, SOUND = "image-feature-extraction", "audio-feature-extraction"
RAN = {
    "clip": ("CLIPModel, forward", ONCE),
    "siglip forward": ("SiglipModel, forward", ONCE),
    "sam": ("SamModel, forward", ONCE),
    f"vit {FEATURES}": (f"ViTModel, {FEATURES}", ONCE),
    f"dinov2 {FEATURES}": (f"Dinov2Model, {FEATURES}", ONCE),
    "deit": ("DeiTForImageClassification, image-classification", ONCE),
    "yolos": ("YolosForObjectDetection, object-detection", ONCE),
    "segformer image-segmentation": ("SegformerForSemanticSegmentation, image-segmentation", ONCE),
    f"wav2vec2 {SOUND}": (f"Wav2Vec2Model, {SOUND}", ONCE),
    "hubert audio-classification": ("HubertForSequenceClassification, audio-classification", ONCE),
    "audio-spectrogram-transformer": ("ASTForAudioClassification, audio-classification", ONCE),
    "esm": ("EsmModel, embedding", ONCE),
    "funnel": ("FunnelModel, embedding", ONCE),
    "gemma3": ("Gemma3ForConditionalGeneration, image-text", WRITES),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration, image-text", WRITES),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration, image-text", WRITES),
    "idefics3": ("Idefics3ForConditionalGeneration, image-text", WRITES),
    "llava_next": ("LlavaNextForConditionalGeneration, image-text", WRITES),
    "mllama": ("MllamaForConditionalGeneration, image-text", WRITES),
    # the steps are those of the part that writes, clean and traced ones
    "blip": ("BlipForConditionalGeneration, image-text", f"2 encode, {WRITES}"),
    "blip-2": ("Blip2ForConditionalGeneration, image-text", f"4 encode, {WRITES}"),
}


@pytest.mark.parametrize("name", RAN)
def test_an_architecture_runs(name):
    what, moments = RAN[name]
    told = run(one(*name.split()))
    assert told.startswith(what)
    assert told.endswith(f": {moments}")


REFUSED = {
    "musicgen": "cannot be called with input_ids",
    "detr": "requires the timm library",
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_an_architecture_is_refused_with_its_own_reason(model_type):
    with pytest.raises(Refusal) as refused:
        run(one(model_type))
    assert REFUSED[model_type] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_list_is_of_eighty_and_each_is_there_once():
    assert len({each.type for each in ARCHITECTURES}) >= 80
    assert len({(each.type, (each.more or {}).get("task")) for each in ARCHITECTURES}) == len(ARCHITECTURES)


@pytest.mark.parametrize(
    ("model_type", "task", "saved"),
    [
        ("clip", "forward", "CLIPModel"),
        ("siglip", "forward", "SiglipModel"),
        ("vit", FEATURES, "ViTModel"),
        ("dinov2", FEATURES, "Dinov2Model"),
        ("wav2vec2", SOUND, "Wav2Vec2Model"),
        ("hubert", "audio-classification", "HubertModel"),
        ("deit", None, "DeiTForImageClassificationWithTeacher"),
        ("t5", None, "T5Model"),
    ],
)
def test_a_folder_is_loaded_by_the_class_that_wrote_it(tmp_path, model_type, task, saved):
    """And what comes out is what that class gives for the same inputs."""
    config = catalog.load(ModelConfig(spec_of(one(*filter(None, (model_type, task))))), "cpu", Progress()).model.config
    torch.manual_seed(0)
    getattr(transformers, saved)(config).save_pretrained(tmp_path)
    workload = {"prompt_tokens": 6, "image_size": 32, "audio_seconds": 0.2}
    done = test_kinds.run(str(tmp_path), **workload)
    assert done.facts.model.architecture == saved
    assert test_kinds.moment_kinds(done) == ["forward", "forward"]
    loaded = catalog.load(ModelConfig(str(tmp_path)), "cpu", Progress())
    inputs = form_of(loaded, WorkloadConfig(**workload), "cpu").inputs().tensors
    with torch.no_grad():
        output = getattr(transformers, saved).from_pretrained(tmp_path).eval()(**inputs)
    first = next(value for value in output.values() if isinstance(value, torch.Tensor))
    wanted = first.softmax(-1) if loaded.facts.task.endswith("classification") else first
    assert done.trace.outputs[0].values == pytest.approx(wanted[0].flatten()[:4096].tolist(), abs=1e-5)
    assert done.trace.outputs[0].text


@pytest.mark.parametrize(
    ("model_type", "named", "task"),
    [
        ("hubert", "HubertForSequenceClassification", "audio-classification"),
        ("wav2vec2", "Wav2Vec2ForCTC", "speech-ctc"),
        ("wav2vec2", "Wav2Vec2ForPreTraining", "forward"),
        ("bert", "BertForSequenceClassification", "classification"),
        ("bert", "BertForPreTraining", "embedding"),
        ("blip", "BlipForQuestionAnswering", "forward"),  # of images, which no text alone answers
        ("vilt", "ViltForQuestionAnswering", "forward"),
        ("beit", "BeitForSemanticSegmentation", "image-segmentation"),
        ("whisper", "WhisperForAudioClassification", "audio-classification"),
        ("llama", "LlamaForCausalLM", "text-generation"),
        ("dpr", "DPRQuestionEncoder", "forward"),
    ],
)
def test_the_task_of_a_class(model_type, named, task):
    assert known.task_of(model_type, named)[0] == task


def test_made_up_inputs_are_all_that_a_model_reads():
    model = catalog.load(ModelConfig(spec_of(one("clip"))), "cpu", Progress()).model
    made = made_up_inputs(model, Amount(batch=2, tokens=5))
    assert {name: list(value.shape) for name, value in made.items()} == {"input_ids": [2, 5], "pixel_values": [2, 3, 32, 32]}
    again = made_up_inputs(model, Amount(batch=2, tokens=5))
    assert all(torch.equal(value, again[name]) for name, value in made.items())
    assert not torch.equal(made["pixel_values"], made_up_inputs(model, Amount(2, 5), seed=1)["pixel_values"])
    assert set(sample_inputs(model)) == set(made)


def test_what_cannot_be_made_up_is_named():
    model = catalog.load(ModelConfig(spec_of(one("llama"))), "cpu", Progress()).model
    model.forward = lambda prices, input_ids=None: None
    model.main_input_name = "input_ids"
    with pytest.raises(Refusal, match="cannot do without prices, which cannot be made up"):
        made_up_inputs(model, Amount())


def test_parts_of_a_vision_and_a_text_part_must_fit():
    wide = Architecture("qwen2_5_vl", (one("qwen2_5_vl").more or {}) | {"vision_config.out_hidden_size": 48})
    with pytest.raises(Refusal, match="vision part gives 48 numbers for each token, its text part reads 32"):
        run(wide)


def test_a_made_up_text_longer_than_the_model_reads_is_refused():
    with pytest.raises(Refusal, match="has room for 40 tokens, but 41 were asked for"):
        run(Architecture("vilt", None, {"prompt_tokens": 41}))
