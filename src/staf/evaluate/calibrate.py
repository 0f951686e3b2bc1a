"""From the likelihood of a label to the probability that it is right, for tasks with several right labels.

A language model says how likely a label is compared with others, never whether it is right, and most of that likelihood is the
label's own: with the default base 90 to 97 % of its variance over clinical stays lies between labels. So labelled adaptation
examples give each label's mean score, which is subtracted (as contextual calibration does, Zhao et al. 2021), its rate, and
one slope for all labels, by logistic regression (Platt, 1999):

    log-odds of a label = logit(its rate) + slope (score - its mean score)

The slope is never negative, so the ranking of items by a label is always the model's own. What an example adds to rates and
means is left out where slope and threshold are fitted on that same example.

Nothing is learned from these examples: scores of examples that a method was fitted on are surer than those of others. They are
part of the examples that a seed draws, so that no method sees more labels than its setting says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from staf.data.answers import labels_in
from staf.data.example import Example
from staf.data.splits import few_shot, seeded_rng
from staf.errors import DamagedFile, MissingData
from staf.metrics.classification import best_threshold

RATE_EXAMPLES = 4.0
"""Examples with the rate of all labels that every label's own rate is mixed with; chosen by loss on adaptation examples."""
PART, LEAST, MOST = 4, 4, 32
"""One drawn example in `PART` calibrates; `LEAST` at least, or half of fewer than twice that number, and `MOST` at most."""
LEAST_SLOPE, MOST_SLOPE = 0.01, 100.0
"""Of one standard deviation of the centred scores, in log-odds."""


class Draw(NamedTuple):
    """The labelled examples that a seed draws, the same for every method."""

    learned: list[Example]
    calibrating: list[Example]
    """of several labels: nothing is learned from them"""


def draw(examples: Iterable[Example], shots: int | None, seed: int) -> Draw:
    """`shots` of a task's adaptation examples, or all; where several labels are right, a part of them is put aside.

    An example with a right label is in that part, if there is one: without it nothing can be calibrated.

    Raises:
        TestLeak, ConfigError: as `few_shot`.
    """
    drawn = list(examples) if shots is None else few_shot(examples, shots, seed)
    if not any(example.output_type == "multi_label" for example in drawn):
        return Draw(drawn, [])
    count = min(max(len(drawn) // PART, min(LEAST, len(drawn) // 2)), MOST)
    aside = seeded_rng(f"calibration:{seed}").sample(sorted(example.id for example in drawn), count)
    right = sorted(example.id for example in drawn if labels_in(example))
    if right and not {*aside} & {*right}:
        aside[-1] = right[0]
    return Draw([e for e in drawn if e.id not in aside], [e for e in drawn if e.id in aside])


class LabelCalibrator(BaseModel):
    """Log-odds from scores; labels at or above the threshold are answered."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    rates: dict[str, float]
    means: dict[str, float]
    """mean score of each label that was seen"""
    rate: float
    mean: float
    """of all labels together, used for one that was not seen"""
    slope: float
    threshold: float
    """log-odds"""

    def log_odds(self, labels: Sequence[str], scores: np.ndarray) -> np.ndarray:
        """Log-odds (labels,) of one example's scores (labels,)."""
        rates = np.array([self.rates.get(label, self.rate) for label in labels])
        means = np.array([self.means.get(label, self.mean) for label in labels])
        return _logit(rates) + self.slope * (scores - means)

    @classmethod
    def read(cls, values: dict[str, Any]) -> LabelCalibrator:
        """The calibrator of saved values; raises DamagedFile where they are not those of one."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise DamagedFile(f"these are not the values of a calibrator ({error}). Adapt again.") from error


def fit_calibrator(
    labels: Sequence[Sequence[str]], scores: Sequence[np.ndarray], gold: Sequence[np.ndarray]
) -> LabelCalibrator:
    """The calibrator of labelled adaptation examples.

    Args:
        labels: of each example. scores: their log-likelihoods (labels,). gold: (labels,), true where the label is right.

    Raises:
        MissingData: there are no examples, or every label of all of them is right, or none is.
    """
    values, right = np.concatenate([[], *scores]), np.concatenate([[], *gold]).astype(bool)
    if not right.any() or right.all():
        raise MissingData(
            f"{len(scores)} adaptation examples with {int(right.sum())} right labels of {len(right)} cannot calibrate scores: "
            "some labels must be right and some wrong. Draw more shots."
        )
    names, owner = np.unique([label for own in labels for label in own], return_inverse=True)
    counts, sums, rights = (np.bincount(owner, weights) for weights in (None, values, right))
    rate, mean = float(right.mean()), float(values.mean())

    def mixed(rights: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Rates, each mixed with the rate of all labels."""
        return (rights + RATE_EXAMPLES * rate) / (counts + RATE_EXAMPLES)

    others = counts[owner] - 1  # of the same label
    centred = values - np.where(others > 0, (sums[owner] - values) / np.maximum(others, 1), mean)
    prior = _logit(mixed(rights[owner] - right, others))
    slope = _slope(centred, prior, right)
    rates, means = (dict(zip(names.tolist(), each.tolist(), strict=True)) for each in (mixed(rights, counts), sums / counts))
    threshold = best_threshold(prior + slope * centred, right)
    return LabelCalibrator(rates=rates, means=means, rate=rate, mean=mean, slope=slope, threshold=threshold)


def _slope(centred: np.ndarray, prior: np.ndarray, right: np.ndarray) -> float:
    """What one unit of centred score (n,) adds to the prior log-odds (n,): least mean logistic loss."""
    from scipy.optimize import minimize_scalar

    width = float(centred.std())
    if width < 1e-9:
        return 0.0

    def loss(slope: float) -> float:
        odds = prior + slope / width * centred
        return float(np.mean(np.logaddexp(0.0, odds) - right * odds))

    return float(minimize_scalar(loss, bounds=(LEAST_SLOPE, MOST_SLOPE), method="bounded").x) / width


def _logit(rates: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(rates) - np.log1p(-rates))
