"""Text classifiers: a constant, logistic regression, sentence encoders, word networks and encoders (Table 5).

They learn from the adaptation examples only and give predictions as every method. The query is not read unless asked for.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from staf import __version__
from staf.baselines.settings import ClassifierSettings
from staf.data.answers import read_several
from staf.data.example import LABEL_TYPES, Example
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import ConfigError, MissingData, TestLeak, UnknownName
from staf.evaluate.answer import Predictions, gold_indices, label_prediction
from staf.experts.train import data_fingerprint
from staf.metrics.classification import best_threshold
from staf.metrics.methods import titles
from staf.metrics.schema import check
from staf.runs import PeakMemory

MIN_PROB = 1e-6
"""Part of the probability of multiple_choice that is spread evenly, so that an unseen label has a logarithm."""
NO_WORDS = "no example to fit on has a word in its context. Set include_query=true, or choose another task."
TITLES = titles("classifier")
CLASSIFIERS = tuple(TITLES)
SENTENCE_ENCODERS = ("nearest_label", "embedding")
"""Classifiers that read the vectors of a sentence encoder."""
Features = Callable[[Sequence[str], Sequence[str]], tuple[Any, Any]]
"""Matrices (n, d) of texts to fit on, and of texts that are asked about."""


OnStep = Callable[[], None]
"""Called between two fits, and after each batch of a sentence encoder; what it raises ends the classifier."""


def nothing() -> None:
    """No step is reported."""


@dataclass(frozen=True)
class Part:
    """Texts, their groups and labels."""

    texts: list[str]
    groups: list[str]
    targets: np.ndarray
    """(n, L) float32: 1 where the label is right, else 0"""


@dataclass(frozen=True)
class Problem:
    """A task's adaptation examples: all, and split into a training and a validation part by group."""

    output_type: str
    labels: tuple[str, ...]
    all: Part
    train: Part
    val: Part
    on_step: OnStep = nothing


@dataclass(frozen=True)
class Scored:
    """What a classifier gives."""

    scores: np.ndarray
    """(n, L): log-probabilities of multiple_choice, log-odds of multi_label"""
    val_scores: np.ndarray
    """(m, L) scores of examples that the model behind them was not fitted on"""
    val_targets: np.ndarray
    trials: list[dict[str, Any]]
    """every setting tried, with its validation loss, the lowest of which was chosen"""
    parameters: int
    truncated: list[bool]
    """whether a text lost its end"""
    details: dict[str, Any]


def classify(
    name: str, adaptation: Sequence[Example], test: Sequence[Example], settings: ClassifierSettings,
    on_step: OnStep = nothing,
) -> tuple[Predictions, dict[str, Any]]:  # fmt: skip
    """Fit a classifier on adaptation examples and answer the test examples.

    Args:
        name: of `CLASSIFIERS`. on_step: of logistic regressions and sentence encoders.

    Returns:
        predictions in the order of `test` (scores of multiple_choice are log-probabilities, those of multi_label log-odds), and
        the record: every trial, the one chosen, parameters, seconds, memory in bytes.

    Raises:
        UnknownName: no such classifier. TestLeak: a test example is to be fitted on. ConfigError: labels differ by item, or
            the output type has none. MissingData: too few examples, no words, or no encoder. BadData: an answer is not among
            the labels. DamagedFile, TrainingFailed: see `staf.baselines.networks`.
    """
    if name not in TITLES:
        raise UnknownName.among("classifier", name, TITLES)
    if not test or not adaptation:
        raise MissingData(f"there are no {'adaptation' if test else 'test'} examples for {name}. See: staf data list")
    refuse_test(adaptation)
    if shared := sorted({example.id for example in adaptation} & {example.id for example in test}):
        raise TestLeak(f"{len(shared)} items are both to be fitted on and tested: {', '.join(shared[:3])}. Split them apart.")
    memory, started, output_type = PeakMemory(), time.perf_counter(), _output_type([*adaptation, *test])
    predictions, how = {"majority": _majority, "nearest_label": _nearest}.get(name, _fitted)(
        name, adaptation, test, settings, on_step
    )
    check(output_type, predictions, fixed_labels=name not in ("majority", "nearest_label"))
    record = {
        "classifier": name,
        "title": TITLES[name],
        "output_type": output_type,
        "labels": len(test[0].labels),
        "adaptation_examples": len(adaptation),
        **how,
        "adaptation_fingerprint": data_fingerprint(sorted(adaptation, key=lambda example: example.id)),
        "data_fingerprint": data_fingerprint(test),
        "adaptation_seconds": time.perf_counter() - started,
        "adaptation_memory_bytes": memory.bytes,
        "settings": settings.model_dump(mode="json"),
        "versions": {"staf": __version__, **{name: version(name) for name in ("torch", "transformers", "scikit-learn")}},
    }
    return predictions, record


