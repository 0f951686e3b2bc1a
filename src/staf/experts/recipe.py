"""What an expert is: the settings of Stage I, hashed into its name.

Defaults are the paper's, but for init, ranks and scaling: these are what measured best (benchmarks/RESULTS.md), and
recipes/paper.yaml has the paper's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from staf.config import Settings


class ExpertRecipe(Settings):
    """Stage I: one expert by AdaLoRA (section 4.2.2)."""

    initial_rank: int = Field(6, ge=1)
    """rank of every module at the start; the paper's is 12"""
    target_rank: int = Field(4, ge=0)
    """average rank at the end"""
    lora_scaling: float = Field(2.0, gt=0)
    """factor of every delta; PEFT's alpha / initial rank"""
    orth_reg_weight: float = Field(0.0, ge=0)
    """gamma of Eq. A.1; the paper's is 0.5"""
    tinit: int = Field(200, ge=0)
    """t_0: steps before the ranks fall"""
    tfinal: int = Field(1000, ge=0)
    """t_1: steps at the end with the final ranks"""
    epochs: int = Field(10, ge=1)
    """passes over the examples; `steps` overrides it"""
    steps: int | None = Field(None, ge=1)
    """optimiser steps in all"""
    batch_size: int = Field(16, ge=1)
    """examples a step"""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW's rate after its warm-up; it falls linearly to 0"""
    max_grad_norm: float | None = Field(None, gt=0)
    """clip the gradient to this norm, 1.0 as usual; None, the default, does not clip: the paper names no clipping"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """rate on the rank activations"""
    init: Literal["lora", "svd"] = "lora"
    """lora: U 0, V random, lambda 1; svd: U and V orthonormal, lambda 0, as AdaLoRA"""
    importance: Literal["raw", "smoothed"] = "smoothed"
    """raw is A.6 as printed; smoothed is the AdaLoRA paper's"""
    beta1: float = Field(0.85, ge=0, lt=1)
    """smoothing of the sensitivity"""
    beta2: float = Field(0.85, ge=0, lt=1)
    """smoothing of its uncertainty"""
    max_length: int = Field(512, ge=16)
    """tokens of one example, answer included"""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _ranks_fall(self) -> ExpertRecipe:
        if self.target_rank > self.initial_rank:
            raise ValueError(f"target_rank = {self.target_rank} must not be above initial_rank = {self.initial_rank}")
        return self

    def planned_steps(self, examples: int) -> int:
        """Optimiser steps in all for a corpus of this many examples."""
        return self.steps or self.epochs * -(-examples // self.batch_size)

    def schedule(self, total: int) -> tuple[int, int]:
        """Steps before the ranks fall and steps after, of `total` steps.

        Where `tinit` and `tfinal` leave no step for the fall, both shrink by one factor so that a tenth of the steps is left.
        """
        if self.target_rank == self.initial_rank or self.tinit + self.tfinal < total:
            return self.tinit, self.tfinal
        factor = 0.9 * total / (self.tinit + self.tfinal)
        return int(self.tinit * factor), int(self.tfinal * factor)
