"""How fast layers worked, recomputed by hand; and layers of one role together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.analysis.layer_rates import add_rates
from core.analysis.layer_roles import role, roles_of, together
from core.analysis.summary import layers_json
from core.config import WorkloadConfig
from core.records.roofline import Ceilings, LayerProduct
from tests.support.synthetic import synthetic_run

READS, OPERATIONS = 20e9, 100e9
CEILINGS = Ceilings(2, ((1 << 20, READS), (1 << 28, READS)), {"float32": OPERATIONS}, 3000.0)
UP = LayerProduct(576 * 1536, 4 * 576 * 1536, "float32")
HEAD = LayerProduct(576 * 49152, 4 * 576 * 49152, "float32", head=True)


def rows(products=None, ceilings=CEILINGS):
    run = synthetic_run()
    found = {"model.layers.3.mlp.up_proj": UP, "lm_head": HEAD} if products is None else products
    run = replace(run, config=replace(run.config, workload=WorkloadConfig(batch=1)))
    run = replace(run, facts=replace(run.facts, layer_products=found, ceilings=ceilings))
    return {(row["path"], row["kind"]): row for row in layers_json(run)}


def test_bytes_and_operations_per_second_are_of_weights_and_products_over_total_time():
    found = rows()
    up = found["model.layers.3.mlp.up_proj", "decode"]
    assert up["bytes_per_s"] == pytest.approx(4 * 576 * 1536 / (up["total_ns"] / 1e9))
    assert up["operations_per_s"] == pytest.approx(2 * 576 * 1536 / (up["total_ns"] / 1e9))
    first = found["model.layers.3.mlp.up_proj", "prefill"]  # five positions: the same bytes, five times the operations
    assert first["operations_per_s"] * first["total_ns"] == pytest.approx(5 * up["operations_per_s"] * up["total_ns"])
    assert first["bytes_per_s"] * first["total_ns"] == pytest.approx(up["bytes_per_s"] * up["total_ns"])


def test_the_head_sees_one_row_of_a_prompt():
    found = rows()
    head, first = found["lm_head", "decode"], found["lm_head", "prefill"]
    assert first["operations_per_s"] * first["total_ns"] == pytest.approx(head["operations_per_s"] * head["total_ns"])


def test_the_limit_is_reading_or_multiplying_whichever_takes_longer():
    up = rows()["model.layers.3.mlp.up_proj", "decode"]
    assert up["limit_share"] == pytest.approx(4 * 576 * 1536 / READS / (up["total_ns"] / 1e9))
    slow = rows(ceilings=replace(CEILINGS, operations_per_s={"float32": 1e9}))["model.layers.3.mlp.up_proj", "decode"]
    assert slow["limit_share"] == pytest.approx(2 * 576 * 1536 / 1e9 / (slow["total_ns"] / 1e9))


def test_a_block_has_what_is_inside_it_and_a_norm_has_nothing():
    found = rows()
    block, up = found["model.layers.3", "decode"], found["model.layers.3.mlp.up_proj", "decode"]
    assert block["bytes_per_s"] * block["total_ns"] == pytest.approx(up["bytes_per_s"] * up["total_ns"])
    whole = found["", "decode"]
    assert whole["bytes_per_s"] * whole["total_ns"] == pytest.approx(1e9 * (UP.held_bytes + HEAD.held_bytes))
    assert found["model.norm", "decode"]["bytes_per_s"] is None
    assert found["model.layers.4", "decode"]["limit_share"] is None


def test_what_is_not_known_is_none():
    without = rows(ceilings=None)["lm_head", "decode"]
    assert without["limit_share"] is None
    assert without["bytes_per_s"] > 0
    old = rows(products={})["lm_head", "decode"]
    assert old["bytes_per_s"] is old["operations_per_s"] is old["limit_share"] is None
    assert old["total_share"] == pytest.approx(old["share"], rel=1e-3)


def test_a_short_last_layer_does_not_say_how_long_the_moment_was():
    own_ns = {"model.layers.0": 9_000_000.0, "model": 999_999.6, "dropout": 0.4}
    found = [
        {"path": path, "kind": "decode", "self_ns": round(ns), "total_ns": round(ns), "share": ns / 1e7}
        for path, ns in own_ns.items()
    ]
    add_rates(synthetic_run(), found)  # of the last one it would have been 0 ns, and no share known
    assert [row["total_share"] for row in found] == pytest.approx([0.9, 0.1, 0], abs=1e-6)


def test_an_encoder_does_not_run_again_for_each_token():
    once = rows(products={"lm_head": replace(HEAD, once=True)})
    assert once["lm_head", "decode"]["bytes_per_s"] is None


def test_roles_add_up():
    assert role("model.layers.12.mlp.experts.3.up") == "model.layers.*.mlp.experts.*.up"
    run = synthetic_run()
    layers, counts = roles_of(run.trace.layers)
    assert counts["model.layers.*.mlp.up_proj"] == 30
    mlp = next(layer for layer in layers if layer.path == "model.layers.*.mlp")
    assert layers[mlp.parent].path == "model.layers.*"
    single, grouped = layers_json(run), together(layers_json(run))
    for column in ("total_ns", "self_ns", "share", "calls"):
        assert sum(row[column] for row in grouped) == pytest.approx(sum(row[column] for row in single))
    one = next(row for row in grouped if row["path"] == "model.layers.*.mlp.up_proj" and row["kind"] == "decode")
    assert one["layers"] == 30
    assert one["cycles"] is None
