"""How fast each layer worked: weight bytes and operations per second, and how near that is to what the machine can do.

A layer's limit is the time that its products need at least: reading their weights once as they are held, or multiplying, by the
ceilings of the machine (``core.records.roofline``). What a layer does besides (norms, attention's own products with the cache,
small operators) is in its time and not in its limit, so a block never reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from core.analysis.layers import scale
from core.records.roofline import Ceilings, LayerProduct
from core.records.run import Run

NAMES = ("total_share", "bytes_per_s", "operations_per_s", "limit_share")
"""What ``add_rates`` adds to a row of the layer table."""

DECODING = ("prefill", "prefill_chunk", "decode", "verify", "draft")
"""Kinds of moments in which an encoder does not run again, and in which the head sees the last position alone."""


class Done(NamedTuple):
    """What a layer with everything inside it did in one moment. ``least_ns`` None: the machine's ceilings are not known."""

    read_bytes: float
    operations: float
    least_ns: float | None


def add_rates(run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Add to each row of the layer table, in place, what ``NAMES`` lists; None where it is not known.

    ``total_share``: time with everything inside over the moment's. ``bytes_per_s`` (of weights, as they are held) and
    ``operations_per_s`` (two per multiplication): of the layer's products and of those inside it, over its total time.
    ``limit_share``: the time that these products need at least over the time the layer took, from 0 to about 1.
    """
    done = {kind: _done(run, kind) for kind in {row["kind"] for row in rows}}
    moment_ns = {kind: _moment_ns([row for row in rows if row["kind"] == kind]) for kind in done}
    for row in rows:
        total_ns, whole_ns = row["total_ns"], moment_ns[row["kind"]]
        found = done[row["kind"]].get(row["path"])
        timed = found is not None and total_ns > 0
        row["total_share"] = total_ns / whole_ns if whole_ns else None
        row["bytes_per_s"] = 1e9 * found.read_bytes / total_ns if timed and found is not None else None
        row["operations_per_s"] = 1e9 * found.operations / total_ns if timed and found is not None else None
        least_ns = found.least_ns if found is not None else None
        row["limit_share"] = least_ns / total_ns if timed and least_ns is not None else None


def _moment_ns(rows: Sequence[dict[str, Any]]) -> float | None:
    """The moment that the shares of one kind are of. Over all rows: of a single short layer its time is rounded too much."""
    share = sum(row["share"] for row in rows)
    return sum(row["self_ns"] for row in rows) / share if share else None


def _done(run: Run, kind: str) -> dict[str, Done]:
    """By path, for every layer that holds products; {} where these were not counted."""
    how, products = scale(run, kind), run.facts.layer_products
    if how is None or not products:
        return {}
    rows = float(np.median(run.trace.moments["tokens"][how.moments]))
    if rows <= 0:
        return {}
    rows_of = {path: _rows(one, kind, rows, run.config.workload.batch) for path, one in products.items()}
    ceilings = run.facts.ceilings
    read = sum(one.read_bytes(rows_of[path]) for path, one in products.items())
    speed = None if ceilings is None else ceilings.read_per_s(read)
    found: dict[str, Done] = {}
    for path, one in products.items():
        if rows_of[path]:
            done = _of_product(one, rows_of[path], ceilings, speed)
            for place in _upwards(path):
                found[place] = _sum(found.get(place), done)
    return found


def _rows(product: LayerProduct, kind: str, rows: float, batch: int) -> float:
    """How many rows go through a product in one moment."""
    if kind == "encode":
        return rows if product.once else 0.0
    if kind in DECODING and product.once:
        return 0.0
    return float(batch) if product.head and kind in ("prefill", "decode") else rows


def _of_product(product: LayerProduct, rows: float, ceilings: Ceilings | None, read_per_s: float | None) -> Done:
    read, operations = product.read_bytes(rows), 2.0 * product.macs * rows
    if ceilings is None or read_per_s is None:
        return Done(read, operations, None)
    return Done(read, operations, 1e9 * max(read / read_per_s, operations / ceilings.operations(product.arithmetic)))


def _sum(one: Done | None, other: Done) -> Done:
    if one is None:
        return other
    least = None if one.least_ns is None or other.least_ns is None else one.least_ns + other.least_ns
    return Done(one.read_bytes + other.read_bytes, one.operations + other.operations, least)


@lru_cache(maxsize=4096)
def _upwards(path: str) -> Sequence[str]:
    """The path itself and those of all modules around it, the model ("") last."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), -1, -1)]
