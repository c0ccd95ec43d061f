"""Verdicts: how often they are false, what they find, and what they say while they cannot tell. All noise is seeded."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from core.analysis.alpha_spending import alpha_spent, levels, looks
from core.analysis.metrics import judged
from core.analysis.samples import RequestTimes, request_times
from core.analysis.signed_rank import hodges_lehmann, signed_rank_cutoff
from core.analysis.stopping import clean_rounds, stretches
from core.analysis.verdict import NO_FLOOR, differences, floors_of, judge, layer_verdicts
from core.config import WorkloadConfig
from core.records.run import Run
from profilers.trace import Array, Recorder, Tag, Trace
from tests.support.trials import MS, Noise, gaussian, synthetic_trial

ROUNDS = 60
CLEAN = clean_rounds(ROUNDS)
TRIALS = 400
ALPHA = 0.02
SIZES = looks(CLEAN, ALPHA)
LEVELS = levels(SIZES, tuple(alpha_spent(size, CLEAN, ALPHA) for size in SIZES))


def heavy(rng: np.random.Generator, n: int) -> Array:
    """4 % of noise with Student's tails, and one request in twenty struck by something else."""
    return 0.04 / math.sqrt(3) * rng.standard_t(3, n) + (rng.random(n) < 0.05) * rng.exponential(0.3, n)


def correlated(rng: np.random.Generator, n: int) -> Array:
    """4 % of noise that lasts: a correlation of a half from request to request."""
    steps = rng.normal(0, 0.04 * math.sqrt(1 - 0.5**2), n)
    for place in range(1, n):
        steps[place] += 0.5 * steps[place - 1]
    return steps


def drifting(rng: np.random.Generator, n: int) -> Array:
    """A machine that slows down by half over the trial, ever faster, under 2 % of noise."""
    return rng.normal(0, 0.02, n) + 0.3 * np.linspace(0, 1, n) + 0.1 * np.linspace(0, 1, n) ** 2


def waving(rng: np.random.Generator, n: int) -> Array:
    """A clock that goes up and down by 5 % every 22 rounds."""
    return rng.normal(0, 0.02, n) + 0.05 * np.sin(np.arange(n) / 7 + rng.uniform(0, 6))


def decided_share(noise: Noise, planted: float, trials: int = TRIALS) -> float:
    """How many of so many trials of clean rounds reach any verdict at any look, with no floor to help."""
    rng = np.random.default_rng(3)
    turn = np.where(np.arange(CLEAN) % 2 == 0, 1, -1)
    found = 0
    for _ in range(trials):
        pairs = noise(rng, 2 * CLEAN).reshape(CLEAN, 2)
        values = turn * (pairs[:, 1] - pairs[:, 0]) + planted
        bounds = (hodges_lehmann(values[:size], level) for size, level in zip(SIZES, LEVELS, strict=True))
        found += any(one.low is not None and one.high is not None and (one.low > 0 or one.high < 0) for one in bounds)
    return found / trials


@pytest.mark.parametrize("noise", [gaussian(0.04), heavy, correlated, drifting, waving])
def test_sides_that_are_alike_are_told_apart_in_at_most_one_of_twenty_trials(noise: Noise) -> None:
    assert decided_share(noise, 0.0) <= 0.05


@pytest.mark.parametrize("noise", [gaussian(0.04), heavy, drifting])
def test_three_percent_under_four_percent_of_noise_is_found_in_four_of_five_trials(noise: Noise) -> None:
    assert decided_share(noise, math.log(1.03)) >= 0.8


def test_all_metrics_together_keep_to_five_percent() -> None:
    """Whole runs, judged after every round as a trial is: any false word about any metric counts."""
    false = 0
    for seed in range(40):
        runs = synthetic_trial((1.0, 1.0), rounds=24, noise=gaussian(0.04), seed=seed)
        words = {
            verdict.word
            for rounds in range(1, 25)
            for verdict in judge([_first_rounds(run, rounds) for run in runs], {}, 24)[0].metrics.values()
        }
        false += words != {"can't tell"}
    assert false <= 2


