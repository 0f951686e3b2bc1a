"""Which metrics belong to an output type; one entry point for all forms.

    choice     accuracy, ece, brier_score, aurc
               with fixed labels also macro_f1, macro_auc, macro_average_precision
    several    micro_f1, macro_f1
               with scores also one_minus_hamming_loss, micro_ and macro_ auc and average_precision, ece, brier_score,
               aurc
    span       exact_match, token_f1
    entities   entity_f1 (exact, micro), entity_f1_macro (by type), entity_f1_overlap, entity_f1_overlap_macro
    text       rouge_l

Every form whose predictions have a "confidence" has aurc too. `staf.metrics.shapes` says what a prediction holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from staf.errors import UnknownName
from staf.metrics.bootstrap import Metric, Statistic, measure
from staf.metrics.calibration import choice_brier, choice_chances, ece, several_brier, several_chances
from staf.metrics.compare import Comparison, compare_seeds, compare_statistics, refuse_other_gold, refuse_other_items
from staf.metrics.entities import entity_counts, exact_matches, overlap_matches
from staf.metrics.f1 import choice_counts, item_f1, item_label_accuracy, macro_f1_of, micro_f1_of, several_counts
from staf.metrics.ranking import average_precision, choice_rankings, macro, micro, roc_area, several_rankings
from staf.metrics.reading import exact_match, token_f1
from staf.metrics.rouge import rouge_l
from staf.metrics.seeds import measure_seeds
from staf.metrics.selective import aurc, choice_confidence, confidence_of, curve
from staf.metrics.shapes import Prediction, check, correctness

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
    """Every metric of an output type, as plain values: {name: {"value", "low", "high", "n", ...}}, null where undefined.

    `low` and `high` are the ends of the 95 % interval over items, `n` the number of items ("examples" is the same number, under
    the name that reports read). "higher_is_better" is there too; "classes" is how many labels or types a macro mean is of, and
    "classes_left_out" how many labels had no positive, or for AUC no negative.

    Args:
        fixed_labels: of choices: every item has the same labels.
        bins: of the calibration error.

    Raises:
        UnknownName: no such output type. BadData: predictions that are not of this form.
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
    bins: int = BINS,
) -> Comparison | None:
    """Paired comparison of two methods by one of the metrics of `compute_metrics`; None where it is undefined.

    Raises:
        UnknownName: no such form, or no such metric of both. BadData: predictions that are not of this form.
        ValueError: the two are not about the same items in the same order, or not with the same gold answers.
    """
    found = [statistics_of(output_type, p, fixed_labels=fixed_labels, bins=bins) for p in (ours, other)]
    refuse_other_items(ours, other)
    refuse_other_gold(ours, other)
    shared = set(found[0]) & set(found[1])
    if metric not in shared:
        raise UnknownName.among(f"metric of output type '{output_type}'", metric, shared)
    return compare_statistics(found[0][metric], found[1][metric], resamples)


def selective_curve(
    output_type: str,
    predictions: Sequence[Prediction],
    *,
    resamples: int = 2000,
    coverages: Sequence[float] = COVERAGES,
    seed: int = 0,
) -> list[dict[str, Any]] | None:
    """Quality against coverage, surest items first (`staf.metrics.selective.curve`); None where nothing says how sure they are.

    The quality of an item is 1 or 0 for a choice or a span, its own F1 for labels and entities, its ROUGE-L for text.

    Raises:
        UnknownName: no such form. BadData: predictions that are not of this form. ValueError: a coverage outside 0 to 1.
    """
    check(output_type, predictions)
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError("a coverage is a share of the items: above 0, at most 1")
    confidence = _confidence(output_type, predictions)
    return None if confidence is None else curve(_QUALITY[output_type](predictions), confidence, coverages, resamples, seed)


def item_quality(output_type: str, predictions: Sequence[Prediction]) -> np.ndarray:
    """Quality of each item between 0 and 1, (n,): what `selective_curve` averages.

    Raises:
        UnknownName: no such form. BadData: predictions that are not of this form.
    """
    check(output_type, predictions)
    return _QUALITY[output_type](predictions)


