"""Targets: what is here is named, what is not says why, and accelerators drive the module that torch gives them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from core.targets import cpu, cuda, mps, xpu
from core.targets.base import Target, targets


class FakeDevice:
    """Stands for ``torch.cuda`` or ``torch.xpu`` at the driver's edge."""

    def __init__(self, available: bool = True) -> None:
        self.available = available
        self.calls: list[str] = []

    def is_available(self) -> bool:
        return self.available

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name=f"Example GPU {index}", total_memory=24 << 30)

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return 8, 9 - index

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self) -> None:
        self.calls.append("reset")

    def max_memory_allocated(self) -> int:
        return 123


def fake_torch(monkeypatch: pytest.MonkeyPatch, **parts: object) -> SimpleNamespace:
    torch = SimpleNamespace(
        version=SimpleNamespace(cuda="13.0", hip=None),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False, is_built=lambda: False)),
        **parts,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_all_four_are_registered() -> None:
    assert {one.id for one in targets} == {"cpu", "cuda", "mps", "xpu"}


def test_cpu_tells_name_memory_and_threads() -> None:
    facts = targets.get("cpu").probe()
    assert facts.available
    assert facts.name
    assert facts.reason is None
    assert facts.memory_bytes is not None
    assert facts.memory_bytes > 1 << 28
    assert facts.threads == cpu.usable_threads() >= 1


def test_cpu_features_have_one_name_with_and_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: {"flags": "fpu avx2 avx512f fma avx512_vnni"})
    without_torch(monkeypatch)
    before = targets.get("cpu").probe().features
    told = {"avx2": True, "avx512_f": True, "fma3": True, "avx512_vnni": True, "amx_int8": False, "num_logical_cores": 1}
    fake_torch(monkeypatch, cpu=SimpleNamespace(get_capabilities=lambda: told))
    assert before == {"avx2", "avx512f", "fma", "avx512_vnni"} == targets.get("cpu").probe().features


def test_absent_ones_have_a_reason_and_no_name() -> None:
    for one in targets:
        facts = one.probe()
        assert facts.available == (facts.reason is None)
        assert bool(facts.name) == facts.available


def test_probing_does_not_import_torch() -> None:
    code = (
        "import sys; from core.targets.base import targets; facts = [one.probe() for one in targets]; "
        "assert len(facts) == 4; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target_id", ["cuda", "xpu"])
def test_accelerator_is_driven_through_torchs_module(monkeypatch: pytest.MonkeyPatch, target_id: str) -> None:
    device = FakeDevice()
    fake_torch(monkeypatch, **{target_id: device})
    target: Target = targets.get(target_id)
    facts = target.probe()
    assert facts.available
    assert facts.name == "Example GPU 0"
    assert facts.memory_bytes == 24 << 30
    target.synchronize()
    target.reset_peak()
    assert device.calls == ["synchronize", "reset"]
    assert target.peak_bytes() == 123


def test_cuda_tells_its_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeDevice())
    assert targets.get("cuda").probe().features == {"sm_89"}


def test_cuda_reasons_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch(monkeypatch, cuda=FakeDevice(available=False))
    assert str(targets.get("cuda").probe().reason) == "no NVIDIA GPU or driver"
    torch.version.cuda = None
    monkeypatch.setattr(cuda, "ask_nvml", lambda: ("NVIDIA L4", 24 << 30))
    assert str(targets.get("cuda").probe().reason) == "torch was built without CUDA"


def test_cuda_before_torch_asks_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    built = {"cuda"}
    monkeypatch.setattr(cuda, "torch_has_library", lambda name: name in built)
    monkeypatch.setattr(cuda, "ask_nvml", lambda: ("NVIDIA L4", 24 << 30))
    facts = targets.get("cuda").probe()
    assert (facts.available, facts.name, facts.memory_bytes) == (True, "NVIDIA L4", 24 << 30)
    built.clear()
    assert str(targets.get("cuda").probe().reason) == "torch was built without CUDA"
    built.add("cuda")
    monkeypatch.setattr(cuda, "ask_nvml", lambda: None)
    assert str(targets.get("cuda").probe().reason) == "no NVIDIA GPU or driver"


def test_nvml_says_none_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert cuda.ask_nvml() is None


def test_nvml_names_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    ended = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: ended.append(True))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda _handle: b"NVIDIA L4")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _handle: SimpleNamespace(total=24 << 30))
    assert cuda.ask_nvml() == ("NVIDIA L4", 24 << 30)
    assert ended == [True]


def test_xpu_reads_the_kernels_device_list(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert xpu.intel_gpu_listed(tmp_path) is False
    (tmp_path / "card0" / "device").mkdir(parents=True)
    (tmp_path / "card0" / "device" / "vendor").write_text("0x8086\n")
    assert xpu.intel_gpu_listed(tmp_path) is True


def test_xpu_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    monkeypatch.setattr(xpu, "intel_gpu_listed", lambda: False)
    monkeypatch.setattr(xpu, "torch_has_library", lambda _name: True)
    assert str(targets.get("xpu").probe().reason) == "no Intel GPU or driver"
    monkeypatch.setattr(xpu, "intel_gpu_listed", lambda: True)
    assert targets.get("xpu").probe().available
    device = FakeDevice(available=False)
    device._is_compiled = lambda: False  # type: ignore[attr-defined]  # as torch.xpu names it
    fake_torch(monkeypatch, xpu=device)
    assert str(targets.get("xpu").probe().reason) == "torch was built without XPU support"


def test_mps_needs_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "is_apple_silicon", lambda: False)
    fake_torch(monkeypatch)
    assert str(targets.get("mps").probe().reason) == "needs a Mac with Apple silicon"
    without_torch(monkeypatch)
    assert str(targets.get("mps").probe().reason) == "needs a Mac with Apple silicon"


def test_mps_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "is_apple_silicon", lambda: True)
    monkeypatch.setattr(mps, "cpu_name", lambda: "Apple M4")
    monkeypatch.setattr(mps, "sysctl", lambda _name: str(16 << 30))
    without_torch(monkeypatch)
    assert targets.get("mps").probe().memory_bytes == 16 << 30
    torch = fake_torch(monkeypatch, mps=SimpleNamespace(recommended_max_memory=lambda: 12 << 30, synchronize=lambda: None))
    assert str(targets.get("mps").probe().reason) == "torch was built without MPS"
    torch.backends.mps.is_available = lambda: True
    facts = targets.get("mps").probe()
    assert (facts.name, facts.memory_bytes) == ("Apple M4", 12 << 30)
    assert targets.get("mps").peak_bytes() is None


def test_torch_that_another_thread_is_importing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    half = SimpleNamespace(__spec__=SimpleNamespace(_initializing=True, submodule_search_locations=[]))  # no .cuda yet
    monkeypatch.setitem(sys.modules, "torch", half)
    monkeypatch.setattr(cuda, "ask_nvml", lambda: None)
    assert targets.get("cuda").probe().available is False
