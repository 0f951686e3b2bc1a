"""Intervals, paired tests and seeds: laws, scipy, and how often they are wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_runs import compare_methods
from scipy import stats

from staf.errors import BadData, UnknownName
from staf.metrics.by_output_type import compute_metrics
from staf.metrics.stats import (
    MAX_BLOCK,
    StandardError,
    Statistic,
    compare_seeds,
    holm,
    measure,
    metric_family,
    outcome_of,
    over_seeds,
    resample,
    sign_flip,
)
from staf.report.formatting import METRICS

OUTPUT_TYPES: dict[str, list[dict[str, Any]]] = {
    "multiple_choice": [{"id": i, "gold": i % 3, "scores": [0.1, 0.4 * (i % 2), -0.2 * i]} for i in range(30)],
    "multi_label": [{"id": i, "gold": [i % 3], "answer": [i % 2], "scores": [0.1, 0.3 - i % 2, 0.02 * i]} for i in range(30)],
    "span": [{"id": i, "gold": ["two weeks", "14 days"][: i % 3], "answer": ["", "two", "14 days"][i % 3]} for i in range(30)],
    "ner": [
        {
            "id": i,
            "gold": [{"type": "problem", "text": "chest pain"}] * (1 + i % 3),
            "answer": [{"type": "problem", "text": ["pain", "chest pain"][i % 2]}, {"type": "test", "text": "MRI"}][: i % 4],
        }
        for i in range(30)
    ],
    "generate_until": [
        {"id": i, "gold": ["no fever today"], "answer": ["fever", "no fever", "pain"][i % 3]} for i in range(30)
    ],
}


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_every_metric_of_every_form_has_an_interval_and_survives_json(output_type: str) -> None:
    found = compute_metrics(output_type, OUTPUT_TYPES[output_type], fixed_labels=True, resamples=200)
    assert found == json.loads(json.dumps(found, allow_nan=False))
    for metric in found.values():
        assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 2
        assert metric["n"] == metric["examples"] == 30
    lower = {name for name, metric in found.items() if not metric["higher_is_better"]}
    assert lower == {"ece", "brier_score", "aurc"} & set(found)


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_the_same_seed_gives_the_same_interval_and_the_order_of_items_no_other_value(output_type: str) -> None:
    rows = OUTPUT_TYPES[output_type]
    once, again = (compute_metrics(output_type, rows, resamples=200) for _ in range(2))
    assert once == again
    turned = compute_metrics(output_type, rows[::-1], resamples=200)
    assert {k: m["value"] for k, m in turned.items()} == pytest.approx({k: m["value"] for k, m in once.items()})
    other = compute_metrics(output_type, rows, resamples=200, seed=1)
    assert any((other[k]["low"], other[k]["high"]) != (once[k]["low"], once[k]["high"]) for k in once)


def test_metrics_by_form() -> None:
    names = {output_type: list(compute_metrics(output_type, rows, resamples=100)) for output_type, rows in OUTPUT_TYPES.items()}
    assert names["multiple_choice"] == ["accuracy", "ece", "brier_score", "aurc"]
    assert names["span"] == ["exact_match", "token_f1"]
    assert names["ner"] == ["entity_f1", "entity_f1_macro", "entity_f1_overlap", "entity_f1_overlap_macro"]
    assert names["generate_until"] == ["rouge_l", "rouge_1", "rouge_2"]
    assert {"micro_f1", "macro_auc", "micro_average_precision"} < set(names["multi_label"])


def test_resamples_in_blocks_equal_those_in_one() -> None:
    per_item = np.random.default_rng(0).random(40)
    single = resample([Statistic.mean(per_item)], 300)[0]
    wide = Statistic(40, Statistic.mean(per_item).of, width=MAX_BLOCK // 7)
    assert single == pytest.approx(resample([wide], 300)[0])


def test_a_bootstrap_of_a_mean_has_the_width_that_theory_says() -> None:
    per_item = np.random.default_rng(0).random(400)
    (metric,) = measure([Statistic.mean(per_item)], 4000)
    assert metric is not None
    assert (metric.high - metric.low) / 2 == pytest.approx(1.96 * per_item.std() / 20, rel=0.06)


def test_an_undefined_metric_is_none_and_an_undefined_resample_is_left_out() -> None:
    never = Statistic(3, lambda counts: np.full(len(counts), np.nan))
    seldom = Statistic(3, lambda counts: np.where(counts[:, 0] > 0, counts[:, 0], np.nan))
    undefined, found = measure([never, seldom], 400)
    assert undefined is None
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, 1.0, 3.0)


def test_an_interval_holds_its_value_where_resampling_is_biased() -> None:
    biased = Statistic(20, lambda counts: 1.0 + (counts != 1).sum(1))  # as good as 1 on the items only
    (found,) = measure([biased], 200)
    assert found is not None
    assert (found.value, found.low) == (1.0, 1.0)
    assert found.high > 5


def test_the_sign_flip_test_equals_the_exact_one_of_scipy() -> None:
    difference = np.array([0.4, -0.1, 0.3, 0.2, 0.5, -0.2, 0.6, 0.1])
    exact = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip(difference, 40_000) == pytest.approx(exact, abs=0.006)


def paired(seed: int, gain: float, count: int = 120) -> list[list[dict[str, Any]]]:
    """Two methods on the same items, the first better by `gain` on the right label."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 3, count)
    methods = []
    for extra in (gain, 0.0):
        scores = generator.normal(size=(count, 3))
        scores[np.arange(count), gold] += 0.5 + extra
        methods.append([{"id": i, "gold": int(gold[i]), "scores": scores[i].tolist()} for i in range(count)])
    return methods


