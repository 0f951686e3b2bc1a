"""Chance over seeds and items: beside scipy, how often equal methods are called different, how often an interval misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from metric_runs import compare_methods, measure_over_seeds
from scipy import stats

from staf.errors import BadData, UnknownName
from staf.metrics.by_output_type import compute_metrics
from staf.metrics.stats import StandardError, Statistic, compare_seeds, measure_seeds

ITEMS, DEVIATION = 100, 0.06


def answers(generator: np.random.Generator, probs: np.ndarray, seeds: int, deviation: float = DEVIATION) -> list[Statistic]:
    """Right or wrong on the same items, of seeds that are better or worse than each other by chance."""
    shifts = generator.normal(0, deviation, seeds)
    return [Statistic.mean((generator.random(len(probs)) < probs + shift).astype(float)) for shift in shifts]


def items(generator: np.random.Generator, count: int = ITEMS) -> np.ndarray:
    return generator.beta(3, 2, count)


@pytest.mark.parametrize(("ours", "other"), [(3, 3), (5, 5), (3, 1)])
def test_equal_methods_with_chance_of_seeds_are_called_different_as_rarely_as_promised(ours: int, other: int) -> None:
    generator = np.random.default_rng(0)
    both, items_only = [], []
    for _ in range(300):
        probs = items(generator)
        methods = [answers(generator, probs, n, DEVIATION if n > 1 else 0.0) for n in (ours, other)]
        with_seeds = compare_seeds(*methods, resamples=99)
        of_items = compare_seeds(*([Statistic.averaged(method)] for method in methods), resamples=99)
        assert with_seeds is not None
        assert of_items is not None
        both.append(with_seeds.p_value < 0.05)
        items_only.append(of_items.p_value < 0.05)
    assert np.mean(both) <= 0.08
    assert np.mean(items_only) > np.mean(both)
    if other > 1:
        assert np.mean(items_only) > 0.15  # what the items by themselves would promise


def test_a_large_difference_is_found_in_spite_of_seeds() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(40):
        probs = items(generator)
        compared = compare_seeds(answers(generator, probs + 0.2, 3), answers(generator, probs - 0.2, 3), resamples=199)
        assert compared is not None
        found.append(compared.p_value < 0.05 and compared.low > 0)
    assert np.mean(found) > 0.9


def test_without_items_it_is_the_test_of_welch() -> None:
    ours, other = [0.61, 0.58, 0.66], [0.51, 0.55, 0.50, 0.52]
    error = StandardError.of(0.0, 100, [ours, other])
    welch = stats.ttest_ind(ours, other, equal_var=False)
    difference = float(np.mean(ours) - np.mean(other))
    assert error.p_value(difference) == pytest.approx(welch.pvalue)
    assert error.freedom == pytest.approx(welch.df)
    assert (difference - error.reach, difference + error.reach) == pytest.approx(tuple(welch.confidence_interval()))


def test_one_seed_adds_no_chance_and_no_chance_at_all_is_no_error() -> None:
    assert StandardError.of(0.0004, 101, [[0.5], [0.9]]) == StandardError.of(0.0004, 101, [])
    assert StandardError.of(0.0004, 101, []).size == pytest.approx(0.02)
    assert StandardError.of(0.0004, 101, []).freedom == pytest.approx(100)
    none = StandardError.of(0.0, 1, [[0.5, 0.5]])
    assert (none.size, none.reach, none.p_value(0.0), none.p_value(0.1)) == (0.0, 0.0, 1.0, 0.0)


def test_seeds_never_make_a_comparison_surer_than_its_items() -> None:
    generator = np.random.default_rng(2)
    probs = items(generator, 60)
    ours, other = answers(generator, probs + 0.1, 1, 0.0), answers(generator, probs, 1, 0.0)
    items_only, same = compare_seeds(ours[:1], other[:1], 500), compare_seeds(ours * 3, other * 3, 500)
    assert compare_seeds(ours, other, 500) == items_only
    assert items_only is not None
    assert same is not None
    assert same.difference == pytest.approx(items_only.difference)
    assert same.p_value >= items_only.p_value
    assert same.low <= items_only.low
    assert same.high >= items_only.high
    assert same.high - same.low == pytest.approx(items_only.high - items_only.low, rel=0.1)
    one_item = compare_seeds([Statistic.mean(np.ones(1))] * 2, [Statistic.mean(np.zeros(1))] * 2, 99)
    assert one_item is not None
    assert one_item.p_value == 1.0  # a single item proves nothing, however alike the seeds are


def test_an_interval_over_seeds_and_items_holds_the_truth_as_often_as_promised() -> None:
    generator = np.random.default_rng(3)
    held, held_by_items = [], []
    for _ in range(300):
        seeds = answers(generator, items(generator), 3)
        found = measure_seeds(seeds, 199)
        of_items = measure_seeds([Statistic.averaged(seeds)], 199)
        assert found is not None
        assert of_items is not None
        held.append(found.low <= 0.6 <= found.high)  # the mean of beta(3, 2)
        held_by_items.append(of_items.low <= 0.6 <= of_items.high)
    assert np.mean(held) >= 0.92
    assert np.mean(held_by_items) < np.mean(held)


def rows(generator: np.random.Generator, shift: float, count: int = 60) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "gold": i % 2, "scores": [0.0, float(generator.normal(shift * (2 * (i % 2) - 1)))]} for i in range(count)
    ]


@pytest.mark.parametrize("metric", ["accuracy", "macro_auc"])
def test_a_mean_over_seeds_has_an_interval_over_items_and_seeds(metric: str) -> None:
    generator = np.random.default_rng(4)
    runs = [rows(generator, shift) for shift in (0.3, 0.6, 0.9)]
    values = [compute_metrics("multiple_choice", run, fixed_labels=True)[metric] for run in runs]
    found = measure_over_seeds("multiple_choice", metric, runs, fixed_labels=True)
    assert found is not None
    assert found.value == pytest.approx(np.mean([value["value"] for value in values]))
    assert found.examples == 60
    assert found.low < found.value < found.high
    (first, *_) = values
    one = measure_over_seeds("multiple_choice", metric, runs[:1], fixed_labels=True)
    assert one is not None
    assert (one.value, one.low, one.high) == pytest.approx((first["value"], first["low"], first["high"]))
    alike = measure_over_seeds("multiple_choice", metric, [runs[0]] * 3, fixed_labels=True)
    assert alike is not None
    assert alike.high - alike.low >= 0.95 * (first["high"] - first["low"])  # where over seeds only it would be 0


def test_seeds_that_share_their_draw_are_paired_by_it() -> None:
    generator = np.random.default_rng(8)
    probs, draws = items(generator, 400), generator.normal(0, 0.2, 4)

    def method(gain: float) -> list[Statistic]:
        return [Statistic.mean((generator.random(400) < np.clip(probs + draw + gain, 0, 1)).astype(float)) for draw in draws]

    ours, other = method(0.1), method(0.0)
    paired, unpaired = compare_seeds(ours, other, 300), compare_seeds(ours, other[:3], 300)
    assert paired is not None
    assert unpaired is not None
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)
    per_seed = [one.value - two.value for one, two in zip(ours, other, strict=True)]
    gap = Statistic.averaged(ours).minus(Statistic.averaged(other)).per_item
    assert gap is not None
    error = StandardError.of(gap.var(ddof=1) / 400, 400, [per_seed])
    assert (paired.high - paired.low) / 2 == pytest.approx(error.reach, rel=0.1)
    assert paired.freedom == pytest.approx(error.freedom)


def test_without_items_paired_seeds_are_the_paired_test_of_student() -> None:
    ours, other = [0.61, 0.58, 0.66], [0.51, 0.55, 0.50]
    error = StandardError.of(0.0, 100, [[one - two for one, two in zip(ours, other, strict=True)]])
    expected = stats.ttest_rel(ours, other)
    assert error.p_value(float(np.mean(ours) - np.mean(other))) == pytest.approx(expected.pvalue)
    assert error.freedom == pytest.approx(expected.df)


def test_a_whole_set_metric_over_seeds_counts_their_chance() -> None:
    generator = np.random.default_rng(5)
    ours = [rows(generator, shift) for shift in (0.2, 0.6, 1.6)]
    other = [rows(generator, 0.2)]
    both = compare_methods("multiple_choice", "macro_auc", ours, other, fixed_labels=True, resamples=300)
    single = compare_methods("multiple_choice", "macro_auc", ours[1:2], other, fixed_labels=True, resamples=300)
    assert both is not None
    assert single is not None
    assert both.high - both.low > single.high - single.low


def test_what_cannot_be_measured_over_seeds() -> None:
    generator = np.random.default_rng(6)
    runs = [rows(generator, 0.5), rows(generator, 0.5)]
    with pytest.raises(UnknownName, match="metric of output type 'multiple_choice'"):
        measure_over_seeds("multiple_choice", "micro_f1", runs)
    with pytest.raises(BadData, match="same items"):
        measure_over_seeds("multiple_choice", "accuracy", [runs[0], runs[1][:5]])
    one_class = [[row | {"gold": 0} for row in run] for run in runs]
    assert measure_over_seeds("multiple_choice", "macro_auc", one_class, fixed_labels=True, resamples=100) is None