def compare_over_seeds(
    output_type: str,
    metric: str,
    ours: Sequence[Sequence[Prediction]],
    other: Sequence[Sequence[Prediction]],
    *,
    fixed_labels: bool = False,
    resamples: int = 2000,
) -> Comparison | None:
    """Paired comparison by one metric of two methods, each averaged over its seeds; None where undefined.

    Items and seeds are both a draw (`staf.metrics.compare.compare_seeds`).

    Args:
        ours, other: predictions of each seed; all about the same items in the same order.

    Raises:
        UnknownName: no such form, or no such metric of all. BadData: predictions that are not of this form.
        ValueError: other items, or other gold answers.
    """
    refuse_other_items(ours[0], other[0])
    refuse_other_gold(ours[0], other[0])
    found = [_of_seeds(output_type, metric, method, fixed_labels) for method in (ours, other)]
    return compare_seeds(found[0], found[1], resamples)


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
        UnknownName: no such form, or no such metric of all. BadData: predictions that are not of this form.
        ValueError: other items, or other gold answers.
    """
    return measure_seeds(_of_seeds(output_type, metric, runs, fixed_labels), resamples)


def _of_seeds(output_type: str, metric: str, runs: Sequence[Sequence[Prediction]], fixed_labels: bool) -> list[Statistic]:
    """The metric of each seed."""
    found = []
    for predictions in runs:
        refuse_other_items(runs[0], predictions)
        refuse_other_gold(runs[0], predictions)
        statistics = statistics_of(output_type, predictions, fixed_labels=fixed_labels)
        if metric not in statistics:
            raise UnknownName.among(f"metric of output type '{output_type}'", metric, statistics)
        found.append(statistics[metric])
    return found


def statistics_of(
    output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False, bins: int = BINS
) -> Statistics:
    """The metrics of an output type, not yet measured, by name.

    Raises:
        UnknownName: no such form. BadData: predictions that are not of this form.
    """
    check(output_type, predictions, fixed_labels=fixed_labels)
    if output_type == "multiple_choice":
        found = _choice(predictions, fixed_labels, bins)
    elif output_type == "multi_label":
        found = _several(predictions, bins)
    elif output_type == "span":
        found = {"exact_match": Statistic.mean(exact_match(predictions)), "token_f1": Statistic.mean(token_f1(predictions))}
    elif output_type == "ner":
        found = _entities(predictions)
    else:
        found = {"rouge_l": Statistic.mean(rouge_l(predictions))}
    confidence = _confidence(output_type, predictions)
    if confidence is not None:
        found["aurc"] = aurc(_QUALITY[output_type](predictions), confidence)
    return found


def _choice(predictions: Sequence[Prediction], fixed_labels: bool, bins: int) -> Statistics:
    found = {"accuracy": Statistic.mean(correctness(predictions))}
    if fixed_labels:
        rankings = choice_rankings(predictions)
        found["macro_f1"] = macro_f1_of(*choice_counts(predictions))
        found["macro_auc"] = macro(roc_area, *rankings)
        found["macro_average_precision"] = macro(average_precision, *rankings)
    found["ece"] = ece(*choice_chances(predictions), bins)
    found["brier_score"] = Statistic.mean(choice_brier(predictions), higher_is_better=False)
    return found


def _several(predictions: Sequence[Prediction], bins: int) -> Statistics:
    counts = several_counts(predictions)
    found = {"micro_f1": micro_f1_of(*counts), "macro_f1": macro_f1_of(*counts)}
    if "scores" in predictions[0]:
        found["one_minus_hamming_loss"] = Statistic.mean(item_label_accuracy(*counts))
        rankings = several_rankings(predictions)
        for name, area in (("auc", roc_area), ("average_precision", average_precision)):
            found[f"micro_{name}"] = micro(area, *rankings)
            found[f"macro_{name}"] = macro(area, *rankings)
        found["ece"] = ece(*several_chances(predictions), bins)
        found["brier_score"] = Statistic.mean(several_brier(predictions), higher_is_better=False)
    return found


def _entities(predictions: Sequence[Prediction]) -> Statistics:
    exact, overlapping = entity_counts(predictions, exact_matches), entity_counts(predictions, overlap_matches)
    return {
        "entity_f1": micro_f1_of(*exact),
        "entity_f1_macro": macro_f1_of(*exact),
        "entity_f1_overlap": micro_f1_of(*overlapping),
        "entity_f1_overlap_macro": macro_f1_of(*overlapping),
    }


def _confidence(output_type: str, predictions: Sequence[Prediction]) -> np.ndarray | None:
    return choice_confidence(predictions) if output_type == "multiple_choice" else confidence_of(predictions)


_QUALITY: dict[str, Callable[[Sequence[Prediction]], np.ndarray]] = {
    "multiple_choice": correctness,
    "multi_label": lambda predictions: item_f1(*several_counts(predictions)),
    "span": exact_match,
    "ner": lambda predictions: item_f1(*entity_counts(predictions, exact_matches)),
    "generate_until": rouge_l,
}
