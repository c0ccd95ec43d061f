"""The clock inside compiled graphs: its operator, the two graphs of a model, and several models alive at once."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from core import torch_private
from core.config import PassConfig
from core.models.stages import layers_of
from core.pass_api.subject import Execution, Subject
from core.passes import compiling
from core.planning import plan
from core.planning.kernels import as_run
from profilers import tick_op
from profilers.shallow_clone import shallow_clone
from profilers.tick_op import TickClock, tick_operator
from profilers.trace import NOT_MEASURED, Recorder

IDS = torch.arange(8).reshape(2, 4) + 3
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}


def llama(blocks: int = 2, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(**SIZES, num_hidden_layers=blocks, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def compiled(model: torch.nn.Module, **options: Any) -> Subject:
    subject = Subject(model, "text-generation", Execution(torch.get_num_threads()), 16, 2)
    plan.apply_all(subject, [PassConfig("compile_decode", options)])
    return subject


def tokens(model: torch.nn.Module, ids: torch.Tensor = IDS, count: int = 6, **arguments: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **fixed, **arguments).tolist()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured graphs run as they are: everything but inductor's own seconds."""
    monkeypatch.setattr("core.compiled.step_graph.StepGraph._as_library", lambda _self, graph, _inputs: graph.forward)
    monkeypatch.setattr("torch._inductor.compile", lambda graph, _inputs, options=None: graph.forward)


def ticks_of(subject: Subject) -> TickClock:
    step = subject.execution.step
    assert step is not None
    assert step.ticks is not None
    return step.ticks


