"""Two setups are the same, or not, for everyone who asks: comparisons, noise floors, speed × quality, trials."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from core.analysis import compare
from core.analysis.speed_quality import difference, setting
from core.commands.configure import parse_pass, split_pass
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.pass_api.base import passes
from core.pass_api.options import by_name, parse, typed_run
from core.planning import plan
from core.records import noise_floors
from core.records.run import Run
from core.session.codec import config_from_json, to_json
from tests.support.synthetic import synthetic_run

HOW_OFTEN = {"repeats": 7, "warmup": 9}
OTHER: dict[str, Any] = {"prompts": ("One?", "Two?"), "audio_seconds": 2.5, "image": "other.png", "audio": "other.wav"}


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run(repeats=1)


def with_workload(run: Run, **changes: Any) -> Run:
    return replace(run, config=replace(run.config, workload=replace(run.config.workload, **changes)))


def another(name: str) -> Any:
    value = getattr(WorkloadConfig(), name)
    if name in OTHER:
        return OTHER[name]
    return f"{value} changed" if isinstance(value, str) else (value or 0) + 3


def answers(a: Run, b: Run) -> tuple[bool, bool, bool]:
    """Whether they differ, says each of the three that ask."""
    return (
        bool(compare.differing(a, b)),
        noise_floors.conditions(a.config, a.facts) != noise_floors.conditions(b.config, b.facts),
        bool(difference(setting(a), setting(b))),
    )


@pytest.mark.parametrize("name", [one.name for one in fields(WorkloadConfig)])
def test_each_field_of_a_workload_counts_for_all_or_for_none(run: Run, name: str) -> None:
    changed = with_workload(run, **{name: HOW_OFTEN.get(name) or another(name)})
    assert answers(run, changed) == (name not in HOW_OFTEN,) * 3


@pytest.mark.parametrize(
    ("overruled", "by"),
    [("prompt", {"prompt_tokens": 9}), ("image_size", {"image": "a.png"}), ("audio_seconds", {"audio": "a.wav"})],
)
def test_what_is_overruled_does_not_count(run: Run, overruled: str, by: dict[str, Any]) -> None:
    a = with_workload(run, **by)
    assert answers(a, with_workload(a, **{overruled: another(overruled)})) == (False,) * 3


def test_a_difference_is_named(run: Run) -> None:
    (told,) = compare.differing(run, with_workload(run, question="Who?", image_size=64))
    assert str(told) == "the workloads differ: question  and Who?, image size not known and 64"


def a_run(*passes: PassConfig) -> RunConfig:
    return RunConfig(ModelConfig("arch:llama"), passes)


@pytest.mark.parametrize("text", ["mlp_width:keep=0.5", "kv_cache", "layer_drop:layers=3-5", "threads:count=1", "bfloat16"])
def test_options_are_equal_from_command_line_form_script_and_file(text: str) -> None:
    from_line = a_run(parse_pass(text))
    (choice,) = from_line.passes
    pass_id, as_text = split_pass(text)
    from_form = a_run(PassConfig(pass_id, parse(passes.get(pass_id), by_name(choice.options))))  # a form gives every field
    from_script = typed_run(a_run(PassConfig(pass_id, as_text)))
    old = json.loads(to_json(from_line)) | {"passes": [{"id": pass_id, "options": as_text}]}  # as earlier versions kept it
    from_old_file, from_file = config_from_json(json.dumps(old)), config_from_json(to_json(from_line))
    asked = replace(from_line, workload=replace(from_line.workload, chat=from_file.workload.chat))
    assert from_line == from_form == from_script
    assert asked == from_file
    assert from_file.passes == from_old_file.passes
    assert ABTestConfig((from_line, from_form)).same
    assert hash(choice.options) == hash(from_file.passes[0].options) if choice.options else not from_file.passes[0].options


def test_an_order_of_passes_has_typed_options() -> None:
    (choice,) = plan.order([PassConfig("mlp_width", {"keep": "0.5"})])
    assert choice.options.keep == 0.5
    with pytest.raises(Refusal, match="cannot be"):
        plan.order([PassConfig("mlp_width", {"keep": "half"})])
