"""Settings of each stage: frozen, validated, every mistake reported at once.

Defaults are the papers', but for Stage I's start, ranks and scale: these are what measured best (benchmarks/RESULTS.md), and
recipes/paper.yaml has the papers'. A recipe (recipes/*.yaml) says what differs. A value that can be derived is not a setting.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from staf.errors import ConfigError, MissingData


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Ten hexadecimal digits that name these settings."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:10]


class ExpertSettings(Settings):
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
    max_tokens: int = Field(512, ge=16)
    """tokens of one example, answer included"""
    checkpoint_steps: int = Field(50, ge=1)
    """steps between two checkpoints"""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _ranks_and_parts(self) -> ExpertSettings:
        if self.target_rank > self.initial_rank:
            raise ValueError(f"target_rank = {self.target_rank} must not be above initial_rank = {self.initial_rank}")
        if self.accumulation > self.batch_size:
            raise ValueError(f"accumulation = {self.accumulation} must not be above batch_size = {self.batch_size}")
        return self


class RouterSettings(Settings):
    """Stage II: one router (section 3.3)."""

    method: Literal["gradient", "cma", "zero_shot", "best_expert"] = "gradient"
    """normal or few-shot setting; or, not in the papers, from unlabelled inputs, or led by the expert with the lowest loss"""
    granularity: Literal["task", "layer", "matrix"] = "task"
    """one row of weights per task, per layer or per matrix"""
    temperature: float = Field(1.0, gt=0)
    """tau of Eq. 3"""
    null_expert: bool = False
    """slot 0 for the untouched base (SA-MDKIF, Eq. 3)"""
    learned_scale: bool = False
    """one learned factor beside the softmax; not in the papers"""
    weighting: Literal["softmax", "free", "unit"] = "softmax"
    """Eq. 3; or, not in the papers, 1 / K and the logits (0 is the average), or these at length 1"""
    objective: Literal["answer", "labels"] = "answer"
    """Eq. 5: -log p of the right answer; or, not in the papers, -log of its share among all labels of its example"""
    penalty: Literal["weights", "alpha"] = "weights"
    """Eq. 7, or SA-MDKIF's Eq. 6"""
    penalty_strength: float = Field(0.05, ge=0)
    """gamma_1 of Eq. 6"""
    initial_deviation: float = Field(0.01, ge=0)
    """standard deviation of the random start of A and b"""
    shots: int | None = Field(None, ge=1)
    """adaptation examples drawn; None takes all"""
    max_tokens: int = Field(512, ge=16)
    """tokens of one example, answer included"""
    seed: int = Field(0, ge=0)
    restarts: int = Field(1, ge=1)
    """independent attempts with seeds derived from `seed`; the one with the lowest loss is kept"""
    validation_share: float | None = Field(None, ge=0, lt=1)
    """part of the adaptation examples that judges epochs or generations; None takes 0.2 for gradient and 0 for cma"""
    patience: int | None = Field(None, ge=1)
    """epochs or generations that may be no better before it stops; None goes on to the end"""
    tolerance: float = Field(0.0, ge=0)
    """a loss has to fall by more than this to be better"""

    learning_rate: float = Field(0.3, gt=0)
    """gradient: Adam's rate on A, b and the scale; for free weights a tenth of this"""
    epochs: int = Field(5, ge=1)
    """gradient: passes over the adaptation examples, in each restart"""
    batch_size: int = Field(16, ge=1)
    """gradient: examples a step"""

    evaluations: int = Field(200, ge=2)
    """cma: candidates tried in each restart"""
    population: int | None = Field(None, ge=2)
    """cma: candidates a generation; None takes 4 + 3 ln n"""
    deviation: float = Field(1.0, gt=0)
    """cma: the first step size"""

    @model_validator(mode="after")
    def _tolerance_needs_patience(self) -> RouterSettings:
        if self.tolerance > 0 and self.patience is None:
            raise ValueError(f"tolerance = {self.tolerance} does nothing without patience: set it too, such as patience = 5")
        return self

    @model_validator(mode="after")
    def _weighting_fits(self) -> RouterSettings:
        if self.weighting != "softmax" and self.null_expert:
            raise ValueError(f"weighting = {self.weighting} has no slot for null_expert, which is one of the softmax")
        if self.weighting == "free" and self.learned_scale:
            raise ValueError("weighting = free has every scale already: leave learned_scale out")
        return self

    @property
    def held_out_share(self) -> float:
        """`validation_share`, or its default for the method: 32 shots are too few to hold any out."""
        if self.validation_share is not None:
            return self.validation_share
        return 0.2 if self.method == "gradient" else 0.0


class EvaluationSettings(Settings):
    """Scoring and its statistics."""

    length_normalised: bool = True
    """a label's log-likelihood divided by its tokens"""
    max_tokens: int = Field(512, ge=16)
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


