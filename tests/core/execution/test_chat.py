"""Chat templates and sets of prompts: what a model is really given, and that padding changes nothing that it says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from core.cli import parser
from core.commands import report
from core.commands.configure import run_config
from core.config import ModelConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.tasks.base import form_of
from core.execution.tasks.chat import is_instruct
from core.execution.tasks.generating import greedily
from core.models import catalog
from core.progress import Progress
from core.prompt_set import read_prompts
from core.session.codec import config_from_json, to_json
from gui.setup.workload_form import WorkloadForm
from gui.views.live.output import _prompt as shown_prompt
from tests.core.execution import test_kinds
from tests.support import tiny_kinds as kinds
from tests.support.tiny_models import save_model, save_tokenizer

TEMPLATE = "{% for message in messages %}w60 {{ message.content }} w59{% endfor %}{% if add_generation_prompt %} w58{% endif %}"


def save(folder, name: str, template: str | None = TEMPLATE, **model):
    """A model whose tokenizer has that template, in a folder of that name."""
    path = folder / name
    save_model(path, **model)
    save_tokenizer(path)
    if template is not None:
        settings = json.loads((path / "tokenizer_config.json").read_text())
        (path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    return path


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    return save(tmp_path_factory.mktemp("chat"), "tiny-Instruct")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("chat"), "tiny")


def loaded(path):
    return catalog.load(ModelConfig(str(path)), "cpu", Progress())


def words(path, **workload) -> str:
    model = loaded(path)
    ids = form_of(model, WorkloadConfig(**workload), "cpu").inputs().tensors["input_ids"]
    return " ".join(model.tokenizer.convert_ids_to_tokens(ids[0].tolist()))


def test_an_instruct_model_is_given_the_prompt_in_its_template_unless_told_otherwise(instruct, base):
    assert words(instruct, prompt="w1 w2") == "w60 w1 w2 w59 w58"
    assert words(instruct, prompt="w1 w2", chat=False) == "w1 w2"
    assert words(base, prompt="w1 w2") == "w1 w2"  # base models carry the template of their siblings
    assert words(base, prompt="w1 w2", chat=True) == "w60 w1 w2 w59 w58"
    with pytest.raises(Refusal, match="has no chat template; switch chat off"):
        words(save(base.parent, "plain", None), prompt="w1", chat=True)
    with pytest.raises(Refusal, match=r"chat template of broken cannot be used \(no system here\); switch chat off"):
        words(save(base.parent, "broken", "{{ raise_exception('no system here') }}"), prompt="w1", chat=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2-135M-Instruct", True),
        ("Llama-2-7b-chat-hf", True),
        ("gemma-3-4b-it", True),
        ("zephyr-7b-dpo-full", True),
        ("Qwen2.5-0.5B", False),
        ("gpt2-italian", False),
        ("chatty", False),
    ],
)
def test_instruct_models_are_told_by_their_names(base, name, expected):
    model = loaded(base)
    model.facts = replace(model.facts, name=name, spec=f"hub:some/{name}")
    model.model.name_or_path = ""
    assert is_instruct(model) is expected


def test_a_run_keeps_and_shows_what_was_given(instruct):
    done = test_kinds.run(str(instruct), prompt="w1 w2")
    assert done.config.workload.chat is True
    assert done.facts.given == ("w60 w1 w2 w59 w58",)
    assert done.trace.requests["input_tokens"].tolist() == [5, 5]
    assert shown_prompt(done) == "w60 w1 w2 w59 w58"
    summary = test_kinds.summarize(done)
    assert summary["workload"]["given"] == ["w60 w1 w2 w59 w58"]
    assert "prompt 'w1 w2' in the chat template" in report.text(summary)
    plain = test_kinds.run(str(instruct), prompt="w1 w2", chat=False)
    assert plain.facts.given == ()
    assert plain.trace.outputs[0].token_ids != done.trace.outputs[0].token_ids
    assert plain.config.workload.asked != done.config.workload.asked  # another workload, everywhere
    tokens = [test_kinds.run(str(instruct), prompt_tokens=4, chat=chat).config.workload.asked for chat in (None, False)]
    assert tokens[0] == tokens[1]


def test_runs_of_before_there_was_chat_were_given_their_prompt_as_it_is():
    config = RunConfig(ModelConfig("package:any"), workload=WorkloadConfig(prompts=("a", "b"), batch=2, chat=True))
    assert config_from_json(to_json(config)) == config
    old = json.loads(to_json(RunConfig(ModelConfig("package:any"))))
    del old["workload"]["chat"]
    del old["workload"]["prompts"]
    assert config_from_json(json.dumps(old)).workload == WorkloadConfig(chat=False)


# -- sets of prompts --------------------------------------------------------------------------------------------------------

PROMPTS = ("w1", "w2 w3 w4 w5 w6", "w7 w8 w9")
ALIKE = {"llama": {}, "gpt2": {}, "bloom": {"n_head": 4, "hidden_size": 32}, "mistral": {"sliding_window": 4}}


@pytest.mark.parametrize("model_type", ALIKE)
def test_each_row_of_a_padded_batch_says_what_its_prompt_says_alone(tmp_path, model_type):
    path = save(tmp_path, "tiny", None, model_type=model_type, **ALIKE[model_type])
    model = loaded(path)
    together = form_of(model, WorkloadConfig(prompts=PROMPTS, batch=4), "cpu").inputs()
    assert together.length == 5
    ids, mask = together.tensors["input_ids"], together.tensors["attention_mask"]
    assert mask.sum(1).tolist() == [1, 5, 3, 1]  # the fourth is the first again
    assert mask[:, -1].tolist() == [1] * 4  # filled up on the left
    assert ids[0, -1] == ids[3, -1]
    all_said = greedily(model.model, together.tensors, 8, {})[:, 5:]
    for row, prompt in enumerate(PROMPTS):
        alone = form_of(model, WorkloadConfig(prompt=prompt), "cpu").inputs()
        assert torch.equal(greedily(model.model, alone.tensors, 8, {})[0, alone.length :], all_said[row])


def test_a_run_of_a_set_of_prompts(instruct):
    done = test_kinds.run(str(instruct), prompts=PROMPTS, batch=3)
    assert done.facts.given == tuple(f"w60 {prompt} w59 w58" for prompt in PROMPTS)
    assert done.trace.moments["tokens"][:2].tolist() == [3 * 8, 3]
    said = done.trace.outputs[0].text.splitlines()
    assert [line.partition(":")[0] for line in said] == ["1", "2", "3"]
    alone = test_kinds.run(str(instruct), prompt=PROMPTS[2]).trace.outputs[0].text
    assert said[2] == f"3: {alone}"
    assert shown_prompt(done) == "".join(f"{number}: w60 {prompt} w59 w58\n" for number, prompt in enumerate(PROMPTS, 1))
    assert "3 prompts in the chat template" in report.text(test_kinds.summarize(done))


def test_encoders_and_translators_fill_up_on_the_right(tmp_path):
    for spec in (kinds.BERT, kinds.T5):
        folder = tmp_path / spec[5:8]
        catalog.load(ModelConfig(spec), "cpu", Progress()).model.save_pretrained(folder)
        save_tokenizer(folder)
        done = test_kinds.run(str(folder), prompts=PROMPTS, batch=3)
        assert done.trace.requests["input_tokens"].tolist() == [5, 5]
        inputs = form_of(loaded(folder), WorkloadConfig(prompts=PROMPTS, batch=3), "cpu").inputs()
        assert inputs.tensors["attention_mask"][0].tolist() == [1, 0, 0, 0, 0]
        alone = test_kinds.run(str(folder), prompt=PROMPTS[0]).trace.outputs[0]
        assert done.trace.outputs[0].token_ids == alone.token_ids
        assert done.trace.outputs[0].values == pytest.approx(alone.values, abs=1e-5)


def test_what_does_not_suit_a_set_is_refused(tmp_path, base):
    with pytest.raises(Refusal, match="There are 3 prompts, but the batch is 2; give a batch of 3, or fewer prompts"):
        test_kinds.run(str(base), prompts=PROMPTS, batch=2)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64}
    path = save(tmp_path, "rwkv", None, model_type="rwkv", **shape)
    with pytest.raises(Refusal, match="cannot leave padding out"):
        test_kinds.run(str(path), prompts=PROMPTS, batch=3)
    with pytest.raises(ValueError, match="needs at least one, and none of them empty"):
        WorkloadConfig(prompts=())
    with pytest.raises(ValueError, match="none of them empty"):
        WorkloadConfig(prompts=("a", " "))


def test_a_file_of_prompts(tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("What is this?\n\n  And that? \n", "utf-8")
    assert read_prompts(lines) == ("What is this?", "And that?")
    objects = tmp_path / "prompts.jsonl"
    objects.write_text('{"prompt": "a\\nb", "id": 1}\n\n{"prompt": "c"}\n', "utf-8")
    assert read_prompts(objects) == ("a\nb", "c")
    bad = {
        '{"prompt": 3}\n': 'Line 1 of .* has no text under "prompt"',
        '{"prompt": "a"}\n[': "Line 2 of .* is not JSON",
        "[" * 100_000: "Line 1 of .* is not JSON",
        '{"prompt": "\\ud800"}\n': "characters that no text has",
        '{"prompt": "a\\u0000"}\n': "characters that no text has",
        "\n \n": "holds no prompts; write one a line",
        '{"prompt": "a"}\n' * 4097: "holds 4,097 prompts, more than one batch takes",
    }
    for text, sentence in bad.items():
        objects.write_text(text, "utf-8")
        with pytest.raises(Refusal, match=sentence):
            read_prompts(objects)
    objects.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal, match="is not UTF-8 text"):
        read_prompts(objects)
    with pytest.raises(Refusal, match="There is no file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(Refusal, match="cannot be read"):
        read_prompts(tmp_path)


def test_the_switches(tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("a\nb\n", "utf-8")
    model = ("--model", "package:any")
    asked = run_config(parser().parse_args(["run", *model, "--prompt-set", str(lines), "--no-chat"])).workload
    assert (asked.prompts, asked.batch, asked.chat) == (("a", "b"), 2, False)
    assert run_config(parser().parse_args(["run", *model, "--prompt-set", str(lines), "--batch", "4"])).workload.batch == 4
    asked = run_config(parser().parse_args(["run", *model])).workload
    assert (asked.prompts, asked.batch, asked.chat) == (None, 1, None)
    assert run_config(parser().parse_args(["run", *model, "--chat"])).workload.chat is True


def test_the_form(qtbot, tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("a\nb\nc\n", "utf-8")
    form = WorkloadForm()
    qtbot.addWidget(form)
    assert form.config() == WorkloadConfig()
    form.prompt_set.line.setText(str(lines))
    assert (form.config().prompts, form.config().batch) == (("a", "b", "c"), 3)
    assert not form.prompt.isEnabled()
    form.prompt_set.line.setText(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="There is no prompt file"):
        form.config()
    wanted = WorkloadConfig(prompts=("x", "y"), batch=2, chat=False)
    form.show_config(wanted)
    assert form.config() == wanted
    assert form.prompt_set.line.placeholderText() == "2 prompts"
    form.prompt_tokens.setValue(4)
    assert not form.chat.isEnabled()
    form.prompt_tokens.setValue(0)
    form.show_config(WorkloadConfig(chat=True))
    assert form.config() == WorkloadConfig(chat=True)
    form.set_task("embedding")
    assert form.config() == WorkloadConfig()