@pytest.mark.parametrize("metric", ["accuracy", "brier_score", "macro_f1", "macro_auc", "aurc"])
def test_a_real_difference_is_found_and_turns_with_the_two_methods(metric: str) -> None:
    ours, other = paired(0, gain=2.0)
    there = compare_methods("multiple_choice", metric, [ours], [other], fixed_labels=True, resamples=500)
    back = compare_methods("multiple_choice", metric, [other], [ours], fixed_labels=True, resamples=500)
    assert there is not None
    assert back is not None
    assert there.p_value < 0.01
    assert there.low * there.high > 0
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_method_does_not_differ_from_itself(metric: str) -> None:
    ours, _ = paired(0, gain=1.0)
    same = compare_methods("multiple_choice", metric, [ours], [ours], fixed_labels=True, resamples=200)
    assert same is not None
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_p_value_of_a_paired_bootstrap_is_twice_its_smaller_side() -> None:
    per_item, other = np.random.default_rng(5).random((2, 50)) + [[0.08], [0.0]]
    ours, theirs = (Statistic(50, Statistic.mean(values).of) for values in (per_item, other))
    found = compare_seeds([ours], [theirs], 999)
    values = resample([Statistic.mean(per_item - other)], 999)[0]
    assert found is not None
    assert found.p_value == pytest.approx(2 * ((values <= 0).sum() + 1) / 1000)
    assert 0.01 < found.p_value < 0.9
    assert found.difference == pytest.approx((per_item - other).mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_equal_methods_are_called_different_about_as_rarely_as_promised(metric: str) -> None:
    found = [
        compare_methods("multiple_choice", metric, *([run] for run in paired(s, 0.0, 60)), fixed_labels=True, resamples=199)
        for s in range(60)
    ]
    false_alarms = np.mean([c is not None and c.p_value <= 0.05 for c in found])
    assert false_alarms <= 0.13


def test_a_difference_within_chance_is_a_tie() -> None:
    found = [outcome_of(difference, p) for difference, p in ((0.1, 0.01), (-0.1, 0.01), (0.1, 0.2), (0.0, 0.01), (0.1, 0.05))]
    assert found == ["win", "loss", "tie", "tie", "tie"]


# ---- Holm's correction ---------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last is raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.02, 0.9]) == pytest.approx([1.0, 0.06, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_comparisons_named_beforehand_count_though_they_were_not_made() -> None:
    assert holm([0.002, 0.01], 18) == pytest.approx([0.036, 0.17])
    assert holm([0.002, 0.01], 18) == pytest.approx(holm([0.002, 0.01, *[1.0] * 16])[:2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=18))
def test_holm_is_the_step_down_procedure_between_none_and_bonferroni(p_values: list[float]) -> None:
    adjusted, count = holm(p_values), len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i])
    rejected = set[int]()
    for step, index in enumerate(order):  # as Holm (1979) writes it: stop at the first that is not below its level
        if not p_values[index] * (count - step) < 0.05:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(adjusted) if p < 0.05} == rejected
    assert all(p <= a <= min(1.0, p * count) or a == pytest.approx(p) for p, a in zip(p_values, adjusted, strict=True))
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert holm(p_values[::-1]) == adjusted[::-1]