def _output_type(examples: Sequence[Example]) -> str:
    found = sorted({example.output_type for example in examples})
    if len(found) > 1 or found[0] not in LABEL_TYPES:
        raise ConfigError(
            f"a classifier answers tasks of one output type, {' or '.join(LABEL_TYPES)}; these examples are "
            f"{', '.join(found)}. Choose a classification task, or a method of the language model."
        )
    return found[0]


def _majority(
    _: str, adaptation: Sequence[Example], test: Sequence[Example], __: ClassifierSettings, ___: OnStep
) -> tuple[Predictions, dict[str, Any]]:
    """Every item answered by how often each label is right in the adaptation examples; labels may differ by item."""
    shown = Counter(label for example in adaptation for label in example.labels)
    record: dict[str, Any] = {"threshold": None, "tunable_parameters": 0}
    if test[0].output_type == "multiple_choice":
        right = Counter(example.answer for example in adaptation)
        rows = [log_scores(np.log([[right[label] + 0.5 for label in e.labels]]), "multiple_choice")[0] for e in test]
        return [label_prediction(e, row, None) for e, row in zip(test, rows, strict=True)], record
    right = Counter(label for example in adaptation for label in read_several(example.answer))

    def log_odds(example: Example) -> np.ndarray:
        return np.array([np.log((right[label] + 0.5) / (shown[label] - right[label] + 0.5)) for label in example.labels])

    gold = np.concatenate([np.isin(np.arange(len(e.labels)), gold_indices(e)) for e in adaptation])
    threshold = best_threshold(np.concatenate([log_odds(e) for e in adaptation]), gold) if gold.any() else 0.0
    return [label_prediction(e, log_odds(e), threshold) for e in test], record | {"threshold": threshold}


def _nearest(
    _: str, adaptation: Sequence[Example], test: Sequence[Example], settings: ClassifierSettings, on_step: OnStep
) -> tuple[Predictions, dict[str, Any]]:
    """Every item answered by the labels whose names are nearest to its text; labels may differ by item.

    One label needs no example; for several, the adaptation examples give the threshold.
    """
    from staf.baselines.embedding import nearness

    several = test[0].output_type == "multi_label"
    rows, cut, details = nearness([*(adaptation if several else ()), *test], settings, on_step)
    found, threshold = rows[-len(test) :], None
    if several:
        gold = np.concatenate([np.isin(np.arange(len(e.labels)), gold_indices(e)) for e in adaptation])
        seen = np.concatenate(rows[: len(adaptation)])
        found = [row - (best_threshold(seen, gold) if gold.any() else seen.max()) for row in found]
        threshold = 0.0
    else:
        found = [log_scores(row[None], "multiple_choice")[0] for row in found]
    predictions = [
        label_prediction(e, row, threshold) | {"truncated": lost}
        for e, row, lost in zip(test, found, cut[-len(test) :], strict=True)
    ]
    used = len(adaptation) if several else 0
    return predictions, {
        "threshold": threshold,
        "tunable_parameters": used and 1,
        "adaptation_examples": used,
        "details": details,
    }


