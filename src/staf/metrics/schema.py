"""What a saved prediction holds; every metric reads these keys and nothing else.

    output type         gold                                       answer
    multiple_choice     index of the right label                   from `scores`: log-likelihood of each label of the item
    multi_label         indices of the right labels                indices; `scores` (optional): log-odds of each label
    span                every right text, [] for "no answer"       text, '' for "no answer"
    ner                 [{"type", "text"}, ...]                    [{"type", "text"}, ...]; `invented` of them are no mention
    generate_until      every reference                            text

Each has an `id`. All but multiple_choice may have a `confidence` (any number, higher where the method is surer). Optional keys
are given for all items or for none. `output` is the raw generated text, `truncated` whether the prompt lost tokens. Messages
name the line, never its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from staf.errors import BadData, UnknownName

Prediction = dict[str, Any]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]
NonBlank = Annotated[str, StringConstraints(pattern=r"\S")]


class PredictionRow(BaseModel):
    """Keys that every prediction may have."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    id: str | int | None = None
    confidence: Finite = 0.0
    output: str = ""
    truncated: bool = False


class ChoicePrediction(PredictionRow):
    """One right label among those of the item."""

    gold: Index
    scores: list[Finite] = Field(min_length=1)

    @model_validator(mode="after")
    def _gold_is_a_label(self) -> ChoicePrediction:
        if self.gold >= len(self.scores):
            raise ValueError(f"'gold' must be the index of one of its {len(self.scores)} labels")
        return self


class MultiLabelPrediction(PredictionRow):
    """Any number of right labels."""

    gold: list[Index]
    answer: list[Index]
    scores: list[Finite] = Field([], min_length=1)

    @model_validator(mode="after")
    def _labels_exist_once(self) -> MultiLabelPrediction:
        for key, found in (("gold", self.gold), ("answer", self.answer)):
            if len(set(found)) < len(found):
                raise ValueError(f"'{key}' must hold each label once")
            if self.scores and max(found, default=-1) >= len(self.scores):
                raise ValueError(f"'{key}' names a label beyond the {len(self.scores)} that have a score")
        return self


class SpanPrediction(PredictionRow):
    """Words of the context, or none."""

    gold: list[str]
    answer: str


class TextPrediction(SpanPrediction):
    """Free text with at least one reference."""

    gold: list[str] = Field(min_length=1)


class Mention(BaseModel):
    """A typed mention."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    type: NonBlank
    text: NonBlank


class EntityPrediction(PredictionRow):
    """Typed mentions."""

    gold: list[Mention]
    answer: list[Mention]
    invented: Index = 0


ROWS: dict[str, type[PredictionRow]] = {
    "multiple_choice": ChoicePrediction,
    "multi_label": MultiLabelPrediction,
    "span": SpanPrediction,
    "ner": EntityPrediction,
    "generate_until": TextPrediction,
}
"""Schema of a prediction by output type."""
FOR_ALL_OR_NONE = ("scores", "confidence", "invented", "truncated")


def check(output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False) -> None:
    """Validate predictions before anything is computed from them.

    Args:
        fixed_labels: every item must have the same number of labels.

    Raises:
        UnknownName: no such output type. BadData: no predictions, or one that does not fit its schema, named by its line.
    """
    if output_type not in ROWS:
        raise UnknownName.among("output type", output_type, ROWS)
    if not predictions:
        raise BadData("there are no predictions to score. Expected one object a line, at least one.")
    for line, prediction in enumerate(predictions, start=1):
        try:
            ROWS[output_type].model_validate(prediction)
        except ValidationError as error:
            where = f"prediction {line} of {len(predictions)}, output type '{output_type}'"
            raise BadData(f"{where}: {problem_of(error)}. Fix the line or rerun prediction.") from None
    held = Counter(key for prediction in predictions for key in FOR_ALL_OR_NONE if key in prediction)
    for key, count in held.items():
        if count < len(predictions):
            raise BadData(f"{count} of {len(predictions)} predictions have '{key}'. Give it to all of them, or to none.")
    if output_type == "multi_label" or fixed_labels:
        widths = sorted({len(p["scores"]) for p in predictions if "scores" in p})
        if len(widths) > 1:
            raise BadData(f"predictions have {widths[0]} to {widths[-1]} scores. With fixed labels all need the same number.")


def problem_of(error: ValidationError) -> str:
    """The first problem of a validation error: which key, and what was expected; never the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def predicted(scores: Sequence[float]) -> int:
    """Index of the best score; the first one where several are equal."""
    return int(np.argmax(np.asarray(scores)))


def softmax(scores: Sequence[float]) -> np.ndarray:
    """Probabilities (labels,) of the labels of one item from their log-likelihoods."""
    values = np.asarray(scores, dtype=float)
    probs: np.ndarray = np.exp(values - values.max())
    return probs / probs.sum()


def membership(rows: Sequence[Sequence[int]], labels: int) -> np.ndarray:
    """(n, labels) booleans: which labels each row of indices holds."""
    held = np.zeros((len(rows), labels), dtype=bool)
    for index, row in enumerate(rows):
        held[index, list(row)] = True
    return held


def label_count(predictions: Sequence[Prediction]) -> int:
    """Number of labels of multi_label predictions: those scored, else up to the last one named."""
    if "scores" in predictions[0]:
        return len(predictions[0]["scores"])
    return max((index + 1 for p in predictions for key in ("gold", "answer") for index in p[key]), default=0)


def correctness(predictions: Sequence[Prediction]) -> np.ndarray:
    """1 where the best-scored label is the right one, else 0: (n,) float."""
    return np.array([float(predicted(p["scores"]) == p["gold"]) for p in predictions])
