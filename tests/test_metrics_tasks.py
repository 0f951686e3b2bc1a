"""The mean difference of two methods over tasks: laws, a hand-worked case, and how often chance is called a difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from staf.metrics.stats import Comparison, Statistic, compare_seeds, over_tasks

DIFFERENCES = st.floats(-1, 1)
HALVES = st.floats(0.001, 0.5)
COMPARISONS = st.lists(
    st.builds(lambda d, below, above: Comparison(d, d - below, d + above, 0.5), DIFFERENCES, HALVES, HALVES),
    min_size=1,
    max_size=6,
)


def test_a_hand_worked_case() -> None:
    mean = over_tasks([Comparison(0.1, 0.04, 0.16, 0.001), Comparison(0.02, -0.06, 0.1, 0.6)])
    assert (mean.difference, mean.low, mean.high) == pytest.approx((0.06, 0.01, 0.11))  # (6² + 8²)^½ / 2 = 5
    assert mean.p_value == pytest.approx(2 * stats.norm.sf(0.06 / (0.05 / 1.959964)), rel=1e-5)


@given(some=COMPARISONS)
def test_the_other_way_round_is_the_other_sign_and_the_order_of_tasks_is_nothing(some: list[Comparison]) -> None:
    turned = [Comparison(-one.difference, -one.high, -one.low, one.p_value) for one in reversed(some)]
    mean, other = over_tasks(some), over_tasks(turned)
    assert (other.difference, other.low, other.high) == pytest.approx((-mean.difference, -mean.high, -mean.low))
    assert other.p_value == pytest.approx(mean.p_value)
    assert (mean.p_value < 0.05) == (not mean.low <= 0 <= mean.high) or mean.p_value == pytest.approx(0.05)


@given(one=COMPARISONS.map(lambda some: some[0]))
def test_of_one_task_it_is_no_surer_than_its_interval(one: Comparison) -> None:
    mean = over_tasks([one])
    assert mean.low <= one.low + 1e-12
    assert mean.high >= one.high - 1e-12


def test_a_tasks_few_degrees_of_freedom_are_counted_by_satterthwaite() -> None:
    one = Comparison(0.1, -0.1, 0.3, 0.2, freedom=2.0)
    single, both = over_tasks([one]), over_tasks([one, one])
    assert (single.low, single.high, single.freedom) == pytest.approx((-0.1, 0.3, 2.0))
    error = 0.2 / stats.t.ppf(0.975, 2) / 2**0.5
    assert both.freedom == pytest.approx(4.0)
    assert both.high - both.difference == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert both.p_value == pytest.approx(2 * stats.t.sf(0.1 / error, 4))


def test_equal_answers_on_all_tasks_are_no_difference_and_a_sure_one_is() -> None:
    same = Comparison(0.0, 0.0, 0.0, 1.0)
    assert over_tasks([same, same]) == same
    assert over_tasks([Comparison(0.5, 0.5, 0.5, 0.001)] * 2).p_value == 0
    with pytest.raises(ValueError, match="needs at least one comparison"):
        over_tasks([])


def test_chance_is_called_a_difference_about_as_often_as_the_level_says_and_small_ones_are_found_together() -> None:
    generator = np.random.default_rng(0)

    def share(shift: float, tasks: int, trials: int = 120) -> float:
        """How often a mean over tasks of 100 items, right or wrong by chance, is below 0.05."""
        ours, other = (generator.random((trials, tasks, 100)) < p for p in (0.5 + shift, 0.5))
        found = []
        for trial in zip(ours.astype(float), other.astype(float), strict=True):
            pairs = [[[Statistic.mean(run)] for run in pair] for pair in zip(*trial, strict=True)]
            found.append(over_tasks([one for pair in pairs if (one := compare_seeds(*pair, 200))]).p_value < 0.05)
        return float(np.mean(found))

    assert share(0.0, 4) < 0.1
    assert share(0.08, 6) > 2 * share(0.08, 1)
