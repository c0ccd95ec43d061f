"""What the charts show, against sums over the spans done the slow way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.analysis import series
from core.analysis.select import counted, first_tokens, of_kind, tagged
from core.models.outline import counted_rows, outline
from core.records.run import Run
from profilers.trace import KINDS, STAGES, Layer, Recorder, Tag, Trace
from tests.support.synthetic import llama_layers, synthetic_run
from tests.support.synthetic_counts import GIGAHERTZ, with_counts

DECODE = KINDS.index("decode")


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run(repeats=5)


def counted_by_hand(run: Run, kind: int, tag: Tag) -> list[int]:
    moments = run.trace.moments
    bad = Tag.WARMUP | Tag.COLD | Tag.PERTURBED | Tag.COMPILE | Tag.GC
    return [
        row
        for row in range(len(moments["tags"]))
        if moments["kind"][row] == kind and moments["tags"][row] & tag and not moments["tags"][row] & bad
    ]


def test_the_filter_keeps_what_counts(run: Run) -> None:
    moments = run.trace.moments
    mask = counted(moments, of_kind(moments, "decode"))
    assert np.flatnonzero(mask).tolist() == counted_by_hand(run, DECODE, Tag.CLEAN)


def test_perturbed_moments_count_only_where_there_is_nothing_else(run: Run) -> None:
    moments = dict(run.trace.moments)
    moments["tags"] = moments["tags"] | int(Tag.PERTURBED)
    chosen = counted(moments, of_kind(moments, "decode"))
    assert chosen.any()
    assert not (chosen & tagged(moments, Tag.WARMUP | Tag.TRACED)).any()


@pytest.mark.parametrize("tag", [Tag.WARMUP, Tag.COLD, Tag.COMPILE, Tag.GC])
def test_other_tags_are_never_counted(run: Run, tag: Tag) -> None:
    moments = dict(run.trace.moments)
    moments["tags"] = moments["tags"] | int(tag)
    assert not counted(moments).any()


def test_latency_names_the_clean_median(run: Run) -> None:
    found = series.latency(run)
    rows = counted_by_hand(run, DECODE, Tag.CLEAN)
    assert found.clean_median_ms == pytest.approx(np.median(run.trace.moments["latency_ns"][rows]) / 1e6)
    assert found.main_kind == "decode"
    assert len(found.moment) == len(found.table()["latency_ms"]) == 96
    assert found.planned == 96
    assert found.traced.sum() == tagged(run.trace.moments, Tag.TRACED).sum()


def test_a_moment_without_token_has_no_latency(run: Run) -> None:
    moments = dict(run.trace.moments)
    moments["latency_ns"] = np.full_like(moments["latency_ns"], -1)
    found = series.latency(replace(run, trace=replace(run.trace, moments=moments)))
    assert np.isnan(found.latency_ms).all()
    rows = counted_by_hand(run, DECODE, Tag.CLEAN)
    assert found.clean_median_ms == pytest.approx(np.median(moments["duration_ns"][rows]) / 1e6)


def test_memory_kinds_stack_up_to_the_resident_set(run: Run) -> None:
    found = series.memory(run)
    assert list(found.kinds) == ["other", "framework", "weights", "kv_cache", "activations"]
    names = [track.name for track in run.trace.tracks]
    rss = run.trace.counters["value"][run.trace.counters["track"] == names.index("rss")] / 2**20
    assert np.allclose(sum(found.kinds.values()), rss)
    assert all((values >= 0).all() for values in found.kinds.values())
    assert found.kinds["weights"][0] == pytest.approx(269_030_016 / 2**20)
    assert found.kinds["kv_cache"].max() == pytest.approx(run.trace.moments["kv_bytes"].max() / 2**20)


def test_memory_that_is_not_known_is_left_out(run: Run) -> None:
    facts = replace(run.facts, weights_bytes=None, rss_loaded_bytes=None)
    assert list(series.memory(replace(run, facts=facts)).kinds) == ["other", "framework", "kv_cache"]


def test_heat_rows_are_the_outline_and_cells_the_block_times(run: Run) -> None:
    found = series.heat(run)
    assert found.labels[0] == "embed_tokens"
    assert found.labels[2:32] == [f"layers.{number}" for number in range(30)]
    assert found.labels[-1] == "lm_head"
    spans = run.trace.spans
    moment, row = int(found.moments[7]), 2 + 11
    mine = (spans["moment"] == moment) & (spans["layer"] == found.layer_rows[row])
    assert run.trace.layers[found.layer_rows[row]].path == "model.layers.11"
    assert found.milliseconds[row, 7] == pytest.approx(spans["duration_ns"][mine].sum() / 1e6)
    assert found.milliseconds.shape == (34, len(found.moments))


def test_heat_has_a_hole_where_a_layer_was_not_called(run: Run) -> None:
    spans = run.trace.spans
    block = next(i for i, layer in enumerate(run.trace.layers) if layer.path == "model.layers.3")
    keep = ~((spans["layer"] == block) & (spans["moment"] == spans["moment"][0]))
    holed = replace(run, trace=replace(run.trace, spans={name: column[keep] for name, column in spans.items()}))
    found = series.heat(holed)
    row = found.layer_rows.tolist().index(block)
    assert np.isnan(found.milliseconds[row, 0])
    assert not np.isnan(found.milliseconds[row, 1:]).any()


def test_many_blocks_share_rows_without_losing_time() -> None:
    deep = synthetic_run(repeats=1, new_tokens=4, blocks=150)
    wide, narrow = series.heat(deep, max_rows=1000), series.heat(deep, max_rows=64)
    assert len(narrow.labels) <= 64
    assert "layers.0–2" in narrow.labels
    assert np.nansum(narrow.milliseconds) == pytest.approx(np.nansum(wide.milliseconds))


def test_heat_shows_cycles_instructions_per_cycle_and_processor_time(run: Run) -> None:
    counted_run = with_counts(run, ipc=2.5)
    time, cycles = series.heat(counted_run), series.heat(counted_run, quantity="cycles")
    assert time.quantities == cycles.quantities == ("time", "cycles", "ipc", "cpu")
    assert time.values is time.milliseconds
    np.testing.assert_allclose(cycles.values, time.values * 1e6 * 2 * GIGAHERTZ)
    np.testing.assert_array_equal(cycles.milliseconds, time.milliseconds)
    np.testing.assert_allclose(series.heat(counted_run, quantity="ipc").values, 2.5, rtol=1e-6)
    np.testing.assert_allclose(series.heat(counted_run, quantity="cpu").values, 2 * time.values)
    assert f"moment_{cycles.moments[0]}_cycles" in cycles.table()
    assert f"moment_{time.moments[0]}_ms" in time.table()


def test_heat_has_a_hole_where_a_call_was_not_counted(run: Run) -> None:
    counted_run = with_counts(run)
    whole = series.heat(counted_run, max_rows=20, quantity="cycles")
    spans = dict(counted_run.trace.spans)
    row = whole.labels.index("layers.4–5")
    missing = (spans["layer"] == whole.layer_rows[row]) & (spans["moment"] == whole.moments[3])
    assert missing.sum() == 1
    spans["cycles"] = np.where(missing, -1, spans["cycles"])
    holed = replace(run, trace=replace(counted_run.trace, spans=spans))
    cycles = series.heat(holed, max_rows=20, quantity="cycles")
    assert np.argwhere(np.isnan(cycles.values)).tolist() == [[row, 3]]
    assert not np.isnan(cycles.milliseconds).any()


def test_heat_of_a_run_without_counters_offers_time_only(run: Run) -> None:
    found = series.heat(run, quantity="cycles")
    assert found.quantities == ("time",)
    assert np.isnan(found.values).all()
    assert not np.isnan(found.milliseconds).all()


def test_layer_counts_are_medians_of_traced_moments_by_hand(run: Run) -> None:
    counted_run = with_counts(run, ipc=1.25)
    table = series.layer_rows(counted_run)
    row = next(i for i in range(len(table)) if table.path[i] == "model.layers.9" and table.kind[i] == "decode")
    spans, traced = counted_run.trace.spans, counted_by_hand(run, DECODE, Tag.TRACED)
    mine = (spans["layer"] == table.row[row]) & np.isin(spans["moment"], traced)
    assert table.cycles[row] == np.median(spans["cycles"][mine])
    assert table.cpu_ns[row] == np.median(spans["cpu_ns"][mine])
    assert table.ipc[row] == pytest.approx(1.25, rel=1e-6)
    linear = table.path.index("model.layers.9.mlp.up_proj")
    assert table.cycles[linear] is table.instructions[linear] is table.cache_misses[linear] is table.ipc[linear] is None
    assert set(series.layer_rows(run).cycles) == {None}


def test_a_layer_counted_in_one_of_its_two_calls_does_not_count_in_that_moment() -> None:
    recorder = Recorder()
    recorder.set_layers([Layer("", "Model", "other", -1), Layer("shared", "Block", "other", 0)])
    for row, cycles in enumerate(([10, 20], [100, -1], [11, 21])):
        calls = {"moment": np.full(2, row), "layer": np.ones(2, int), "start_ns": np.arange(2), "duration_ns": np.full(2, 5)}
        recorder.spans.extend({**calls, "self_ns": np.full(2, 5), "cycles": np.array(cycles)})
        recorder.moments.append(request=0, kind=DECODE, step=row, tags=int(Tag.TRACED), start_ns=row * 100, duration_ns=50)
    made = replace(synthetic_run(repeats=1, new_tokens=2, blocks=1), trace=recorder.snapshot())
    table = series.layer_rows(made)
    assert table.cycles[table.path.index("shared")] == 31  # the median of 30 and 32
    assert table.calls[table.path.index("shared")] == 2


def test_counted_rows_are_the_blocks_and_their_like() -> None:
    layers = llama_layers(150)
    paths = [layers[row].path for row in sorted(counted_rows(layers))]
    assert len(paths) == 154
    assert {"model.embed_tokens", "model.layers.149", "model.norm", "lm_head"} <= set(paths)


def test_stages_add_up_to_the_clean_latency(run: Run) -> None:
    found = series.stages(run)
    assert found.kind == "decode"
    assert found.scaled_to == "clean"
    assert found.share.sum() == pytest.approx(1)
    assert [stage for stage in STAGES if stage in found.stages] == found.stages
    clean = counted_by_hand(run, DECODE, Tag.CLEAN)
    assert found.time_ms.sum() == pytest.approx(np.median(run.trace.moments["latency_ns"][clean]) / 1e6, rel=0.03)
    assert found.time_ms[found.stages.index("sample")] == pytest.approx(0.4)
    assert "tokenize" not in found.stages


def test_a_stage_is_its_median_sum_scaled_to_clean(run: Run) -> None:
    moments, spans = run.trace.moments, run.trace.spans
    traced = counted_by_hand(run, DECODE, Tag.TRACED)
    mlp = np.array([layer.stage == "mlp" for layer in run.trace.layers])
    sums = [spans["self_ns"][(spans["moment"] == row) & mlp[spans["layer"]]].sum() for row in traced]
    clean = counted_by_hand(run, DECODE, Tag.CLEAN)
    factor = np.median(moments["duration_ns"][clean]) / np.median(moments["duration_ns"][traced])
    found = series.stages(run)
    # all stages are scaled alike, so that they sum to the median moment, which medians of parts do not quite
    assert found.time_ms[found.stages.index("mlp")] == pytest.approx(np.median(sums) * factor / 1e6, rel=0.01)


def test_readings_of_counters_are_no_stage(run: Run) -> None:
    """Own times are without the readings around blocks (``profilers.layer_clock``), so they do not sum to the moment."""
    spans = run.trace.spans
    whole = series.stages(run)
    block = np.array([layer.path != "" for layer in run.trace.layers])[spans["layer"]]
    read = {**spans, "self_ns": np.where(block, (spans["self_ns"] * 0.9).astype(np.int64), spans["self_ns"])}
    found = series.stages(replace(run, trace=replace(run.trace, spans=read)))
    inside = [stage for stage in found.stages if stage not in ("tokenize", "sample", "other")]
    ratios = [found.time_ms[found.stages.index(stage)] / whole.time_ms[whole.stages.index(stage)] for stage in inside]
    assert ratios == pytest.approx([1] * len(inside), rel=0.02)


def test_tokenisation_belongs_to_the_first_token(run: Run) -> None:
    found = series.stages(run, "prefill")
    assert found.time_ms[found.stages.index("tokenize")] == pytest.approx(0.08)
    assert found.time_ms[found.stages.index("sample")] == pytest.approx(0.32)


def test_stages_without_spans_are_empty(run: Run) -> None:
    none = {name: column[:0] for name, column in run.trace.spans.items()}
    found = series.stages(replace(run, trace=replace(run.trace, spans=none)))
    assert found.stages == []
    assert len(found.share) == 0


def test_only_warm_up_so_far_is_provisional(run: Run) -> None:
    early = {name: column[:12] for name, column in run.trace.moments.items()}
    found = series.stages(replace(run, trace=replace(run.trace, moments=early)))
    assert found.provisional
    assert "mlp" in found.stages
    assert not series.stages(run).provisional


def test_spans_of_a_moment_that_is_not_seen_yet_are_left_out(run: Run) -> None:
    early = {name: column[:40] for name, column in run.trace.moments.items()}
    cut = {name: column[run.trace.spans["moment"] < 40] for name, column in run.trace.spans.items()}
    ahead = replace(run, trace=replace(run.trace, moments=early))
    exact = replace(run, trace=replace(run.trace, moments=early, spans=cut))
    assert np.array_equal(series.heat(ahead).milliseconds, series.heat(exact).milliseconds)
    assert series.layer_rows(ahead) == series.layer_rows(exact)


def test_newest_looks_at_the_end_only(run: Run) -> None:
    traced = counted_by_hand(run, DECODE, Tag.TRACED)[-1]
    spans = run.trace.spans
    head = next(i for i, layer in enumerate(run.trace.layers) if layer.stage == "head")
    raw = spans["self_ns"][(spans["moment"] == traced) & (spans["layer"] == head)].sum()
    found = series.stages(run, newest=1)
    clean = counted_by_hand(run, DECODE, Tag.CLEAN)
    factor = np.median(run.trace.moments["duration_ns"][clean]) / run.trace.moments["duration_ns"][traced]
    assert found.time_ms[found.stages.index("head")] == pytest.approx(raw * factor / 1e6)


def test_the_layer_table_has_every_called_layer_of_each_kind(run: Run) -> None:
    table = series.layer_rows(run)
    called = len(set(run.trace.spans["layer"].tolist()))
    assert table.kind.count("decode") == table.kind.count("prefill") == called
    root = table.path.index("")
    assert table.total_ns[root] == pytest.approx(
        np.median(run.trace.moments["duration_ns"][counted_by_hand(run, KINDS.index("prefill"), Tag.CLEAN)]), rel=0.02
    )
    shares = sum(share for share, kind in zip(table.share, table.kind, strict=True) if kind == "decode")
    assert shares == pytest.approx(1, abs=0.03)
    assert set(table.calls) == {1.0}
    assert all(own <= total + 1 for own, total in zip(table.self_ns, table.total_ns, strict=True))


def test_a_layer_that_is_called_now_and_then_costs_its_share() -> None:
    recorder = Recorder()
    recorder.set_layers([Layer("", "Model", "other", -1), Layer("expert", "Expert", "mlp", 0)])
    for row in range(4):
        layers = [0, 1] if row == 0 else [0]
        count = len(layers)
        recorder.spans.extend(
            {
                "moment": np.full(count, row),
                "layer": np.array(layers),
                "start_ns": np.zeros(count),
                "duration_ns": np.array([1000, 400][:count]),
                "self_ns": np.array([600 if row == 0 else 1000, 400][:count]),
            }
        )
        recorder.moments.append(
            request=0, kind=DECODE, step=row, tags=int(Tag.TRACED), start_ns=row * 1000, duration_ns=1000, latency_ns=1000,
            paused_ns=0, tokens=1, context=1, kv_bytes=-1,
        )  # fmt: skip
    run = replace(synthetic_run(repeats=1, new_tokens=2, blocks=1), trace=recorder.snapshot())
    table = series.layer_rows(run)
    expert = table.path.index("expert")
    assert table.total_ns[expert] == pytest.approx(100 * 1000 / 1100)  # a quarter of 400, and all parts sum to the moment
    assert table.total_ns[table.path.index("")] == pytest.approx(1000)
    assert table.calls[expert] == 0.25
    assert table.scaled_to[expert] == "traced"


def test_first_tokens_skip_the_chunks_before_them() -> None:
    moments = {"latency_ns": np.array([-1, 50, 10, -1, -1, 70]), "request": np.array([0, 0, 0, 1, 1, 1])}
    assert first_tokens(moments).tolist() == [False, True, False, False, False, True]


def test_machine_tracks_have_titles_and_human_units(run: Run) -> None:
    tracks = {track.name: track for track in series.machine(run)}
    assert set(tracks) == {"cpu", "frequency", "switches"}
    assert tracks["frequency"].unit == "GHz"
    assert tracks["frequency"].value[0] == pytest.approx(3.4)
    assert tracks["cpu"].title == "CPU"
    assert len(tracks["switches"].table()["time_s"]) == 96


def test_a_run_that_has_not_begun_has_empty_series(run: Run) -> None:
    empty = replace(run, trace=Trace())
    assert series.latency(empty).clean_median_ms is None
    assert series.heat(empty).labels == []
    assert series.stages(empty).stages == []
    assert len(series.layer_rows(empty)) == 0
    assert series.machine(empty) == []
    assert all(len(values) == 0 for values in series.memory(empty).kinds.values())


def bert_layers() -> list[Layer]:
    return [
        Layer("", "BertModel", "other", -1),
        Layer("embeddings", "BertEmbeddings", "embed", 0),
        Layer("embeddings.word_embeddings", "Embedding", "embed", 1),
        Layer("encoder", "BertEncoder", "other", 0),
        Layer("encoder.layer", "ModuleList", "other", 3),
        Layer("encoder.layer.0", "BertLayer", "other", 4),
        Layer("encoder.layer.0.attention", "BertAttention", "attention", 5),
        Layer("encoder.layer.1", "BertLayer", "other", 4),
        Layer("pooler", "BertPooler", "head", 0),
    ]


def test_outlines_of_other_trees() -> None:
    assert [piece.label for piece in series.outline(bert_layers())] == ["embeddings", "layer.0", "layer.1", "pooler"]
    gpt = [
        Layer("", "GPT2LMHeadModel", "other", -1),
        Layer("transformer", "GPT2Model", "other", 0),
        Layer("transformer.wte", "Embedding", "embed", 1),
        Layer("transformer.wpe", "Embedding", "embed", 1),
        Layer("transformer.h", "ModuleList", "other", 1),
        Layer("transformer.h.0", "GPT2Block", "other", 4),
        Layer("transformer.ln_f", "LayerNorm", "norm", 1),
        Layer("lm_head", "Linear", "head", 0),
    ]
    assert [piece.label for piece in series.outline(gpt)] == ["wte", "wpe", "h.0", "ln_f", "lm_head"]
    flat = [Layer("", "Net", "other", -1), Layer("a", "Linear", "mlp", 0), Layer("b", "Linear", "mlp", 0)]
    assert [piece.label for piece in series.outline(flat)] == ["a", "b"]
    assert series.outline([]) == ()
    assert len(series.outline(llama_layers(30))) == 34


def test_pieces_of_an_outline_never_overlap() -> None:
    layers = llama_layers(4)
    rows = [row for piece in series.outline(layers) for row in piece.rows]
    for row in rows:
        parent = layers[row].parent
        while parent >= 0:
            assert parent not in rows
            parent = layers[parent].parent


def test_blocks_that_were_timed_as_wholes_are_called_blocks():
    run = synthetic_run(blocks=4)
    assert not series.stages(run).whole_blocks
    layers = run.trace.layers
    whole = [row for row, layer in enumerate(layers) if layer.path.count(".") <= 2 and layer.type != "ModuleList"]
    kept = np.isin(run.trace.spans["layer"], whole)
    spans = {name: column[kept] for name, column in run.trace.spans.items()}
    ticked = series.stages(replace(run, trace=replace(run.trace, spans=spans)))
    assert ticked.whole_blocks
    assert ticked.titles[ticked.stages.index("other")] == "Blocks"


def test_the_outline_of_a_tree_without_lists_has_its_repeated_modules():
    names = [("", "LlamaModel_0", -1), ("e", "Embedding", 0), ("b0", "Block", 0), ("b0.l", "Linear", 2), ("b1", "Block", 0)]
    names += [("b1.l", "Linear", 4), ("n", "Norm", 0)]
    layers = [Layer(path, kind, "embed" if path == "e" else "other", parent) for path, kind, parent in names]
    assert [piece.rows for piece in outline(layers)] == [(1,), (2,), (4,), (6,)]
