"""What a saved prediction holds, by output type; every metric reads these keys and nothing else.

Optional keys are given for all items or for none. Messages name the line, never its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from staf.errors import BadData, UnknownName

Prediction = dict[str, Any]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]
NonBlank = Annotated[str, StringConstraints(pattern=r"\S")]


class PredictionRow(BaseModel):
    """`id`, and for all but multiple_choice a `confidence`: any number, higher where the method is surer."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    id: str | int | None = None
    confidence: Finite = 0.0
    output: str = ""
    """the raw generated text"""
    truncated: bool = False
    """whether the prompt lost tokens"""


class ChoicePrediction(PredictionRow):
    """`gold`: index of the right label. `scores`: log-likelihood of each label of the item."""

    gold: Index
    scores: list[Finite] = Field(min_length=1)

    @model_validator(mode="after")
    def _gold_is_a_label(self) -> ChoicePrediction:
        if self.gold >= len(self.scores):
            raise ValueError(f"'gold' must be the index of one of its {len(self.scores)} labels")
        return self


class MultiLabelPrediction(PredictionRow):
    """`gold` and `answer`: indices of labels. `scores` (optional): log-odds of each label; else `labels`, their number."""

    gold: list[Index]
    answer: list[Index]
    scores: list[Finite] = Field([], min_length=1)
    labels: Index = 0

    @model_validator(mode="after")
    def _labels_exist_once(self) -> MultiLabelPrediction:
        for key, found in (("gold", self.gold), ("answer", self.answer)):
            if len(set(found)) < len(found):
                raise ValueError(f"'{key}' must hold each label once")
            if (count := len(self.scores) or self.labels) and max(found, default=-1) >= count:
                raise ValueError(f"'{key}' names a label beyond the {count} that there are")
        return self


class SpanPrediction(PredictionRow):
    """`gold`: every right text, [] for "no answer". `answer`: text, '' for "no answer"."""

    gold: list[str]
    answer: str


class TextPrediction(SpanPrediction):
    """`gold`: every reference. `answer`: free text."""

    gold: list[str] = Field(min_length=1)


class Mention(BaseModel):
    """A typed mention."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    type: NonBlank
    text: NonBlank


class EntityPrediction(PredictionRow):
    """Typed mentions; `invented` of the answered ones are not in the context or of no type of the task."""

    gold: list[Mention]
    answer: list[Mention]
    invented: Index = 0


PREDICTIONS: dict[str, TypeAdapter[Any]] = {
    "multiple_choice": TypeAdapter(list[ChoicePrediction]),
    "multi_label": TypeAdapter(list[MultiLabelPrediction]),
    "span": TypeAdapter(list[SpanPrediction]),
    "ner": TypeAdapter(list[EntityPrediction]),
    "generate_until": TypeAdapter(list[TextPrediction]),
}
"""Schema of the predictions of each output type."""
FOR_ALL_OR_NONE = ("scores", "labels", "confidence", "invented", "truncated")


def check(output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False) -> None:
    """Validate predictions before anything is computed from them.

    Args:
        fixed_labels: every item must have the same number of labels.

    Raises:
        UnknownName: no such output type. BadData: no predictions, or one that does not fit its schema, named by its line.
    """
    if output_type not in PREDICTIONS:
        raise UnknownName.among("output type", output_type, PREDICTIONS)
    if not predictions:
        raise BadData("there are no predictions to score. Expected one object a line, at least one.")
    try:
        PREDICTIONS[output_type].validate_python([*predictions])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        line, *where = first["loc"]
        problem = (f"'{'.'.join(map(str, where))}': " if where else "") + first["msg"].removeprefix("Value error, ")
        raise BadData(
            f"prediction {int(line) + 1} of {len(predictions)}, output type '{output_type}': {problem}. "
            "Fix the line or rerun prediction."
        ) from None
    for key, count in Counter(key for prediction in predictions for key in FOR_ALL_OR_NONE if key in prediction).items():
        if count < len(predictions):
            raise BadData(f"{count} of {len(predictions)} predictions have '{key}'. Give it to all of them, or to none.")
    widths = sorted({len(p["scores"]) for p in predictions if "scores" in p})
    if len(widths) > 1 and (fixed_labels or output_type == "multi_label"):
        raise BadData(f"predictions have {widths[0]} to {widths[-1]} scores. With fixed labels all need the same number.")
