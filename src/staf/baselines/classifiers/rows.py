"""Table 5's classifiers as rows, and the one entry to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from staf import __version__
from staf.baselines.classifiers.encoder import encoder
from staf.baselines.classifiers.linear import logistic_regression
from staf.baselines.classifiers.networks import plain_cnn, recurrent, text_cnn
from staf.baselines.classifiers.problem import Found, Problem, predictions_of, problem_of, text_of, threshold_of
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.data.example import Example
from staf.errors import UnknownName
from staf.experts.train import data_fingerprint
from staf.metrics.schema import check
from staf.runs import PeakMemory


@dataclass(frozen=True)
class Classifier:
    """A kind of classifier."""

    name: str
    title: str
    """as tables print it"""
    fit: Callable[[Problem, Sequence[str], ClassifierSettings], Found]
    """fits on a problem and scores texts"""


CLASSIFIERS = {
    row.name: row
    for row in (
        Classifier("tfidf", "Logistic regression", logistic_regression),
        Classifier("cnn", "CNN", plain_cnn),
        Classifier("text_cnn", "TextCNN", text_cnn),
        Classifier("rnn", "RNN (bidirectional GRU)", recurrent),
        Classifier("encoder", "Encoder, fine-tuned", encoder),
    )
}
"""Every classifier by name."""


def classify(
    name: str,
    adaptation: Sequence[Example],
    test: Sequence[Example],
    labels: Sequence[str],
    settings: ClassifierSettings,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fit a classifier on adaptation examples and answer the test examples.

    Args:
        name: a row of `CLASSIFIERS`.
        labels: of every example, in their order.

    Returns:
        predictions in the order of `test`, as `staf.metrics.schema` has them (a choice's scores are log-probabilities, those
        of several labels log-odds), and the record: every trial, the one chosen, parameters, seconds, memory in bytes.

    Raises:
        UnknownName: no such classifier. TestLeak: a test example is to be fitted on. ConfigError: labels differ by item, or
            the output type is neither choice nor several. MissingData: too few examples, no words, or no encoder.
            BadData: an answer is not among the labels. DamagedFile, TrainingFailed: see `staf.baselines.classifiers.encoder`.
    """
    if name not in CLASSIFIERS:
        raise UnknownName.among("classifier", name, CLASSIFIERS)
    problem = problem_of(adaptation, test, labels, settings)
    memory, started = PeakMemory(), time.perf_counter()
    found = CLASSIFIERS[name].fit(problem, [text_of(example, settings) for example in test], settings)
    seconds = time.perf_counter() - started
    threshold = threshold_of(found.held_out, problem.held_out.targets, problem.output_type)
    predictions = predictions_of(test, found.scores, problem.output_type, problem.labels, threshold)
    check(problem.output_type, predictions, fixed_labels=True)
    record = {
        "classifier": name,
        "title": CLASSIFIERS[name].title,
        "output_type": problem.output_type,
        "labels": len(problem.labels),
        "labels_never_right_in_fitting": int((problem.fitted.targets.sum(0) == 0).sum()),
        "trials": found.trials,
        "chosen": found.chosen,
        "details": found.details,
        "threshold": threshold,
        "tunable_parameters": found.parameters,
        "adaptation_examples": len(adaptation),
        "held_out_examples": len(problem.held_out.texts),
        "adaptation_fingerprint": data_fingerprint(sorted(adaptation, key=lambda example: example.id)),
        "data_fingerprint": data_fingerprint(test),
        "seconds": seconds,
        "peak_memory_bytes": memory.bytes,
        "settings": settings.model_dump(mode="json"),
        "versions": _versions(),
    }
    return predictions, record


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"staf": __version__, **{name: version(name) for name in ("torch", "transformers", "scikit-learn")}}
