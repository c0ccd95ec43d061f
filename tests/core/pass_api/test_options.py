"""Options of passes: declared once, read once, and found in window, command line, file and search space."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import core.passes
from core import cli
from core.commands.configure import parse_pass
from core.config import ModelConfig, PassConfig, RunConfig
from core.errors import Refusal
from core.pass_api.base import passes
from core.pass_api.options import by_name, declared, parse, read, typed
from core.pass_api.search_space import Categorical, Range, search_space
from core.planning import plan
from core.session.codec import config_from_json, structured, to_json
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run

WITH_OPTIONS = [one.id for one in passes if one.options is not None]


@dataclass(frozen=True)
class Everything:
    many: int = field(default=3, metadata={"minimum": 1, "maximum": 9, "step": 2})
    share: float = field(default=0.5, metadata={"minimum": 0, "maximum": 1})
    least: int = field(default=4, metadata={"minimum": 2})
    maybe: int | None = None
    way: str | None = field(default=None, metadata={"choices": ("a", "b"), "label": "The way", "help": "How"})
    size: int = field(default=32, metadata={"choices": (32, 64)})
    on: bool = True
    perhaps: bool | None = None
    text: str = ""


KNOWN = declared(Everything)


# -- reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        *(("many", given, 5) for given in (5, 5.0, "5", " 5 ", "5.0")),
        *(("share", given, 1.0) for given in (1, 1.0, "1", "1e0")),
        *(("maybe", given, None) for given in (None, "", "none", "None ")),
        ("maybe", "-7", -7),
        ("way", "none", None),
        ("way", "b", "b"),
        *(("size", given, 64) for given in (64, "64")),
        *(("on", given, True) for given in (True, 1, "1", "true", "Yes", " on")),
        *(("on", given, False) for given in (False, 0, "0", "false", "No", "off")),
        ("perhaps", "no", False),
        ("perhaps", "", None),
        *(("text", given, given) for given in ("none", "", " as it is ", "on")),
        ("text", 5, "5"),
    ],
)
def test_a_value_is_of_its_kind_however_it_is_written(name: str, given: Any, expected: Any) -> None:
    found = KNOWN[name].value(given)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        *(("many", given, "a whole number from 1 to 9") for given in (0, "10", "5.5", "many", True, None, "", [5])),
        *(("share", given, "a number from 0 to 1") for given in ("nan", "inf", float("nan"), "half", -0.1, None)),
        ("least", 1, "a whole number of at least 2"),
        ("maybe", "x", "a whole number"),
        ("way", "c", "a or b"),
        ("size", 33, "32 or 64"),
        *(("on", given, "true or false") for given in ("maybe", 2, None, [True], {})),
        *(("text", given, "a text") for given in (None, True, ["a"])),
    ],
)
def test_a_value_that_cannot_be_is_not_taken(name: str, given: Any, wanted: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence is made of ``wanted``
        KNOWN[name].value(given)
    assert str(KNOWN[name].wanted) == wanted


# -- files ----------------------------------------------------------------------------------------------------------------


STRANGE = (
    PassConfig("of_another_version", {"x": "1"}),
    PassConfig("mlp_width", {"keep": "0.5", "of_another_version": [1]}),
    PassConfig("threads", {"count": "1000"}),  # of a machine that has so many
    PassConfig("bfloat16", {"x": 1}),
)


def test_what_this_version_cannot_read_stays_as_it_is_and_is_refused_when_it_is_applied() -> None:
    kept = config_from_json(to_json(RunConfig(ModelConfig("arch:llama"), STRANGE))).passes
    assert [by_name(choice.options) for choice in kept] == [
        {"x": "1"},
        {"keep": 0.5, "of_another_version": [1]},
        {"count": 1000},
        {"x": 1},
    ]
    assert [read(choice) for choice in kept] == list(kept)
    says = ("no pass 'of_another_version'", "no option 'of_another_version'", "from 1 to", "it has none")
    for choice, part in zip(kept, says, strict=True):
        with pytest.raises(Refusal, match=part):
            plan.order([choice])


def test_a_session_with_strange_passes_opens(tmp_path: Path) -> None:
    config = RunConfig(ModelConfig("arch:llama"), STRANGE)
    path = tmp_path / "strange.tickscope"
    store = SessionStore.open(path)
    run = synthetic_run(repeats=1, warmup=0, new_tokens=2, blocks=1)
    store.add(replace(run, config=config))
    (head,) = store.runs()
    assert [choice.id for choice in head.config.passes] == [choice.id for choice in STRANGE]
    store.close()


@pytest.mark.parametrize("one", WITH_OPTIONS)
def test_options_keep_their_names_and_types_in_json(one: str) -> None:
    choice = typed(PassConfig(one))
    stored = json.loads(to_json(choice))
    assert stored == {
        "id": one,
        "options": {option.name: option.default for option in declared(passes.get(one).options).values()},
    }
    assert read(structured(to_json(choice), PassConfig)) == choice


# -- search space ---------------------------------------------------------------------------------------------------------


def test_a_search_space_has_what_has_an_end() -> None:
    assert search_space(Everything) == {
        "many": Range(1, 9, 2, int),
        "share": Range(0, 1, None, float),
        "way": Categorical((None, "a", "b")),
        "size": Categorical((32, 64)),
        "on": Categorical((True, False)),
        "perhaps": Categorical((None, True, False)),
    }
    assert search_space(None) == {}


@pytest.mark.parametrize("one", WITH_OPTIONS)
def test_every_pass_has_a_search_space_of_values_it_takes(one: str) -> None:
    known = declared(passes.get(one).options)
    space = search_space(passes.get(one).options)
    for name, dimension in space.items():
        option = known[name]
        ends = dimension.choices if isinstance(dimension, Categorical) else (dimension.low, dimension.high)
        assert [option.value(end) for end in ends] == list(ends)
        if isinstance(dimension, Range):
            assert dimension.low <= option.default <= dimension.high
            assert dimension.low < dimension.high or option.name == "count"  # threads, of a machine with one
            assert dimension.step == (1 if dimension.kind is int else None)
        else:
            assert option.default in dimension.choices
    for name in known.keys() - space.keys():  # texts, paths, and what a model or a workload limits
        assert known[name].kind is str or known[name].maximum is None


# -- one more file --------------------------------------------------------------------------------------------------------


TOY = """
from dataclasses import dataclass, field

