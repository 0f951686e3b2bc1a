"""The chance of a label: from its rate, and from what its score says beyond the label itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from staf.data.example import Example
from staf.errors import MissingData
from staf.evaluate.answer import batch_calibrated
from staf.evaluate.calibrate import RATE_EXAMPLES, fit_calibrator
from staf.metrics.classification import best_threshold

LABELS = ("a", "b", "c")
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, examples: int, slope: float = 2.0, labels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and right labels (examples, labels), and the true log-odds; each label has a rate and a mean of its own."""
    generator = np.random.default_rng(seed)
    prior, means = generator.normal(-1, 1, labels), generator.normal(-3, 2, labels)
    beyond = generator.normal(0, 0.5, (examples, labels))
    odds = prior + slope * beyond
    return means + beyond, generator.random((examples, labels)) < 1 / (1 + np.exp(-odds)), odds


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_gives_a_better_f1(pairs: list[tuple[int, bool]]) -> None:
    odds, right = np.array([float(p[0]) for p in pairs]), np.array([p[1] for p in pairs])
    if not right.any():
        return
    answered = np.concatenate([[odds >= best_threshold(odds, right)], odds >= np.concatenate([odds, odds + 0.5])[:, None]])
    found, *others = 2 * (answered & right).sum(1) / (answered.sum(1) + right.sum())
    assert found == pytest.approx(max(others)) == pytest.approx(f1_score(right, answered[0]))


def test_the_scale_finds_the_probabilities_it_was_drawn_from() -> None:
    scores, right, odds = drawn(0, 20_000)
    scale = fit_calibrator([LABELS] * len(scores), scores, right)
    assert scale.slope == pytest.approx(2.0, abs=0.1)
    found = np.array([scale.log_odds(LABELS, own) for own in scores[:500]])
    assert np.abs(found - odds[:500]).max() < 0.5
    assert np.abs(found - odds[:500]).mean() < 0.15


@given(SEEDS, st.integers(2, 12))
def test_what_a_label_always_has_says_nothing(seed: int, examples: int) -> None:
    scores, right, _ = drawn(seed, examples)
    if not right.any() or right.all():
        return
    shifted = scores + np.array([3.0, -7.0, 0.5])
    one, other = (fit_calibrator([LABELS] * examples, own, right) for own in (scores, shifted))
    assert other.slope == pytest.approx(one.slope, rel=1e-3)
    assert other.log_odds(LABELS, shifted[0]) == pytest.approx(one.log_odds(LABELS, scores[0]), abs=1e-2)


@given(SEEDS, st.integers(2, 12), st.floats(-3, 3))
def test_which_example_a_label_belongs_to_more_is_always_the_models_word(seed: int, examples: int, slope: float) -> None:
    scores, right, _ = drawn(seed, examples, slope)
    if not right.any() or right.all():
        return
    scale = fit_calibrator([LABELS] * examples, scores, right)
    odds = np.array([scale.log_odds(LABELS, own) for own in scores])
    for label in range(len(LABELS)):
        assert np.argsort(odds[:, label]).tolist() == np.argsort(scores[:, label]).tolist()


def test_scores_that_say_nothing_leave_the_rates_and_the_rate_of_few_examples_is_mixed_with_that_of_all() -> None:
    right = np.array([[True, False], [True, False], [True, True], [False, False]])
    scale = fit_calibrator([("often", "seldom")] * 4, np.full((4, 2), -2.0), right)
    rate = 4 / 8
    expected = [(3 + RATE_EXAMPLES * rate) / (4 + RATE_EXAMPLES), (1 + RATE_EXAMPLES * rate) / (4 + RATE_EXAMPLES)]
    odds = scale.log_odds(("seldom", "often", "never met"), np.array([-2.0, -2.0, -2.0]))
    assert 1 / (1 + np.exp(-odds)) == pytest.approx([expected[1], expected[0], rate])
    assert scale.slope == 0.0


def test_an_example_does_not_tell_its_own_labels_when_the_scale_is_fitted() -> None:
    """Labels that are met once: their rates and means are those of all, so the slope is that of the plain scores."""
    generator = np.random.default_rng(1)
    scores = generator.normal(-3, 1, 3000)
    right = generator.random(3000) < 1 / (1 + np.exp(-(1.5 * (scores + 3))))
    labels = [(f"label {i}",) for i in range(3000)]
    scale = fit_calibrator(labels, scores[:, None], right[:, None])
    assert scale.slope == pytest.approx(1.5, abs=0.15)


def test_labels_may_differ_by_example() -> None:
    scores, right, _ = drawn(3, 400)
    rows = [([0, 1, 2], [2, 0], [1])[i % 3] for i in range(400)]
    labels = [tuple(LABELS[j] for j in row) for row in rows]
    some = fit_calibrator(labels, [scores[i, row] for i, row in enumerate(rows)], [right[i, row] for i, row in enumerate(rows)])
    whole = fit_calibrator([LABELS] * 400, scores, right)
    assert some.means == pytest.approx(whole.means, abs=0.2)
    assert some.rates == pytest.approx(whole.rates, abs=0.1)
    assert some.slope == pytest.approx(whole.slope, abs=0.8)


def test_without_right_and_wrong_labels_nothing_can_be_fitted() -> None:
    with pytest.raises(MissingData, match="2 right labels of 2"):
        fit_calibrator([("a", "b")], [np.zeros(2)], [np.ones(2, dtype=bool)])
    with pytest.raises(MissingData, match="0 adaptation examples with 0 right labels of 0"):
        fit_calibrator([], [], [])


def items(*labels: tuple[str, ...]) -> list[Example]:
    return [Example(str(i), "t", "q", "c", own[0], own, "test", ()) for i, own in enumerate(labels)]


def test_the_mean_score_of_a_label_over_the_items_is_taken_off() -> None:
    """By hand: label b is always 3 more likely than a, so only what an item says beyond that decides."""
    rows = [{"id": "0", "gold": 0, "scores": [-2.0, 0.0]}, {"id": "1", "gold": 1, "scores": [-4.0, 0.0]}]
    found = batch_calibrated(rows, items(("a", "b"), ("a", "b")))
    assert [row["scores"] for row in found] == [[1.0, 0.0], [-1.0, 0.0]]
    assert [row["gold"] for row in found] == [0, 1]


def test_items_with_labels_of_their_own_keep_their_scores() -> None:
    rows = [{"id": "0", "gold": 0, "scores": [-2.0, 0.0]}, {"id": "1", "gold": 1, "scores": [-4.0, 0.0]}]
    assert batch_calibrated(rows, items(("a", "b"), ("a", "c"))) == rows


@given(SEEDS, st.integers(1, 9))
def test_calibration_by_the_batch_knows_no_answer_and_no_constant(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    scores, constant = generator.normal(size=(count, 3)), generator.normal(size=3)
    examples = items(*[LABELS] * count)

    def calibrated(values: np.ndarray, gold: int) -> np.ndarray:
        rows = [{"id": e.id, "gold": gold, "scores": row.tolist()} for e, row in zip(examples, values, strict=True)]
        return np.array([row["scores"] for row in batch_calibrated(rows, examples)])

    np.testing.assert_allclose(calibrated(scores, 0).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(calibrated(scores, 0), calibrated(scores + constant, 2), atol=1e-5)