def test_every_side_gets_its_own_verdict_as_soon_as_the_first_look_allows() -> None:
    runs = synthetic_trial((1.0, 0.8, 1.3), rounds=16)
    found = judge(runs, {}, ROUNDS)
    assert [side.side for side in found] == [1, 2]
    assert [side.metrics["tpot_ns"].word for side in found] == ["faster", "slower"]
    assert tuple(found[0].metrics) == ("tpot_ns", "ttft_ns", "e2e_ns")
    verdict = found[0].metrics["tpot_ns"]
    assert verdict.ratio == pytest.approx(0.8, rel=0.02)
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < verdict.ratio < verdict.high < 1
    assert (verdict.n, verdict.decided, verdict.hopeless) == (12, True, False)
    assert "after 11 clean rounds" in str(verdict.why)
    assert str(NO_FLOOR) in str(verdict.why)
    assert found[0].main == verdict


def test_before_the_first_look_nothing_is_decided_however_plain_it_seems() -> None:
    runs = [_first_rounds(run, 12) for run in synthetic_trial((1.0, 0.5), rounds=16)]
    verdict = judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"]
    assert (verdict.word, verdict.n, verdict.decided) == ("can't tell", 9, False)
    assert verdict.ratio == pytest.approx(0.5, rel=0.02)
    assert "first look is after 11" in str(verdict.why)


def test_a_trial_that_ended_is_looked_at_once_more() -> None:
    runs = [_first_rounds(run, 12) for run in synthetic_trial((1.0, 0.5), rounds=16)]
    assert judge(runs, {}, ROUNDS, ended=True)[0].metrics["tpot_ns"].word == "faster"
    assert judge(runs, {}, 12)[0].metrics["tpot_ns"].word == "faster"  # its cap is reached


def test_nothing_measured_is_none_and_says_so() -> None:
    runs = [replace(run, trace=Trace()) for run in synthetic_trial(rounds=4)]
    verdict = judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"]
    assert (verdict.ratio, verdict.low, verdict.high, verdict.n) == (None, None, None, 0)
    assert not verdict.hopeless


def test_a_difference_within_the_floor_is_not_told() -> None:
    runs = synthetic_trial((1.0, 1.04), rounds=ROUNDS, noise=gaussian(0.01))
    assert judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"].word == "slower"
    verdict = judge(runs, {"tpot_ns": 0.06}, ROUNDS)[0].metrics["tpot_ns"]
    assert (verdict.word, verdict.hopeless, verdict.floor) == ("can't tell", True, 0.06)
    assert "no difference of more than" in str(verdict.why)
    assert str(NO_FLOOR) not in str(verdict.why)


def test_a_narrow_interval_around_one_is_hopeless_and_says_how_small_the_difference_is() -> None:
    runs = synthetic_trial((1.0, 1.0), rounds=32, noise=gaussian(0.004))
    verdict = judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"]
    assert (verdict.word, verdict.hopeless) == ("can't tell", True)
    assert "no difference of more than 0." in str(verdict.why)


def test_a_small_difference_in_much_noise_is_given_up() -> None:
    runs = synthetic_trial((1.0, 1.0), rounds=50, noise=gaussian(0.2), seed=2)
    verdict = judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"]
    assert (verdict.word, verdict.hopeless) == ("can't tell", True)
    assert "hardly be told within 60 rounds" in str(verdict.why)


def test_between_two_looks_the_word_stands_and_the_interval_follows() -> None:
    whole = synthetic_trial((1.0, 0.9), rounds=24)
    at, after = (judge([_first_rounds(run, rounds) for run in whole], {}, ROUNDS)[0].metrics["tpot_ns"] for rounds in (14, 16))
    assert (at.n, after.n) == (11, 12)
    assert at.word == after.word == "faster"
    assert at.why == after.why
    assert (at.low, at.high) != (after.low, after.high)


def test_floors_cover_what_a_trial_of_equals_cannot_rule_out() -> None:
    floors = floors_of(synthetic_trial((1.0, 1.0), rounds=24, noise=gaussian(0.02)))
    assert tuple(floors) == ("tpot_ns", "ttft_ns", "e2e_ns")
    assert all(0.002 < floor < 0.05 for floor in floors.values())
    assert floors_of(synthetic_trial((1.0, 1.0), rounds=24, noise=gaussian(0.002)))["tpot_ns"] < floors["tpot_ns"]
    assert floors_of(synthetic_trial((1.0, 1.0), rounds=6)) == {}


