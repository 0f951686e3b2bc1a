"""Settings of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from staf.config import Settings


class EvaluationSettings(Settings):
    """Scoring and its statistics."""

    scoring: Literal["sum", "mean", "calibrated"] = "mean"
    """of a label: its log-likelihood, that by its tokens, or less the label's mean over the test items (multiple_choice)"""
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
