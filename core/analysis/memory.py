"""The peaks of a run's memory that its columns tell, where its facts do not."""

from __future__ import annotations

from core.records.run import Run


def rss_peak_bytes(run: Run) -> int | None:
    """The most resident memory of the process: as noted, else the largest sample."""
    return run.facts.rss_peak_bytes if run.facts.rss_peak_bytes is not None else _sampled_peak_bytes(run)


def kv_cache_bytes(run: Run) -> int | None:
    """The largest cache of keys and values; None where there is none."""
    cache = run.trace.moments["kv_bytes"]
    return int(cache.max()) if (cache >= 0).any() else None


def _sampled_peak_bytes(run: Run) -> int | None:
    """Of a run that goes on, or was killed before its peak was told, the largest sample until its last moment.

    None for the side of an A/B test, beside which the others lie in memory; what came after the last moment (our own look at
    quality) is not the run's.
    """
    trace = run.trace
    names = [track.name for track in trace.tracks]
    if run.facts.trial is not None or "rss" not in names or not len(trace.moments["start_ns"]):
        return None
    until = int((trace.moments["start_ns"] + trace.moments["duration_ns"]).max())
    where = (trace.counters["track"] == names.index("rss")) & (trace.counters["time_ns"] <= until)
    return int(trace.counters["value"][where].max()) if where.any() else None
