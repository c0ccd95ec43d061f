"""Groups of runs in a session file: what belongs together is said once, with what was asked of all, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from core.config import CONSENTS, ABTestConfig, ModelConfig, RunConfig
from core.records.run import ABTestPart, Group, Run
from core.session import codec
from core.session.schema import MIGRATIONS, RUN_TABLES
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run

ASKED = ABTestConfig((RunConfig(ModelConfig("arch:llama")), RunConfig(ModelConfig("arch:gpt2"))), 7, 12.5, early=False)


def sides(config: ABTestConfig = ASKED) -> list[Run]:
    group = Group("an id", "ab_test", "2026-11-26T10:00:00+00:00", config)
    return [
        replace(synthetic_run(repeats=1, blocks=1), group=group, role=role, name=f"side {role}", config=side)
        for role, side in enumerate(config.sides)
    ]


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore.open(tmp_path / "it.tickscope")


def rows(store: SessionStore, table: str) -> list[tuple[object, ...]]:
    with store.reading() as cursor:
        return list(cursor.execute(f"SELECT * FROM {table}").fetchall())


def test_a_group_is_kept_once_with_what_was_asked(store: SessionStore) -> None:
    first, second = sides()
    store.begin(first)
    store.add(second)
    store.add(synthetic_run(repeats=1, blocks=1))
    heads = store.runs()
    assert [head.role for head in heads] == [0, 1, 0]
    assert [head.group and head.group.config for head in heads] == [ASKED, ASKED, None]
    assert (store.read(2).group, store.read(2).role) == (second.group, 1)
    assert len(rows(store, "groups")) == 1


def test_a_group_goes_with_its_last_run_and_comes_back_with_it(store: SessionStore) -> None:
    for side in sides():
        store.add(side)
    gone = [store.read(number) for number in (1, 2)]
    store.delete(1)
    assert len(rows(store, "groups")) == 1
    store.delete(2)
    assert rows(store, "groups") == []
    store.restore(gone[1])
    store.restore(gone[0])
    assert [(head.id, head.role, head.group) for head in store.runs()] == [(1, 0, gone[0].group), (2, 1, gone[0].group)]
    assert len(rows(store, "groups")) == 1


def whole(store: SessionStore) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(rows(store, table), key=repr) for table in ("runs", "groups", *RUN_TABLES)}


def test_what_is_brought_back_is_to_the_letter_what_was_deleted(store: SessionStore) -> None:
    model = ModelConfig("py:theirs.py:model", trust_remote_code=True, allow_pickle=True, force=True)
    for side in sides(ABTestConfig((RunConfig(model), RunConfig(model)))):
        store.add(replace(side, config=RunConfig(model)))
    store.add(replace(synthetic_run(repeats=1, blocks=1), config=RunConfig(model)))
    with store._writing() as cursor:
        cursor.execute("UPDATE runs SET facts = '{\"later\": 1, ' || facts[2:]")  # of a later version
    before = whole(store)
    gone = [(store.read(number), store.delete(number)) for number in (1, 3, 2)]
    assert not any(whole(store).values())
    for run, head in gone:
        assert not run.config.model.trust_remote_code  # and yet no consent comes out of the file
        store.restore(run, head)
    assert whole(store) == before
    assert [head.consents for head in store.runs()] == [CONSENTS] * 3


def test_a_copy_of_the_session_has_its_groups(store: SessionStore, tmp_path: Path) -> None:
    for side in sides():
        store.add(side)
    before = store.runs()
    assert store.save_as(tmp_path / "copy.tickscope") is None
    assert [(head.group, head.role) for head in store.runs()] == [(head.group, head.role) for head in before]


def test_no_consent_comes_out_of_a_group(store: SessionStore) -> None:
    model = ModelConfig("py:theirs.py:model", trust_remote_code=True, allow_pickle=True, force=True)
    for side in sides(ABTestConfig((RunConfig(model), RunConfig(model)))):
        store.add(side)
    group = store.runs()[0].group
    assert group is not None
    assert group.config is not None
    assert {side.model for side in group.config.sides} == {ModelConfig("py:theirs.py:model")}


@pytest.mark.parametrize("odd", ["", "[]", "7", "{}", '{"sides": 3}', '{"sides": [{"model": {}}, 1]}', "[" * 5000])
def test_an_odd_group_hides_none_of_its_runs(store: SessionStore, odd: str) -> None:
    for side in sides():
        store.add(side)
    store.close()
    with duckdb.connect(str(store.path)) as file:
        file.execute("UPDATE groups SET config = ?", [odd])
        file.execute("INSERT INTO groups SELECT * FROM groups")  # and a second one of that id
    again = SessionStore.open(store.path)
    assert [(head.id, head.status, head.group and head.group.config) for head in again.runs()] == [
        (1, "finished", None),
        (2, "finished", None),
    ]
    again.close()


def test_a_run_of_a_group_that_the_file_does_not_hold_is_a_run_by_itself(store: SessionStore) -> None:
    store.add(sides()[1])
    store.close()
    with duckdb.connect(str(store.path)) as file:
        file.execute("DELETE FROM groups")
    again = SessionStore.open(store.path)
    assert [(head.group, head.role) for head in again.runs()] == [(None, 0)]
    again.close()


def test_what_took_turns_in_an_older_file_is_a_group_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "old.tickscope"
    plain = synthetic_run(repeats=1, blocks=1)
    facts = [codec.facts_to_json(replace(plain.facts, trial=ABTestPart("t", side, 2))) for side in (0, 1)]
    with duckdb.connect(str(path), config={"storage_compatibility_version": "v1.4.0"}) as file:
        for number in (1, 2, 3):
            MIGRATIONS[number](file)
        file.execute("UPDATE meta SET schema_version = 3")
        odd = '{"trial": {"id": 3, "side": "x"}}'
        half = '{"trial": {"id": "\\ud800", "side": 0}}'  # half of a character: it hid every run of the file
        for number, text in enumerate((*facts, codec.facts_to_json(plain.facts), odd, "no JSON", half), 1):
            row = [number, f"run {number}", plain.created, "finished", "", codec.to_json(plain.config), text]
            file.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    store = SessionStore.open(path)
    group = Group("t", "ab_test", plain.created, None)
    assert [(head.group, head.role) for head in store.runs()] == [(group, 0), (group, 1), *[(None, 0)] * 4]
    store.close()
