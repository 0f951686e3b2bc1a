"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from metric_runs import compare_methods
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from staf.errors import BadData
from staf.metrics.by_output_type import compute_metrics
from staf.metrics.stats import Statistic, measure


def random_predictions(count: int = 200, labels: int = 4) -> list[dict[str, object]]:
    generator = np.random.default_rng(0)
    rows = []
    for i in range(count):
        gold = int(generator.integers(labels))
        scores = generator.normal(size=labels)
        scores[gold] += 0.8
        rows.append({"id": f"i{i}", "gold": gold, "scores": scores.tolist()})
    return rows


def test_accuracy_and_f1_equal_scikit_learn() -> None:
    rows = random_predictions()
    gold, guess = [r["gold"] for r in rows], [int(np.argmax(r["scores"])) for r in rows]
    found = compute_metrics("multiple_choice", rows, fixed_labels=True, resamples=100)
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(gold, guess))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(gold, guess, average="macro"))


def test_auc_equals_scikit_learn_and_skips_labels_without_a_positive() -> None:
    rows = random_predictions()
    scores = np.array([r["scores"] for r in rows])
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = roc_auc_score([r["gold"] for r in rows], probs, multi_class="ovr", average="macro")
    assert compute_metrics("multiple_choice", rows, fixed_labels=True, resamples=100)["macro_auc"]["value"] == pytest.approx(
        expected
    )
    wider = [r | {"scores": [*r["scores"], -9.0]} for r in rows]
    assert compute_metrics("multiple_choice", wider, fixed_labels=True, resamples=100)["macro_auc"]["classes_left_out"] == 1
    one_class = [r | {"gold": 0} for r in rows]
    assert compute_metrics("multiple_choice", one_class, fixed_labels=True, resamples=100)["macro_auc"] is None


def test_equal_scores_go_to_the_first_label() -> None:
    rows = [{"id": gold, "gold": gold, "scores": [0.5, 0.5, 0.1]} for gold in (0, 1)]
    found = compute_metrics("multiple_choice", rows, fixed_labels=True, resamples=100)
    assert (found["accuracy"]["value"], found["macro_f1"]["value"]) == pytest.approx((1 / 2, (2 / 3 + 0) / 2))


def test_the_interval_holds_the_value_and_shrinks_with_more_items() -> None:
    few, many = (compute_metrics("multiple_choice", random_predictions(n), resamples=500)["accuracy"] for n in (50, 2000))
    for metric in (few, many):
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        (found,) = measure([Statistic.mean(generator.random(100) < 0.7)], 300, seed)
        assert found is not None
        covered += found.low <= 0.7 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_comparison_by_hand() -> None:
    ours = [{"id": str(i), "gold": 0, "scores": [1.0, 0.0]} for i in range(40)]
    other = [r | {"scores": [0.0, 1.0] if i < 20 else r["scores"]} for i, r in enumerate(ours)]
    found = compare_methods("multiple_choice", "accuracy", [ours], [other], resamples=2000)
    assert found is not None
    assert found.difference == pytest.approx(0.5)
    assert found.low > 0.3
    assert found.p_value < 0.001
    same = compare_methods("multiple_choice", "accuracy", [ours], [ours], resamples=200)
    assert same is not None
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_methods_on_different_items_cannot_be_compared() -> None:
    rows = random_predictions(5)
    with pytest.raises(BadData, match="the same items in the same order"):
        compare_methods("multiple_choice", "accuracy", [rows], [rows[::-1]], resamples=100)


def test_varying_labels_have_no_metric_by_label() -> None:
    found = compute_metrics("multiple_choice", random_predictions(20), resamples=100)
    assert set(found) == {"accuracy", "ece", "brier_score", "aurc"}