def _fitted(
    name: str, adaptation: Sequence[Example], test: Sequence[Example], settings: ClassifierSettings, on_step: OnStep
) -> tuple[Predictions, dict[str, Any]]:
    problem = replace(problem_of(adaptation, test, settings), on_step=on_step)
    texts = [text_of(example, settings) for example in test]
    if name == "tfidf":
        found = tfidf(problem, texts, settings)
    elif name == "embedding":
        from staf.baselines.embedding import embedding

        found = embedding(problem, texts, settings)
    else:
        from staf.baselines.networks import encoder, word_network

        found = encoder(problem, texts, settings) if name == "encoder" else word_network(name, problem, texts, settings)
    threshold = threshold_of(found.val_scores, found.val_targets, problem.output_type)
    rows = zip(test, found.scores, found.truncated, strict=True)
    predictions = [label_prediction(e, row, threshold) | {"truncated": cut} for e, row, cut in rows]
    losses = [np.inf if trial["val_loss"] is None else trial["val_loss"] for trial in found.trials]
    return predictions, {
        "labels_never_right_in_fitting": int((problem.train.targets.sum(0) == 0).sum()),
        "trials": found.trials,
        "chosen": found.trials[int(np.argmin(losses))],
        "details": found.details,
        "threshold": threshold,
        "tunable_parameters": found.parameters,
        "validation_examples": len(found.val_targets),
    }


def problem_of(adaptation: Sequence[Example], test: Sequence[Example], settings: ClassifierSettings) -> Problem:
    """The problem that adaptation examples pose; raises as `classify`."""
    output_type, labels = test[0].output_type, test[0].labels
    if len(set(labels)) < len(labels) or len(labels) < (2 if output_type == "multiple_choice" else 1):
        raise ConfigError(f"a {output_type} task cannot have these {len(labels)} labels: give 2 or more, each once.")
    if other := [example.id for example in [*adaptation, *test] if example.labels != labels]:
        raise ConfigError(
            f"{len(other)} examples have other labels than the {len(labels)} of {test[0].id}, such as {other[0]}. A classifier "
            "needs the same labels in the same order for every item. Choose a task with fixed labels, or another method."
        )
    train, val = group_split(adaptation, settings.val_fraction, settings.seed)
    if not any(char.isalnum() for example in train for char in text_of(example, settings)):
        raise MissingData(NO_WORDS)
    ordered = sorted(adaptation, key=lambda example: example.id)
    every, fitting, held = (_part(some, settings) for some in (ordered, train, val))
    return Problem(output_type, labels, every, fitting, held)


def _part(examples: Sequence[Example], settings: ClassifierSettings) -> Part:
    targets = np.zeros((len(examples), len(examples[0].labels)), dtype=np.float32)
    for row, example in enumerate(examples):
        targets[row, gold_indices(example)] = 1
    groups = [example.group or example.id for example in examples]
    return Part([text_of(example, settings) for example in examples], groups, targets)


def text_of(example: Example, settings: ClassifierSettings) -> str:
    """What a classifier reads of an example: its context, after its query where the settings say so."""
    return f"{example.query}\n{example.context}" if settings.include_query else example.context


