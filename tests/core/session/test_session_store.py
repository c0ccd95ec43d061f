"""The session file keeps every column and fact, tells runs apart, and survives being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from core.analysis.summary import summarize
from core.errors import Refusal
from core.messages.reason import of_text
from core.records.deltas import Written
from core.records.run import STATUSES, UNREADABLE
from core.session.environment import VARIABLES, environment
from core.session.schema import MIGRATIONS, RUN_TABLES, SCHEMA_VERSION
from core.session.store import SessionStore
from profilers.trace import KINDS, PLACES, STAGES, Instant, Layer, Output, Recorder, Tag
from tests.support.folders import ROOT, SAMPLES
from tests.support.synthetic import llama_layers, record_moment, synthetic_run

SAMPLE = SAMPLES / f"session-v{SCHEMA_VERSION}.tickscope"


@pytest.fixture
def store(tmp_path):
    opened = SessionStore.open(tmp_path / "work.tickscope")
    yield opened
    opened.close()


def put(store, run):
    run_id = store.begin(run)
    store.append(run_id, run.trace, Written())
    return run_id


def assert_same_columns(found, expected):
    for part in ("requests", "moments", "spans", "counters"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert list(ours) == list(theirs)
        for name in theirs:
            assert ours[name].dtype == theirs[name].dtype, (part, name)
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{part}.{name}")


def test_a_run_comes_back_as_it_was(store):
    run = synthetic_run()
    extra = (Instant("gate", 5, "timed out"), Instant("cancel", 9, "by the user"))
    encoder = Output(3, (), None, "forward", (0.25, -1.0))
    run = replace(run, note="a note", trace=replace(run.trace, instants=extra, outputs=(*run.trace.outputs, encoder)))
    run_id = put(store, run)
    store.close()
    found = SessionStore.open(store.path, create=False).read(run_id)
    assert_same_columns(found.trace, run.trace)
    for name in ("layers", "tracks", "instants", "outputs"):
        assert getattr(found.trace, name) == getattr(run.trace, name)
    assert replace(found, trace=run.trace) == replace(run, id=run_id)


def test_an_empty_run_has_columns_of_the_right_types(store):
    run = synthetic_run()
    found = store.read(store.begin(run))
    assert_same_columns(found.trace, Recorder().snapshot())


def test_not_measured_is_null_in_the_file(store):
    recorder = Recorder()
    recorder.set_layers([Layer("", "Model", "other", -1)])
    recorder.requests.append(tags=0, start_ns=0, tokenize_ns=-1, end_ns=-1, input_tokens=5, output_tokens=0)
    recorder.moments.append(
        request=0, kind=KINDS.index("decode"), step=1, tags=4, start_ns=0, duration_ns=7, paused_ns=0, tokens=1, context=5
    )
    run = replace(synthetic_run(), trace=recorder.snapshot())
    run_id = put(store, run)
    assert_same_columns(store.read(run_id).trace, run.trace)
    assert store.read(run_id).trace.layers[0].parent == -1
    store.close()
    with duckdb.connect(str(store.path), read_only=True) as file:
        assert file.execute("SELECT kind, latency_ns, kv_bytes, paused_ns FROM moments").fetchall() == [
            ("decode", None, None, 0)
        ]
        assert file.execute("SELECT tokenize_ns, end_ns, output_tokens FROM requests").fetchall() == [(None, None, 0)]
        assert file.execute("SELECT parent FROM layers").fetchall() == [(None,)]


def test_appending_adds_only_what_is_new_and_renews_what_was_unfinished(store):
    recorder = Recorder()
    rng = np.random.default_rng(0)
    run_id = store.begin(synthetic_run(status="running"))
    written = store.append(run_id, recorder.snapshot(), Written())
    assert written == Written()
    recorder.set_layers(llama_layers(2))
    now = 0
    for request in range(3):
        recorder.requests.append(tags=0, start_ns=now, tokenize_ns=1, end_ns=-1, input_tokens=5, output_tokens=0)
        for step in range(4):
            tags = Tag.TRACED if step % 2 else Tag.CLEAN
            now = record_moment(recorder, rng, request=request, step=step, tags=tags, start_ns=now, scale=1)
            written = store.append(run_id, recorder.snapshot(), written)
            recorder.moments.set(recorder.moments.count - 1, latency_ns=1000 + step)
            recorder.sample(recorder.track(f"track {step}", "percent"), step, now)
            recorder.instant("gate", f"{step}")
        recorder.requests.set(request, end_ns=now, output_tokens=4)
        recorder.output(Output(request, (1, 2), "text", "length"))
    final = store.append(run_id, recorder.snapshot(), written)
    assert store.append(run_id, recorder.snapshot(), final) == final
    found = store.read(run_id).trace
    assert_same_columns(found, recorder.snapshot())
    assert (found.tracks, len(found.instants), len(found.outputs)) == (recorder.snapshot().tracks, 12, 3)


def test_spans_wait_for_their_moment_to_close(store):
    recorder = Recorder()
    recorder.set_layers(llama_layers(1))
    rng = np.random.default_rng(0)
    record_moment(recorder, rng, request=0, step=0, tags=Tag.TRACED, start_ns=0, scale=1)
    closed = recorder.spans.count
    recorder.spans.extend({name: np.full(3, 1) for name in ("moment", "layer", "start_ns", "duration_ns", "self_ns")})
    run_id = store.begin(synthetic_run())
    written = store.append(run_id, recorder.snapshot(), Written())
    assert written.spans == closed == len(store.read(run_id).trace.spans["moment"])


def test_rename_annotate_and_delete(store):
    first, second = put(store, synthetic_run()), put(store, synthetic_run(seed=1, scale=2))
    store.rename(first, "the first one")
    store.annotate(first, "纠正 – ≥ 2×")
    assert [(head.id, head.name, head.note) for head in store.runs()] == [
        (first, "the first one", "纠正 – ≥ 2×"),
        (second, "synthetic", ""),
    ]
    kept = store.read(second)
    store.delete(first)
    assert [head.id for head in store.runs()] == [second]
    assert_same_columns(store.read(second).trace, kept.trace)
    with pytest.raises(Refusal, match=rf"no run {first} in work.tickscope; it has {second}"):
        store.read(first)
    store.close()
    with duckdb.connect(str(store.path), read_only=True) as file:
        for table in RUN_TABLES:
            assert file.execute(f"SELECT count(*) FROM {table} WHERE run = {first}").fetchone() == (0,), table


def test_a_deleted_run_is_brought_back_as_it_was(store):
    first, second = put(store, synthetic_run(seed=1)), put(store, synthetic_run(seed=2))
    store.annotate(second, "keep")
    before = store.read(second)
    store.delete(second)
    assert store.restore(before) == second
    after = store.read(second)
    assert_same_columns(after.trace, before.trace)
    assert (after.name, after.note, after.facts, after.config) == (before.name, before.note, before.facts, before.config)
    store.delete(second)
    taken = put(store, synthetic_run(seed=3))
    assert taken == second
    assert store.restore(before) == taken + 1
    assert store.read(taken + 1).note == "keep"
    assert [head.id for head in store.runs()] == [first, taken, taken + 1]


def test_facts_can_be_replaced_while_running(store):
    run = synthetic_run(status="running")
    run_id = store.begin(run)
    assert store.runs()[0].status == "running"
    facts = replace(
        run.facts, status="failed", error=of_text("boom"), rss_peak_bytes=np.int64(5), environment={"python": "3.13", "a": [1]}
    )
    store.update(run_id, facts)
    head = store.runs()[0]
    assert head.status == "failed"
    assert head.facts == facts


def test_save_as_continues_in_the_new_file(store, tmp_path):
    run = synthetic_run()
    first, old = put(store, run), store.path
    target = tmp_path / "it's a copy.tickscope"
    target.with_name(target.name + ".wal").write_bytes(b"left behind by another session")
    target.write_bytes(b"an older file that the user agreed to replace")
    store.save_as(target)
    second = put(store, run)
    assert store.path == target
    store.close()
    kept = SessionStore.open(old, create=False)
    assert [head.id for head in kept.runs()] == [first]
    kept.close()
    copied = SessionStore.open(target, create=False)
    assert [head.id for head in copied.runs()] == [first, second]
    assert_same_columns(copied.read(first).trace, run.trace)
    copied.close()
    assert not list(tmp_path.glob("*.part*"))


def test_save_as_that_cannot_work_leaves_the_store_as_it_was(store, tmp_path):
    run_id = put(store, synthetic_run())
    with pytest.raises(Refusal, match="does not exist; make it, or choose another place"):
        store.save_as(tmp_path / "nowhere" / "x.tickscope")
    with pytest.raises(Refusal, match="is a folder"):
        store.save_as(tmp_path)
    store.save_as(store.path)
    store.rename(run_id, "still works")
    assert store.runs()[0].name == "still works"


def test_threads_may_read_while_one_writes(store):
    run = synthetic_run()
    run_id = store.begin(run)
    done = threading.Event()
    problems = []

    def read():
        while not done.is_set():
            trace = store.read(run_id).trace
            moments = len(trace.moments["kind"])
            if moments not in (0, 64) or (moments and len(trace.spans["moment"]) != len(run.trace.spans["moment"])):
                problems.append(moments)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    store.append(run_id, run.trace, Written())
    for number in range(20):
        store.rename(run_id, str(number))
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert store.runs()[0].name == "19"


KILLED = """
import sys
from core.records.deltas import Written