from core.pass_api.base import Pass, PassReport, Phase, passes


@dataclass(frozen=True)
class ToyOptions:
    opt: float = field(default=0.5, metadata={"label": "Much", "help": "How much", "minimum": 0.0, "maximum": 2.0})


@passes.register
class Toy(Pass):
    id, title, summary, phase = "toy", "Toy", "A pass in a folder of its own", Phase.PROCESS
    options = ToyOptions
    changes_weights = lossless = False

    def check(self, context):
        return None

    def apply(self, subject, options):
        return PassReport(self.id, self.title, {"opt": options.opt}, 0, of_text(f"opt is {options.opt}"))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "toy.py").write_text(TOY, "utf-8")
    monkeypatch.setattr(core.passes, "__path__", [*core.passes.__path__, str(tmp_path)])
    monkeypatch.setattr(passes, "_items", dict(passes._items))
    monkeypatch.setattr(passes, "_asked", False)
    monkeypatch.setattr(passes, "_discovered", False)
    yield passes.get("toy")
    del sys.modules["core.passes.toy"], core.passes.toy


def test_a_file_with_a_pass_is_all_that_its_option_needs(toy: Any, qtbot: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from gui.setup.options_form import OptionsForm

    form = OptionsForm(toy.options)
    qtbot.addWidget(form)
    editor = form.editors["opt"]
    assert (editor.objectName(), editor.accessibleName(), editor.maximum()) == ("option_opt", "Much", 2.0)
    form.set_values({"opt": 1.25})

    from_form = PassConfig("toy", parse(toy, form.values()))
    from_line = parse_pass("toy:opt=1.25")
    assert from_form == from_line
    assert from_line.options == toy.options(1.25)
    with pytest.raises(Refusal, match=r"opt of the pass toy cannot be '3'; give a number from 0\.0 to 2\.0"):
        parse_pass("toy:opt=3")

    config = RunConfig(ModelConfig("arch:llama"), (from_line,))
    stored = to_json(config)
    assert json.loads(stored)["passes"] == [{"id": "toy", "options": {"opt": 1.25}}]
    assert config_from_json(stored).passes == config.passes

    assert search_space(toy.options) == {"opt": Range(0.0, 2.0, None, float)}
    assert cli.main(["passes", "--json"]) == 0
    (row,) = (row for row in json.loads(capsys.readouterr().out)["passes"] if row["id"] == "toy")
    assert row["options"] == {
        "opt": {"type": "float", "default": 0.5, "label": "Much", "help": "How much", "minimum": 0.0, "maximum": 2.0}
    }
