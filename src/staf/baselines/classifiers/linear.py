"""Logistic regression on TF-IDF of words and pairs of words, by scikit-learn; its strength chosen on what is held out.

Several labels are one regression each. What was always or never right in fitting has no regression: its log-odds are those of
its count with half an item added on either side. After the choice everything is fitted once more on both parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from staf.baselines.classifiers.problem import Found, Part, Problem, log_scores, loss_of
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.classifiers.words import words_of


def logistic_regression(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Found:
    """Scores (n, L) of texts (n) by logistic regression."""
    trials, judged = [], []
    for inverse_strength in settings.c_values:
        scores, _ = _fit_and_score(problem.fitted, problem.held_out.texts, problem.output_type, inverse_strength)
        loss = loss_of(scores, problem.held_out.targets, problem.output_type)
        trials.append({"inverse_strength": inverse_strength, "held_out_loss": loss})
        judged.append(scores)
    best = min(range(len(trials)), key=lambda index: trials[index]["held_out_loss"])
    chosen = trials[best]
    scores, width = _fit_and_score(problem.whole, texts, problem.output_type, chosen["inverse_strength"])
    rows = scores.shape[1]
    return Found(scores, judged[best], trials, chosen, rows * (width + 1), {"features": width, "refitted_on_all": True})


def _fit_and_score(part: Part, texts: Sequence[str], output_type: str, inverse_strength: float) -> tuple[np.ndarray, int]:
    """Scores (n, L) of texts, and how many features there are."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer(analyzer=_terms, sublinear_tf=True)
    known, asked = features.fit_transform(part.texts), features.transform(texts)
    if output_type == "multiple_choice":
        logits = _choice(known, part.targets, asked, inverse_strength)
    else:
        logits = np.stack([_one(known, column, asked, inverse_strength) for column in part.targets.T], axis=1)
    return log_scores(logits, output_type), known.shape[1]


def _terms(text: str) -> list[str]:
    words = words_of(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def _choice(known: Any, targets: np.ndarray, asked: Any, inverse_strength: float) -> np.ndarray:
    """Logits (n, L); a label that was never right gets one so low that only the floor of `log_scores` is left."""
    from sklearn.linear_model import LogisticRegression

    gold = targets.argmax(1)
    logits = np.full((asked.shape[0], targets.shape[1]), -1e3)
    seen = np.unique(gold)
    if len(seen) == 1:
        logits[:, seen[0]] = 0.0
    else:
        regression = LogisticRegression(C=inverse_strength, max_iter=1000).fit(known, gold)
        logits[:, seen] = regression.predict_log_proba(asked)
    return logits


def _one(known: Any, column: np.ndarray, asked: Any, inverse_strength: float) -> np.ndarray:
    """Log-odds (n,) of one label."""
    from sklearn.linear_model import LogisticRegression

    right = float(column.sum())
    if right in (0, len(column)):
        return np.full(asked.shape[0], np.log((right + 0.5) / (len(column) - right + 0.5)))
    regression = LogisticRegression(C=inverse_strength, max_iter=1000).fit(known, column)
    return np.asarray(regression.decision_function(asked))