from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run
store = SessionStore.open(sys.argv[1])
run = synthetic_run(status="running")
run_id = store.begin(run)
written = Written()
while True:
    written = store.append(run_id, run.trace, Written(**{**vars(written), "moments": 0, "spans": 0}))
    print(len(run.trace.spans["moment"]), flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "killed.tickscope"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    acknowledged = sum(int(process.stdout.readline()) for _ in range(5))
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += sum(int(line) for line in process.stdout)
    process.wait()
    store = SessionStore.open(path, create=False)
    (head,) = store.runs()
    assert head.status == head.facts.status == "interrupted"
    run = store.read(head.id)
    assert len(run.trace.spans["moment"]) >= acknowledged
    assert len(run.trace.moments["kind"]) == 64
    assert store.begin(synthetic_run()) == 2
    store.close()


def test_reading_needs_no_torch():
    code = (
        "import sys; from core.session.store import SessionStore\n"
        f"run = SessionStore.open({str(SAMPLE)!r}, create=False).read(1)\n"
        "assert len(run.trace.moments['kind']), 'nothing was read'\n"
        "print([name for name in ('torch', 'transformers', 'PySide6', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_the_sample_of_every_version_opens_and_answers_documented_queries(version, tmp_path):
    sample = shutil.copy(SAMPLES / f"session-v{version}.tickscope", tmp_path)
    store = SessionStore.open(sample, create=False)
    assert [(head.name, head.status) for head in store.runs()] == [
        ("bfloat16", "finished"),
        ("bfloat16 again", "finished"),
        ("was killed", "interrupted"),
    ]
    expected = synthetic_run(repeats=2, new_tokens=8, blocks=6)
    assert_same_columns(store.read(1).trace, expected.trace)
    if version >= 4:
        sides = store.runs()[:2]
        assert [(head.group.kind, head.role, len(head.group.config.sides)) for head in sides] == [
            ("ab_test", 0, 2),
            ("ab_test", 1, 2),
        ]
    store.close()
    text = (ROOT / "docs" / "session-file.md").read_text(encoding="utf-8")
    queries = [part.split("```")[0] for part in text.split("```sql")[1:]]
    assert len(queries) >= 4
    with duckdb.connect(sample, read_only=True) as file:
        for query in queries:
            assert file.execute(query).fetchall(), query


def test_every_table_and_column_is_documented():
    text = (ROOT / "docs" / "session-file.md").read_text(encoding="utf-8")
    with duckdb.connect(str(SAMPLE), read_only=True) as file:
        rows = file.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    sections = {part.split("`")[0]: part for part in text.split("### `")[1:]}
    assert sorted({table for table, _ in rows}) == sorted(sections)
    assert [(table, column) for table, column in rows if f"`{column}`" not in sections[table]] == []


def test_the_page_has_every_word_that_the_file_may_hold():
    text = (ROOT / "docs" / "session-file.md").read_text(encoding="utf-8")
    sections = {part.split("`")[0]: part for part in text.split("### `")[1:]}
    for table, words in (("moments", KINDS), ("layers", STAGES), ("runs", (*STATUSES, UNREADABLE)), ("operators", PLACES)):
        assert [word for word in words if f"`{word}`" not in sections[table]] == [], table
    assert [f"{tag.value} " for tag in Tag if f"{tag.value} " not in text.split("`tags` is a sum:")[1].split("\n\n")[0]] == []
    measures = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in measures] == []


def test_the_first_query_of_the_page_is_the_headline_figure(tmp_path):
    run = synthetic_run(repeats=3)
    tags = run.trace.moments["tags"].copy()
    tags[5:9] |= int(Tag.SETTLING)
    tags[9:12] |= int(Tag.PERTURBED)
    settling = run.trace.moments["tags"] | int(Tag.SETTLING)
    store = SessionStore.open(tmp_path / "s.tickscope")
    expected = []
    for changed in (run.trace.moments["tags"], tags, settling):
        one = replace(run, trace=replace(run.trace, moments={**run.trace.moments, "tags": changed}))
        number = store.add(one)
        expected.append((number, summarize(one, intervals=False)["metrics"]["itl_ns"]["median"] / 1e6))
    store.close()
    query = (ROOT / "docs" / "session-file.md").read_text(encoding="utf-8").split("```sql")[1].split("```")[0]
    with duckdb.connect(str(store.path), read_only=True) as file:
        found = [(run_id, itl) for run_id, itl, _ in file.execute(query).fetchall()]
    assert found == [(number, pytest.approx(itl)) for number, itl in expected]


def test_migrations_lead_to_the_current_version_without_a_gap():
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION + 1))
    assert SAMPLE.with_name(f"session-v{SCHEMA_VERSION}.tickscope").exists()


def test_environment_is_json_and_holds_no_other_variables(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["variables"]["OMP_NUM_THREADS"] == "3"
    assert set(found["variables"]) <= set(VARIABLES)
    assert found["numpy"] == np.__version__
    assert found["cpu_cores_logical"] >= 1
    assert found["memory_bytes"] > found["memory_available_bytes"] > 0
