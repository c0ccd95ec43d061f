"""What a model's code changes of the process around it is put back after the run, and told."""

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.analysis.facts import outputs_json
from core.config import ModelConfig
from core.execution.failure import what_failed
from core.execution.outcome import worth_telling
from core.messages.reason import Reason, of_text
from core.records.run import Run
from core.surroundings import kept
from tests.support.small_runs import carried_out
from tests.support.synthetic import synthetic_run

MODULE = """
import gc, os, sys
import torch

class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x):
        {act}
        return self.layer(x)

def make():
    return Odd(), (torch.randn(2, 8),)
"""


def run(folder: Path, act: str) -> Run:
    file = folder / "odd.py"
    file.write_text(MODULE.format(act=act))
    return carried_out(ModelConfig(f"py:{file}:make", trust_remote_code=True), repeats=2)


def state() -> tuple[object, ...]:
    threads = torch.get_num_threads()
    return (
        *(os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled(), threads, gc.isenabled(), gc.get_freeze_count() > 0),
        *(sys.getswitchinterval(), sys.getrecursionlimit(), sys.stdout),
        *(torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(), torch.get_default_device()),
    )


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("os.chdir('/')", "changed the working folder (to /)"),
        ("torch.set_default_dtype(torch.float64)", "changed torch's default dtype (to torch.float64)"),
        ("torch.set_float32_matmul_precision('medium')", "changed the precision of torch's products (to medium)"),
        ("torch.use_deterministic_algorithms(True)", "changed torch's deterministic algorithms (on)"),
        ("torch.set_default_device('cpu:0')", "changed torch's default device (to cpu:0)"),
        ("os.umask(0o077)", "changed the mode of new files (umask 077)"),
        ("gc.freeze(); gc.disable()", "changed the garbage collector (off), the garbage collector (frozen)"),
        ("sys.setswitchinterval(1)", "changed the interpreter's switch interval (to 1 s)"),
        ("torch.set_num_threads(7)", "changed torch's threads"),
        ("sys.stdout.close()", "changed stdout (it closed it)"),
        ("sys.stdout = None", "changed where Python prints to"),
        ("print('hello ' * 1000)", "printed 12,002 characters, beginning with 'hello hello"),
    ],
)
def test_changes_are_put_back_and_told(act, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    carried_out(ModelConfig("arch:vit?hidden_size=32&num_hidden_layers=1&num_attention_heads=2&intermediate_size=64"))
    before = state()
    done = run(tmp_path, act)
    assert state() == before
    assert done.facts.status == "finished"
    assert done.facts.model is not None
    notes = " ".join(map(str, done.facts.model.notes))
    assert told in notes
    assert "odd.py" in notes
    assert capsys.readouterr().out == ""


def test_a_model_that_changes_nothing_is_told_of_nothing(tmp_path):
    done = run(tmp_path, "pass")
    assert done.facts.model is not None
    assert done.facts.model.notes == ()


def test_numbers_that_are_none_are_told_and_written_as_null(tmp_path):
    done = run(tmp_path, "x = x * float('nan')")
    assert done.facts.model is not None
    assert "NaN or infinite" in str(done.facts.model.notes[0])
    assert set(outputs_json(done)[0]["values"]) == {None}


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        ("raise KeyError('boom')", "KeyError in the model itself: 'boom'"),
        ("raise StopIteration", "StopIteration in the model itself: no message"),
        ("self.layer(x[:, :3])", "RuntimeError in layer layer:"),
    ],
)
def test_what_a_model_raises_is_a_sentence(act, sentence, tmp_path):
    with pytest.raises((KeyError, StopIteration, RuntimeError)) as raised:
        run(tmp_path, act)
    assert str(what_failed(raised.value)).startswith(sentence)


def test_what_other_threads_print_is_shown(capsys):
    with kept() as changes:
        other = threading.Thread(target=print, args=("from elsewhere",))
        other.start()
        other.join()
        print("from the model")
    print("afterwards")
    assert capsys.readouterr().out == "from elsewhere\nafterwards\n"
    assert tuple(map(str, changes.sentences("it"))) == (
        "The code of it printed 15 characters, beginning with 'from the model'; printing takes part of its time.",
    )


def test_what_is_special_about_a_model_is_said_once():
    run, note = synthetic_run(), of_text("It changed the weather.")
    assert run.facts.model is not None
    odd = replace(run, facts=replace(run.facts, model=replace(run.facts.model, notes=(note,))))
    told: set[Reason] = set()
    assert worth_telling(odd, told)[0] == note
    assert note not in worth_telling(odd, told)
    assert told == {note}


def test_threads_that_we_set_ourselves_are_nobodys_change():
    before = torch.get_num_threads()
    with kept(threads=False) as changes:
        torch.set_num_threads(before + 1)
    assert changes.found == []
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_a_folder_that_is_gone_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    with kept():
        os.chdir(tmp_path)
        (tmp_path / "gone").rmdir()
    assert Path.cwd() == tmp_path
