"""Settings of Stage II that decide a router's parameters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from staf.config import Settings

SEARCHLESS = ("zero_shot", "best_expert")
"""Methods that compute a router without a search."""
PARAMS_DEPEND_ON = ("granularity", "null_expert", "learned_scale", "temperature", "weighting")
"""Settings that give a router's parameters their meaning."""


def usual_settings(method: str) -> dict[str, Any]:
    """The settings of a method where nothing else is given: all examples for gradient, 32 for the others."""
    shots = {} if method == "gradient" else {"shots": 32}
    return {"method": method, **shots, **({"temperature": 0.3} if method == "zero_shot" else {})}


class RouterRecipe(Settings):
    """Stage II: one router (section 3.3)."""

    method: Literal["gradient", "cma", "zero_shot", "best_expert"] = "gradient"
    """normal setting, few-shot setting; not in the papers: from unlabelled inputs, or by each expert's loss"""
    granularity: Literal["task", "layer", "matrix"] = "task"
    """one row of weights per task, per layer or per matrix"""
    temperature: float = Field(1.0, gt=0)
    """tau of Eq. 3"""
    null_expert: bool = False
    """slot 0 for the untouched base (SA-MDKIF, Eq. 3)"""
    learned_scale: bool = False
    """one learned factor of all weights; not in the papers"""
    weighting: Literal["softmax", "unconstrained", "l2"] = "softmax"
    """Eq. 3; or, not in the papers, 1 / K and the logits (0 is the average), or these at length 1"""
    objective: Literal["lm", "label_ce"] = "lm"
    """Eq. 5: -log p of the right answer; not in the papers: cross-entropy among all labels of an example"""
    label_end: bool = True
    """lm: predict the end token after a label too; generated answers always end in it"""
    penalty: Literal["weights", "alpha"] = "weights"
    """Eq. 7, or SA-MDKIF's Eq. 6"""
    gamma_1: float = Field(0.05, ge=0)
    """gamma_1 of Eq. 6"""
    init_std: float = Field(0.01, ge=0)
    """standard deviation of the random start of A and b"""
    shots: int | None = Field(None, ge=1)
    """adaptation examples drawn; None takes all"""
    max_length: int = Field(512, ge=16)
    """tokens of one example, answer included"""
    seed: int = Field(0, ge=0)
    restarts: int = Field(1, ge=1)
    """independent fits with seeds derived from `seed`; the one with the lowest loss is kept"""
    val_fraction: float | None = Field(None, ge=0, lt=1)
    """part of the adaptation examples held out for validation; None is 0.2 for gradient and 0 for cma"""
    patience: int | None = Field(None, ge=1)
    """epochs or generations without a better loss before it stops; None never stops early"""
    tolerance: float = Field(0.0, ge=0)
    """minimum decrease of a better loss"""

    learning_rate: float = Field(0.3, gt=0)
    """gradient: Adam's rate on A, b and the scale"""
    epochs: int = Field(5, ge=1)
    """gradient: passes over the adaptation examples, in each restart"""
    batch_size: int = Field(16, ge=1)
    """gradient: examples a step"""

    max_evaluations: int = Field(200, ge=2)
    """cma: candidates tried in each restart"""
    popsize: int | None = Field(None, ge=2)
    """cma: candidates a generation; None takes 4 + 3 ln n"""
    sigma0: float = Field(1.0, gt=0)
    """cma: the first step size"""

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> RouterRecipe:
        if self.tolerance > 0 and self.patience is None:
            raise ValueError(f"tolerance = {self.tolerance} does nothing without patience: set it too, such as patience = 5")
        if self.weighting != "softmax" and self.null_expert:
            raise ValueError(f"weighting = {self.weighting} has no slot for null_expert, which is one of the softmax")
        if self.weighting == "unconstrained" and self.learned_scale:
            raise ValueError("weighting = unconstrained has every scale already: leave learned_scale out")
        given = {name: getattr(self, name) for name in PARAMS_DEPEND_ON if name != "temperature"}
        wrong = [f"{name} = {value}" for name, value in given.items() if value != type(self).model_fields[name].default]
        if self.method in SEARCHLESS and wrong:
            raise ValueError(
                f"{', '.join(wrong)} needs learning: a {self.method.replace('_', '-')} router is one row of softmax weights. "
                "Leave it out, or use method gradient or cma"
            )
        return self

    @property
    def held_out_share(self) -> float:
        """`val_fraction`, or its default for the method: 32 shots are too few to hold any out."""
        if self.val_fraction is not None:
            return self.val_fraction
        return 0.2 if self.method == "gradient" else 0.0


class TuneRecipe(Settings):
    """Route-then-tune, which is not in the papers: a router's mixture as one adapter, trained on."""

    rank: int = Field(8, ge=1)
    """of the adapter in each matrix, at most"""
    steps: int = Field(60, ge=1)
    """the folds choose a third, two thirds or all of them, or none"""
    learning_rate: float = Field(1e-3, gt=0)
    """AdamW's; it rises over the first twentieth of the steps, then falls linearly to 0"""
    batch_size: int = Field(4, ge=1)
    """examples a step; with objective = label_ce a sixth of them"""
    anchor: float = Field(10.0, ge=0)
    """decay of what was learned towards the start: each step divides it by 1 + rate x anchor"""
    folds: int = Field(4, ge=2)
    """parts of the examples, each held out once"""
