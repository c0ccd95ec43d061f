"""Predicted gains before running: against hand-computed cases, without touching the model, stopped by any job, and shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.cli import main
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Cancelled
from core.execution.foresight import Foreseen, foresee
from core.execution.model_slot import ModelSlot
from core.messages.reason import of_text
from core.pass_api.base import passes
from core.pass_api.options import typed
from core.planning import gains
from core.planning.gains import APPLIED, IN_USE, Asked, GainPredictor, Prediction, predictions
from core.prediction import layer_costs
from core.program import Program
from core.progress import Progress
from core.records.roofline import Ceilings
from core.targets.base import targets
from gui.setup.switch_list import LINE
from tests.support.gui_window import make_window
from tests.support.tiny import TINY_LLAMA, loaded, tiny_llama

ASKED = Asked(input_tokens=8, new_tokens=5, batch=1, threads=1)
OPERATORS, OPERATOR_NS = 10, 50.0


@pytest.fixture
def by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads a byte in a nanosecond, multiplies at once, and whose layers are as fast as that."""
    made_up = Ceilings(1, ((1, 1e9), (1 << 40, 1e9)), dict.fromkeys(("float32", "bfloat16", "int8"), 1e30), OPERATOR_NS)
    for module in (gains, layer_costs):
        monkeypatch.setattr(module, "ceilings", lambda: made_up)
    monkeypatch.setattr(layer_costs.LayerCosts, "_timed", lambda *_: ())
    monkeypatch.setattr(layer_costs, "_operators", lambda *_: (OPERATORS, 0))
    monkeypatch.setattr(gains, "remembered", lambda _name, find: find())


def predicted(model: Any, pass_id: str, asked: Asked = ASKED, **options: Any) -> Prediction:
    return GainPredictor(loaded(model), asked, Progress()).predict(typed(PassConfig(pass_id, options)))


def bytes_of(model: Any) -> tuple[int, int]:
    """Of the linear layers of one block, and of the head."""
    block = sum(part.weight.nbytes for part in model.model.layers[0].modules() if isinstance(part, torch.nn.Linear))
    return block, model.lm_head.weight.nbytes


# -- hand-computed --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("by_bytes")
def test_half_the_bytes_take_half_the_time_but_for_the_operators() -> None:
    model = tiny_llama(layers=4)
    block, head = bytes_of(model)
    read, between = 4 * block + head, OPERATORS * OPERATOR_NS
    found = predicted(model, "bfloat16")
    expected = (read + between) / (read / 2 + between)
    assert found.by_kind == {"prefill": pytest.approx(expected), "decode": pytest.approx(expected)}
    assert found.gain == pytest.approx(expected)
    assert "of weights at" in str(found.rests_on)
    assert not found.why


@pytest.mark.usefixtures("by_bytes")
def test_a_dropped_block_is_a_block_less() -> None:
    model = tiny_llama(layers=4)
    block, head = bytes_of(model)
    found = predicted(model, "layer_drop", layers="2")
    assert found.by_kind["decode"] == pytest.approx((4 * block + head) / (3 * block + head))
    assert found.by_kind["prefill"] == pytest.approx(4 / 3)


@pytest.mark.usefixtures("by_bytes")
def test_a_compiled_graph_saves_the_operators_of_decoding_and_a_request_has_a_prefill_too() -> None:
    model = tiny_llama(layers=4)
    block, head = bytes_of(model)
    read, between = 4 * block + head, OPERATORS * OPERATOR_NS
    found = predicted(model, "compile_decode")
    assert found.by_kind == {"decode": pytest.approx((read + between) / read)}
    whole = 5 * (read + between)  # a prefill and four tokens more
    assert found.gain == pytest.approx(whole / (whole - 4 * between))


