"""What an expert is: the settings of Stage I that decide its numbers.

Defaults are the paper's, but for the start, the ranks and the scale: these are what measured best (benchmarks/RESULTS.md),
and recipes/paper.yaml has the paper's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from staf.config import Settings


class ExpertRecipe(Settings):
    """Stage I: one expert by AdaLoRA (section 4.2.2)."""

    initial_rank: int = Field(6, ge=1)
    """rank of every matrix at the start; the paper's is 12"""
    target_rank: int = Field(4, ge=0)
    """average rank at the end"""
    scale: float = Field(2.0, gt=0)
    """factor of every delta; PEFT's alpha / initial rank"""
    orthogonality: float = Field(0.0, ge=0)
    """gamma of Eq. A.1; the paper's is 0.5"""
    warmup_steps: int = Field(200, ge=0)
    """t_0: steps before the first rank is cut"""
    final_steps: int = Field(1000, ge=0)
    """t_1: steps at the end with the last ranks"""
    epochs: int = Field(10, ge=1)
    """passes over the examples; `steps` overrides it"""
    steps: int | None = Field(None, ge=1)
    """optimiser steps in all"""
    batch_size: int = Field(16, ge=1)
    """examples a step"""
    accumulation: int = Field(1, ge=1)
    """parts that the examples of a step are computed in, one after the other: less memory, the same gradient"""
    checkpoint_activations: bool = False
    """compute each layer again on the way back: memory of one layer instead of all, for one forward more"""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW's rate after its warm-up; it falls linearly to 0"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """rate on the rank activations"""
    start: Literal["orthonormal", "zero"] = "zero"
    """orthonormal: U and V orthonormal, singular values 0, as AdaLoRA; zero: U 0, V random, singular values 1, as LoRA"""
    importance: Literal["raw", "smoothed"] = "smoothed"
    """raw is A.6 as printed; smoothed is the AdaLoRA paper's"""
    beta1: float = Field(0.85, ge=0, lt=1)
    """smoothing of the sensitivity"""
    beta2: float = Field(0.85, ge=0, lt=1)
    """smoothing of its uncertainty"""
    max_length: int = Field(512, ge=16)
    """tokens of one example, answer included"""
    checkpoint_steps: int = Field(50, ge=1)
    """steps between two checkpoints"""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _ranks_and_parts(self) -> ExpertRecipe:
        if self.target_rank > self.initial_rank:
            raise ValueError(f"target_rank = {self.target_rank} must not be above initial_rank = {self.initial_rank}")
        if self.accumulation > self.batch_size:
            raise ValueError(f"accumulation = {self.accumulation} must not be above batch_size = {self.batch_size}")
        return self