class BaselineSettings(Settings):
    """What a method is compared with: a baseline that learns from, or is shown, the adaptation examples."""

    method: Literal["prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full", "in_context"] = "lora"
    """a row of `staf.baselines.BASELINES`"""
    learning_rates: tuple[float, ...] | None = Field(None, min_length=1)
    """AdamW's rates that are tried; None takes the three of the method's row"""
    epochs: int = Field(5, ge=1)
    """passes over the examples, at most: the held-out part says after how many it was best"""
    batch_size: int = Field(16, ge=1)
    """examples a step"""
    virtual_tokens: int = Field(20, ge=1)
    """prompt, prefix and P-tuning: vectors before the first token"""
    rank: int = Field(8, ge=1)
    """LoRA: of every adapted matrix"""
    shots: int | None = Field(None, ge=1)
    """adaptation examples drawn; None takes all, and in_context shows as many of them as fit"""
    shown_tokens: int | None = Field(None, ge=16)
    """in_context: tokens of a prompt with its shots and its answer; None takes what the base's context holds"""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """part of the adaptation examples that judges rates and epochs"""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _rates_are_positive(self) -> BaselineSettings:
        wrong = [rate for rate in self.learning_rates or () if rate <= 0]
        if wrong:
            raise ValueError(f"learning_rates must all be above 0, found {', '.join(map(str, wrong))}")
        return self


class ClassifierSettings(Settings):
    """Text classifiers beside the language model (Table 5); widths are those of TextCNN's and CAML's papers where given."""

    validation_share: float = Field(0.2, gt=0, lt=1)
    """part of the adaptation examples that chooses settings and the moment to stop, by whole groups"""
    with_query: bool = False
    """read the query before the context: where the label depends on it"""
    seed: int = Field(0, ge=0)

    inverse_strengths: tuple[float, ...] = Field((0.1, 1.0, 10.0, 100.0), min_length=1)
    """logistic: values of C that are tried"""

    minimum_count: int = Field(1, ge=1)
    """networks over words: times that a word must stand in what is fitted on"""
    vocabulary: int = Field(50_000, ge=1)
    """networks over words: the most frequent words, at most so many"""
    max_words: int = Field(2500, ge=1)
    """networks over words: words of a text, as CAML"""
    vector_width: int = Field(100, ge=1)
    """networks over words: numbers of a word"""
    filters: int = Field(100, ge=1)
    """cnn, text_cnn: filters of each width"""
    filter_widths: tuple[int, ...] = Field((3, 4, 5), min_length=1)
    """text_cnn: words that a filter spans, as Kim (2014)"""
    plain_filter_width: int = Field(4, ge=1)
    """cnn: words that a filter spans, as CAML's plain CNN"""
    state_width: int = Field(128, ge=1)
    """rnn: numbers of the state in each direction"""
    dropout: float = Field(0.5, ge=0, lt=1)
    """networks over words: rate before the last layer"""
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3), min_length=1)
    """networks over words: AdamW's rates that are tried"""
    epochs: int = Field(50, ge=1)
    """networks over words: passes over what is fitted on, at most"""

    encoder: str | None = None
    """encoder: hub id or folder"""
    encoder_learning_rates: tuple[float, ...] = Field((2e-5, 5e-5, 1e-4), min_length=1)
    """encoder: AdamW's rates that are tried"""
    encoder_epochs: int = Field(10, ge=1)
    """encoder: passes over what is fitted on, at most"""
    max_tokens: int = Field(512, ge=16)
    """encoder: tokens of a text"""

    batch_size: int = Field(16, ge=1)
    """all networks: examples a step"""
    weight_decay: float = Field(0.01, ge=0)
    """all networks: AdamW's"""
    patience: int = Field(5, ge=1)
    """all networks: epochs without a lower held-out loss before it stops"""

    @model_validator(mode="after")
    def _candidates(self) -> ClassifierSettings:
        for name in ("inverse_strengths", "filter_widths", "learning_rates", "encoder_learning_rates"):
            values = getattr(self, name)
            if min(values) <= 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} must be above 0, each once")
        return self


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def parse(kind: type[AnySettings], values: dict[str, Any], where: str) -> AnySettings:
    """Settings from plain values.

    Raises:
        ConfigError: naming every unknown key, wrong value and contradiction at once.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(kind, dict(item)) for item in error.errors()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"settings in {where}: {count}.\n  " + "\n  ".join(problems)) from error


def _sentence(kind: type[BaseModel], item: dict[str, Any]) -> str:
    import difflib

    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name.rpartition(".")[2], _all_fields(kind), n=1)
        return f"{name} is not a setting" + (f"; did you mean '{near[0]}'?" if near else ".")
    message = item["msg"].removeprefix("Value error, ")
    return f"{name} = {item['input']!r}: {message}." if name else f"{message}."


def _all_fields(kind: type[BaseModel]) -> list[str]:
    names = list(kind.model_fields)
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _all_fields(field.annotation)
    return names


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with staf, such as paper.

    Raises:
        MissingData: it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    folder = Path(str(resources.files("staf") / "recipes"))
    packaged = folder / f"{name}.yaml"
    if path.name == name and packaged.is_file():
        return packaged
    known = ", ".join(sorted(recipe.stem for recipe in folder.glob("*.yaml")))
    raise MissingData(f"no recipe {name}: it is no file, and the recipes that come with staf are {known}. Check the path.")


def load_recipe(kind: type[AnySettings], path: Path) -> AnySettings:
    """Settings from a YAML file.

    Raises:
        MissingData: there is no such file. ConfigError: it is not YAML, or its settings are wrong.
    """
    return parse(kind, load_values(path), str(path))


def load_values(path: Path | None) -> dict[str, Any]:
    """The plain values of a YAML file; none where there is no path.

    Raises:
        MissingData: there is no such file. ConfigError: it is not a YAML mapping.
    """
    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingData(f"no recipe {path}. Check the path, or leave it out for the defaults.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: a mapping of names to values was expected.")
    return values
