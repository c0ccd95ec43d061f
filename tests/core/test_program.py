"""The program end to end on tiny models: load, run, passes, cancel, failures, and the session file that remembers it all."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Refusal
from core.notices import Notice
from core.program import Program
from core.session.store import SessionStore
from profilers.trace import Tag
from tests.support.tiny import TINY_BERT, TINY_LLAMA

SHORT = WorkloadConfig(prompt_tokens=5, new_tokens=6, repeats=2, warmup=1)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "session.tickscope")
    yield program
    program.close()
    assert not {t.name for t in threading.enumerate() if t.name.startswith("tickscope")}


def config(*passes: str, spec: str = TINY_LLAMA, workload: WorkloadConfig = SHORT, **model: Any) -> RunConfig:
    return RunConfig(ModelConfig(spec, **model), tuple(PassConfig(name) for name in passes), TargetConfig("cpu", 1), workload)


def carried_out(program: Program, run: RunConfig) -> list[Notice]:
    program.start(run)
    assert program.join(120)
    return drained(program)


def drained(program: Program) -> list[Notice]:
    notices = []
    while not program.notices.empty():
        notices.append(program.notices.get())
    return notices


def kinds(notices: list[Notice]) -> list[str]:
    return [notice.kind for notice in notices]


def test_a_run_goes_from_model_to_file(program: Program, tmp_path: Path) -> None:
    notices = carried_out(program, config())
    assert kinds(notices) == ["loaded", "session_changed", "job_started", "job_finished"]
    live = program.live()
    assert live is not None
    assert live.facts.status == "finished"
    assert program.status.state == "ready"
    assert program.store is not None
    stored = program.store.read(1)
    assert stored.facts == live.facts
    assert stored.config == live.config
    for table in ("requests", "moments", "spans", "counters"):
        before, after = getattr(live.trace, table), getattr(stored.trace, table)
        assert {name: values.tolist() for name, values in before.items()} == {n: v.tolist() for n, v in after.items()}
    assert stored.trace.outputs == live.trace.outputs
    assert stored.trace.layers == live.trace.layers


def test_facts_tell_what_was_used_and_what_was_not_measured(program: Program) -> None:
    carried_out(program, config("bfloat16"))
    run = program.live()
    assert run is not None
    facts = run.facts
    assert facts.threads == 1
    assert facts.planned_moments == len(run.trace.moments["kind"]) == 18
    assert facts.cold_start_ns is not None
    assert facts.load_ns is not None
    assert facts.apply_ns == facts.passes[0].apply_ns > 0  # without our trying of layers, which takes longer than the pass
    first_ns = run.trace.moments["latency_ns"][0]
    assert facts.cold_start_ns == facts.load_ns + facts.apply_ns + first_ns
    assert [report.id for report in facts.passes] == ["bfloat16"]
    assert facts.passes[0].kernels
    assert facts.weights_bytes == facts.passes[0].weight_bytes_after < facts.passes[0].weight_bytes_before
    missing = {item.what for item in facts.unavailable}
    assert ("cycles" in missing) == (run.trace.moments["cycles"] < 0).all()
    tracks = {track.name for track in run.trace.tracks}
    assert ("energy" in missing) == (not tracks & {"package_energy", "gpu_energy"})


def test_switching_a_pass_off_gives_back_the_exact_original(program: Program) -> None:
    def outputs_and_bytes() -> Any:
        model = program._local._slot.loaded.model  # type: ignore[union-attr]
        run = program.live()
        assert run is not None
        state = {name: tensor.clone() for name, tensor in model.state_dict().items() if hasattr(tensor, "clone")}
        return run.trace.outputs[-1].token_ids, state

    carried_out(program, config())
    tokens, weights = outputs_and_bytes()
    for names in (("bfloat16",), ("int8_dynamic", "threads"), ("layer_drop", "int8_weight_only")):
        assert kinds(carried_out(program, config(*names)))[-1] == "job_finished"
    assert kinds(carried_out(program, config()))[-1] == "job_finished"
    again, after = outputs_and_bytes()
    assert again == tokens
    assert weights.keys() == after.keys()
    assert all(weights[name].equal(after[name]) and weights[name].dtype == after[name].dtype for name in weights)


def test_the_same_run_again_reuses_the_model_and_is_no_cold_start(program: Program) -> None:
    carried_out(program, config())
    notices = carried_out(program, config())
    assert kinds(notices) == ["job_started", "job_finished"]
    run = program.live()
    assert run is not None
    assert run.facts.cold_start_ns is None
    assert run.id == 2


def test_unloading_lets_the_model_go(program: Program) -> None:
    big = TINY_LLAMA.replace("hidden_size=64", "hidden_size=1024").replace("intermediate_size=128", "intermediate_size=8192")
    before = psutil.Process().memory_info().rss
    carried_out(program, config("bfloat16", spec=big))
    model = weakref.ref(program._local._slot.loaded.model)  # type: ignore[union-attr]
    during = psutil.Process().memory_info().rss
    program.unload()
    assert program.join(30)
    gc.collect()
    assert model() is None
    after = psutil.Process().memory_info().rss
    assert during - before > 100 << 20
    assert after - before < (during - before) / 2
    assert program.loaded is None
    assert program.status.state == "idle"


def test_an_encoder_runs(program: Program) -> None:
    assert kinds(carried_out(program, config(spec=TINY_BERT)))[-1] == "job_finished"
    run = program.live()
    assert run is not None
    assert run.facts.model is not None
    assert run.facts.model.task == "embedding"
    assert len(run.trace.outputs[0].values) == 32


def test_cancel_in_a_run_keeps_what_was_measured(program: Program) -> None:
    long = WorkloadConfig(prompt_tokens=5, new_tokens=2000, repeats=5, warmup=0)
    program.start(config(workload=long))
    while not (program.live() and len(program.live().trace.moments["kind"]) > 20):  # type: ignore[union-attr]
        assert not program.join(0.02)
    program.cancel()
    assert program.join(5)
    assert kinds(drained(program))[-1] == "job_cancelled"
    assert program.store is not None
    stored = program.store.read(1)
    assert stored.facts.status == "cancelled"
    assert len(stored.trace.moments["kind"]) > 20
    assert stored.trace.outputs[-1].finish_reason == "cancelled"
    assert len(stored.trace.outputs[-1].token_ids) == stored.trace.requests["output_tokens"][-1]
    assert kinds(carried_out(program, config()))[-1] == "job_finished"


def test_a_cancel_before_the_job_began_is_not_lost(program: Program) -> None:
    blocker = threading.Event()
    program._local._worker.submit(lambda: blocker.wait(10) and None)
    program.start(config())
    program.cancel()
    blocker.set()
    assert program.join(30)
    assert kinds(drained(program)) == ["cancelled"]
    assert program.live() is None


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (config(workload=WorkloadConfig(prompt="hello")), "has no tokenizer"),
        (config(spec=TINY_BERT, workload=WorkloadConfig(prompt_tokens=65)), "has room for 64 tokens"),
        (config(workload=WorkloadConfig(prompt_tokens=64, new_tokens=1, batch=200_000_000)), "ask for less at once"),
        (config("int8_dynamic", "int8_weight_only"), "switch it off"),
        (config("no_such_pass"), "no_such_pass"),
        (config(spec="/no/such/folder"), "/no/such/folder"),
        (RunConfig(ModelConfig(TINY_LLAMA), target=TargetConfig("cuda"), workload=SHORT), "choose another target"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_the_next_run_works(program: Program, run: RunConfig, sentence: str) -> None:
    notices = carried_out(program, run)
    assert notices[-1].kind == "refused"
    assert sentence in notices[-1].text
    assert notices[-1].text.endswith(".")
    assert kinds(carried_out(program, config()))[-1] == "job_finished"


def test_a_model_that_does_not_fit_is_refused_but_can_be_forced(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    small = type("Memory", (), {"available": 1000, "total": 2000})
    monkeypatch.setattr("core.execution.model_slot.psutil.virtual_memory", small)
    notices = carried_out(program, config())
    assert (notices[-1].kind, notices[-1].can_override) == ("refused", True)
    assert kinds(carried_out(program, config(force=True)))[-1] == "job_finished"


def broken_layer(program: Program, error: BaseException) -> None:
    """Make a layer of the loaded model raise, once loaded."""

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    program._local._slot.loaded.model.model.layers[1].mlp.forward = broken  # type: ignore[union-attr]


def test_an_exception_in_a_layer_names_it_and_the_next_run_works(program: Program) -> None:
    carried_out(program, config())
    broken_layer(program, ValueError("bad shapes"))
    notices = carried_out(program, config())
    assert kinds(notices) == ["job_started", "job_failed", "failed"]
    assert "model.layers.1" in notices[-1].text
    assert "bad shapes" in notices[-1].text
    assert "Traceback" in notices[-1].detail
    assert program.store is not None
    assert program.store.read(2).facts.status == "failed"
    program.unload()
    assert kinds(carried_out(program, config()))[-1] == "job_finished"


def test_running_out_of_memory_is_a_sentence_and_the_app_lives_on(program: Program) -> None:
    carried_out(program, config())
    broken_layer(program, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    notices = carried_out(program, config())
    assert "make the batch" in notices[-1].text
    program.unload()
    assert kinds(carried_out(program, config()))[-1] == "job_finished"


def test_sessions_can_be_changed_and_what_cannot_be_opened_leaves_the_present_one(program: Program, tmp_path: Path) -> None:
    carried_out(program, config())
    with pytest.raises(Refusal):
        program.open_session(tmp_path / "absent.tickscope")
    assert program.store is not None
    assert len(program.store.runs()) == 1
    program.new_session(tmp_path / "other.tickscope")
    carried_out(program, config())
    assert program.store.path.name == "other.tickscope"
    program.open_session(tmp_path / "session.tickscope")
    assert [head.status for head in program.store.runs()] == ["finished"]


def test_a_disk_that_is_full_before_anything_is_measured_is_a_failure_and_no_bad_input(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> Any:
        raise duckdb.IOException("No space left on device")

    carried_out(program, config())
    with monkeypatch.context() as patch:
        patch.setattr(SessionStore, "_next_id", full)
        notices = carried_out(program, config())
    assert kinds(notices) == ["failed"]  # exit status 1, not 2
    assert "The disk is full" in notices[0].text


def test_a_run_that_cannot_be_saved_still_runs_and_says_so(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> Any:
        raise Refusal("The disk is full; free some space.")

    carried_out(program, config())
    with monkeypatch.context() as patch:
        patch.setattr(SessionStore, "append", full)
        notices = carried_out(program, config())
    assert kinds(notices) == ["job_started", "warning", "not_kept", "session_changed", "job_finished"]
    live = program.live()
    assert live is not None
    assert program.store is not None
    assert program.store.path.name == "session (rescued).tickscope"
    assert len(program.store.read(live.id).trace.moments["kind"]) == 18


def test_only_clean_moments_without_the_layer_clock(program: Program) -> None:
    run = RunConfig(ModelConfig(TINY_LLAMA), (), TargetConfig("cpu", 1), SHORT, profilers=("host_memory",))
    carried_out(program, run)
    live = program.live()
    assert live is not None
    assert (live.trace.moments["tags"] & Tag.CLEAN > 0).all()
    assert "layers" in {item.what for item in live.facts.unavailable}
