"""Adds to a made-up run what counters, noise and more tracks would have told, for tests of views that need no such machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.records.run import Run
from profilers.trace import COUNTER_COLUMNS, Columns, Layer, Tag, Track

CLOCK_HZ = 3.4e9
IPC = 1.8
TRACKS = (
    Track("temperature", "celsius"),
    Track("throttled", "count"),
    Track("steal", "percent"),
    Track("others", "percent"),
    Track("package_power", "watt"),
    Track("gpu", "percent"),
)


def with_counters(run: Run, *, hardware: bool = True) -> Run:
    """Counts in every moment, and in the spans of blocks, embedding, norm and head; without ``hardware`` CPU time only."""
    moments, spans = dict(run.trace.moments), dict(run.trace.spans)
    blocks = np.array([_is_piece(layer) for layer in run.trace.layers])
    for columns, where in ((moments, None), (spans, blocks[spans["layer"]])):
        cpu = (1.9 * columns["duration_ns"]).astype(np.int64)
        found = {"cpu_ns": cpu}
        if hardware:
            cycles = (columns["duration_ns"] * 1.9 * CLOCK_HZ / 1e9).astype(np.int64)
            found |= {"cycles": cycles, "instructions": (cycles * IPC).astype(np.int64), "cache_misses": cycles // 900}
        for name, values in found.items():
            columns[name] = values if where is None else np.where(where, values, -1)
    if hardware:
        moments["counted_share"] = np.full(len(moments["tags"]), 1.0)
    missing = {} if hardware else {"cycles": "this virtual machine's processor offers no counters"}
    instruments = {**run.facts.instruments, "cycles": {"events": ["cycles"] if hardware else ["cpu_ns"], "missing": missing}}
    return replace(
        run, facts=replace(run.facts, instruments=instruments), trace=replace(run.trace, moments=moments, spans=spans)
    )


def with_noise(run: Run, share: float = 0.02) -> Run:
    """Involuntary switches, steal and other processes in every moment, and so many moments tagged as perturbed."""
    moments = dict(run.trace.moments)
    count = len(moments["tags"])
    rng = np.random.default_rng(3)
    hit = np.zeros(count, bool)
    hit[rng.choice(count, round(share * count), replace=False)] = True
    tags = np.where(hit, moments["tags"] | int(Tag.PERTURBED), moments["tags"] & ~int(Tag.PERTURBED))
    moments["tags"] = tags.astype("i4")
    moments["switches"] = hit.astype("i4")
    moments["steal_ns"] = np.where(hit, 200_000, 0)
    moments["others_ns"] = np.where(hit, 4_000_000, 10_000)
    moments["stalled_ns"] = np.where(hit, 1_000_000, 0)
    return replace(run, trace=replace(run.trace, moments=moments))


def with_tracks(run: Run) -> Run:
    """More counter tracks than the machine card has room for."""
    end_ns = int(run.trace.counters["time_ns"].max())
    times = np.linspace(0, end_ns, 40).astype(np.int64)
    counters = Columns(COUNTER_COLUMNS, 0)
    counters.extend(run.trace.counters)
    rng = np.random.default_rng(5)
    first = len(run.trace.tracks)
    for number, base in enumerate((61.0, 0.0, 1.5, 12.0, 38.0, 3.0)):
        values = base + rng.uniform(0, 1 + base / 20, len(times)) if base else np.zeros(len(times))
        counters.extend({"track": np.full(len(times), first + number), "time_ns": times, "value": values})
    return replace(run, trace=replace(run.trace, tracks=(*run.trace.tracks, *TRACKS), counters=counters.view()))


def with_peaks(run: Run) -> Run:
    """The resident peak of each phase."""
    mib = 1 << 20
    peaks = {"load": 880 * mib, "warmup": 948 * mib, "prefill": 944 * mib, "decode": 916 * mib}
    return replace(run, facts=replace(run.facts, phase_peak_bytes=peaks))


def _is_piece(layer: Layer) -> bool:
    above, _, name = layer.path.rpartition(".")
    return name.isdigit() or layer.path in ("lm_head", "model.norm", "model.embed_tokens") or (not above and not layer.path)
