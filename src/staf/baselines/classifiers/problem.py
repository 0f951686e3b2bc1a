"""A task as a classifier sees it: texts and label indices, one part to fit on and one that judges; no query unless asked for.

What judges is drawn by group, so that no patient or document is torn apart, and never from the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.classifiers.words import words_of
from staf.data.answers import read_several
from staf.data.example import Example
from staf.data.splits import dice, refuse_test
from staf.errors import BadData, ConfigError, MissingData, TestLeak
from staf.metrics.classification import best_threshold

OUTPUT_TYPES = ("multiple_choice", "multi_label")
LEAST_CHANCE = 1e-6
"""Part of a choice's probability that is shared out evenly, so that a label never seen in fitting has a logarithm."""


@dataclass(frozen=True)
class Part:
    """Texts and their labels."""

    texts: list[str]
    targets: np.ndarray
    """(n, L) float32: 1 where the label is right, else 0"""


@dataclass(frozen=True)
class Problem:
    """A task split in two: what is fitted on, and what chooses settings and the moment to stop."""

    output_type: str
    """choice or several"""
    labels: tuple[str, ...]
    fitted: Part
    held_out: Part

    @property
    def whole(self) -> Part:
        """Both parts, for what is fitted once more when the settings are chosen."""
        return Part(self.fitted.texts + self.held_out.texts, np.concatenate([self.fitted.targets, self.held_out.targets]))


@dataclass(frozen=True)
class Found:
    """What a classifier gives."""

    scores: np.ndarray
    """(n, L): log-probabilities of a choice, log-odds of several labels"""
    held_out: np.ndarray
    """(held out, L) scores of what chose the settings, by what was fitted without it"""
    trials: list[dict[str, Any]]
    """every setting tried, with its held-out loss"""
    chosen: dict[str, Any]
    """the trial with the lowest held-out loss"""
    parameters: int
    """numbers that were fitted"""
    details: dict[str, Any]
    """what else the record keeps"""


def problem_of(
    adaptation: Sequence[Example], test: Sequence[Example], labels: Sequence[str], settings: ClassifierSettings
) -> Problem:
    """The problem that adaptation examples pose.

    Raises:
        MissingData: no test examples, too few to fit on, or no words in them. TestLeak: a test example is to be fitted on.
        ConfigError: other forms than one label or several, mixed forms, or labels that differ by item. BadData: an answer is
            not among the labels.
    """
    refuse_test(adaptation)
    shared = sorted({example.id for example in adaptation} & {example.id for example in test})
    if shared:
        raise TestLeak(f"{len(shared)} items are both to be fitted on and tested: {', '.join(shared[:3])}. Split them apart.")
    if not test:
        raise MissingData("there are no test examples to classify. See: staf data list")
    output_type = _form_of([*adaptation, *test], tuple(labels))
    fitted, held_out = held_apart(adaptation, settings.val_fraction, settings.seed)
    if not any(words_of(text_of(example, settings)) for example in fitted):
        raise MissingData("no example to fit on has a word in its context. Set include_query=true, or choose another task.")
    return Problem(
        output_type, tuple(labels), _part(fitted, output_type, labels, settings), _part(held_out, output_type, labels, settings)
    )


def text_of(example: Example, settings: ClassifierSettings) -> str:
    """What a classifier reads of an example: its context, after its query where the settings say so."""
    return f"{example.query}\n{example.context}" if settings.include_query else example.context


def indices_of(example: Example, output_type: str, labels: Sequence[str]) -> list[int]:
    """Indices of the right labels, rising; one of them where the form is choice.

    Raises:
        BadData: an answer is not among the labels; names the example, never its text.
    """
    answers = (example.answer,) if output_type == "multiple_choice" else read_several(example.answer)
    places = {label: index for index, label in enumerate(labels)}
    if any(answer not in places for answer in answers):
        raise BadData(f"{example.id}: its answer is not among the {len(labels)} labels. Prepare the data again.")
    return sorted(places[answer] for answer in answers)


