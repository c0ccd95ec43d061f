"""The environment: what numbers depend on is written down, what a system does not tell is None, and torch is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from core.session import environment as module
from core.session.environment import environment
from core.session.torch_facts import built_for, torch_facts

KNOWN_SINCE_ISSUE_2 = {
    *("os", "os_release", "machine", "python", "tickscope", "torch", "transformers", "torchao", "numpy", "pyside6", "duckdb"),
    *("cpu_model", "cpu_features", "cpu_cores_physical", "cpu_cores_logical", "cpu_affinity", "cpu_quota", "cpu_governor"),
    *("smt_active", "transparent_hugepages", "memory_bytes", "memory_available_bytes", "variables"),
}
NEW = {
    *("cpu_frequency_hz", "cpu_frequency_min_hz", "cpu_frequency_max_hz", "cpu_stepping", "cpu_microcode", "hypervisor"),
    *("power_source", "perf_event_paranoid", "swap_bytes", "swap_used_bytes", "load_average", "allocator", "huge_pages"),
    *("tokenizers", "safetensors", "accelerate", "gguf", "optimum", "torch_build"),
}


def test_it_is_json_with_all_the_keys() -> None:
    found = environment()
    assert found.keys() >= KNOWN_SINCE_ISSUE_2 | NEW
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["torch"]
    assert found["memory_bytes"] > 1 << 28
    assert len(found["load_average"]) == 3
    assert found["cpu_frequency_max_hz"] is None or found["cpu_frequency_max_hz"] > 1e8


def test_it_does_not_import_torch() -> None:
    code = (
        "import sys; from core.session.environment import environment; found = environment(); "
        "assert 'torch' not in sys.modules; assert 'torch_threads' not in found; assert found['torch_build']['git_version']"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchs_own_settings_are_told_once_it_is_there() -> None:
    import torch

    found = torch_facts()
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["torch_matmul_precision"] == torch.get_float32_matmul_precision()
    assert isinstance(found["torch_libraries"], dict)


def test_the_build_is_read_from_torchs_files(tmp_path: Path) -> None:
    (tmp_path / "version.py").write_text(
        "from typing import Optional\n__version__ = '2.13.0+cu130'\ndebug = False\ncuda: Optional[str] = '13.0'\n"
        "git_version = 'cf30'\nhip: Optional[str] = None\n"
    )
    assert built_for(tmp_path) == {"cuda": "13.0", "git_version": "cf30"}
    assert built_for(tmp_path / "absent") is None


def test_stepping_microcode_and_hypervisor_come_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 167\nmodel name\t: Example CPU\nstepping\t: 8\nmicrocode\t: 0x2b\n"
        "flags\t\t: fpu avx2 fma hypervisor amx_bf16\n\nprocessor\t: 1\nmodel name\t: Other\n"
    )
    monkeypatch.setattr(module, "_PROC", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = environment()
    assert (found["cpu_model"], found["cpu_stepping"], found["cpu_microcode"]) == ("Example CPU", "8", "0x2b")
    assert found["cpu_features"] == ["fma", "avx2", "amx_bf16"]
    assert found["hypervisor"] is True
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t: fpu\n")
    assert environment()["hypervisor"] is False


def test_what_the_system_does_not_tell_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROC", tmp_path)
    monkeypatch.setattr(module, "_CPU", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    found = environment()
    for name in (
        "cpu_stepping",
        "cpu_microcode",
        "hypervisor",
        "perf_event_paranoid",
        "huge_pages",
        "cpu_boost",
        "cpu_governor",
    ):
        assert found[name] is None, name
    assert found["cpu_frequency_hz"] is None
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2000.0, min=0.0, max=0.0))
    found = environment()
    assert (found["cpu_frequency_hz"], found["cpu_frequency_max_hz"]) == (2e9, None)


@pytest.mark.parametrize(
    ("battery", "source"),
    [
        (None, None),
        (SimpleNamespace(power_plugged=True), "mains"),
        (SimpleNamespace(power_plugged=False), "battery"),
        (SimpleNamespace(power_plugged=None), None),
    ],
)
def test_the_power_source_is_told(monkeypatch: pytest.MonkeyPatch, battery: object, source: str | None) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert environment()["power_source"] == source


@pytest.mark.parametrize(
    ("preloaded", "allocator"),
    [
        ("", "system"),
        ("/usr/lib/libexample.so", "system"),
        ("/usr/lib/libexample.so:/usr/lib/libtcmalloc_minimal.so.4", "libtcmalloc_minimal.so.4"),
        ("libjemalloc.so.2", "libjemalloc.so.2"),
    ],
)
def test_a_preloaded_allocator_is_named(monkeypatch: pytest.MonkeyPatch, preloaded: str, allocator: str) -> None:
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    assert module._allocator() == allocator


def test_only_known_variables_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    monkeypatch.setenv("MY_SECRET", "x")
    variables = environment()["variables"]
    assert variables["KMP_BLOCKTIME"] == "0"
    assert "MY_SECRET" not in variables


@pytest.mark.parametrize(
    ("files", "boost"), [({"intel_pstate/no_turbo": "1"}, False), ({"cpufreq/boost": "1"}, True), ({}, None)]
)
def test_boost_is_read_where_the_driver_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], boost: bool | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_CPU", tmp_path)
    assert environment()["cpu_boost"] is boost
