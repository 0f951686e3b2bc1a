"""Settings of evaluation."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from staf.config import Settings

CHAT_METHODS = ("original", "in_context")
"""What a prompt format acts on; routers and trained models keep the plain prompts that they learned from."""


class EvaluationSettings(Settings):
    """Scoring and its statistics."""

    scoring: Literal["sum", "mean", "calibrated"] = "mean"
    """of a label: its log-likelihood, that by its tokens, or less the label's mean over the test items (multiple_choice)"""
    prompt_format: Literal["plain", "chat", "auto"] = "plain"
    """of original and in_context: the papers', the base's chat template, or chat where it has one; other rows are plain"""
    max_length: int = Field(512, ge=16)
    """tokens of a prompt with its longest answer, for every method; in-context examples come on top"""
    token_budget: int = Field(4096, ge=64)
    """tokens in one batch"""
    limit: int | None = Field(None, ge=1)
    """maximum test examples; None takes all"""
    selection_limit: int | None = Field(None, ge=1)
    """maximum adaptation examples that choose the best single expert; None takes all"""
    calibration_examples: int = Field(32, ge=1)
    """multi_label: maximum examples that calibrate label scores, of those that a draw puts aside"""
    max_new_tokens: int = Field(64, ge=1)
    """tokens of a generated answer: a span, entities, free text"""
    stop: tuple[str, ...] = ("\n\n",)
    """strings that end a generated answer, such as a blank line"""
    resamples: int = Field(2000, ge=100)
    """bootstrap resamples behind the 95 % intervals"""
    across_dtypes: bool = False
    """compare with runs that were computed in another dtype"""

    @model_serializer(mode="wrap")
    def _without_plain(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plain is left out: digests of runs are those of before there were others."""
        return {name: value for name, value in values(self).items() if (name, value) != ("prompt_format", "plain")}

    def in_format(self, prompt_format: str) -> Self:
        """The same with another prompt format, as it is really used."""
        return self.model_copy(update={"prompt_format": prompt_format})
