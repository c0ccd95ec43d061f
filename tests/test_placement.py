"""Weights laid anew in memory: the same values under the same addresses, on other pages, whatever they are made of."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.execution import placement

LINUX = sys.platform.startswith("linux")
PAGE = resource.getpagesize()


@pytest.fixture(autouse=True)
def moves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine whose kernel makes no huge pages by itself."""
    monkeypatch.setattr(placement, "can_renew", lambda: LINUX)
    return


class Made(torch.Tensor):
    """A tensor made of two others, as quantized ones are."""

    values: torch.Tensor
    scales: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor, scales: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=torch.float32)

    def __init__(self, values: torch.Tensor, scales: torch.Tensor) -> None:
        self.values, self.scales = values, scales

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values", "scales"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.ops.aten.detach.default else NotImplemented


def large(rows: int = 300) -> torch.Tensor:
    return torch.randn(rows, 1024)


def test_values_and_addresses_stay_and_the_pages_are_others() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1024, 512), torch.nn.Linear(512, 8))
    model.register_buffer("table", large())
    given = torch.randn(3, 1024)
    before = model(given)
    where = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        moved = placement.renew(model)
        assert moved == (0 if not LINUX else pytest.approx(4 * (1024 * 512 + 300 * 1024), abs=4 * PAGE))
    fresh = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    assert fresh >= 3 * moved // PAGE
    assert [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())] == where
    assert torch.equal(model(given), before)
    model(given).sum().backward()  # they can still be written to
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert not torch.equal(model(given), before)


def test_tied_weights_are_moved_once_and_small_ones_not_at_all() -> None:
    model = torch.nn.Module()
    model.one = torch.nn.Parameter(large())
    model.other = torch.nn.Parameter(model.one.data[:100])
    model.small = torch.nn.Parameter(torch.zeros(10))
    length = model.one.untyped_storage().nbytes()
    assert placement.renew(model) == (pytest.approx(length, abs=2 * PAGE) if LINUX else 0)
    assert model.other.data_ptr() == model.one.data_ptr()
    assert torch.equal(model.other, model.one[:100])


def test_what_a_tensor_is_made_of_is_moved() -> None:
    model = torch.nn.Module()
    values, scales = torch.randint(-9, 9, (300, 1024), dtype=torch.int8), torch.ones(300, 1024)
    kept = values.clone()
    model.weight = torch.nn.Parameter(Made(values, scales), requires_grad=False)
    length = 300 * 1024 * 5
    assert placement.renew(model) == (pytest.approx(length, abs=4 * PAGE) if LINUX else 0)
    assert torch.equal(values, kept)


def test_weights_in_a_mapped_file_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    large().numpy().tofile(path)
    for shared in (False, True):
        model = torch.nn.Module()
        mapped = torch.from_file(str(path), shared=shared, size=300 * 1024)
        model.weight = torch.nn.Parameter(mapped, requires_grad=False)
        assert placement.renew(model) == 0


def test_a_move_that_the_kernel_refuses_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    if not LINUX:
        assert placement.renew(torch.nn.Linear(512, 512)) == 0
        return
    plain = placement._libc()

    class Refusing:
        """Lets go of the old pages and then refuses, which is the worst that it might do."""

        mmap, munmap = plain.mmap, plain.munmap

        def mremap(self, _other: int, length: int, _new: int, _flags: int, start: int) -> int:
            assert plain.munmap(start, length) == 0
            return placement._FAILED or 0

    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(large())
    kept = model.weight.clone()
    monkeypatch.setattr(placement, "_libc", Refusing)
    assert placement.renew(model) == 0
    assert torch.equal(model.weight, kept)


def test_no_memory_for_a_move_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def mmap(self, *_: int) -> int | None:
            return placement._FAILED

    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(large())
    monkeypatch.setattr(placement, "_libc", Full)
    assert placement.renew(model) == 0


def test_huge_pages_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    for said, can in (("always [madvise] never", LINUX), ("[always] madvise never", False), (None, LINUX)):
        file = tmp_path / "enabled"
        file.unlink(missing_ok=True)
        if said is not None:
            file.write_text(said, encoding="ascii")
        monkeypatch.setattr(placement, "HUGE_PAGES", file)
        placement.can_renew.cache_clear()
        assert placement.can_renew() is can
    placement.can_renew.cache_clear()
