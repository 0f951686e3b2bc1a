"""Settings of scoring."""

from __future__ import annotations

from pydantic import Field

from staf.config import Settings


class EvaluationSettings(Settings):
    """Scoring and its statistics."""

    length_normalised: bool = True
    """a label's log-likelihood divided by its tokens"""
    max_length: int = Field(512, ge=16)
    """tokens of a prompt with its longest answer"""
    token_budget: int = Field(4096, ge=64)
    """places in one batch"""
    limit: int | None = Field(None, ge=1)
    """at most so many test examples; None takes all"""
    selection_limit: int | None = Field(None, ge=1)
    """at most so many adaptation examples choose the single best expert; None takes all"""
    calibration_examples: int = Field(32, ge=1)
    """several labels: adaptation examples that say from which score on a label belongs, the same for every method"""
    max_new_tokens: int = Field(64, ge=1)
    """tokens of an answer that is written: a span, entities, free text"""
    resamples: int = Field(2000, ge=100)
    """bootstrap resamples behind the 95 % intervals"""
