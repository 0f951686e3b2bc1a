"""A linear probe: logistic regression on what a model computes, in place of the likelihoods of labels (not in the papers).

It reads the mean hidden state of an item's context and the log-likelihoods of the labels, standardised, each block divided by
the root of its width. The label names are further examples, read as contexts. Which depth is read, and whether the likelihoods
are read as well, is chosen by cross-validation over groups; so is the alternative without hidden states:

    score of a label = log-likelihood - its mean over the labelled examples + log of its rate among them

which is batch calibration (Zhou et al., 2023) with the rates that the examples show.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from staf.data.example import Example
from staf.errors import ConfigError, DamagedFile
from staf.lm.pooling import DEPTHS
from staf.metrics.classification import best_threshold
from staf.routing.store import PROBE

STRENGTH = 100.0
"""C of the logistic regressions; chosen on development tasks (docs/log.md)."""
FOLDS = 4
ALWAYS = 1e-4
"""Smallest probability of a label in cross-validation."""


@dataclass(frozen=True)
class Features:
    """What is known of some examples."""

    states: np.ndarray
    """(n, depths, d)"""
    scores: np.ndarray
    """(n, labels): sums of log-likelihoods"""

    def __getitem__(self, rows: Sequence[int]) -> Features:
        return Features(self.states[rows], self.scores[rows])

    def joined(self, other: Features) -> Features:
        """These and then others."""
        return Features(np.concatenate([self.states, other.states]), np.concatenate([self.scores, other.scores]))


class Probe(BaseModel):
    """A fitted probe; what it computes are log-probabilities of one right label, log-odds of several."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)
    labels: tuple[str, ...]
    several: bool
    depth: int | None
    """index of `DEPTHS`; None reads no hidden states"""
    reads_scores: bool
    threshold: float | None
    """log-odds from which on one of several labels is answered"""
    losses: dict[str, float]
    """held-out loss of each alternative by name"""
    centre: Tensor
    """(f,) mean of each feature"""
    scale: Tensor
    """(f,) its deviation, times the root of the block's width"""
    weight: Tensor
    """(labels, f)"""
    bias: Tensor
    """(labels,)"""

    def __call__(self, known: Features) -> np.ndarray:
        """Log-probabilities or log-odds (n, labels)."""
        columns = _columns(known, self.depth, self.reads_scores)
        logits = (columns - self.centre.numpy()) / self.scale.numpy() @ self.weight.numpy().T + self.bias.numpy()
        return logits if self.several else logits - _logsumexp(logits)

    @property
    def read_by(self) -> str:
        """What it reads, in words."""
        return _name(self.depth, self.reads_scores)

    def digest(self) -> str:
        """Of all that it computes with, sixteen hexadecimal digits."""
        parts = [str((self.labels, self.several, self.depth, self.reads_scores, self.threshold)).encode()]
        return hashlib.sha256(b"".join([*parts, *(getattr(self, name).numpy().tobytes() for name in _TENSORS)])).hexdigest()[
            :16
        ]

    def tensors(self) -> dict[str, Tensor]:
        """What is kept as tensors, by name."""
        return {PROBE + name: getattr(self, name) for name in _TENSORS}

    def values(self) -> dict[str, Any]:
        """What is kept as JSON."""
        return self.model_dump(mode="json", exclude=set(_TENSORS))

    @classmethod
    def read(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Probe:
        """The probe of what was kept; raises DamagedFile where it is not that of one."""
        try:
            found = cls.model_validate({**values, **{name: tensors[PROBE + name] for name in _TENSORS}})
            width = found.centre.shape[0]
            fits = found.scale.shape == (width,) and found.weight.shape == (len(found.labels), width)
            if not fits or found.bias.shape != (len(found.labels),) or not bool((found.scale > 0).all()):
                raise ValueError("its tensors do not fit each other")
        except (KeyError, IndexError, ValueError, ValidationError) as error:
            raise DamagedFile(f"these are not the values of a probe ({error}). Adapt again.") from error
        return found


_TENSORS = ("centre", "scale", "weight", "bias")


def label_examples(examples: Sequence[Example], texts: Mapping[str, str]) -> list[Example]:
    """The labels of a task as examples: the context is a label's text, or its name, and the label is right.

    Raises:
        ConfigError: examples have other labels than the first, or there is only one.
    """
    first = examples[0]
    if any(example.labels != first.labels for example in examples) or len(first.labels) < 2:
        raise ConfigError(
            "a probe needs the same two or more labels for every item; those of this task differ by item. Leave the probe out."
        )
    return [replace(first, id=f"label {label}", context=texts.get(label) or label, answer=label) for label in first.labels]


def fit_probe(
    shots: Features, gold: np.ndarray, folds: Sequence[Sequence[int]], named: Features, labels: Sequence[str], several: bool
) -> Probe:
    """The probe of labelled examples.

    Args:
        gold: (n, labels), true where a label is right. folds: indices of the examples in each part that is held out once.
        named: features of the label names, in the order of `labels`. several: whether several labels may be right.
    """
    gold = gold.astype(bool)
    alternatives: list[tuple[int | None, bool]] = [(depth, some) for depth in range(len(DEPTHS)) for some in (False, True)]
    alternatives += [] if several else [(None, True)]
    held, losses = [], {}
    for depth, reads in alternatives:
        scores = np.empty(gold.shape)
        for fold in folds:
            rest = [index for index in range(len(gold)) if index not in set(fold)]
            scores[fold] = _fitted(shots[rest], gold[rest], named, labels, several, depth, reads)(shots[fold])
        held.append(scores)
        losses[_name(depth, reads)] = _loss(scores, gold, several)
    best = int(np.argmin(list(losses.values())))
    found = _fitted(shots, gold, named, labels, several, *alternatives[best])
    threshold = best_threshold(held[best].ravel(), gold.ravel()) if several else None
    return found.model_copy(update={"losses": losses, "threshold": threshold})


def _fitted(
    shots: Features, gold: np.ndarray, named: Features, labels: Sequence[str], several: bool, depth: int | None, reads: bool
) -> Probe:
    if depth is None:
        rates, count = (gold.sum(0) + 1) / (len(gold) + gold.shape[1]), len(labels)
        parts: Any = shots.scores.mean(0), np.ones(count), np.eye(count), np.log(rates)
    else:
        known, targets = shots.joined(named), np.concatenate([gold, np.eye(len(labels), dtype=bool)])
        columns = _columns(known, depth, reads)
        widths = [known.states.shape[2]] * known.states.shape[2] + [len(labels)] * (len(labels) if reads else 0)
        deviation = columns.std(0)
        centre, scale = columns.mean(0), np.where(deviation > 1e-9, deviation, 1.0) * np.sqrt(widths)
        parts = centre, scale, *_regression((columns - centre) / scale, targets, several)
    values = dict(zip(_TENSORS, (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in parts), strict=True))
    return Probe(
        labels=tuple(labels), several=several, depth=depth, reads_scores=reads, threshold=None, losses={}, **values
    )  # fmt: skip


def _regression(columns: np.ndarray, gold: np.ndarray, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights (labels, f) and biases (labels,) of one regression, or of one for each of several labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # a large C may be cut short
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        if several:
            each = [LogisticRegression(C=STRENGTH, max_iter=1000).fit(columns, own) for own in gold.T]
            return np.concatenate([one.coef_ for one in each]), np.concatenate([one.intercept_ for one in each])
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(columns, gold.argmax(1))
    if len(model.coef_) > 1:
        return model.coef_, model.intercept_
    return np.concatenate([np.zeros_like(model.coef_), model.coef_]), np.concatenate([[0.0], model.intercept_])


def _columns(known: Features, depth: int | None, reads: bool) -> np.ndarray:
    """Features (n, f) that an alternative reads."""
    states = [] if depth is None else [known.states[:, depth]]
    return np.concatenate([*states, *([known.scores] if reads else [])], axis=1).astype(np.float64)


def _name(depth: int | None, reads: bool) -> str:
    if depth is None:
        return "likelihoods"
    return f"states at {DEPTHS[depth]:.0%}" + (" and likelihoods" if reads else "")


def _loss(scores: np.ndarray, gold: np.ndarray, several: bool) -> float:
    """Mean cross-entropy of log-probabilities (n, labels), or of log-odds by item and label."""
    if several:
        return float((np.logaddexp(0, scores) - scores * gold).mean())
    return float(-np.log(np.maximum(np.exp(scores[gold]), ALWAYS)).mean())


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    """(n, 1) of (n, labels)."""
    top = logits.max(1, keepdims=True)
    return np.asarray(top + np.log(np.exp(logits - top).sum(1, keepdims=True)))
