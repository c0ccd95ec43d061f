"""Session files that a stranger might send: none acts, each is refused with a sentence or opened with what is sound in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from core.cli import main
from core.config import ModelConfig
from core.errors import Refusal
from core.records.run import UNREADABLE
from core.session import limits
from core.session import store as module
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from gui.setup import consent
from gui.view_state import ViewState
from gui.views.compare.ab_test_setup import ABTestSetup
from gui.views.compare.view import CompareView
from gui.views.sessions.session_columns import STATUS
from gui.views.sessions.view import SessionsView
from tests.support.folders import SAMPLES
from tests.support.synthetic import synthetic_run
from tests.support.view_context import context

SAMPLE = SAMPLES / f"session-v{SCHEMA_VERSION}.tickscope"
MODULE = """import pathlib, torch
pathlib.Path(__file__).with_name("CODE_RAN").write_text("code named by a session file ran")
def make():
    return torch.nn.Linear(8, 8)
"""
ACTS = "which could act when it is read"
CHANGED = "does not have the columns that Tickscope gave it"


def instants(select: str) -> list[str]:
    return ["DROP TABLE instants", f"CREATE VIEW instants AS SELECT 1 AS run, 'x' AS track, {select}"]


def refused(folder: Path) -> dict[str, tuple[list[str], str]]:
    """By name: what is done to a good session, and what is said about it when it is opened."""
    return {
        "view_reads_file": (instants(f"0 AS time_ns, content AS label FROM read_text('{folder}/secret.txt')"), ACTS),
        "view_lists_folder": (instants(f"0 AS time_ns, file AS label FROM glob('{folder}/*')"), ACTS),
        "view_without_end": (
            instants("i AS time_ns, 'x' AS label FROM range(100000000000) t(i) WHERE hash(i) = 0"),
            ACTS,
        ),
        "view_of_zeros": (instants("0 AS time_ns, content AS label FROM read_text('/dev/zero')"), ACTS),
        "view_beside": (["CREATE VIEW mine AS SELECT 1 AS x"], ACTS),
        "macro_shadows": (["CREATE MACRO coalesce(a, b) AS (a + 1)", "CREATE MACRO list_position(a, b) AS 1"], ACTS),
        "macro_hides_the_catalogue": (
            [f"CREATE MACRO {name}() AS TABLE SELECT 1 AS x WHERE false" for name in ("duckdb_views", "duckdb_functions")],
            ACTS,
        ),
        "schema_called_system": (
            ["CREATE SCHEMA system", "CREATE MACRO stranger.system.duckdb_views() AS TABLE SELECT 1 AS x"],
            ACTS,
        ),
        "own_type": (["CREATE TYPE word AS ENUM ('prefill', 'decode')"], ACTS),
        "index_that_computes": (["CREATE INDEX i ON names (length(text))"], ACTS),
        "sequence": (["CREATE SEQUENCE counting"], ACTS),
        "default": (["ALTER TABLE runs ALTER note SET DEFAULT 'x'"], CHANGED),
        "generated": (
            [
                "DROP TABLE names",
                "CREATE TABLE names (run INTEGER NOT NULL, id INTEGER NOT NULL, text VARCHAR AS (repeat('x', run)))",
            ],
            CHANGED,
        ),
        "check": (
            [
                "DROP TABLE names",
                "CREATE TABLE names (run INTEGER NOT NULL, id INTEGER NOT NULL, text VARCHAR, CHECK (id > 0))",
            ],
            CHANGED,
        ),
        "other_type": (["ALTER TABLE spans ALTER layer SET DATA TYPE VARCHAR"], CHANGED),
        "other_column": (["ALTER TABLE spans ADD COLUMN more INTEGER"], CHANGED),
        "table_gone": (["DROP TABLE spans"], "has no table spans"),
        "version_negative": (["UPDATE meta SET schema_version = -5"], "does not say its file version"),
        "version_null": (
            ["ALTER TABLE meta ALTER schema_version DROP NOT NULL", "UPDATE meta SET schema_version = NULL"],
            "does not say its file version",
        ),
        "version_twice": (["INSERT INTO meta SELECT * FROM meta"], "does not say its file version"),
        "version_older": (["UPDATE meta SET schema_version = 1"], CHANGED),
        "no_meta": (["DELETE FROM meta"], "does not say its file version"),
    }


UNSOUND = {
    "layers_in_a_circle": (
        ["UPDATE layers SET parent = 2 WHERE id = 1", "UPDATE layers SET parent = 1 WHERE id = 2"],
        "hang in a circle",
    ),
    "layer_in_itself": (["UPDATE layers SET parent = 3 WHERE id = 3"], "hang in a circle"),
    "layer_in_none": (["UPDATE layers SET parent = 100000 WHERE id = 3"], "in layers that are not there"),
    "stage": (["UPDATE layers SET stage = 'nonsense' WHERE id = 3"], "stages that there are not (nonsense)"),
    "span_beyond_layers": (["UPDATE spans SET layer = 100000"], "layer calls name layers that are not there"),
    "span_beyond_moments": (["UPDATE spans SET moment = 100000"], "layer calls name moments that are not there"),
    "moment_gone": (["DELETE FROM moments WHERE id = 3"], "its moments are not all there"),
    "moment_twice": (["INSERT INTO moments SELECT * FROM moments WHERE id = 3"], "its moments are not all there"),
    "kind": (["UPDATE moments SET kind = 'dream' WHERE id = 3"], "moments "),
    "time": (["UPDATE moments SET duration_ns = 9223372036854775807 WHERE id = 3"], "have a duration_ns that cannot be"),
    "name": (
        ["INSERT INTO operators (run, name, place) SELECT run, 7000, 'cpu' FROM layers"],
        "operators name names that are not there",
    ),
    "track": (["UPDATE counter_samples SET track = 99"], "counter samples name tracks that are not there"),
    "endless": (["UPDATE counter_samples SET value = 'inf'"], "counter samples are without bounds"),
}
"""Runs that cannot be shown, while the session opens and the others can."""

ODD = {
    "config_broken": "UPDATE runs SET config = '[' WHERE id = 1",
    "config_empty": "UPDATE runs SET config = '{}' WHERE id = 1",
    "config_null": "UPDATE runs SET config = 'null' WHERE id = 1",
    "config_deep": f"UPDATE runs SET config = '{'[' * 200_000}' WHERE id = 1",
    "facts_null": "UPDATE runs SET facts = 'null' WHERE id = 1",
    "facts_of_other_types": "UPDATE runs SET facts = '{\"passes\": 7}' WHERE id = 1",
    "environment": "UPDATE environment SET value = '{' WHERE run = 1",
    "status": "UPDATE runs SET status = 'sleeping' WHERE id = 1",
}
"""Runs that are listed as unreadable."""


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[list[str]], Path]:
    """A copy of the sample session after some SQL."""
    (tmp_path / "secret.txt").write_text("a file that is nobody's business")

    def change(statements: list[str]) -> Path:
        path = Path(shutil.copy(SAMPLE, tmp_path / "stranger.tickscope"))
        with duckdb.connect(str(path)) as file:
            for statement in statements:
                file.execute(statement)
        return path

    return change


@pytest.mark.parametrize("name", refused(Path("/")))
def test_what_is_no_plain_table_is_refused(changed: Callable[[list[str]], Path], tmp_path: Path, name: str) -> None:
    statements, said = refused(tmp_path)[name]
    path = changed(statements)
    with pytest.raises(Refusal) as caught:
        SessionStore.open(path, create=False)
    assert said in str(caught.value)
    assert str(caught.value).startswith("stranger.tickscope ")


def test_a_table_that_somebody_added_is_left_alone(changed: Callable[[list[str]], Path]) -> None:
    store = SessionStore.open(changed(["CREATE TABLE batch (moment INTEGER)", "CREATE TABLE mine AS SELECT 1 AS x"]))
    run = synthetic_run(repeats=1)
    number = store.begin(run)
    store.append(number, run.trace, module.Written())
    assert len(store.read(number).trace.spans["moment"]) == len(run.trace.spans["moment"])
    store.close()


@pytest.mark.parametrize("name", UNSOUND)
def test_a_run_that_does_not_hang_together_is_a_sentence(
    changed: Callable[[list[str]], Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    statements, said = UNSOUND[name]
    path = changed([f"{one} {'AND' if 'WHERE' in one else 'WHERE'} run = 1" for one in statements])
    store = SessionStore.open(path, create=False)
    with pytest.raises(Refusal) as caught:
        store.read(1)
    assert said in str(caught.value)
    assert str(caught.value).startswith("Run 1 of stranger.tickscope was changed or damaged and is not shown: its ")
    assert store.read(2).trace.layers
    store.close()
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.out.splitlines()) == 3  # the head line and the two others


@pytest.mark.parametrize("name", ODD)
def test_one_odd_run_hides_no_other(changed: Callable[[list[str]], Path], name: str) -> None:
    path = changed([ODD[name]])
    store = SessionStore.open(path, create=False)
    heads = store.runs()
    assert [head.status == UNREADABLE for head in heads] == [True, False, False]
    assert heads[0].facts.error
    with pytest.raises(Refusal) as caught:
        store.read(1)
    assert "Run 1 of stranger.tickscope cannot be read: what the file says about it makes no sense" in str(caught.value)
    assert store.read(2).trace.layers
    store.rename(1, "odd")
    copy = path.with_name("copy.tickscope")
    assert store.save_as(copy) is None
    assert store.runs()[0].name == "odd"
    store.delete(1)
    assert [head.id for head in store.runs()] == [2, 3]
    store.close()


def test_the_command_line_shows_the_others_too(
    changed: Callable[[list[str]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed([ODD["config_broken"]])
    assert main(["show", str(path), "--run", "1"]) == 2
    assert main(["show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in shown["runs"]] == [2, 3]
    assert [run["run"] for run in shown["unreadable"]] == [1]


def test_consent_is_never_taken_from_a_file(changed: Callable[[list[str]], Path], tmp_path: Path) -> None:
    code = tmp_path / "stranger.py"
    code.write_text(MODULE)
    merged = f'{{"model": {{"spec": "py:{code}:make", "trust_remote_code": true, "allow_pickle": true, "force": true}}}}'
    store = SessionStore.open(changed([f"UPDATE runs SET config = json_merge_patch(config::JSON, '{merged}')"]))
    head = store.runs()[0]
    assert head.config.model == store.read(1).config.model == ModelConfig(f"py:{code}:make", head.config.model.dtype)
    assert head.consents == ("trust_remote_code", "allow_pickle", "force")
    store.close()
    assert not (tmp_path / "CODE_RAN").exists()


def test_a_side_from_a_file_runs_code_only_after_this_person_said_yes(qtbot, changed: Callable[[list[str]], Path]) -> None:
    merged = '{"model": {"spec": "py:/else/where.py:make", "trust_remote_code": true, "force": true}}'
    quality = (
        '{"quality": {"text": "/etc/passwd", "labels": "/etc/passwd", "tokens": 99}, "passes": [{"id": "x", "options": {}}]}'
    )
    patched = f"json_merge_patch(json_merge_patch(config::JSON, '{merged}'), '{quality}')"
    store = SessionStore.open(changed([f"UPDATE runs SET config = {patched} WHERE id = 2"]))
    setup = ABTestSetup()
    qtbot.addWidget(setup)
    setup.read_sidebar = lambda: synthetic_run().config
    setup.offer_saved(store.runs())
    store.close()
    setup.sides[1].setCurrentIndex(setup.sides[1].findData("run2"))
    setup.refresh()
    asked, begun = [], []
    setup.trial_asked.connect(begun.append)
    setup.ask = lambda _parent, _title, question: bool(asked.append(question))
    setup.start()
    assert begun == []
    assert "the Python code /else/where.py" in asked[0]
    setup.ask = lambda *_: True
    setup.start()
    model, quality_of_side = begun[0].sides[1].model, begun[0].sides[1].quality
    assert (model.trust_remote_code, model.allow_pickle, model.force) == (True, False, False)
    assert (quality_of_side.text, quality_of_side.labels, quality_of_side.tokens) == (None, None, 99)
    setup.ask = lambda *_: pytest.fail("asked again")
    setup.start()
    assert len(begun) == 2


@pytest.mark.parametrize(
    ("spec", "consents", "wanted", "said"),
    [
        ("py:/a/b.py:make", (), ("trust_remote_code",), "/a/b.py"),
        ("py:nonsense", (), ("trust_remote_code",), "nonsense"),
        ("hub:a/b", ("trust_remote_code", "force"), ("trust_remote_code",), "hub:a/b"),
        ("/folder", ("allow_pickle",), ("allow_pickle",), "/folder are pickled"),
        ("/folder", ("force",), (), ""),
    ],
)
def test_what_is_asked_names_the_code(spec: str, consents: tuple[str, ...], wanted: tuple[str, ...], said: str) -> None:
    assert consent.needed(ModelConfig(spec), consents) == wanted
    assert not wanted or said in consent.question(ModelConfig(spec), wanted)


def test_a_file_that_unpacks_to_more_than_a_run_may_take_is_a_sentence(
    changed: Callable[[list[str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(
        [
            "INSERT INTO counter_samples SELECT 1, 0, 0, 0 FROM range(1000000)",
            "UPDATE layers SET path = repeat('x', 300000) WHERE id = 1 AND run = 2",
        ]
    )
    monkeypatch.setattr(limits, "MOST_ROW_BYTES", 1 << 24)
    monkeypatch.setattr(limits, "MOST_TEXT_BYTES", 1 << 20)  # a text is there several times
    store = SessionStore.open(path)
    with pytest.raises(Refusal, match="its rows would take"):
        store.read(1)
    with pytest.raises(Refusal, match="its texts would take"):
        store.read(2)
    assert store.read(3).trace.layers
    store.close()


@pytest.mark.parametrize(
    ("query", "limit_s", "said"),
    [
        ("SELECT length(string_agg(repeat('x', 10000000), '')) FROM range(100)", 60.0, "asks for more memory"),
        ("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = -1", 0.3, "took longer"),
    ],
)
def test_memory_and_time_of_a_query_have_an_end(
    changed: Callable[[list[str]], Path], monkeypatch: pytest.MonkeyPatch, query: str, limit_s: float, said: str
) -> None:
    store = SessionStore.open(changed([]))
    monkeypatch.setattr(limits, "LONGEST_S", limit_s)
    monkeypatch.setattr(module, "check_size", lambda cursor, _run: cursor.execute(query).fetchall())
    with pytest.raises(Refusal, match=said):
        store.read(1)
    assert len(store.runs()) == 3
    store.close()


def test_an_open_session_reaches_no_other_file(changed: Callable[[list[str]], Path], tmp_path: Path) -> None:
    store = SessionStore.open(changed([]))
    for query in (
        f"SELECT content FROM read_text('{tmp_path}/secret.txt')",
        f"COPY runs TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
    ):
        with pytest.raises(duckdb.Error):
            store._connection.execute(query)
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.txt", "stranger.tickscope"]


def test_the_window_lists_a_session_with_odd_runs(qtbot, changed: Callable[[list[str]], Path]) -> None:
    path = changed([*ODD.values(), UNSOUND["span_beyond_layers"][0][0] + " WHERE run = 2"])
    store = SessionStore.open(path)
    state = ViewState("dark")
    for view in (SessionsView(context(state)), CompareView(context(state))):
        qtbot.addWidget(view)
        view.set_store(store)
        assert view.context.say == []
    sessions = SessionsView(context(state))
    qtbot.addWidget(sessions)
    sessions.set_store(store)
    assert [sessions.tree.topLevelItem(row).text(STATUS) for row in range(3)][2] == UNREADABLE
    assert "makes no sense" in sessions.tree.topLevelItem(2).toolTip(STATUS)
    for row in (1, 2):
        sessions.tree.clearSelection()
        sessions.tree.topLevelItem(row).setSelected(True)
        sessions.open_selected()
    assert ["was changed or damaged" in one or "cannot be read" in one for one in sessions.context.say] == [True, True]
    store.close()
