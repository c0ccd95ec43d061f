"""The whole catalogue: any passes together either run sensibly or are refused in a sentence, and leave nothing behind."""

from __future__ import annotations

import random

import pytest

from benchmarks.toggles import ARCHITECTURES, SLOW, Toggling, random_options
from core.config import PassConfig
from core.pass_api.base import passes
from core.pass_api.options import parse

SUBSETS = 12


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_random_subsets_of_passes_run_or_are_refused(name: str) -> None:
    chance = random.Random(name)
    model = Toggling(f"{name}?{ARCHITECTURES[name]}")
    usable = [one for one in passes if one.id not in SLOW]
    ran = 0
    try:
        for number in range(SUBSETS):
            chosen = chance.sample(usable, 1 + number % 4)
            ran += model.toggle([PassConfig(one.id, random_options(one, chance)) for one in chosen])
    finally:
        model.holder.unload()
    assert ran > 0
    for sentence in model.refused.values():
        assert not sentence[0].islower()
        assert sentence.rstrip().endswith((".", "?"))


@pytest.mark.parametrize("one", [one.id for one in passes])
def test_every_pass_describes_itself(one: str) -> None:
    known = passes.get(one)
    assert known.title
    assert 10 < len(known.summary) < 100
    assert not known.summary.endswith(".")
    assert known.phase.title
    options = parse(known, {})
    assert options == {} if known.options is None else isinstance(options, known.options)