@pytest.mark.usefixtures("by_bytes")
@pytest.mark.parametrize(("pass_id", "layers", "copied"), [("bfloat16", 20, 10), ("mlp_width", 20, 10), ("layer_drop", 30, 19)])
def test_the_first_blocks_tell_what_the_whole_would(
    pass_id: str, layers: int, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(layers=layers)
    monkeypatch.setattr(gains, "LEAST_BLOCKS", copied)
    whole = predicted(model, pass_id)
    monkeypatch.setattr(gains, "COPIED_BYTES", 1)  # so that LEAST_BLOCKS are copied
    part = predicted(model, pass_id)
    for kind in ("prefill", "decode"):
        assert part.by_kind[kind] == pytest.approx(whole.by_kind[kind], rel=0.02)
    assert len(model.model.layers) == layers


# -- what is left alone ---------------------------------------------------------------------------------------------------


def test_no_pass_touches_the_model_that_it_is_predicted_for() -> None:
    model = tiny_llama(layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    was = torch.get_num_threads()
    torch.set_num_threads(threads := ASKED.threads + 1)
    settings = model.config.to_dict()
    parts = [(path, type(part), part.__dict__.get("forward")) for path, part in model.named_modules()]
    choices = [typed(PassConfig(one.id)) for one in passes if one.phase in APPLIED]
    found = list(predictions(loaded(model), choices, ASKED, {}, Progress()))
    assert [one.pass_id for one in found] == [choice.id for choice in choices]
    assert {"bfloat16", "group_quant", "mlp_width"} <= {one.pass_id for one in found if one.gain is not None}
    assert all((one.gain is None) == bool(one.why) for one in found)
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert model.config.to_dict() == settings
    assert [(path, type(part), part.__dict__.get("forward")) for path, part in model.named_modules()] == parts
    left_with = torch.get_num_threads()
    torch.set_num_threads(was)
    assert left_with == threads


def test_what_cannot_be_told_beforehand_says_why_and_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_self: Any) -> Any:
        raise AssertionError("it was tried")

    monkeypatch.setattr(GainPredictor, "_copy", never)
    model = loaded(tiny_llama(layers=2))
    choices = [PassConfig(name) for name in ("prompt_lookup", "onnxruntime", "offload", "kv_cache", "bfloat16")]
    found = {one.pass_id: one for one in predictions(model, choices, ASKED, {"bfloat16": "not here"}, Progress())}
    assert {one.gain for one in found.values()} == {None}
    assert str(found["prompt_lookup"].why).startswith("Follows from how many guesses are right")
    assert str(found["onnxruntime"].why).startswith("Another engine")
    assert str(found["offload"].why).startswith("It depends on how fast the weights come")
    assert str(found["bfloat16"].why) == "Not available: not here"


@pytest.mark.usefixtures("by_bytes")
def test_without_room_for_a_copy_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gains, "ROOM", 10**12)
    assert predicted(tiny_llama(layers=3), "bfloat16").why == gains.NO_ROOM


@pytest.mark.usefixtures("by_bytes")
def test_a_model_whose_copy_would_call_the_model_itself_is_left_alone() -> None:
    model = tiny_llama(layers=2)
    layer = model.model.layers[0].mlp
    layer.forward = layer.forward
    assert predicted(model, "bfloat16").why == gains.OWN_FORWARD


def test_a_prediction_is_remembered_by_model_workload_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}

    def remember(name: str, find: Any) -> Any:
        if name not in kept:
            kept[name] = find()
        return kept[name]

    monkeypatch.setattr(gains, "remembered", remember)
    model = tiny_llama(layers=2)
    first = predicted(model, "layer_drop", layers="1")
    assert len(kept) == 1
    assert predicted(model, "layer_drop", layers="1") == first
    assert len(kept) == 1
    predicted(model, "layer_drop", layers="0")
    predicted(model, "layer_drop", Asked(16, 5, 1, 1), layers="1")
    assert len(kept) == 3


# -- on the worker --------------------------------------------------------------------------------------------------------


def config(*pass_ids: str) -> RunConfig:
    workload = WorkloadConfig(prompt_tokens=8, new_tokens=4, repeats=1, warmup=0)
    return RunConfig(ModelConfig(TINY_LLAMA), tuple(map(PassConfig, pass_ids)), TargetConfig("cpu", 1), workload, ())


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program(keep_session=False)
    yield program
    program.close()


