"""Which metrics an output type has, and two methods compared by one of them.

    multiple_choice  accuracy, ece, brier_score, aurc; with fixed labels also macro_f1, macro_auc, macro_average_precision
    multi_label      micro_f1, macro_f1; with scores also one_minus_hamming_loss, micro_ and macro_ auc and average_precision,
                     ece, brier_score, aurc
    span             exact_match, token_f1
    ner              entity_f1 (exact, micro), entity_f1_macro (by type), entity_f1_overlap, entity_f1_overlap_macro,
                     invented_rate
    generate_until   rouge_l, rouge_1, rouge_2

Every output type whose predictions have a "confidence" has aurc too. `staf.metrics.schema` says what a prediction holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staf.errors import UnknownName
from staf.metrics import calibration, classification, text
from staf.metrics.schema import Prediction, check, correctness
from staf.metrics.stats import Comparison, Metric, Statistic, compare_seeds, measure, measure_seeds

BINS = 10
"""of the calibration error, where nothing else is asked for"""
COVERAGES = tuple(step / 20 for step in range(1, 21))
Statistics = dict[str, Statistic]


def compute_metrics(
    output_type: str,
    predictions: Sequence[Prediction],
    *,
    fixed_labels: bool = False,
    resamples: int = 2000,
    bins: int = BINS,
    seed: int = 0,
) -> dict[str, Any]:
    """Every metric: {name: {"value", "low", "high", "n", "higher_is_better", ...}}, null where undefined.

    `low` and `high` are the ends of the 95 % interval over `n` items ("examples" is the same number). "classes" is the number
    of labels or types in a macro mean, "classes_left_out" that of labels without a positive, or for AUC without a negative.

    Args:
        fixed_labels: every item has the same labels. bins: of the calibration error.

    Raises:
        UnknownName: no such output type. BadData: predictions that are not of this type.
    """
    statistics = statistics_of(output_type, predictions, fixed_labels=fixed_labels, bins=bins)
    measured = measure(list(statistics.values()), resamples, seed)
    return {
        name: None if metric is None else metric.as_dict() | {"n": metric.examples} | dict(statistic.details)
        for (name, statistic), metric in zip(statistics.items(), measured, strict=True)
    }


def compare_methods(
    output_type: str,
    metric: str,
    ours: Sequence[Prediction],
    other: Sequence[Prediction],
    *,
    fixed_labels: bool = False,
    resamples: int = 2000,
) -> Comparison | None:
    """As `compare_over_seeds`, of one run each."""
    return compare_over_seeds(output_type, metric, [ours], [other], fixed_labels=fixed_labels, resamples=resamples)


def compare_over_seeds(
    output_type: str,
    metric: str,
    ours: Sequence[Sequence[Prediction]],
    other: Sequence[Sequence[Prediction]],
    *,
    fixed_labels: bool = False,
    resamples: int = 2000,
    paired: bool = True,
) -> Comparison | None:
    """Paired comparison by one metric of two methods, each averaged over its seeds; None where undefined.

    Args:
        ours, other: predictions of each seed; all about the same items in the same order.
        paired: seed k of both methods shares the draw of adaptation examples (`staf.metrics.stats.compare_seeds`).

    Raises:
        UnknownName: no such output type, or no such metric of all. BadData: predictions that are not of this type.
        ValueError: other items, or other gold answers.
    """
    found = [_of_seeds(output_type, metric, [*method], fixed_labels) for method in (ours, other)]
    _refuse_other_items(ours[0], other[0])
    return compare_seeds(found[0], found[1], resamples, paired=paired)


def measure_over_seeds(
    output_type: str,
    metric: str,
    runs: Sequence[Sequence[Prediction]],
    *,
    fixed_labels: bool = False,
    resamples: int = 2000,
) -> Metric | None:
    """One metric of a method averaged over its seeds, with its 95 % interval over items and seeds; None where undefined.

    Args:
        runs: predictions of each seed; all about the same items in the same order.

    Raises:
        UnknownName, BadData, ValueError: as `compare_over_seeds`.
    """
    return measure_seeds(_of_seeds(output_type, metric, runs, fixed_labels), resamples)


def selective_curve(
    output_type: str,
    predictions: Sequence[Prediction],
    *,
    resamples: int = 2000,
    coverages: Sequence[float] = COVERAGES,
    seed: int = 0,
) -> list[dict[str, Any]] | None:
    """Quality against coverage, surest items first (`calibration.coverage_curve`); None where there is no confidence.

    The quality of an item is 1 or 0 for a choice or a span, its own F1 for labels and entities, its ROUGE-L for text.

    Raises:
        UnknownName: no such output type. BadData: predictions that are not of this type. ValueError: a coverage not in (0, 1].
    """
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError("a coverage is a share of the items: above 0, at most 1")
    quality, confidence = item_quality(output_type, predictions), _confidence(output_type, predictions)
    return None if confidence is None else calibration.coverage_curve(quality, confidence, coverages, resamples, seed)


def item_quality(output_type: str, predictions: Sequence[Prediction]) -> np.ndarray:
    """Quality of each item between 0 and 1, (n,): what `selective_curve` averages; raises as `compute_metrics`."""
    check(output_type, predictions)
    return _QUALITY[output_type](predictions)


def statistics_of(
    output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False, bins: int = BINS
) -> Statistics:
    """The metrics of an output type by name, not yet measured; raises as `compute_metrics`."""
    check(output_type, predictions, fixed_labels=fixed_labels)
    found = _STATISTICS[output_type](predictions, bins)
    if output_type == "multiple_choice" and fixed_labels:
        found |= _fixed_labels(predictions)
    confidence = _confidence(output_type, predictions)
    if confidence is not None:
        found["aurc"] = calibration.aurc(_QUALITY[output_type](predictions), confidence)
    return found


def _multiple_choice(predictions: Sequence[Prediction], bins: int) -> Statistics:
    return {
        "accuracy": Statistic.mean(correctness(predictions)),
        "ece": calibration.ece(*calibration.choice_probs(predictions), bins),
        "brier_score": Statistic.mean(calibration.choice_brier(predictions), higher_is_better=False),
    }


def _fixed_labels(predictions: Sequence[Prediction]) -> Statistics:
    rankings = classification.choice_rankings(predictions)
    return {
        "macro_f1": classification.macro_f1_of(*classification.choice_counts(predictions)),
        "macro_auc": classification.macro(classification.roc_area, *rankings),
        "macro_average_precision": classification.macro(classification.average_precision, *rankings),
    }


def _multi_label(predictions: Sequence[Prediction], bins: int) -> Statistics:
    counts = classification.multi_label_counts(predictions)
    found = {
        "micro_f1": classification.micro_f1_of(*counts),
        "macro_f1": classification.macro_f1_of(*counts, all_classes=True),
    }
    if "scores" in predictions[0]:
        found["one_minus_hamming_loss"] = Statistic.mean(classification.item_hamming_accuracy(*counts))
        rankings = classification.multi_label_rankings(predictions)
        for name, area in (("auc", classification.roc_area), ("average_precision", classification.average_precision)):
            found[f"micro_{name}"] = classification.micro(area, *rankings)
            found[f"macro_{name}"] = classification.macro(area, *rankings)
        found["ece"] = calibration.ece(*calibration.multi_label_probs(predictions), bins)
        found["brier_score"] = Statistic.mean(calibration.multi_label_brier(predictions), higher_is_better=False)
    return found


def _ner(predictions: Sequence[Prediction], bins: int) -> Statistics:
    exact = text.entity_counts(predictions, text.exact_matches)
    overlapping = text.entity_counts(predictions, text.overlap_matches)
    found: Statistics = {}
    for name, counts in (("entity_f1", exact), ("entity_f1_overlap", overlapping)):
        found |= {name: classification.micro_f1_of(*counts), f"{name}_macro": classification.macro_f1_of(*counts)}
    return found | ({"invented_rate": text.invented_rate(predictions)} if "invented" in predictions[0] else {})


def _of_seeds(output_type: str, metric: str, runs: Sequence[Sequence[Prediction]], fixed_labels: bool) -> list[Statistic]:
    """The metric of each seed."""
    found = []
    for predictions in runs:
        _refuse_other_items(runs[0], predictions)
        statistics = statistics_of(output_type, predictions, fixed_labels=fixed_labels)
        if metric not in statistics:
            raise UnknownName.among(f"metric of output type '{output_type}'", metric, statistics)
        found.append(statistics[metric])
    return found


def _refuse_other_items(ours: Sequence[Prediction], other: Sequence[Prediction]) -> None:
    """Raise ValueError where two methods did not answer the same items in the same order, or have other gold answers."""
    if [p["id"] for p in ours] != [p["id"] for p in other]:
        raise ValueError("predictions of two methods can be compared only on the same items in the same order")
    differing = sum(a["gold"] != b["gold"] for a, b in zip(ours, other, strict=True))
    if differing:
        raise ValueError(f"{differing} of {len(ours)} items have another gold answer with the other method. Predict again.")


def _confidence(output_type: str, predictions: Sequence[Prediction]) -> np.ndarray | None:
    if output_type == "multiple_choice":
        return calibration.choice_confidence(predictions)
    return calibration.confidence_of(predictions)


_STATISTICS: dict[str, Callable[[Sequence[Prediction], int], Statistics]] = {
    "multiple_choice": _multiple_choice,
    "multi_label": _multi_label,
    "span": lambda p, _: {"exact_match": Statistic.mean(text.exact_match(p)), "token_f1": Statistic.mean(text.token_f1(p))},
    "ner": _ner,
    "generate_until": lambda p, _: {name: Statistic.mean(text.rouge(p, kind)) for name, kind in text.ROUGE.items()},
}
_QUALITY: dict[str, Callable[[Sequence[Prediction]], np.ndarray]] = {
    "multiple_choice": correctness,
    "multi_label": lambda predictions: classification.item_f1(*classification.multi_label_counts(predictions)),
    "span": text.exact_match,
    "ner": lambda predictions: classification.item_f1(*text.entity_counts(predictions, text.exact_matches)),
    "generate_until": text.rouge,
}
