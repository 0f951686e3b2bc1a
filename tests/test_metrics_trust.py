"""Calibration and selective prediction: against scikit-learn and by hand, whatever the order of the items."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from staf.metrics.by_output_type import COVERAGES, compute_metrics, selective_curve
from staf.metrics.calibration import aurc, ece, selective_quality


def choices(probs: list[list[float]], gold: list[int]) -> list[dict[str, Any]]:
    return [{"id": i, "gold": g, "scores": np.log(c).tolist()} for i, (c, g) in enumerate(zip(probs, gold, strict=True))]


def brier(output_type: str, rows: list[dict[str, Any]]) -> float:
    return float(compute_metrics(output_type, rows, resamples=100)["brier_score"]["value"])


def area(quality: np.ndarray, confidence: np.ndarray) -> float:
    """The definition, for confidences that are all different."""
    risks = 1 - quality[np.argsort(-confidence)]
    return float(np.mean(np.cumsum(risks) / np.arange(1, len(risks) + 1)))


def test_calibration_error_by_hand() -> None:
    # bin (0, .5]: .5 wrong, gap .5; bin (.5, 1]: .9 right, .7 wrong, 1.0 right, gap 2.6 - 2
    probs, right = np.array([[0.5], [0.9], [0.7], [1.0]]), np.array([[False], [True], [False], [True]])
    assert ece(probs, right, 2).value == pytest.approx((0.6 + 0.5) / 4)
    # ten bins: gaps of .5, .1, .7 and 0
    rows = choices([[0.5, 0.5], [0.9, 0.1], [0.3, 0.7], [1.0, 1e-30]], [1, 0, 0, 0])
    assert compute_metrics("multiple_choice", rows, resamples=100)["ece"]["value"] == pytest.approx((0.5 + 0.1 + 0.7) / 4)


def test_a_probability_on_an_edge_belongs_to_the_bin_below() -> None:
    probs = np.array([[0.0], [0.1], [0.7], [0.70001]])
    right = np.array([[True], [False], [True], [False]])
    # bin 1: 0 right, 0.1 wrong; bin 7: 0.7 right; bin 8: 0.70001 wrong
    assert ece(probs, right, 10).value == pytest.approx((0.9 + 0.3 + 0.70001) / 4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 30))
@settings(max_examples=40)
def test_one_bin_is_the_gap_of_the_means_and_more_bins_are_never_less(seed: int, bins: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    probs, right = generator.random((items, 2)), generator.random((items, 2)) < 0.5
    one = ece(probs, right, 1).value
    assert one == pytest.approx(abs(probs.mean() - right.mean()))
    many = ece(probs, right, bins).value
    assert one - 1e-12 <= many <= ece(probs, right, 2 * bins).value + 1e-12 <= 1 + 2e-12


def test_the_brier_score_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores, gold = generator.normal(size=(60, 3)), generator.integers(0, 3, 60)
    rows = [{"id": i, "gold": int(g), "scores": s.tolist()} for i, (s, g) in enumerate(zip(scores, gold, strict=True))]
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert brier("multiple_choice", rows) == pytest.approx(((probs - np.eye(3)[gold]) ** 2).sum(1).mean())
    several = [r | {"gold": [r["gold"]], "answer": []} for r in rows]
    expected = brier_score_loss(np.eye(3)[gold].ravel(), (1 / (1 + np.exp(-scores))).ravel())
    assert brier("multi_label", several) == pytest.approx(expected)


def test_large_scores_give_probabilities_without_overflow() -> None:
    rows = [{"id": 1, "gold": [0], "answer": [0], "scores": [5000.0, -5000.0]}]
    assert brier("multi_label", rows) == 0.0
    assert brier("multiple_choice", [{"id": 1, "gold": 0, "scores": [-4000.0, -9000.0]}]) == 0.0


def test_the_risk_coverage_area_by_hand() -> None:
    # surest first: right, wrong, right: risks 0, 1/2, 1/3
    quality, confidence = np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.9, 0.1])
    assert aurc(quality, confidence).value == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert [selective_quality(quality, confidence, c).value for c in (1 / 3, 0.5, 1.0)] == pytest.approx([1, 1 / 2, 2 / 3])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=5))
@settings(max_examples=40)
def test_equal_confidence_takes_the_mean_over_all_orders(pairs: list[tuple[float, float]]) -> None:
    quality, confidence = (np.array(column) for column in zip(*pairs, strict=True))
    shuffled = [np.array(order) for order in permutations(range(len(pairs)))]
    nudges = np.arange(len(pairs)) * 1e-6
    expected = np.mean([area(quality[order], confidence[order] - nudges) for order in shuffled])
    assert aurc(quality, confidence).value == pytest.approx(expected)
    for kept in range(1, len(pairs) + 1):
        best = [quality[order][np.argsort(-(confidence[order] - nudges))][:kept].mean() for order in shuffled]
        assert selective_quality(quality, confidence, kept / len(pairs)).value == pytest.approx(np.mean(best))


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=40)
def test_a_resample_counts_as_the_items_written_out(seed: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    quality, confidence = generator.random(items), np.round(generator.random(items), 1)
    probs, right = generator.random((items, 2)), generator.random((items, 2)) < 0.5
    draw = generator.integers(0, items, items)
    counts = np.bincount(draw, minlength=items)[None].astype(float)
    pairs = [
        (aurc(quality, confidence), aurc(quality[draw], confidence[draw])),
        (selective_quality(quality, confidence, 0.4), selective_quality(quality[draw], confidence[draw], 0.4)),
        (ece(probs, right, 5), ece(probs[draw], right[draw], 5)),
    ]
    for whole, written_out in pairs:
        assert whole.of(counts)[0] == pytest.approx(written_out.value)


def test_a_useful_confidence_has_less_area_than_none_and_an_oracle_the_least() -> None:
    generator = np.random.default_rng(2)
    quality = (generator.random(300) < 0.6).astype(float)
    oracle, useful, useless = (quality + noise * generator.normal(size=300) for noise in (0, 1, 1e9))
    areas = [aurc(quality, confidence).value for confidence in (oracle, useful, useless, np.zeros(300))]
    assert areas[0] < areas[1] < areas[2]
    assert areas[3] == pytest.approx(1 - quality.mean())


def test_the_curve_ends_at_the_accuracy_and_tells_the_confidence_to_ask_for() -> None:
    rows = choices([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55]], [0, 0, 1, 0])
    curve = selective_curve("multiple_choice", rows, resamples=200)
    assert curve is not None
    assert tuple(p["coverage"] for p in curve) == COVERAGES
    points = [p for p in curve if p["coverage"] in (0.5, 0.75, 1.0)]
    assert [p["value"] for p in points] == pytest.approx([1, 1, 3 / 4])
    assert [p["confidence"] for p in points] == pytest.approx([0.8, 0.6, 0.55])
    assert all(p["low"] <= p["value"] <= p["high"] for p in points)
    assert points[-1]["low"] == pytest.approx(compute_metrics("multiple_choice", rows, resamples=200)["accuracy"]["low"])


def test_without_a_confidence_there_is_no_curve() -> None:
    rows = [{"id": 1, "gold": ["fever"], "answer": "fever"}, {"id": 2, "gold": [], "answer": "pain"}]
    assert selective_curve("span", rows, resamples=100) is None
    assert "aurc" not in compute_metrics("span", rows, resamples=100)
    sure = [r | {"confidence": c} for r, c in zip(rows, (-0.5, -3.0), strict=True)]
    assert compute_metrics("span", sure, resamples=100)["aurc"]["value"] == pytest.approx((0 + 1 / 2) / 2)


def test_labels_are_as_sure_as_the_chance_that_all_are_as_answered() -> None:
    rows = [
        {"id": 1, "gold": [0], "answer": [0], "scores": [2.0, -2.0]},
        {"id": 2, "gold": [0], "answer": [1], "scores": [1.0, -1.0]},  # against its own scores: least sure
        {"id": 3, "gold": [0], "answer": [0], "scores": [0.5, -0.5]},
    ]
    assert compute_metrics("multi_label", rows, resamples=100)["aurc"]["value"] == pytest.approx((0 + 0 + 1 / 3) / 3)
