"""Numbers as people read them."""

from __future__ import annotations

import pytest

from core import units


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "—"),
        (0, "0 ns"),
        (640, "640 ns"),
        (12_345, "12.3 µs"),
        (41_600_000, "41.6 ms"),
        (999_700, "1.00 ms"),
        (999_700_000, "1.00 s"),
        (1_204_000_000, "1.20 s"),
        (59_960_000_000, "60.0 s"),
        (125_000_000_000, "2 min 5 s"),
        (-1_500_000, "-1.50 ms"),
    ],
)
def test_durations_take_the_unit_that_reads_best(ns: float | None, text: str) -> None:
    assert units.duration(ns) == text


def test_a_difference_always_carries_its_sign() -> None:
    assert units.signed_duration(1_200_000) == "+1.20 ms"
    assert units.signed_duration(-340_000) == "−340 µs"
    assert units.signed_duration(None) == "—"


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "—"), (0, "0 B"), (512, "512 B"), (612 << 20, "612 MiB"), (1023.9 * 1024, "1.00 MiB"), (24 << 30, "24.0 GiB")],
)
def test_sizes_count_in_1024s(size: float | None, text: str) -> None:
    assert units.size(size) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (0, "0"), (8192, "8192"), (134_515_008, "134.5 M"), (999_960, "1.0 M")]
)
def test_counts(value: float | None, text: str) -> None:
    assert units.count(value) == text


def test_rates_shares_and_ratios() -> None:
    assert units.rate(84.8) == "84.8 tok/s"
    assert units.rate(1234.5) == "1234 tok/s"
    assert units.rate(None) == "—"
    assert units.percent(0.437) == "43.7 %"
    assert units.signed_percent(1.004) == "+0.4 %"
    assert units.signed_percent(0.98) == "−2.0 %"
    assert units.signed_percent(0.99999) == "+0.0 %"
    assert units.ratio(1.234) == "1.23×"
    assert [f(None) for f in (units.percent, units.signed_percent, units.ratio, units.clock)] == ["—"] * 4


def test_number_and_unit_come_apart_for_large_figures() -> None:
    assert units.split_duration(41_600_000) == ("41.6", "ms")
    assert units.split_size(612 << 20) == ("612", "MiB")
    assert units.split_rate(84.8) == ("84.8", "tok/s")
    assert units.split_duration(None) == ("—", "")


@pytest.mark.parametrize(("seconds", "text"), [(21, "0:21"), (725, "12:05"), (3723, "1:02:03"), (-1, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert units.clock(seconds) == text