def test_of_eighteen_equal_comparisons_any_is_called_different_in_one_table_of_twenty() -> None:
    normal = np.random.default_rng(0).normal(size=(2000, 18))
    p_values = 2 * stats.norm.sf(np.abs(normal))
    assert np.mean([min(row) < 0.05 for row in p_values]) > 0.5
    assert np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()]) == pytest.approx(0.05, abs=0.015)


# ---- Satterthwaite -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-3),
    st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-3),
)
def test_two_independent_groups_have_the_degrees_of_freedom_of_welch(ours: list[float], other: list[float]) -> None:
    error, welch = StandardError.of(0.0, 100, [ours, other]), stats.ttest_ind(ours, other, equal_var=False)
    assert error.freedom == pytest.approx(welch.df)
    assert error.p_value(float(np.mean(ours) - np.mean(other))) == pytest.approx(welch.pvalue)


def test_items_and_seeds_have_satterthwaites_degrees_of_freedom_by_hand() -> None:
    error = StandardError.of(0.0004, 101, [[0.50, 0.53, 0.56]])  # 0.03² / 3 = 0.0003 with 2, 0.0004 with 100
    assert error.size == pytest.approx(0.0007**0.5)
    assert error.freedom == pytest.approx(0.0007**2 / (0.0004**2 / 100 + 0.0003**2 / 2))


def test_every_metric_belongs_to_one_family() -> None:
    families = {name: metric_family(name) for name in METRICS}
    assert families["token_f1"] == families["entity_f1_macro"] == families["macro_f1"] == "F1"
    assert families["micro_auc"] == families["macro_auc"] == "AUC"
    assert {name for name, family in families.items() if family == "accuracy"} == {
        "accuracy", "exact_match", "one_minus_hamming_loss",
    }  # fmt: skip
    assert (families["rouge_l"], families["invented_rate"], families["aurc"]) == ("ROUGE", "invented mentions", "AURC")


def test_what_cannot_be_compared() -> None:
    ours, other = paired(0, gain=0.0)
    with pytest.raises(BadData, match="the same items in the same order"):
        compare_methods("multiple_choice", "accuracy", [ours], [other[::-1]])
    relabelled = [p | {"gold": (p["gold"] + 1) % 3} for p in other]
    with pytest.raises(BadData, match="120 of 120 items have another gold answer"):
        compare_methods("multiple_choice", "accuracy", [ours], [relabelled])
    with pytest.raises(
        UnknownName, match=r"no metric of output type 'multiple_choice' 'macro_f'.*Available: accuracy, aurc, brier_score"
    ):
        compare_methods("multiple_choice", "macro_f", [ours], [other])
    one_class = [p | {"gold": 0} for p in ours]
    assert compare_methods("multiple_choice", "macro_auc", [one_class], [one_class], fixed_labels=True, resamples=100) is None


