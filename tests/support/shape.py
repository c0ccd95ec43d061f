"""The promised shape of a run's JSON, as ``cli.md`` writes it down; used wherever that JSON comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NUMBER = (int, float)

SPREAD: dict[str, Any] = {
    "median": (*NUMBER, None),
    "low": (*NUMBER, None),
    "high": (*NUMBER, None),
    "p90": (*NUMBER, None),
    "n": (int,),
}
RATIO: dict[str, Any] = {"ratio": NUMBER, "low": NUMBER, "high": NUMBER}
METRICS = ("ttft_ns", "tpot_ns", "itl_ns", "e2e_ns", "prefill_tokens_per_s", "decode_tokens_per_s")

RUN: dict[str, Any] = {
    "schema": (int,),
    "model": {
        "spec": (str,),
        "name": (str,),
        "architecture": (str, None),
        "task": (str, None),
        "parameters": (int, None),
        "weight_bytes": (int, None),
    },
    "passes": [
        {
            "id": (str,),
            "options": (dict,),
            "changed_modules": (int,),
            "kernels": (list,),
            "weight_bytes_before": (int,),
            "weight_bytes_after": (int,),
        }
    ],
    "target": {"id": (str,), "name": (str, None), "threads": (int, None)},
    "workload": {"new_tokens": (int,), "batch": (int,), "repeats": (int, None), "warmup": (int, None), "seed": (int,)},
    "environment": (dict,),
    "status": (str,),
    "load_ns": (int, None),
    "apply_ns": (int, None),
    "compile_ns": (int, None),
    "cold_start_ns": (int, None),
    "metrics": dict.fromkeys(METRICS, SPREAD),
    "observer_effect": {
        "decode": (RATIO, None),
        "prefill": (RATIO, None),
        "paused_ns": (int,),
        "perturbed_share": (*NUMBER, None),
    },
    "memory": {
        "rss_peak_bytes": (int, None),
        "weights_bytes": (int, None),
        "kv_cache_bytes": (int, None),
        "device_peak_bytes": (int, None),
    },
    "stages": [{"stage": (str,), "kind": (str,), "time_ns": (int,), "share": NUMBER}],
    "layers": [
        {
            "path": (str,),
            "stage": (str,),
            "kind": (str,),
            "calls": NUMBER,
            "total_ns": (int,),
            "self_ns": (int,),
            "share": NUMBER,
            "cycles": (int, None),
            "instructions": (int, None),
        }
    ],
    "moments": {"prefill": {"clean": (int,), "traced": (int,)}, "decode": {"clean": (int,), "traced": (int,)}},
    "outputs": [{"token_ids": (list,), "text": (str, None), "finish_reason": (str,)}],
    "unavailable": [{"what": (str,), "why": (str,)}],
}


def check_run_json(value: Mapping[str, Any]) -> None:
    """Assert that every promised key is there with its type (more keys may be)."""
    _check(value, RUN, "run")
    assert value["schema"] == 1
    assert value["status"] in ("running", "finished", "cancelled", "failed", "interrupted")


def _check(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        assert isinstance(value, Mapping), where
        for key, inner in shape.items():
            assert key in value, f"{where}.{key} is missing"
            _check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            _check(item, shape[0], f"{where}[{number}]")
    else:
        assert any(_fits(value, one) for one in shape), f"{where} is {value!r}"


def _fits(value: Any, one: Any) -> bool:
    if one is None:
        return value is None
    if isinstance(one, dict):
        return isinstance(value, Mapping) and one.keys() <= value.keys()
    checks: dict[Any, Callable[[], bool]] = {int: lambda: isinstance(value, int) and not isinstance(value, bool)}
    return checks.get(one, lambda: isinstance(value, one))()