def held_apart(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to fit on and examples that judge, each in order of id; whole groups, the same draw whatever the order given.

    Raises:
        MissingData: fewer than two groups.
    """
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.id):
        groups.setdefault(example.group or example.id, []).append(example)
    if len(groups) < 2:
        raise MissingData(
            f"{len(examples)} adaptation examples in {len(groups)} groups; one group has to judge the others. "
            "Give examples of at least 2 groups (patients, documents)."
        )
    names = dice(f"classifier:{seed}").sample(sorted(groups), len(groups))
    judging: set[str] = set()
    for name in names[:-1]:
        if judging and sum(len(groups[n]) for n in judging) + len(groups[name]) > share * len(examples):
            break
        judging.add(name)
    fitted = [example for name in sorted(groups) if name not in judging for example in groups[name]]
    return fitted, [example for name in sorted(judging) for example in groups[name]]


def log_scores(logits: np.ndarray, output_type: str) -> np.ndarray:
    """Log-probabilities (n, L) of a choice's logits (n, L), none below LEAST_CHANCE / L; several keep their log-odds."""
    values = logits.astype(np.float64)
    if output_type == "multi_label":
        return values
    chances = np.exp(values - values.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    return np.asarray(np.log((1 - LEAST_CHANCE) * chances + LEAST_CHANCE / values.shape[1]))


def loss_of(scores: np.ndarray, targets: np.ndarray, output_type: str) -> float:
    """Mean cross-entropy of a choice, or mean binary cross-entropy over items and labels: of scores and targets (n, L)."""
    if output_type == "multiple_choice":
        return float(-(scores * targets).sum(1).mean())
    return float((np.logaddexp(0, scores) - scores * targets).mean())


def threshold_of(held_out: np.ndarray, targets: np.ndarray, output_type: str) -> float | None:
    """From which log-odds on one of several labels is answered: the best micro F1 of what was held out, both (held out, L).

    One half as a chance where nothing held out is right; None for a choice.
    """
    if output_type == "multiple_choice":
        return None
    right = targets.ravel() > 0
    return best_threshold(held_out.ravel(), right) if right.any() else 0.0


def predictions_of(
    examples: Sequence[Example], scores: np.ndarray, output_type: str, labels: Sequence[str], threshold: float | None
) -> list[dict[str, Any]]:
    """Predictions as `staf.metrics.schema` has them, in the order of the examples, from scores (n, L).

    Args:
        threshold: log-odds from which on one of several labels is answered; None for a choice.
    """
    found = []
    for example, row in zip(examples, scores, strict=True):
        gold, rounded = indices_of(example, output_type, labels), [round(float(score), 6) for score in row]
        if threshold is None:
            found.append({"id": example.id, "gold": gold[0], "scores": rounded})
        else:
            answer = [index for index, score in enumerate(rounded) if score >= threshold]
            found.append({"id": example.id, "gold": gold, "answer": answer, "scores": rounded})
    return found


def _form_of(examples: Sequence[Example], labels: tuple[str, ...]) -> str:
    output_types = sorted({example.output_type for example in examples})
    if len(output_types) > 1 or output_types[0] not in OUTPUT_TYPES:
        raise ConfigError(
            f"a classifier answers tasks of one output type, {' or '.join(OUTPUT_TYPES)}; these "
            f"examples have {', '.join(output_types)}. Choose a classification task, or a method of the language model."
        )
    if len(set(labels)) < len(labels) or len(labels) < (2 if output_types[0] == "multiple_choice" else 1):
        raise ConfigError(
            f"a task of output type {output_types[0]} cannot have these {len(labels)} labels: give 2 or more, each once."
        )
    if other := [example.id for example in examples if example.labels != labels]:
        raise ConfigError(
            f"{len(other)} of {len(examples)} examples have other labels than the {len(labels)} given, such as {other[0]}. "
            "A classifier needs the same labels in the same order for every item. Choose a task with fixed labels, or a "
            "method of the language model."
        )
    return output_types[0]


def _part(examples: Sequence[Example], output_type: str, labels: Sequence[str], settings: ClassifierSettings) -> Part:
    targets = np.zeros((len(examples), len(labels)), dtype=np.float32)
    for row, example in enumerate(examples):
        targets[row, indices_of(example, output_type, labels)] = 1
    return Part([text_of(example, settings) for example in examples], targets)