def test_encoders_are_judged_by_the_whole_call() -> None:
    runs = [_encoder(scale) for scale in (1.0, 0.7)]
    (side,) = judge(runs, {}, ROUNDS)
    assert tuple(side.metrics) == ("e2e_ns",)
    assert side.metrics["e2e_ns"].word == "faster"


def test_one_new_token_has_no_time_per_further_token() -> None:
    runs = synthetic_trial((1.0, 0.7), rounds=20, new_tokens=1)
    assert tuple(judge(runs, {}, ROUNDS)[0].metrics) == ("ttft_ns", "e2e_ns")


# -- what a request's value is made of ---------------------------------------------------------------------------------


def test_a_request_counts_by_its_calm_moments_only() -> None:
    run = _tagged_decode([0, Tag.PERTURBED, Tag.SETTLING, Tag.GC])
    times = request_times(run)
    assert times.tpot_ns.tolist() == [10 * MS]
    assert times.ttft_ns.tolist() == [100 * MS]
    assert times.e2e_ns.tolist() == [100 * MS + 4 * 10 * MS]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([Tag.SETTLING, Tag.PERTURBED], 10 * MS),  # settling is better than perturbed
        ([Tag.PERTURBED, Tag.PERTURBED], 15 * MS),  # better than nothing
        ([Tag.GC, Tag.COMPILE], None),  # never
    ],
)
def test_the_next_best_moments_stand_in(tags: list[Tag], expected: int | None) -> None:
    (value,) = request_times(_tagged_decode(tags)).tpot_ns
    assert math.isnan(value) if expected is None else value == expected


def test_a_request_that_was_cut_short_has_no_value() -> None:
    first, _ = synthetic_trial(rounds=2)
    requests = {name: column.copy() for name, column in first.trace.requests.items()}
    requests["output_tokens"][-1] -= 2
    times = request_times(replace(first, trace=replace(first.trace, requests=requests)))
    assert np.isnan(times.e2e_ns).tolist() == [False, True]


def test_traced_rounds_have_no_headline_value_and_profiled_requests_are_no_rounds() -> None:
    run, _ = synthetic_trial(rounds=8)
    assert np.isnan(request_times(run).tpot_ns).tolist() == [False, False, False, True] * 2
    requests = {name: column.copy() for name, column in run.trace.requests.items()}
    requests["tags"][-1] |= int(Tag.PROFILED)
    assert len(request_times(replace(run, trace=replace(run.trace, requests=requests))).tpot_ns) == 7


# -- layers ------------------------------------------------------------------------------------------------------------


def test_the_layer_that_changed_is_named() -> None:
    runs = synthetic_trial((1.0, 1.0), rounds=32, layer_ratios=(1, 1, 0.5, 1))
    found = {(one.path, one.kind): one for one in layer_verdicts(runs)}
    mlp = found["model.layers.0.mlp", "decode"]
    assert mlp.word == "faster"
    assert mlp.ratio == pytest.approx(0.5, rel=0.03)
    assert mlp.low is not None
    assert mlp.high is not None
    assert mlp.low < mlp.ratio < mlp.high < 1
    assert (mlp.side, mlp.stage, mlp.n) == (1, "mlp", 8)
    assert mlp.b_ns / mlp.a_ns == pytest.approx(0.5, rel=0.05)
    assert {one.word for one in found.values() if one.path != "model.layers.0.mlp"} == {"can't tell"}
    assert len(found) == 8  # four layers in prefill and decode


def test_layers_that_are_alike_are_seldom_told_apart() -> None:
    """All layers of a request share its noise, so they err together: counted are trials with any error, of 100."""
    erring = [
        seed
        for seed in range(100)
        if any(
            one.word != "can't tell"
            for one in layer_verdicts(synthetic_trial((1.0, 1.0), rounds=20, seed=seed, noise=gaussian(0.03)))
        )
    ]
    assert len(erring) <= 5


def test_two_traced_rounds_are_too_few() -> None:
    found = layer_verdicts(synthetic_trial((1.0, 0.5), rounds=8))
    assert {(one.low, one.high, one.word) for one in found} == {(None, None, "can't tell")}
    assert layer_verdicts(synthetic_trial((1.0, 0.5), rounds=3)) == []