def test_a_job_stops_the_predicting_and_is_not_waited_for(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def slow(self: GainPredictor, choice: PassConfig) -> Prediction:
        if choice.id == "bfloat16":
            return Prediction("bfloat16", 1.5, {"decode": 1.5}, "made up")
        begun.set()
        assert self._progress.cancelled.wait(60)
        raise Cancelled

    monkeypatch.setattr(GainPredictor, "predict", slow)
    program.load(config().model, config().target)
    program.foresight.ask(config(), (PassConfig("bfloat16"), PassConfig("layer_drop")))
    assert begun.wait(120)
    assert not program.busy
    program.start(config())
    assert program.join(120)
    run = program.live()
    assert run is not None
    assert run.facts.status == "finished"
    seen = program.foresight.seen
    assert seen is not None
    assert not seen.done
    assert set(seen.found) == {"bfloat16"}  # what was known stays
    notices = [program.notices.get().kind for _ in range(program.notices.qsize())]
    assert "failed" not in notices
    assert "cancelled" not in notices


def test_a_model_that_carries_passes_is_not_predicted_for() -> None:
    holder = ModelSlot()
    holder.load(config().model, "cpu", Progress())
    assert holder.untouched is holder.loaded
    holder.prepare(config("bfloat16"), targets.get("cpu").probe(), 8, Progress())
    assert holder.untouched is None
    asked = Foreseen(config(), (PassConfig("layer_drop"),))
    assert foresee(asked, holder, Progress(), lambda _: None).why == IN_USE
    holder.unload()


# -- the command line and the window --------------------------------------------------------------------------------------


def test_the_listing_tells_what_each_pass_should_gain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(self: GainPredictor, choice: PassConfig) -> Prediction:
        if choice.id == "bfloat16":
            return Prediction("bfloat16", 1.9, {"prefill": 1.2, "decode": 2.0}, "It reads half.")
        return Prediction(choice.id, why=of_text("Nobody knows."))

    monkeypatch.setattr(GainPredictor, "predict", made_up)
    asked = ("passes", "--model", TINY_LLAMA, "--threads", "1", "--prompt-tokens", "8", "--new-tokens", "4")
    assert main([*asked, "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["passes"]}
    assert rows["bfloat16"]["predicted"] == {"gain": 1.9, "by_kind": {"prefill": 1.2, "decode": 2.0}, "rough": False}
    assert rows["bfloat16"]["prediction"] == "It reads half."
    assert rows["layer_drop"]["predicted"] is None
    assert rows["layer_drop"]["prediction"] == "Nobody knows."
    assert rows["heal"]["prediction"].startswith("Not available: ")
    assert main(list(asked)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "predicted, not measured" in lines[0]
    assert lines[1].startswith("bfloat16")
    assert "1.90×" in lines[1]
    assert main([*asked, "--no-predict", "--json"]) == 0
    assert "predicted" not in json.loads(capsys.readouterr().out)["passes"][0]


def test_the_list_shows_sorts_and_explains_what_is_predicted(qtbot: Any) -> None:
    from gui.setup.pass_list import PassList
    from gui.setup.pass_rows import GROUP
    from gui.setup.switch_list import ID

    shown = PassList(list(passes))
    qtbot.addWidget(shown)
    shown.show_reasons({"float16": of_text("this processor has none")})
    found = {
        "bfloat16": Prediction("bfloat16", 1.2, {"decode": 1.2}, "It reads half."),
        "group_quant": Prediction("group_quant", 2.5, {"prefill": 1.1, "decode": 2.9}, "It reads a quarter."),
        "kv_cache": Prediction("kv_cache", why=of_text("It changes neither bytes nor operations.")),
    }
    shown.show_predictions(found)
    assert shown.item_of("group_quant").data(LINE).startswith("predicted 2.50× · ")
    assert shown.item_of("kv_cache").data(LINE).startswith("predicted — · ")
    tip = shown.item_of("group_quant").toolTip()
    assert "Predicted, not measured: 2.50× for a whole request (prefill 1.10×, decode 2.90×)" in tip
    assert "It reads a quarter." in tip
    assert "It changes neither bytes nor operations." in shown.item_of("kv_cache").toolTip()
    by_group = [shown.item(row).data(ID) for row in range(shown.count())]
    shown.setCurrentItem(shown.item_of("bfloat16"))
    shown.sort_by_gain(True)
    ids = [item.data(ID) for item in shown.rows()]
    assert ids[:2] == ["group_quant", "bfloat16"]
    assert ids[-1] == "float16"  # refused ones come last
    assert all(not item.isHidden() for item in shown.rows())
    assert all(shown.item(row).isHidden() for row in range(shown.count()) if shown.item(row).data(GROUP))
    assert shown.currentItem() is shown.item_of("bfloat16")
    shown.sort_by_gain(False)
    assert [shown.item(row).data(ID) for row in range(shown.count())] == by_group
    assert any(not shown.item(row).isHidden() for row in range(shown.count()) if shown.item(row).data(GROUP))


def test_the_window_asks_once_the_model_is_there_and_shows_what_is_for_its_setup(qtbot: Any, tmp_path: Path) -> None:
    window = make_window(tmp_path / "settings.ini")
    qtbot.addWidget(window)
    program, foresight = window.program, window.foresight
    foresight.ask()
    assert program.foresight.asked == []  # nothing is loaded
    program.load(config().model, config().target)
    assert program.join(10)
    foresight.ask()
    asked, choices = program.foresight.asked[-1]
    assert asked.passes == ()
    assert {choice.id for choice in choices} == {one.id for one in passes}
    found = {"bfloat16": Prediction("bfloat16", 1.7, {"decode": 1.7}, "It reads half.")}
    program.foresight.seen = Foreseen(replace(asked, workload=WorkloadConfig(new_tokens=3)), choices, found)
    foresight.show_found()
    assert "predicted" not in window.sidebar.passes.item_of("bfloat16").data(LINE)  # for another workload
    program.foresight.seen = Foreseen(asked, choices, found, done=True)
    foresight.show_found()
    assert window.sidebar.passes.item_of("bfloat16").data(LINE).startswith("predicted 1.70×")
    count = len(program.foresight.asked)
    foresight.ask()
    assert len(program.foresight.asked) == count  # it is known
    program.unload()
    window.bridge.tick()
    assert "predicted" not in window.sidebar.passes.item_of("bfloat16").data(LINE)
    window.ask = lambda *_: True
    window.close()
