"""F1, AUC and average precision of labels: against scikit-learn, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, roc_auc_score

from staf.errors import BadData
from staf.metrics.by_output_type import compute_metrics, measures_of
from staf.metrics.classification import average_precision, f1_counts, macro, macro_f1, micro, micro_f1, roc_area


def several(count: int = 150, labels: int = 6, steps: int = 0) -> list[dict[str, Any]]:
    """Multi-label predictions better than chance; with `steps` scores are rounded so that many are equal."""
    generator = np.random.default_rng(4)
    gold = generator.random((count, labels)) < 0.25
    scores = generator.normal(size=(count, labels)) + 1.2 * gold - 0.5
    if steps:
        scores = np.round(scores * steps) / steps
    indices = [(np.flatnonzero(gold[i]).tolist(), np.flatnonzero(scores[i] > 0).tolist()) for i in range(count)]
    return [{"id": f"i{i}", "gold": g, "answer": a, "scores": scores[i].tolist()} for i, (g, a) in enumerate(indices)]


def arrays(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores = np.array([r["scores"] for r in rows])
    gold, answer = np.zeros(scores.shape, dtype=bool), np.zeros(scores.shape, dtype=bool)
    for i, row in enumerate(rows):
        gold[i, row["gold"]], answer[i, row["answer"]] = True, True
    return scores, gold, answer


@pytest.mark.parametrize("steps", [0, 2])
def test_multi_label_metrics_equal_scikit_learn_with_and_without_ties(steps: int) -> None:
    rows = several(steps=steps)
    scores, gold, answer = arrays(rows)
    found = compute_metrics("multi_label", rows, resamples=100)
    for kind in ("micro", "macro"):
        assert found[f"{kind}_f1"]["value"] == pytest.approx(f1_score(gold, answer, average=kind))
        assert found[f"{kind}_auc"]["value"] == pytest.approx(roc_auc_score(gold, scores, average=kind))
        expected = average_precision_score(gold, scores, average=kind)
        assert found[f"{kind}_average_precision"]["value"] == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 4), st.sampled_from([1, 3]))
@settings(max_examples=40)
def test_a_resample_counts_as_the_items_written_out(seed: int, items: int, labels: int, steps: int) -> None:
    generator = np.random.default_rng(seed)
    gold = generator.random((items, labels)) < 0.5
    scores = np.round(generator.normal(size=(items, labels)) * steps) / steps
    answer = scores > 0
    draw = generator.integers(0, items, items)
    counts = np.bincount(draw, minlength=items)[None].astype(float)
    for make in (micro_f1, macro_f1):
        whole = [make(*f1_counts(g, a)) for g, a in [(gold, answer), (gold[draw], answer[draw])]]
        assert whole[0].of(counts)[0] == pytest.approx(whole[1].value, nan_ok=True)
    for area in (roc_area, average_precision):
        assert micro(area, scores, gold).of(counts)[0] == pytest.approx(
            micro(area, scores[draw], gold[draw]).value, nan_ok=True
        )
        usable = macro(area, scores, gold)
        assert usable.of(counts)[0] == pytest.approx(macro(area, scores[draw], gold[draw]).value, nan_ok=True)


def test_accuracy_over_labels_is_one_minus_the_hamming_loss_and_needs_all_labels() -> None:
    rows = several()
    labels = len(rows[0]["scores"])
    gold, answer = (np.array([[i in r[key] for i in range(labels)] for r in rows]) for key in ("gold", "answer"))
    found = compute_metrics("multi_label", rows, resamples=100)["one_minus_hamming_loss"]
    assert found["value"] == pytest.approx(1 - hamming_loss(gold, answer))
    hand = [
        {"id": 0, "gold": [0, 2], "answer": [2, 3], "scores": [0.0] * 5},
        {"id": 1, "gold": [], "answer": [], "scores": [0.0] * 5},
    ]
    assert compute_metrics("multi_label", hand, resamples=100)["one_minus_hamming_loss"]["value"] == pytest.approx(
        (3 / 5 + 1) / 2
    )
    unscored = [{key: r[key] for key in ("id", "gold", "answer")} for r in rows]
    assert "one_minus_hamming_loss" not in compute_metrics("multi_label", unscored, resamples=100)


def test_labels_without_a_positive_are_left_out_and_counted() -> None:
    rows = [r | {"scores": [*r["scores"], 0.3, -0.2]} for r in several()]
    narrow, wide = compute_metrics("multi_label", several(), resamples=100), compute_metrics("multi_label", rows, resamples=100)
    for name in ("macro_auc", "macro_average_precision"):
        assert wide[name]["value"] == pytest.approx(narrow[name]["value"])
        assert (wide[name]["classes"], wide[name]["classes_left_out"]) == (6, 2)
        assert narrow[name]["classes_left_out"] == 0


def test_a_label_without_a_negative_has_precision_but_no_auc() -> None:
    rows = [r | {"scores": [*r["scores"], 0.3], "gold": [*r["gold"], 6]} for r in several()]
    found = compute_metrics("multi_label", rows, resamples=100)
    assert (found["macro_auc"]["classes"], found["macro_auc"]["classes_left_out"]) == (6, 1)
    assert (found["macro_average_precision"]["classes"], found["macro_average_precision"]["classes_left_out"]) == (7, 0)


def test_a_single_class_is_undefined_and_not_one_half() -> None:
    rows = [{"id": i, "gold": [], "answer": [0], "scores": [0.1 * i, -0.2]} for i in range(5)]
    found = compute_metrics("multi_label", rows, resamples=100)
    assert found["macro_auc"] is found["micro_auc"] is found["micro_average_precision"] is None
    assert found["micro_f1"]["value"] == 0.0
    one_class = [{"id": i, "gold": 0, "scores": [0.1 * i, 0.2]} for i in range(5)]
    assert compute_metrics("multiple_choice", one_class, fixed_labels=True, resamples=100)["macro_auc"] is None


def test_f1_by_hand() -> None:
    # label 0: right twice of 2 gold and 3 answered: 4/5; label 1: 0 of 1 and 1: 0; label 2 never occurs; label 3: gold only: 0
    rows = [
        {"id": 1, "gold": [0, 1], "answer": [0]},
        {"id": 2, "gold": [0], "answer": [0, 1]},
        {"id": 3, "gold": [3], "answer": [0]},
        {"id": 4, "gold": [], "answer": []},
    ]
    found = compute_metrics("multi_label", rows, resamples=100)
    assert list(found) == ["micro_f1", "macro_f1"]
    assert found["micro_f1"]["value"] == pytest.approx(2 * 2 / (4 + 4))
    assert found["macro_f1"]["value"] == pytest.approx((4 / 5 + 0 + 0 + 0) / 4)
    assert found["macro_f1"]["classes"] == 4
    assert measures_of("multi_label", rows).quality.tolist() == pytest.approx([2 / 3, 2 / 3, 0, 1])


ROWS = st.lists(st.tuples(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4))), min_size=1, max_size=8)


@given(ROWS)
@example([({0}, {0}), ({0}, {0, 1})])  # labels 2 to 4 have neither gold nor answers, label 1 no gold
@example([({0, 4}, set()), ({4}, {1})])  # gold without answers, answers without gold
@example([(set(), {2}), (set(), set())])  # no gold at all
def test_macro_f1_of_several_labels_is_that_of_scikit_learn(rows: list[tuple[set[int], set[int]]]) -> None:
    predictions = [{"id": i, "gold": [*g], "answer": [*a], "scores": [0.0] * 5} for i, (g, a) in enumerate(rows)]
    _, gold, answer = arrays(predictions)
    found = measures_of("multi_label", predictions).statistics
    for kind in ("micro", "macro"):
        value = found[f"{kind}_f1"].value
        if gold.any() or answer.any():
            assert value == pytest.approx(f1_score(gold, answer, average=kind, zero_division=0))
        else:  # scikit-learn warns that it is undefined, and gives 0
            assert np.isnan(value)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10))
def test_macro_f1_of_one_label_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    gold, answer = [[*each] for each in zip(*pairs, strict=True)]
    predictions = [{"id": i, "gold": g, "scores": np.eye(4)[a].tolist()} for i, (g, a) in enumerate(pairs)]
    found = measures_of("multiple_choice", predictions, fixed_labels=True).statistics["macro_f1"]
    assert found.value == pytest.approx(f1_score(gold, answer, average="macro"))


def test_answers_without_scores_count_every_label_of_the_task() -> None:
    rows = [{"id": i, "gold": [0], "answer": [0, 1]} for i in range(3)]
    known = [row | {"labels": 5} for row in rows]
    gold, answer = (np.array([[i in r[key] for i in range(5)] for r in rows]) for key in ("gold", "answer"))
    found = compute_metrics("multi_label", known, resamples=100)["macro_f1"]
    assert found["value"] == pytest.approx(f1_score(gold, answer, average="macro", zero_division=0)) == pytest.approx(0.2)
    assert compute_metrics("multi_label", rows, resamples=100)["macro_f1"]["value"] == pytest.approx(0.5)  # of the named ones
    with pytest.raises(BadData, match="'answer' names a label beyond the 1 that there are"):
        compute_metrics("multi_label", [row | {"labels": 1} for row in rows])
    with pytest.raises(BadData, match="2 of 3 predictions have 'labels'"):
        compute_metrics("multi_label", [*known[:2], rows[2]])


def test_nothing_to_answer_and_nothing_answered_is_undefined() -> None:
    rows = [{"id": i, "gold": [], "answer": []} for i in range(3)]
    assert compute_metrics("multi_label", rows, resamples=100) == {"micro_f1": None, "macro_f1": None}


def test_choices_among_fixed_labels_have_average_precision_too() -> None:
    generator = np.random.default_rng(1)
    gold, scores = generator.integers(0, 3, 90), generator.normal(size=(90, 3))
    rows = [{"id": i, "gold": int(g), "scores": s.tolist()} for i, (g, s) in enumerate(zip(gold, scores, strict=True))]
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = compute_metrics("multiple_choice", rows, fixed_labels=True, resamples=100)
    expected = average_precision_score(np.eye(3)[gold], probs, average="macro")
    assert found["macro_average_precision"]["value"] == pytest.approx(expected)