def test_a_layer_within_the_floor_is_not_told_apart() -> None:
    runs = synthetic_trial((1.0, 1.0), rounds=40, layer_ratios=(1, 1, 0.9, 1), noise=gaussian(0.002))
    words = [
        {one.path: one.word for one in layer_verdicts(runs, floors) if one.kind == "decode"}["model.layers.0.mlp"]
        for floors in ({}, {"tpot_ns": 0.2})
    ]
    assert words == ["faster", "can't tell"]


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_the_interval_of_signed_ranks_agrees_with_tables() -> None:
    """Critical values of Wilcoxon's statistic at 5 and 1 %, two-sided (as printed for n = 6, 10, 20, 25)."""
    assert [signed_rank_cutoff(n, 0.05) for n in (5, 6, 10, 20, 25)] == [0, 1, 9, 53, 90]
    assert [signed_rank_cutoff(n, 0.01) for n in (7, 8, 10, 20, 25)] == [0, 1, 4, 38, 69]
    assert abs(signed_rank_cutoff(120, 0.05) - signed_rank_cutoff(121, 0.05)) < 80  # exact below, approximate above: no jump


def test_the_middle_is_that_of_means_of_two() -> None:
    values = np.array([1.0, 2.0, 10.0])
    found = hodges_lehmann(values, 0.6)
    assert found.estimate == np.median([1, 1.5, 2, 5.5, 6, 10])
    assert hodges_lehmann(values, 0.05).low is None


def test_looks_are_fixed_beforehand_and_no_risk_is_spent_where_nothing_can_be_proved() -> None:
    assert SIZES[0] == 11
    assert SIZES[-1] == CLEAN
    assert list(SIZES) == sorted(set(SIZES))
    assert looks(3, 0.02) == (3,)
    assert alpha_spent(CLEAN, CLEAN, ALPHA) == ALPHA


def test_one_look_spends_all_and_more_looks_cost_less_than_a_plain_split() -> None:
    assert levels((20,), (0.05,)) == (pytest.approx(0.05, rel=1e-3),)
    many = levels((10, 20, 30, 40), (0.0125, 0.025, 0.0375, 0.05))
    assert many[0] == pytest.approx(0.0125, rel=1e-3)
    assert all(level > 0.0125 for level in many[1:])


def _first_rounds(run: Run, rounds: int) -> Run:
    """The run as it was after so many rounds (its first request is warm-up)."""
    requests = {name: column[: rounds + 1] for name, column in run.trace.requests.items()}
    kept = run.trace.moments["request"] <= rounds
    moments = {name: column[kept] for name, column in run.trace.moments.items()}
    return replace(run, trace=replace(run.trace, requests=requests, moments=moments))


def _tagged_decode(tags: list[Tag | int]) -> Run:
    """One request of a first token and a gap for each tag, of 10 ms, 20 ms and so on."""
    recorder = Recorder()
    recorder.requests.append(tags=0, start_ns=0, tokenize_ns=-1, end_ns=1, input_tokens=5, output_tokens=1 + len(tags))
    latencies = [100, *(10 * (place + 1) for place in range(len(tags)))]
    for step, (latency, tag) in enumerate(zip(latencies, [0, *tags], strict=True)):
        recorder.moments.append(
            request=0,
            kind=0 if step == 0 else 2,
            step=step,
            tags=int(Tag.CLEAN | tag),
            duration_ns=latency * MS,
            latency_ns=latency * MS,
        )
    first, _ = synthetic_trial(rounds=1)
    return replace(first, trace=recorder.snapshot())


def _encoder(scale: float) -> Run:
    recorder = Recorder()
    rng = np.random.default_rng(int(10 * scale))
    for request in range(14):
        recorder.requests.append(tags=0, start_ns=0, tokenize_ns=MS, end_ns=1, input_tokens=5, output_tokens=1)
        latency = int(20 * MS * scale * rng.normal(1, 0.01))
        recorder.moments.append(request=request, kind=4, step=0, tags=int(Tag.CLEAN), duration_ns=latency, latency_ns=latency)
    first, _ = synthetic_trial(rounds=1)
    config = replace(first.config, workload=WorkloadConfig())
    return replace(first, config=config, trace=recorder.snapshot())


def test_an_unequal_number_of_requests_is_cut_to_whole_rounds() -> None:
    a, b = synthetic_trial((1.0, 0.8), rounds=16)
    verdict = judge((a, _first_rounds(b, 14)), {}, ROUNDS)[0].metrics["tpot_ns"]
    assert verdict.n == 11
    assert RequestTimes().ttft_ns.size == 0


