"""Which metrics an output type has, and one of them over several runs.

Every output type whose predictions have a "confidence" has aurc too. `staf.metrics.schema` says what a prediction holds. The
functions here raise UnknownName where there is no such output type, and BadData for predictions that are not of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from staf.errors import BadData, UnknownName
from staf.metrics import text
from staf.metrics.calibration import aurc, ece, kept_items, selective_quality
from staf.metrics.classification import (
    average_precision,
    f1_counts,
    item_f1,
    label_scores,
    macro,
    macro_f1,
    membership,
    micro,
    micro_f1,
    ratio,
    roc_area,
)
from staf.metrics.schema import Prediction, check
from staf.metrics.stats import Statistic, measure

BINS = 10
"""of the calibration error"""
COVERAGES = tuple(step / 20 for step in range(1, 21))
AREAS = {"auc": roc_area, "average_precision": average_precision}


@dataclass(frozen=True)
class Measures:
    """Predictions of one output type as numbers, not yet measured."""

    statistics: dict[str, Statistic]
    """by the metric's name"""
    quality: np.ndarray
    """(n,) between 0 and 1: 1 or 0 for a choice or a span, F1 for labels and entities, ROUGE-L for text"""
    confidence: np.ndarray | None = None
    """(n,), any scale; None where the method gave none"""