def test_several_seeds_equal_scipy() -> None:
    values = [0.61, 0.58, 0.66, 0.60, 0.63]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.mean, found.deviation) == pytest.approx((0.616, np.std(values, ddof=1)))
    assert (found.low, found.high, found.seeds) == pytest.approx((low, high, 5))
    assert asdict(over_seeds([0.5])) == {"mean": 0.5, "deviation": None, "low": None, "high": None, "seeds": 1}
    for wrong in ([], [0.5, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            over_seeds(wrong)


CHOICE, SEVERAL = {"id": 1, "gold": 0, "scores": [0.1, 0.2]}, {"id": 1, "gold": [0], "answer": [1]}
SPAN, MENTION = {"id": 1, "gold": ["secret"], "answer": "secret"}, {"type": "problem", "text": "secret"}
ENTITIES = {"id": 1, "gold": [MENTION], "answer": []}


@pytest.mark.parametrize(
    ("output_type", "row", "message"),
    [
        ("multiple_choice", CHOICE | {"gold": 2}, "index of one of its 2 labels"),
        ("multiple_choice", CHOICE | {"gold": -1}, "'gold'.*greater than or equal to 0"),
        ("multiple_choice", CHOICE | {"gold": True}, "'gold'.*valid integer"),
        ("multiple_choice", CHOICE | {"scores": []}, "'scores'.*at least 1 item"),
        ("multiple_choice", CHOICE | {"scores": [0.1, float("nan")]}, "'scores.1'.*finite number"),
        ("multi_label", SEVERAL | {"gold": [0, 0]}, "'gold' must hold each label once"),
        ("multi_label", SEVERAL | {"answer": "secret"}, "'answer'.*valid list"),
        ("multi_label", SEVERAL | {"scores": [0.1]}, "'answer' names a label beyond the 1"),
        ("multi_label", SEVERAL | {"scores": None}, "'scores'.*valid list"),
        ("span", SPAN | {"gold": "secret"}, "'gold'.*valid list"),
        ("span", SPAN | {"answer": None}, "'answer'.*valid string"),
        ("span", SPAN | {"confidence": "high"}, "'confidence'.*valid number"),
        ("generate_until", SPAN | {"gold": []}, "'gold'.*at least 1 item"),
        ("ner", ENTITIES | {"gold": ["secret"]}, "'gold.0'.*valid dictionary"),
        ("ner", ENTITIES | {"answer": [MENTION | {"text": " "}]}, "'answer.0.text'.*match pattern"),
    ],
)
def test_a_wrong_prediction_is_named_by_its_line_and_its_text_never_shown(
    output_type: str, row: dict[str, Any], message: str
) -> None:
    good = {"multiple_choice": CHOICE, "multi_label": SEVERAL, "span": SPAN, "generate_until": SPAN, "ner": ENTITIES}[
        output_type
    ]
    with pytest.raises(BadData, match=message) as caught:
        compute_metrics(output_type, [good, row], resamples=100)
    assert f"prediction 2 of 2, output type '{output_type}'" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_predictions_that_do_not_belong_together() -> None:
    with pytest.raises(UnknownName, match=r"no output type 'multi_choice'.*Did you mean 'multiple_choice'"):
        compute_metrics("multi_choice", [CHOICE])
    with pytest.raises(BadData, match="no predictions to score"):
        compute_metrics("multiple_choice", [])
    with pytest.raises(BadData, match="1 of 2 predictions have 'confidence'"):
        compute_metrics("span", [SPAN, SPAN | {"confidence": 1}])
    with pytest.raises(BadData, match="2 to 3 scores"):
        compute_metrics("multiple_choice", [CHOICE, CHOICE | {"scores": [1, 2, 3]}], fixed_labels=True)
    assert compute_metrics("multiple_choice", [CHOICE, CHOICE | {"scores": [1, 2, 3]}], resamples=100)["accuracy"]["value"] == 0


def test_methods_are_compared_by_their_mean_over_seeds() -> None:
    generator = np.random.default_rng(0)

    def run(shift: float) -> list[dict[str, Any]]:
        return [
            {"id": str(i), "gold": i % 2, "scores": [0.0, float(generator.normal(shift * (2 * (i % 2) - 1)))]}
            for i in range(60)
        ]

    ours, other = [run(1.0), run(1.0)], [run(0.0)]
    for metric in ("accuracy", "macro_auc"):
        found = compare_methods("multiple_choice", metric, ours, other, fixed_labels=True)
        values = [compute_metrics("multiple_choice", p, fixed_labels=True)[metric]["value"] for p in (*ours, *other)]
        assert found is not None
        assert found.difference == pytest.approx(sum(values[:2]) / 2 - values[2])
        assert found.low <= found.difference <= found.high
        assert found.p_value < 0.05
    single = compare_methods("multiple_choice", "macro_auc", ours[:1], other, fixed_labels=True)
    assert single is not None
    assert single.freedom is None
    with pytest.raises(UnknownName, match="metric of output type 'multiple_choice'"):
        compare_methods("multiple_choice", "micro_f1", ours, other)
    with pytest.raises(BadData, match="same items"):
        compare_methods("multiple_choice", "accuracy", ours, [other[0][:5]])