def test_a_long_request_is_compared_in_stretches_of_its_tokens() -> None:
    """Of a request of 65 tokens, twice as slow on side B in the last quarter, each stretch has its own ratio."""
    runs = synthetic_trial((1.0, 1.0), rounds=3, noise=gaussian(0.0), new_tokens=65)
    other = runs[1]
    moments = dict(other.trace.moments)
    late = moments["step"] > 48
    moments["latency_ns"] = np.where(late, 2 * moments["latency_ns"], moments["latency_ns"])
    slowed = replace(other, trace=replace(other.trace, moments=moments))
    times = [request_times(run, 4) for run in (runs[0], slowed)]
    assert times[0].stretch_ns.shape == (3, 4)
    tpot = judged()[0].judged
    found = np.exp(differences(times[0], times[1], tpot))
    assert found.reshape(3, 4)[0] == pytest.approx([1, 1, 1, 2])
    whole = np.exp(differences(request_times(runs[0]), request_times(slowed), tpot))
    assert whole == pytest.approx([1.25] * 3)


def test_stretches_are_counted_in_tokens_where_guesses_came_true() -> None:
    """Each moment gives two tokens or one: the middle of the tokens is not that of the moments."""
    (run, _) = synthetic_trial(rounds=1, new_tokens=7)
    moments = dict(run.trace.moments)
    requests = dict(run.trace.requests)
    measured = moments["request"] == 1
    moments["accepted"] = np.where(measured & (moments["step"] > 3), 1, 0)
    requests["output_tokens"] = np.array([7, 10])
    moments["latency_ns"] = np.where(measured, moments["step"] + 1, 1) * 100
    times = request_times(replace(run, trace=replace(run.trace, moments=moments, requests=requests)), 3)
    # gaps of steps 1 to 6 give 1 1 1 2 2 2 tokens in 200 300 400 500 600 700 ns
    assert times.stretch_ns[0] == pytest.approx([900 / 3, 500 / 2, 1300 / 4])


def test_more_stretches_find_what_fewer_rounds_show() -> None:
    runs = synthetic_trial((1.0, 0.9), rounds=8, noise=gaussian(0.002), new_tokens=65)
    assert judge(runs, {}, ROUNDS)[0].metrics["tpot_ns"].looked is False
    verdict = judge(runs, {}, ROUNDS, 4)[0].metrics["tpot_ns"]
    assert (verdict.word, verdict.n) == ("faster", 24)
    assert "stretches of tokens" in str(verdict.why)
    assert judge(runs, {}, ROUNDS, 4)[0].metrics["ttft_ns"].n == 6


@pytest.mark.parametrize(
    ("new_tokens", "most_rounds", "parts"),
    [(1, 60, 1), (16, 60, 1), (32, 60, 1), (33, 60, 2), (64, 60, 3), (129, 60, 8), (4096, 60, 8), (4096, 1000, 1)],
)
def test_stretches_are_long_enough_and_not_too_many(new_tokens: int, most_rounds: int, parts: int) -> None:
    assert stretches(new_tokens, most_rounds) == parts


@pytest.mark.parametrize("lasting", [0.0, 0.5, 0.98])
def test_stretches_tell_no_equals_apart_however_long_the_noise_lasts(lasting: float) -> None:
    """The machine's noise from token to token, correlated by ``lasting``, as the sides meet it in turns A B B A."""
    most, tokens, trials = 3 * CLEAN, 16, 600
    rng = np.random.default_rng(2)
    sizes = looks(most, ALPHA)
    risks = levels(sizes, tuple(alpha_spent(size, most, ALPHA) for size in sizes))
    noise = rng.normal(0, 1, (2 * tokens * most, trials))
    noise[1:] *= math.sqrt(1 - lasting**2)
    for place in range(1, len(noise)):
        noise[place] += lasting * noise[place - 1]
    turns = noise.reshape(most, tokens // 2, 4, trials)
    values = (turns[:, :, 1] + turns[:, :, 2] - turns[:, :, 0] - turns[:, :, 3]).mean(axis=1)
    false = 0
    for one in values.T:
        bounds = (hodges_lehmann(one[:size], level) for size, level in zip(sizes, risks, strict=True))
        false += any(bound.low is not None and bound.high is not None and bound.low * bound.high > 0 for bound in bounds)
    assert false / trials <= 0.04