def compute_metrics(
    output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Every metric: {name: {"value", "low", "high", "n", "higher_is_better", ...}}, null where undefined.

    `low` and `high` are the ends of the 95 % interval over `n` items ("examples" is the same number). "classes" is the number
    of labels or types in a macro mean, "classes_left_out" that of labels without a positive, or for AUC without a negative.

    Args:
        fixed_labels: every item has the same labels.
    """
    statistics = measures_of(output_type, predictions, fixed_labels=fixed_labels).statistics
    measured = measure(list(statistics.values()), resamples, seed)
    return {
        name: None if metric is None else asdict(metric) | {"n": metric.examples} | dict(statistic.details)
        for (name, statistic), metric in zip(statistics.items(), measured, strict=True)
    }


def metric_of_runs(
    output_type: str, metric: str, *methods: Sequence[Sequence[Prediction]], fixed_labels: bool = False
) -> list[list[Statistic]]:
    """One metric of each run of one method or of two, as `measure_seeds` and `compare_seeds` take them.

    Args:
        methods: predictions of each run; all about the same items in the same order.

    Raises:
        UnknownName: no such metric. BadData: other items, or other gold answers.
    """
    first = methods[0][0]
    found = []
    for runs in methods:
        found.append(list[Statistic]())
        for predictions in runs:
            statistics = measures_of(output_type, predictions, fixed_labels=fixed_labels).statistics
            if [p.get("id") for p in predictions] != [p.get("id") for p in first]:
                raise BadData("predictions of two runs are compared only on the same items in the same order. Predict again.")
            if differing := sum(a["gold"] != b["gold"] for a, b in zip(predictions, first, strict=True)):
                raise BadData(f"{differing} of {len(first)} items have another gold answer in another run. Predict again.")
            if metric not in statistics:
                raise UnknownName.among(f"metric of output type '{output_type}'", metric, statistics)
            found[-1].append(statistics[metric])
    return found


def selective_curve(
    output_type: str, predictions: Sequence[Prediction], *, resamples: int = 2000
) -> list[dict[str, Any]] | None:
    """Quality against coverage, surest items first, with 95 % intervals; None where there is no confidence.

    Each point is {"coverage", "value", "low", "high", "confidence"}, the last being what is answered down to.
    """
    found = measures_of(output_type, predictions)
    if found.confidence is None:
        return None
    statistics = [selective_quality(found.quality, found.confidence, coverage) for coverage in COVERAGES]
    surest_first = -np.sort(-found.confidence)
    return [
        {
            "coverage": coverage, "value": point.value, "low": point.low, "high": point.high,
            "confidence": float(surest_first[kept_items(len(predictions), coverage) - 1]),
        }
        for coverage, point in zip(COVERAGES, measure(statistics, resamples), strict=True) if point is not None
    ]  # fmt: skip


def measures_of(output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False) -> Measures:
    """The metrics of an output type, the quality of each item and the confidence in it."""
    check(output_type, predictions, fixed_labels=fixed_labels)
    found = _MEASURES[output_type](predictions, fixed_labels)
    confidence = found.confidence
    if output_type != "multiple_choice" and "confidence" in predictions[0]:
        confidence = np.array([p["confidence"] for p in predictions], dtype=float)
    risk = {} if confidence is None else {"aurc": aurc(found.quality, confidence)}
    return Measures(found.statistics | risk, found.quality, confidence)


def _multiple_choice(predictions: Sequence[Prediction], fixed_labels: bool) -> Measures:
    from scipy.special import softmax

    scores = label_scores(predictions)
    gold, answered = (
        membership(rows, scores.shape[1]) for rows in ([[p["gold"]] for p in predictions], scores.argmax(1)[:, None])
    )
    probs, right = softmax(scores, axis=1), (gold & answered).any(1)
    found = {
        "accuracy": Statistic.mean(right.astype(float)),
        "ece": ece(probs.max(1)[:, None], right[:, None], BINS),
        "brier_score": Statistic.mean(((probs - gold) ** 2).sum(1), higher_is_better=False),
    }
    if fixed_labels:
        found["macro_f1"] = macro_f1(*f1_counts(gold, answered))
        found |= {f"macro_{name}": macro(area, probs, gold) for name, area in AREAS.items()}
    return Measures(found, right.astype(float), probs.max(1))


def _multi_label(predictions: Sequence[Prediction], _: bool) -> Measures:
    from scipy.special import expit, log_expit

    scored = "scores" in predictions[0]
    named = [index + 1 for p in predictions for index in (*p["gold"], *p["answer"])]
    labels = len(predictions[0]["scores"]) if scored else max(named + [p.get("labels", 0) for p in predictions], default=0)
    gold, answered = (membership([p[key] for p in predictions], labels) for key in ("gold", "answer"))
    counts = f1_counts(gold, answered)
    found = {"micro_f1": micro_f1(*counts), "macro_f1": macro_f1(*counts, all_classes=True)}
    if not scored:
        return Measures(found, item_f1(*counts))
    log_odds = label_scores(predictions)
    probs = expit(log_odds)
    found["one_minus_hamming_loss"] = Statistic.mean((gold == answered).mean(1))
    for name, area in AREAS.items():
        found |= {f"micro_{name}": micro(area, log_odds, gold), f"macro_{name}": macro(area, log_odds, gold)}
    found["ece"] = ece(probs, gold, BINS)
    found["brier_score"] = Statistic.mean(((probs - gold) ** 2).mean(1), higher_is_better=False)
    all_as_answered = log_expit(np.where(answered, log_odds, -log_odds)).sum(1)
    return Measures(found, item_f1(*counts), all_as_answered)


def _ner(predictions: Sequence[Prediction], _: bool) -> Measures:
    found: dict[str, Statistic] = {}
    exact, overlapping = (text.entity_counts(predictions, how) for how in (text.exact_matches, text.overlap_matches))
    for name, counts in (("entity_f1", exact), ("entity_f1_overlap", overlapping)):
        found |= {name: micro_f1(*counts), f"{name}_macro": macro_f1(*counts)}
    if "invented" in predictions[0]:
        invented, answered = np.array([(p["invented"], len(p["answer"])) for p in predictions]).T
        found["invented_rate"] = ratio(invented, answered, higher_is_better=False)
    return Measures(found, item_f1(*exact))


def _span(predictions: Sequence[Prediction], _: bool) -> Measures:
    found = {"exact_match": text.exact_match(predictions), "token_f1": text.token_f1(predictions)}
    return Measures({name: Statistic.mean(values) for name, values in found.items()}, found["exact_match"])


def _generate_until(predictions: Sequence[Prediction], _: bool) -> Measures:
    found = text.rouge(predictions)
    return Measures({name: Statistic.mean(values) for name, values in found.items()}, found["rouge_l"])


_MEASURES: dict[str, Callable[[Sequence[Prediction], bool], Measures]] = {
    "multiple_choice": _multiple_choice,
    "multi_label": _multi_label,
    "span": _span,
    "ner": _ner,
    "generate_until": _generate_until,
}