def group_split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, each sorted by id; no group is split, the order given does not matter.

    Raises:
        MissingData: fewer than two groups.
    """
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.id):
        groups.setdefault(example.group or example.id, []).append(example)
    if len(groups) < 2:
        raise MissingData(
            f"{len(examples)} adaptation examples in {len(groups)} groups; one group has to validate the others. "
            "Give examples of at least 2 groups (patients, documents)."
        )
    held: set[str] = set()
    for name in seeded_rng(f"classifier:{seed}").sample(sorted(groups), len(groups))[:-1]:
        if held and sum(len(groups[n]) for n in held) + len(groups[name]) > fraction * len(examples):
            break
        held.add(name)
    train = [example for name in sorted(groups) if name not in held for example in groups[name]]
    return train, [example for name in sorted(held) for example in groups[name]]


def tfidf(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Scored:
    """Scores (n, L) of texts (n) by logistic regression on TF-IDF of words and pairs of words."""
    return regression(problem, texts, settings, _tfidf_features)


def _tfidf_features(known: Sequence[str], asked: Sequence[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        return vectorizer.fit_transform(known), vectorizer.transform(asked)
    except ValueError as error:  # no word in any text
        raise MissingData(NO_WORDS) from error


def regression(
    problem: Problem, texts: Sequence[str], settings: ClassifierSettings, features: Features,
    label_texts: Sequence[Sequence[str]] = ((),),
) -> Scored:  # fmt: skip
    """Scores (n, L) of texts (n) by logistic regression; C by cross-validation over groups.

    Args:
        label_texts: alternatives between which the cross-validation chooses as well: one text a label as a further example
            that is always fitted on, or none.
    """
    from sklearn.model_selection import GroupKFold

    part, count = problem.all, min(settings.folds, len(set(problem.all.groups)))
    folds = list(GroupKFold(count).split(part.texts, groups=part.groups))
    tried, trials, out_of_fold = [(names, c) for names in label_texts for c in settings.c_values], [], []

    def scored(rows: Sequence[int], asked: Sequence[str], names: Sequence[str], c: float) -> tuple[np.ndarray, int]:
        problem.on_step()
        targets = np.concatenate([part.targets[rows], np.eye(part.targets.shape[1], dtype=np.float32)[: len(names)]])
        known, new = features([*(part.texts[i] for i in rows), *names], asked)
        return _regress(known, targets, new, problem.output_type, c), known.shape[1]

    for names, c in tried:
        scores = np.empty_like(part.targets, dtype=np.float64)
        for train, held in folds:
            scores[held] = scored(train, [part.texts[i] for i in held], names, c)[0]
        trial = {"c": c} | ({"label_names": bool(names)} if len(label_texts) > 1 else {})
        trials.append(trial | {"val_loss": loss_of(scores, part.targets, problem.output_type)})
        out_of_fold.append(scores)
    best = int(np.argmin([trial["val_loss"] for trial in trials]))
    scores, width = scored(range(len(part.texts)), texts, *tried[best])
    parameters, details = scores.shape[1] * (width + 1), {"features": width, "folds": count}
    return Scored(scores, out_of_fold[best], part.targets, trials, parameters, [False] * len(texts), details)


def _regress(known: Any, targets: np.ndarray, new: Any, output_type: str, c: float) -> np.ndarray:
    """Scores (n, L) of `new` (n, d), fitted on `known` (m, d) with targets (m, L).

    multi_label is one regression per label; a label that is always or never right in fitting gets the log-odds of its smoothed
    rate.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    def fitted(gold: np.ndarray) -> LogisticRegression:
        with warnings.catch_warnings():  # a large C may be cut short, and few examples may have as many labels
            warnings.filterwarnings("ignore", category=ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            return LogisticRegression(C=c, max_iter=1000).fit(known, gold)

    if output_type == "multiple_choice":
        gold = targets.argmax(1)
        logits, seen = np.full((new.shape[0], targets.shape[1]), -1e3), np.unique(gold)
        logits[:, seen] = 0.0
        if len(seen) > 1:
            logits[:, seen] = fitted(gold).predict_log_proba(new)
        return log_scores(logits, output_type)
    right = targets.sum(0, dtype=np.float64)
    scores = np.tile(np.log((right + 0.5) / (len(targets) - right + 0.5)), (new.shape[0], 1))
    for label in np.flatnonzero((right > 0) & (right < len(targets))):
        scores[:, label] = fitted(targets[:, label]).decision_function(new)
    return scores


def log_scores(logits: np.ndarray, output_type: str) -> np.ndarray:
    """Log-probabilities (n, L) of multiple_choice logits (n, L), none below MIN_PROB / L; multi_label keeps its log-odds."""
    values = np.asarray(logits, dtype=np.float64)
    if output_type == "multi_label":
        return values
    from scipy.special import softmax

    return np.asarray(np.log((1 - MIN_PROB) * softmax(values, axis=1) + MIN_PROB / values.shape[1]))


def loss_of(scores: np.ndarray, targets: np.ndarray, output_type: str) -> float:
    """Mean cross-entropy, or mean binary cross-entropy over items and labels for multi_label: scores and targets (n, L)."""
    if output_type == "multiple_choice":
        return float(-(scores * targets).sum(1).mean())
    return float((np.logaddexp(0, scores) - scores * targets).mean())


def threshold_of(val_scores: np.ndarray, targets: np.ndarray, output_type: str) -> float | None:
    """Log-odds from which on a label is answered: the best micro F1 of the validation scores, both (m, L).

    0 (probability one half) where no label is right there; None for multiple_choice.
    """
    if output_type == "multiple_choice":
        return None
    right = targets.ravel() > 0
    return best_threshold(val_scores.ravel(), right) if right.any() else 0.0
