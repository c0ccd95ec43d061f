"""When two texts are said to disagree: hardly ever where they cost the same, and mostly where one costs far more."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from core.analysis import quality as measures
from core.analysis.quality_headline import FALSE_ALARMS, disagreements
from core.analysis.two_samples import apart, fisher_risk, welch_risk
from core.records.run import Estimate, Quality

TRIALS = 1000

# -- the tests themselves, against tables ---------------------------------------------------------------------------------


def test_welch_s_t() -> None:
    """Of 2.776 standard errors with four degrees of freedom, 5 %; the freedom by Welch and Satterthwaite, rounded down."""
    assert welch_risk(2.7764, (math.sqrt(0.5), 3), (math.sqrt(0.5), 3)) == pytest.approx(0.05, abs=1e-4)
    assert welch_risk(1.0, (0.3, 4), (0.4, 4)) == pytest.approx(0.1019, abs=1e-4)  # t = 2 of 5.57, so 5 degrees
    assert welch_risk(12.706, (1.0, 2), (0.0, 30)) == pytest.approx(0.05, abs=1e-4)  # one that scatters decides alone
    assert welch_risk(1.96, (1.0, 10**9), (0.0, 10**9)) == pytest.approx(0.05, abs=2e-3)
    assert welch_risk(2.2010, (1.0, 100), (1e-9, 12), skewed=True) == pytest.approx(0.05, abs=1e-4)  # 11 degrees
    assert welch_risk(0.0, (0.0, 4), (0.0, 4)) == 1
    assert welch_risk(0.1, (0.0, 4), (0.0, 4)) == 0


def test_fisher_s_exact_test() -> None:
    assert fisher_risk((3, 4), (1, 4)) == pytest.approx(34 / 70)  # the lady who tasted tea, two-sided
    assert fisher_risk((1, 10), (11, 14)) == pytest.approx(0.0027594, rel=1e-4)
    assert fisher_risk((0, 512), (4, 256)) == pytest.approx(math.comb(256, 4) / math.comb(768, 4))
    assert fisher_risk((5, 5), (7, 7)) == 1
    assert fisher_risk((0, 5), (0, 7)) == 1


def test_several_at_once() -> None:
    assert apart({"a": 0.012, "b": 0.03, "c": 0.02, "d": 0.5}, 0.05) == {"a"}  # 0.05/4; 0.02 is more than 0.05/3
    assert apart({"a": 0.012, "b": 0.016, "c": 0.02}, 0.05) == {"a", "b", "c"}
    assert apart({}, 0.05) == set()


# -- simulated texts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """How positions scatter: log costs about their window, windows about the text, and how seldom a first choice changes."""

    window: float
    position: float
    changed: float


WORLDS = {
    "independent positions": World(0.0, 1.0, 0.05),
    "windows that differ": World(0.5, 1.5, 0.03),
    "windows that differ much": World(1.0, 1.0, 0.1),
    "hardly any change": World(0.5, 2.5, 0.003),
}
Sizes = tuple[tuple[int, int], tuple[int, int]]
USUAL: tuple[Sizes, Sizes] = (((4, 128), (3, 32)), ((4, 64), (2, 32)))
LONG: tuple[Sizes, Sizes] = (((16, 128), (3, 32)), ((8, 64), (2, 32)))
"""Windows and positions of both texts, read in one go and decoded: as they are laid out by default, and of longer texts."""


def figures(
    world: World, sizes: tuple[tuple[int, int], ...], generator: torch.Generator, cost: float = 1.0
) -> dict[str, Estimate]:
    """What is measured of one text. Decoding goes along the windows that are read in one go, so the two are alike."""
    found: dict[str, Estimate] = {}
    levels = cost * (world.window * torch.randn(sizes[0][0], 1, generator=generator, dtype=torch.float64)).exp()
    for prefix, (windows, positions) in zip(("", "decode_"), sizes, strict=True):
        level = levels[:windows]
        scatter = torch.randn(windows, positions, generator=generator, dtype=torch.float64)
        kld = 0.01 * level * (world.position * scatter).exp()
        changed = torch.rand(windows, positions, generator=generator, dtype=torch.float64) < world.changed * level
        scores = measures.Scores(kld.flatten(), (~changed).double().flatten(), windows=(positions,) * windows)
        told = measures.language_figures(scores)
        found |= {f"{prefix}{name}": told[name] for name in ("kld_mean", "same_top")}
    return found


def pair(world: World, sizes: tuple[Sizes, Sizes], generator: torch.Generator, cost: float = 1.0) -> Quality:
    first, second = figures(world, sizes[0], generator), figures(world, sizes[1], generator, cost)
    return Quality({**first, **{f"second_{name}": one for name, one in second.items()}})


def two_errors_apart(quality: Quality) -> bool:
    """The rule of before: any figure beyond two standard errors of the difference."""
    named = {name: one for name, one in quality.figures.items() if not name.startswith("second_")}
    both = [(one, quality.figures[f"second_{name}"]) for name, one in named.items()]
    return any(abs(a.value - b.value) > 2 * math.hypot(a.error or 0, b.error or 0) for a, b in both)


@pytest.mark.parametrize("sizes", [USUAL, LONG], ids=["usual", "long"])
@pytest.mark.parametrize("name", WORLDS)
def test_texts_that_cost_the_same_are_hardly_ever_said_to_disagree(name: str, sizes: tuple[Sizes, Sizes]) -> None:
    generator = torch.Generator().manual_seed(5)
    made = [pair(WORLDS[name], sizes, generator) for _ in range(TRIALS)]
    assert sum(bool(disagreements(one)) for one in made) <= FALSE_ALARMS * TRIALS
    assert sum(map(two_errors_apart, made)) > 2 * FALSE_ALARMS * TRIALS  # what is simulated is no easy case


@pytest.mark.parametrize("scatter", [0.3, 0.5, 1.0])
def test_sentences_that_cost_the_same_are_hardly_ever_said_to_disagree(scatter: float) -> None:
    generator = torch.Generator().manual_seed(6)

    def cosines(n: int) -> Estimate:
        return measures.mean(1 - 0.01 * (scatter * torch.randn(n, generator=generator, dtype=torch.float64)).exp())

    made = [Quality({"cosine_mean": cosines(24), "second_cosine_mean": cosines(12)}) for _ in range(TRIALS)]
    assert sum(bool(disagreements(one)) for one in made) <= FALSE_ALARMS * TRIALS


def test_a_text_that_costs_ten_times_as_much_is_told() -> None:
    generator = torch.Generator().manual_seed(7)
    made = [pair(WORLDS["windows that differ"], USUAL, generator, 10.0) for _ in range(200)]
    assert sum("kld_mean" in disagreements(one) for one in made) > 0.8 * 200


# -- what cannot be told --------------------------------------------------------------------------------------------------


def test_what_does_not_say_how_many_windows_it_rests_on_is_left_out() -> None:
    apart_by_far = Estimate(0.01, 0.0001, 512, 4), Estimate(0.2, 0.0001, 256, 4)

    def of(one: Estimate, other: Estimate, name: str = "kld_mean") -> set[str]:
        return set(disagreements(Quality({name: one, f"second_{name}": other})))

    assert of(*apart_by_far) == {"kld_mean"}
    for changed in ({"windows": None}, {"windows": 1}, {"error": None}, {"value": math.nan}, {"error": math.inf}):
        assert of(apart_by_far[0], replace(apart_by_far[1], **changed)) == set()  # type: ignore[arg-type]
    for nonsense in ({"n": None}, {"n": 0}, {"n": 10**15}, {"value": 7.0}):
        assert of(apart_by_far[0], replace(apart_by_far[1], **nonsense), "same_top") == set()  # type: ignore[arg-type]
    assert of(*apart_by_far, "same_top") == {"same_top"}


def test_a_handful_of_windows_that_happen_to_be_alike_is_no_proof() -> None:
    """Four windows of which each has one changed choice, against four without one: no scatter at all, and yet little to say."""
    quality = Quality({"same_top": Estimate(1.0, 0.0, 128, 4), "second_same_top": Estimate(1 - 4 / 64, 0.0, 64, 4)})
    assert welch_risk(4 / 64, (0.0, 4), (0.0, 4)) == 0
    assert fisher_risk((128, 128), (60, 64)) == pytest.approx(math.comb(64, 4) / math.comb(192, 4), rel=1e-6)
    assert set(disagreements(quality)) == {"same_top"}
    fewer = Quality({"same_top": Estimate(1.0, 0.0, 64, 2), "second_same_top": Estimate(1 - 2 / 64, 0.0, 64, 2)})
    assert disagreements(fewer) == {}
