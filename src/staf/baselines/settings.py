"""Settings of the baselines."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from staf.config import Settings


class BaselineSettings(Settings):
    """What a method is compared with: a baseline that learns from, or is shown, the adaptation examples."""

    RENAMED: ClassVar[dict[str, str]] = {"num_virtual_tokens": "num_virtual_tokens", "max_prompt_tokens": "max_prompt_tokens"}

    method: Literal["prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full", "in_context"] = "lora"
    """a row of `staf.baselines.BASELINES`"""
    learning_rates: tuple[float, ...] | None = Field(None, min_length=1)
    """AdamW's rates that are tried; None takes the three of the method's row"""
    epochs: int = Field(5, ge=1)
    """passes over the examples, at most: the held-out part says after how many it was best"""
    batch_size: int = Field(16, ge=1)
    """examples a step"""
    num_virtual_tokens: int = Field(20, ge=1)
    """prompt, prefix and P-tuning: vectors before the first token"""
    rank: int = Field(8, ge=1)
    """LoRA: of every adapted matrix"""
    shots: int | None = Field(None, ge=1)
    """adaptation examples drawn; None takes all, and in_context shows as many of them as fit"""
    max_prompt_tokens: int | None = Field(None, ge=16)
    """in_context: tokens of a prompt with its shots and its answer; None takes what the base's context holds"""
    val_fraction: float = Field(0.2, gt=0, lt=1)
    """part of the adaptation examples that judges rates and epochs"""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _rates_are_positive(self) -> BaselineSettings:
        wrong = [rate for rate in self.learning_rates or () if rate <= 0]
        if wrong:
            raise ValueError(f"learning_rates must all be above 0, found {', '.join(map(str, wrong))}")
        return self
