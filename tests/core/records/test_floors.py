"""The book of noise floors: found again under the same conditions only, and never in the way of a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import PassConfig, TargetConfig, WorkloadConfig
from core.records.noise_floors import DAMAGED, ENOUGH_TESTS, MOST_TESTS, NoiseFloors
from core.records.run import Run
from tests.support.synthetic import synthetic_run

FLOORS = {"tpot_ns": 0.018, "ttft_ns": 0.02}


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run(repeats=1)


@pytest.fixture
def book(tmp_path: Path, run: Run) -> NoiseFloors:
    book = NoiseFloors(tmp_path / "new" / "floors.json")
    assert book.find(run) is None
    assert book.record(run, FLOORS) is None
    return book


def test_a_floor_is_found_again_by_another_book_with_other_passes(book: NoiseFloors, run: Run) -> None:
    other = replace(run, id=9, name="x", config=replace(run.config, passes=(PassConfig("int8_dynamic"),)))
    assert NoiseFloors(book.path).find(other) == FLOORS
    assert book.find(run.config, run.facts) == FLOORS


def test_how_often_it_was_repeated_does_not_matter(book: NoiseFloors, run: Run) -> None:
    other = replace(run, config=replace(run.config, workload=replace(run.config.workload, repeats=77, warmup=None)))
    assert book.find(other) == FLOORS


def changed(run: Run, what: str) -> Run:
    config, facts = run.config, run.facts
    environment: dict[str, Any] = dict(facts.environment)
    if what == "workload":
        config = replace(config, workload=WorkloadConfig(new_tokens=999))
    elif what == "model":
        config = replace(config, model=replace(config.model, spec="arch:gpt2"))
    elif what == "dtype":
        config = replace(config, model=replace(config.model, dtype="bfloat16"))
    elif what == "target":
        config = replace(config, target=TargetConfig("cuda"))
    elif what == "threads":
        facts = replace(facts, threads=1)
    else:
        environment[what] = {"OMP_NUM_THREADS": "1"} if what == "variables" else "another"
    return replace(run, config=config, facts=replace(facts, environment=environment))


@pytest.mark.parametrize(
    "what",
    ["workload", "model", "dtype", "target", "threads", "torch", "cpu_model", "cpu_affinity", "cpu_governor", "variables"],
)
def test_other_conditions_have_no_floor_yet(book: NoiseFloors, run: Run, what: str) -> None:
    assert book.find(changed(run, what)) is None


def test_the_largest_floor_of_the_latest_tests_counts_and_others_are_left_alone(book: NoiseFloors, run: Run) -> None:
    book.record(changed(run, "threads"), {"tpot_ns": 0.5})
    book.record(run, {"tpot_ns": 0.011})
    assert book.find(run) == FLOORS
    for _ in range(MOST_TESTS):
        book.record(run, {"tpot_ns": 0.011})
    assert book.find(run) == {"tpot_ns": 0.011}
    assert book.find(changed(run, "threads")) == {"tpot_ns": 0.5}
    assert [path.name for path in book.path.parent.iterdir()] == ["floors.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 2, "floors": {}}', '{"schema": 1, "floors": 3}', "\x00\x01", "[" * 100_000]
)
def test_a_damaged_book_is_set_aside_and_begun_anew(book: NoiseFloors, run: Run, text: str) -> None:
    book.path.write_text(text, encoding="utf-8")
    assert book.find(run) is None
    assert book.record(run, FLOORS) is None
    assert book.find(run) == FLOORS
    assert book.path.with_name(book.path.name + DAMAGED).read_text(encoding="utf-8") == text


def test_a_book_that_is_not_text_is_no_error(book: NoiseFloors, run: Run) -> None:
    book.path.write_bytes(b"\xff\xfe\x00\xff")
    assert book.find(run) is None


def test_edited_values_that_make_no_sense_are_left_out(book: NoiseFloors, run: Run) -> None:
    whole = json.loads(book.path.read_text(encoding="utf-8"))
    (entry,) = whole["floors"].values()
    entry["tests"] = [
        7,
        {"tpot_ns": -3},
        {"tpot_ns": 0.01, "ttft_ns": "much", "e2e_ns": -1, "x": True, "y": float("inf")},
        {"z": 10**400},
    ]
    whole["floors"]["no entry"] = 7
    book.path.write_text(json.dumps(whole), encoding="utf-8")
    assert book.find(run) == {"tpot_ns": 0.01}


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("in the way")
    said = NoiseFloors(tmp_path / "file" / "floors.json").record(run, FLOORS)
    assert said is not None
    assert str(said).startswith("The noise floor could not be kept in ")


def test_nothing_found_is_nothing_kept(tmp_path: Path, run: Run) -> None:
    book = NoiseFloors(tmp_path / "floors.json")
    assert book.record(run, {}) is None
    assert not book.path.exists()


def test_a_floor_below_the_assumed_one_counts_after_enough_tests_only(tmp_path: Path, run: Run) -> None:
    book = NoiseFloors(tmp_path / "floors.json")
    for number in range(1, ENOUGH_TESTS + 1):
        book.record(run, {"tpot_ns": 0.001 * number, "ttft_ns": 0.03})
        assert book.find(run) == ({"tpot_ns": 0.005, "ttft_ns": 0.03} if number == ENOUGH_TESTS else {"ttft_ns": 0.03})


def test_a_floor_that_an_earlier_version_kept_is_one_test(tmp_path: Path, run: Run) -> None:
    book = NoiseFloors(tmp_path / "floors.json")
    book.record(run, {"tpot_ns": 0.02})
    kept = json.loads(book.path.read_text())
    for entry in kept["floors"].values():
        del entry["tests"]
    book.path.write_text(json.dumps(kept))
    assert book.find(run) == {"tpot_ns": 0.02}
    book.record(run, {"tpot_ns": 0.03})
    assert book.find(run) == {"tpot_ns": 0.03}


def test_what_a_killed_process_was_writing_is_swept_and_what_a_living_one_writes_is_not(book: NoiseFloors) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, writing = (book.path.with_name(f"floors.json.{pid}.part") for pid in (dead.pid, os.getpid()))
    for one in (left, writing):
        one.write_text("{", encoding="utf-8")
    book.sweep()
    assert sorted(book.path.parent.iterdir()) == sorted([book.path, writing])
    NoiseFloors(book.path.parent / "not there" / "floors.json").sweep()