class Alternating:
    """Runs a subject's decode steps clean and traced in turns, as the engine does, but listens to the clean ones as well."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.recorder = Recorder()
        self.moments: list[tuple[bool, int, str | None]] = []  # traced, ticks heard, what collect said
        self.times: list[tuple[int, int]] = []

    def tokens(self, *arguments: Any) -> list[list[int]]:
        compiled_step = self.subject.execution.step
        assert compiled_step is not None
        clean = compiled_step.call
        compiled_step.call = self._step(clean)
        try:
            with as_run(self.subject):
                return tokens(self.subject.model, *arguments, **self.subject.execution.generation)
        finally:
            compiled_step.call = clean

    def _step(self, clean: Callable[..., Any]) -> Callable[..., Any]:
        ticks, ticked = ticks_of(self.subject), self.subject.execution.step.ticked
        assert ticked is not None

        def step(*args: Any, **kwargs: Any) -> Any:
            traced = len(self.moments) % 4 in (1, 2)
            ticks.install()
            start = time.perf_counter_ns()
            output = (ticked if traced else clean)(*args, **kwargs)
            duration = time.perf_counter_ns() - start
            ticks.remove()
            heard = len(ticks._log)
            said = ticks.collect(self.recorder, len(self.moments), start, duration)
            self.moments.append((traced, heard, said))
            self.times.append((start - self.recorder.origin_ns, duration))
            return output

        return step

    def check_counts(self, ticks: int) -> None:
        assert len(self.moments) >= 4
        for traced, heard, said in self.moments:
            assert heard == (ticks if traced else 0)
            assert (said is None) == traced

    def check_spans(self, rows: list[int]) -> None:
        """In each traced moment: the pieces in order, then the model; apart, inside the moment, and nothing lost."""
        spans = self.recorder.spans.view()
        traced = [number for number, moment in enumerate(self.moments) if moment[0]]
        assert sorted(set(spans["moment"].tolist())) == traced
        for moment in traced:
            mine = {name: values[spans["moment"] == moment] for name, values in spans.items()}
            assert mine["layer"].tolist() == [*rows, 0]
            start, duration = self.times[moment]
            assert (mine["start_ns"][-1], mine["duration_ns"][-1]) == (start, duration)
            starts, ends = mine["start_ns"][:-1], (mine["start_ns"] + mine["duration_ns"])[:-1]
            assert starts[0] >= start
            assert ends[-1] <= start + duration
            assert (mine["duration_ns"] > 0).all()
            assert all(end <= following for end, following in zip(ends, starts[1:], strict=False))
            assert mine["self_ns"].sum() == duration


def rows_of(model: torch.nn.Module, *paths: str) -> list[int]:
    known = [layer.path for layer in layers_of(model)]
    return [known.index(path) for path in paths]


LLAMA_PIECES = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.norm", "lm_head")


# -- both graphs, by inductor ---------------------------------------------------------------------------------------------


def test_ticks_are_in_the_traced_graph_and_not_in_the_clean_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))  # no graph is on disk yet
    model = llama()
    expected = tokens(model)
    subject = compiled(model)
    events, before_ns = len(torch_private.compiled_frames()), compiling.compile_ns() or 0
    turns = Alternating(subject)
    assert turns.tokens() == expected
    assert len(torch_private.compiled_frames()) == events + 2  # one graph each, no breaks (those are errors)
    spent_ns = compiling.compile_ns()
    assert spent_ns is not None
    assert spent_ns - before_ns > 1e8
    for _ in range(3):
        assert turns.tokens() == expected
    assert (len(torch_private.compiled_frames()), compiling.compile_ns()) == (events + 2, spent_ns)
    turns.check_counts(11)
    assert ticks_of(subject).expected == 11  # blocks share theirs: 3, and 2 for each of embedding, positions, norm and head
    turns.check_spans(rows_of(model, *LLAMA_PIECES))


# -- what dynamo keeps apart ----------------------------------------------------------------------------------------------


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(x).relu()


class Toy(torch.nn.Module):
    """The least that decodes: it is captured in no time."""

    def __init__(self, blocks: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(8, 4)
        self.layers = torch.nn.ModuleList(Block() for _ in range(blocks))
        self.head = torch.nn.Linear(4, 8)
        self.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None) -> torch.Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Filled:
    """A cache that has something in it."""

    is_initialized = True


class Steps(Alternating):
    """Alternating steps of a toy, without ``generate``."""

    def outputs(self, batch: int = 1, count: int = 4) -> list[torch.Tensor]:
        step = self._step(self.subject.execution.step.call)
        inputs = [torch.arange(number, number + batch)[:, None] % 8 for number in range(count)]
        return [step(input_ids=ids, past_key_values=Filled()) for ids in inputs]

    def wanted(self, batch: int = 1, count: int = 4) -> list[torch.Tensor]:
        inputs = [torch.arange(number, number + batch)[:, None] % 8 for number in range(count)]
        return [self.subject.model(ids) for ids in inputs]

    def check_outputs(self, batch: int = 1) -> None:
        pairs = zip(self.outputs(batch), self.wanted(batch), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.usefixtures("quick")
def test_models_of_one_class_do_not_share_graphs() -> None:
    events = len(torch_private.compiled_frames())
    turns = [Steps(compiled(Toy(blocks, seed))) for blocks, seed in ((2, 0), (2, 1), (3, 0))]
    for _ in range(3):
        for one in turns:
            one.check_outputs()
    assert len(torch_private.compiled_frames()) == events + 6
    assert not torch.equal(turns[0].wanted()[0], turns[1].wanted()[0])
    turns[1].subject.undo.close()
    turns[0].check_outputs()
    turns[2].check_outputs()
    assert len(torch_private.compiled_frames()) == events + 6  # undoing one dropped nothing of the others
    turns[0].check_counts(3 + 2 + 2)
    turns[2].check_counts(4 + 2 + 2)


@pytest.mark.usefixtures("quick")
def test_what_is_put_on_the_model_does_not_reach_its_graphs() -> None:
    turns = Steps(compiled(Toy(2, 0)))
    turns.check_outputs()
    events, wanted = len(torch_private.compiled_frames()), turns.wanted()
    for module in turns.subject.model.modules():  # as the layer clock, labels and the tripwire do
        module.__dict__["forward"] = lambda *_: pytest.fail("a compiled moment ran Python of the model")
    assert all(torch.equal(one, other) for one, other in zip(turns.outputs(), wanted, strict=True))
    assert len(torch_private.compiled_frames()) == events


@pytest.mark.usefixtures("quick")
def test_undo_lets_model_and_graphs_go() -> None:
    turns = Steps(compiled(Toy(2, 0)))
    turns.check_outputs()
    subject, model = turns.subject, turns.subject.model
    gone = [weakref.ref(one) for one in (model, ticks_of(subject), ticks_of(subject).twin, model.head.weight)]
    subject.undo.close()
    assert (subject.execution.step, subject.execution.untickable) == (None, None)
    del model, subject, turns
    gc.collect()
    assert [one() for one in gone] == [None] * 4


@pytest.mark.usefixtures("quick")
def test_another_batch_is_another_graph_with_the_same_ticks() -> None:
    turns = Steps(compiled(Toy(2, 0)))
    events = len(torch_private.compiled_frames())
    for batch in (2, 1, 2, 1):
        turns.check_outputs(batch)
    assert len(torch_private.compiled_frames()) == events + 4
    turns.check_counts(7)


# -- the twin -------------------------------------------------------------------------------------------------------------


def clock_of(model: torch.nn.Module, *paths: str) -> TickClock:
    return TickClock(model, list(zip(rows_of(model, *paths), paths, strict=True)))


def test_twin_shares_weights_and_leaves_the_model_alone() -> None:
    model = llama()
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    children = {path: dict(module._modules) for path, module in model.named_modules()}
    twin = clock_of(model, *LLAMA_PIECES).twin
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before
    assert {path: dict(module._modules) for path, module in model.named_modules()} == children
    assert [id(one) for one in twin.parameters()] == [id(one) for one in model.parameters()]
    assert not {id(one) for one in twin.modules()} & {id(one) for one in model.modules()}
    assert [path for path, _ in twin.named_modules()] == [path for path, _ in model.named_modules()]
    assert torch.equal(twin(IDS).logits, model(IDS).logits)  # ticks that nobody hears change nothing


def test_a_module_that_occurs_twice_occurs_twice_in_the_twin() -> None:
    shared = torch.nn.Linear(2, 2)
    twin = shallow_clone(torch.nn.Sequential(shared, torch.nn.ReLU(), shared))
    assert twin[0] is twin[2]
    assert twin[0] is not shared


def test_other_architectures_tick_in_order() -> None:
    model = gpt2()
    paths = ("transformer.wte", "transformer.wpe", "transformer.drop", "transformer.h.0", "transformer.h.1")
    one = clock_of(model, *paths, "transformer.ln_f", "lm_head")
    wanted = model(IDS).logits
    one.planned(range(13))
    recorder = Recorder()
    one.install()
    start = time.perf_counter_ns()
    assert torch.equal(one.twin(IDS).logits, wanted)
    duration = time.perf_counter_ns() - start
    one.remove()
    assert one.collect(recorder, 0, start, duration) is None
    assert recorder.spans.view()["layer"].tolist() == [*rows_of(model, *paths, "transformer.ln_f", "lm_head"), 0]


# -- the clock alone ------------------------------------------------------------------------------------------------------


def clock(*rows: tuple[int, str], plan: tuple[int, ...] | None = None) -> TickClock:
    """A clock of a model of three linear layers, whose graph was captured with this plan."""
    one = TickClock(torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3))), rows)
    if plan is not None:
        one.planned(plan)
    return one


def tick(*numbers: int) -> None:
    for number in numbers:
        tick_operator()(torch.ones(1), number)


def test_operator_is_silent_unless_a_clock_listens() -> None:
    one = clock((1, "0"), (2, "1"), plan=(0, 1, 2))
    tick(0)
    one.install()
    tick(0, 1, 2)
    one.remove()
    tick(3)
    recorder = Recorder()
    assert one.collect(recorder, 0, recorder.origin_ns, 10**9) is None
    assert recorder.spans.view()["layer"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("heard", [(), (0, 1), (0, 1, 2, 2), (0, 2, 1)])
def test_a_missing_or_extra_tick_gives_a_sentence_and_no_spans(heard: tuple[int, ...]) -> None:
    one = clock((1, "0"), (2, "1"), plan=(0, 1, 2))
    recorder = Recorder()
    one.install()
    tick(*heard)
    one.remove()
    said = one.collect(recorder, 0, recorder.origin_ns, 10**9)
    assert said == (
        f"The compiled graph ticked {len(heard)} times where 3 in their order were expected, so this moment has no layer times."
    )
    assert recorder.spans.count == 0
    one.install()  # the next moment starts afresh
    tick(0, 1, 2)
    one.remove()
    assert one.collect(recorder, 1, recorder.origin_ns, 10**9) is None


def test_ticks_of_a_moment_cut_short_are_forgotten() -> None:
    one = clock((1, "0"), plan=(0, 1))
    one.install()
    tick(0)
    one.remove()
    one.install()
    tick(0, 1)
    one.remove()
    assert one.collect(Recorder(), 0, 0, 10**9) is None


@pytest.mark.parametrize(
    ("plan_", "says"),
    [
        ((), "kept none"),
        ((0,), "does not leave layers.0"),  # its exit is the entry of layers.1
        ((1, 0, 2), "does not leave layers.0"),
        ((0, 1, 2, 0, 1, 2), "more than once"),
        ((0, 3, 1, 2, 4), "inside each other"),
    ],
)
def test_a_graph_whose_ticks_do_not_tell_the_pieces_apart_is_said_to_be_so(plan_: tuple[int, ...], says: str) -> None:
    one = TickClock(Toy(2, 0), [(3, "layers.0"), (5, "layers.1"), (7, "head")])
    one.planned(plan_)
    recorder = Recorder()
    one.install()
    tick(*plan_)
    one.remove()
    assert says in (one.collect(recorder, 0, recorder.origin_ns, 10**9) or "")
    assert recorder.spans.count == 0


def test_a_piece_that_the_graph_does_not_use_has_no_span() -> None:
    one = clock((1, "0"), (3, "2"), plan=(2, 3))
    one.install()
    tick(2, 3)
    one.remove()
    recorder = Recorder()
    assert one.collect(recorder, 0, recorder.origin_ns, 10**9) is None
    assert recorder.spans.view()["layer"].tolist() == [3, 0]


class Counter:
    """A counter whose n-th reading is n² cycles and no cache misses that it could read."""

    def __init__(self) -> None:
        self._reads = itertools.count()

    def read(self) -> int:
        return next(self._reads) ** 2

    def between(self, begins: list[int], ends: list[int]) -> dict[str, Any]:
        counts = np.array(ends) - np.array(begins)
        return {"cycles": counts, "cache_misses": np.full(len(counts), NOT_MEASURED), "page_faults": counts}


def test_a_counter_is_read_at_every_tick() -> None:
    one = clock((1, "0"), (2, "1"), plan=(0, 1, 2))
    one.counter = Counter()
    one.install()
    tick(0, 1, 2)
    one.remove()
    recorder = Recorder()
    assert one.collect(recorder, 0, recorder.origin_ns, 10**9) is None
    spans = recorder.spans.view()
    assert spans["cycles"].tolist() == [1, 3, NOT_MEASURED]
    assert spans["cache_misses"].tolist() == spans["instructions"].tolist() == [NOT_MEASURED] * 3


# -- where there are no ticks ---------------------------------------------------------------------------------------------


def test_frozen_weights_are_not_packed_twice() -> None:
    subject = compiled(Toy(1, 0), freezing=True)
    assert (subject.execution.step.ticks, subject.execution.step.ticked) == (None, None)
    assert "pack them again" in str(subject.execution.untickable)


@pytest.mark.usefixtures("quick")
def test_a_graph_that_ticks_would_break_runs_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_op, "_tensor", torch.compiler.disable(tick_op._tensor))
    turns = Steps(compiled(Toy(2, 0)))
    turns.check_outputs()
    sentence = "This model is not one graph with the clock's ticks in it."
    assert str(turns.subject.execution.untickable) == sentence
    assert {heard for _, heard, _ in turns.moments} == {0}
    assert {said for _, _, said in turns.moments[2:]} == {sentence}
    assert turns.recorder.spans.count == 0
