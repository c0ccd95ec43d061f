"""Text, questions, images and sound become inputs as the model's own files say, and wrong ones are refused with a sentence."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from core.config import ModelConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import form_of
from core.execution.tasks.pictures import read_image
from core.execution.tasks.question_answering import answer
from core.execution.tasks.sounds import read_wav
from core.models import architecture, catalog
from core.pass_api.subject import Execution, Subject
from core.progress import Progress
from tests.core.execution.test_kinds import GENERATED, moment_kinds, run
from tests.support import tiny_kinds as kinds
from tests.support.tiny_models import save_tokenizer


def refusal(spec: str | Path, **workload) -> str:
    with pytest.raises(Refusal) as refused:
        run(str(spec), **workload)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


def save(folder: Path, spec: str) -> Path:
    """The tiny random model of a spec as a folder."""
    catalog.load(ModelConfig(spec), "cpu", Progress()).model.save_pretrained(folder)
    return folder


# -- text -------------------------------------------------------------------------------------------------------------------


def test_token_labels_beside_their_tokens(tmp_path):
    save_tokenizer(save(tmp_path, kinds.TOKENS))
    done = run(str(tmp_path), prompt="w5 w6 w7")
    assert done.facts.model.task == "token-classification"
    values = done.trace.outputs[0].values
    assert done.trace.outputs[0].text == ", ".join(
        f"{word} LABEL_{int(value)}" for word, value in zip(("w5", "w6", "w7"), values, strict=True)
    )


def test_a_question_is_answered_from_the_text(tmp_path):
    save_tokenizer(save(tmp_path, kinds.ANSWERS))
    done = run(str(tmp_path), question="w1 w2", prompt="w5 w6 w7 w8", batch=2)
    assert done.trace.requests["input_tokens"].tolist() == [6, 6]
    first, last, _ = done.trace.outputs[0].values
    assert 2 <= first <= last <= 5  # in the text, not in the question
    words = " ".join(f"w{int(place) + 3}" for place in range(int(first), int(last) + 1))
    assert done.trace.outputs[0].text.startswith(words)
    assert "There is no question about the text; ask one" in refusal(tmp_path, prompt="w5")
    assert "no tokenizer" in refusal(kinds.ANSWERS, prompt="w5", question="w1")


def test_the_likeliest_answer_begins_before_it_ends():
    starts = torch.tensor([[9.0, 0.0, 0.0, 5.0, 0.0]])
    ends = torch.tensor([[0.0, 9.0, 5.0, 0.0, 4.0]])
    assert answer(starts, ends, None)[0, :2].tolist() == [0, 1]
    assert answer(starts, ends, (2, 4))[0, :2].tolist() == [3, 4]
    assert 0 < float(answer(starts, ends, (2, 4))[0, 2]) <= 1


def test_text_to_text_with_words(tmp_path):
    save_tokenizer(save(tmp_path, kinds.T5))
    done = run(str(tmp_path), prompt="w5 w6")
    assert done.facts.model.task == "seq2seq"
    assert done.facts.model.layers == catalog.describe(ModelConfig(str(tmp_path))).layers == 4
    assert done.trace.outputs[0].text is not None
    assert len(done.trace.outputs[0].token_ids) == 4


def test_each_side_of_an_encoder_decoder_has_its_own_room():
    assert run(kinds.BART, prompt_tokens=60, new_tokens=6, repeats=1).trace.moments["tokens"][0] == 60
    assert "has room for 64 tokens" in refusal(kinds.BART, prompt_tokens=65)
    assert "has room for 64 tokens" in refusal(kinds.BART, prompt_tokens=5, new_tokens=64)
    assert "has room for 40 tokens" in refusal(kinds.WHISPER, new_tokens=40)


# -- images -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = save(tmp_path_factory.mktemp("vit"), kinds.VIT)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_an_image_file_is_read_as_the_model_wants_it(vit, tmp_path, capfd):
    picture = kinds.save_image(tmp_path / "picture.png", 50)
    done = run(str(vit), image=str(picture), batch=2)
    assert capfd.readouterr() == ("", "")
    output = done.trace.outputs[0]
    assert set(output.text.split()[::2]) == {"cat", "dog"}
    assert (done.trace.requests["tokenize_ns"] > 0).all()
    pixels = transformers.ViTImageProcessorPil.from_pretrained(vit)(images=[read_image(str(picture))], return_tensors="pt")
    model = transformers.AutoModelForImageClassification.from_pretrained(vit)
    with torch.no_grad():
        assert output.values == pytest.approx(model(**pixels).logits.softmax(-1)[0].tolist(), abs=1e-5)


def test_a_made_up_image_of_another_size(vit):
    assert run(str(vit), image_size=48).trace.requests["input_tokens"].tolist() == [36, 36]
    assert "give an image of at least that size" in refusal(vit, image_size=4)
    assert "ask for less at once" in refusal(vit, image_size=400_000)


def test_images_that_cannot_be_read(vit, tmp_path, monkeypatch):
    good = kinds.save_image(tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(good[:-40])
    (tmp_path / "words.png").write_text("no image")
    assert "There is no image file" in refusal(vit, image=str(tmp_path / "none.png"))
    assert "is not an image file; give a PNG or JPEG" in refusal(vit, image=str(tmp_path))
    assert "words.png is not an image that can be read" in refusal(vit, image=str(tmp_path / "words.png"))
    assert "cut.png is cut off or damaged" in refusal(vit, image=str(tmp_path / "cut.png"))
    monkeypatch.setattr("core.execution.tasks.pictures.MOST_PIXELS", 1000)
    assert "good.png has 40 × 40 pixels, too many" in refusal(vit, image=str(tmp_path / "good.png"))
    assert "it has no image processor" in refusal(kinds.VIT, image=str(tmp_path / "good.png"))


def test_a_broken_processor_is_told_and_one_that_lacks_a_library_leaves_made_up_images(vit, tmp_path, monkeypatch):
    picture = str(kinds.save_image(tmp_path / "picture.png"))

    def lacks(*_args, **_settings):
        raise ImportError("It needs the torchvision library.\nInstall it.")

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoImageProcessor, "from_pretrained", lacks)
        assert moment_kinds(run(str(vit))) == ["forward", "forward"]
        assert "cannot read image files (It needs the torchvision library)" in refusal(vit, image=picture)
    broken = Path(shutil.copytree(vit, tmp_path / "broken"))
    (broken / "preprocessor_config.json").write_text("{")
    assert "The processor in" in refusal(broken)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = save(tmp_path_factory.mktemp("llava"), kinds.LLAVA)
    words = {"[UNK]": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i + 3 for i in range(60)}, "<image>": 63}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="</s>", extra_special_tokens={"image_token": "<image>"}
    )
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.LlavaProcessor(
        images,
        fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


def test_a_prompt_about_an_image(llava, tmp_path):
    picture = kinds.save_image(tmp_path / "picture.png", 60)
    done = run(str(llava), prompt="w1 w2 w3", image=str(picture))
    assert done.facts.model.task == "image-text"
    assert moment_kinds(done) == GENERATED * 2
    assert done.trace.requests["input_tokens"].tolist() == [16 + 3] * 2
    assert done.trace.outputs[0].text is not None
    made_up = run(str(llava), prompt="w1 w2 w3", batch=2)
    assert made_up.trace.requests["input_tokens"].tolist() == [16 + 3] * 2
    assert "needs a prompt in words" in refusal(llava, prompt_tokens=3, image=str(picture))
    assert "There is no image file" in refusal(llava, prompt="w1", image="none.png")
    assert "(it has no processor); give a number of prompt tokens" in refusal(kinds.LLAVA, prompt="w1")


# -- sound ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_of_every_width(tmp_path, width, channels):
    path = kinds.save_wav(tmp_path / "tone.wav", 0.05, 16_000, channels, width)
    times = np.arange(800) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * (200 + 400 * times) * times)
    assert np.abs(read_wav(str(path), 16_000) - tone).max() < (0.02 if width == 1 else 0.001)
    half = read_wav(str(path), 8_000)
    assert len(half) == 400
    assert np.abs(half - tone[::2]).max() < 0.02


def test_sounds_that_cannot_be_read(tmp_path):
    whisper = save_listener(tmp_path / "model")
    tone = kinds.save_wav(tmp_path / "tone.wav", 0.4)
    (tmp_path / "song.mp3").write_bytes(b"ID3\x04 and so on")
    floats = bytearray(tone.read_bytes())
    floats[20] = 3  # the format number of samples with fractions
    (tmp_path / "floats.wav").write_bytes(floats)
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
    assert "There is no sound file" in refusal(whisper, audio=str(tmp_path / "none.wav"))
    assert "song.mp3 is not a WAV file of whole numbers" in refusal(whisper, audio=str(tmp_path / "song.mp3"))
    assert "floats.wav is not a WAV file of whole numbers" in refusal(whisper, audio=str(tmp_path / "floats.wav"))
    assert "empty.wav holds no sound" in refusal(whisper, audio=str(tmp_path / "empty.wav"))
    assert "is not a WAV file" in refusal(whisper, audio=str(tmp_path))
    assert "hears 1 s at once, not 2.0 s" in refusal(whisper, audio=str(kinds.save_wav(tmp_path / "long.wav", 2.0)))
    assert "it has no feature extractor" in refusal(kinds.WHISPER, audio=str(tone))
    assert "hears 1 s at once, not 1.5 s" in refusal(kinds.WHISPER, audio_seconds=1.5)
    assert "0 s of sound is none" in refusal(kinds.WHISPER, audio_seconds=0.0)
    assert "too short for this model" in refusal(kinds.WAV2VEC2, audio_seconds=0.0001)
    assert "ask for less at once" in refusal(kinds.WAV2VEC2, audio_seconds=1e8)


def save_listener(folder: Path) -> Path:
    """A tiny Whisper of two languages with its feature extractor and a tokenizer."""
    save(folder, kinds.WHISPER)
    transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    save_tokenizer(folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) | {
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": 40, "<|de|>": 41},
        "task_to_id": {"transcribe": 42, "translate": 43},
        "no_timestamps_token_id": 44,
        "decoder_start_token_id": 45,
    }
    settings.pop("_from_model_config", None)  # with it transformers would leave out what it does not know
    path.write_text(json.dumps(settings))
    return folder


def test_speech_of_a_file_in_the_language_that_is_heard(tmp_path, capfd):
    folder = save_listener(tmp_path / "model")
    tone = str(kinds.save_wav(tmp_path / "tone.wav", 0.4, 44_100))
    capfd.readouterr()  # saving shows a bar
    done = run(str(folder), audio=tone, batch=2)
    assert capfd.readouterr() == ("", "")
    assert moment_kinds(done) == ["encode", *GENERATED] * 2  # no moment for finding the language
    assert done.trace.moments["tokens"][1] == 2 * 4  # begin, language, task, no times
    output = done.trace.outputs[0]
    assert len(output.token_ids) == 4
    assert output.text is not None
    loaded = catalog.load(ModelConfig(str(folder)), "cpu", Progress())
    form = form_of(loaded, WorkloadConfig(audio=tone), "cpu")
    subject = Subject(loaded.model, "speech", Execution(1), 40, 1)
    assert len(form.frames(subject)) == 1
    assert form.arguments["language"] in ("en", "de")
    spectrum = form.inputs().tensors["input_features"]
    assert spectrum.shape == (1, 8, 100)
    assert form.inputs().tokenize_ns > 0


def test_speech_at_once_of_a_file(tmp_path):
    folder = save(tmp_path / "model", kinds.WAV2VEC2)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    save_tokenizer(folder)
    done = run(str(folder), audio=str(kinds.save_wav(tmp_path / "tone.wav", 0.1)))
    assert done.facts.model.task == "speech-ctc"
    assert len(done.trace.outputs[0].values) == done.trace.requests["input_tokens"][0] == 38
    assert done.trace.outputs[0].text is not None


# -- choosing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "arch:vit?task=question-answering",
            "vit cannot be given the task 'question-answering'; give one that it has: image",
        ),
        (
            "arch:bert?task=translation",
            "give one that it has: text-generation, embedding, classification, token-cl",
        ),
        (
            "arch:sam_mask_decoder",
            "no class that runs sam_mask_decoder by itself, it is a part of others; choose a whole model",
        ),
        ("arch:bert?text_config.vocab_size=5", "bert has no part 'text_config'"),
        ("arch:llava?text_config.layers=5", "llama has no option 'layers'; give one that it has, such as "),
        ("arch:llava?words.layers=5", "its parts are vision_config, text_config"),
        ("arch:bert?num_labels=many", "give a whole number"),
        ("arch:bert?task=question-answering&num_labels=3", "has two labels"),
    ],
)
def test_heads_and_parts_that_are_not_there(spec, says):
    assert says in refusal(spec)


def test_special_tokens_lie_within_a_small_vocabulary():
    config = architecture.make_config("whisper", {"vocab_size": "64"})
    tokens = {key: value for key, value in config.to_dict().items() if "token" in key and isinstance(value, int | list)}
    assert all(token < 64 for value in tokens.values() for token in (value if isinstance(value, list) else [value]))
    assert config.decoder_start_token_id == 0
    images = architecture.make_config("qwen2_vl", {"text_config.vocab_size": "64"})
    marks = {images.image_token_id, images.video_token_id, images.vision_start_token_id, images.vision_end_token_id}
    assert marks == {60, 61, 62, 63}
