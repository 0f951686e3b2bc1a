"""How large the papers' experiments are made: a profile is one YAML file that comes with staf.

cpu      the default base, open data, sizes that two cores do in a night
paper    as printed, for Llama-2-7B and the papers' own corpora
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from staf.config import Settings, find_recipe, load_values, parse
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.routing.recipe import RouterRecipe

PROFILES = ("cpu", "paper")


CLINICAL = ("icd_coding", "medication", "readmission")
"""The papers' names of their three unseen tasks, each of which has metrics of its own."""


class TaskSizes(Settings):
    """Where a task needs other sizes than the rest."""

    max_length: int | None = Field(None, ge=16)
    """of adaptation and evaluation, where a query is long, such as a list of 50 labels"""
    max_new_tokens: int | None = Field(None, ge=1)
    """of an answer that is written, such as a sentence of an article"""
    limit: int | None = Field(None, ge=1)
    """test items, where one answer is rare"""
    shots: int | None = Field(None, ge=2)
    """adaptation examples of the few-shot setting, where each takes long"""
    normal_shots: int | None = Field(None, ge=2)
    """and of the normal setting"""


class Profile(Settings):
    """Sizes and stand-ins."""

    base: str | None = None
    """None is the default base"""
    splits: str = "staf-llm"
    strict: bool = False
    """refuse a table where anything is missing; else its places say so"""
    experts: list[str] = Field(min_length=1)
    """knowledge types, of which each gets an expert"""
    expert: ExpertRecipe
    tokens_of_expert: dict[str, int] = Field(default_factory=dict)
    """max_length of experts, by knowledge type or data set, whose query is longer than others', such as a list of 50 labels"""
    corpora: dict[str, list[str]] = Field(default_factory=dict)
    """the papers' own data sets of each knowledge type; a strict profile wants every one of them"""
    few_shot: RouterRecipe
    normal: RouterRecipe
    beyond: dict[str, RouterRecipe] = Field(default_factory=dict)
    """routers that the papers do not have, each a row of Tables 3 and 4 under its name; without shots they take the normal's"""
    starts: dict[str, str] = Field(default_factory=dict)
    """of those, the ones whose search goes on from the numbers of another one, which has no start itself"""
    normal_shots: int | None = Field(None, ge=2)
    """adaptation examples of the normal setting, of routers and baselines alike; None takes all, as where there are fewer"""
    baseline: dict[str, Any] = Field(default_factory=dict)
    """settings that all baselines share, as in BaselineSettings"""
    classifier: dict[str, Any] = Field(default_factory=dict)
    """settings that all classifiers share, as in ClassifierSettings"""
    encoder: str | None = None
    """hub id or folder of Table 5's encoder; its row says so where there is none"""
    causal: str | None = None
    """hub id or folder of Table 5's other language model, Meditron say, which learns by LoRA from what new has"""
    outside: dict[str, str] = Field(default_factory=dict)
    """Table 5's systems that staf does not run: by row, a folder with TASK.jsonl for each task (docs/classifiers.md)"""
    evaluation: EvaluationSettings
    sizes_of_task: dict[str, TaskSizes] = Field(default_factory=dict)
    seeds: int = Field(ge=1)
    unseen_data: dict[str, str]
    """Table 3: the papers' task, and the one that is run"""
    unseen_task: dict[str, str]
    """Table 4 and 5"""
    label_counts: dict[int, str]
    """Figure 5: number of labels, and the task"""
    shots: list[int]
    """Figure 6"""
    expert_counts: list[int]
    """Figure 8"""
    outside_expert: str = "conll-2003"
    """cross-domain: the data set whose expert takes the place of named entity recognition"""

    @field_validator("unseen_task")
    @classmethod
    def _clinical(cls, tasks: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(tasks) - set(CLINICAL))
        if unknown:
            raise ValueError(f"the papers' unseen tasks are {', '.join(CLINICAL)}, found {', '.join(unknown)}")
        return tasks

    @model_validator(mode="after")
    def _starts(self) -> Profile:
        wrong = sorted(f"{name}: {start}" for name, start in self.starts.items() if not self._may_start(name, start))
        if wrong:
            raise ValueError(
                f"starts: {', '.join(wrong)} found; a router of 'beyond' that learns, and one there without a start, expected"
            )
        return self

    def _may_start(self, name: str, start: str) -> bool:
        learns = name in self.beyond and self.beyond[name].method in ("gradient", "cma")
        return learns and start in self.beyond and start not in self.starts

    def of_task(self, task: str) -> Profile:
        """With the sizes of one task."""
        if task not in self.sizes_of_task:
            return self
        sizes = self.sizes_of_task[task]

        def named(*names: str) -> dict[str, int]:
            return sizes.model_dump(include=set(names), exclude_none=True)

        def sized(router: RouterRecipe) -> RouterRecipe:
            return router.model_copy(update=named("max_length") if router.shots is None else named("max_length", "shots"))

        return self.model_copy(
            update={
                "few_shot": sized(self.few_shot),
                "normal": sized(self.normal),
                "beyond": {name: sized(router) for name, router in self.beyond.items()},
                "evaluation": self.evaluation.model_copy(update=named("max_length", "max_new_tokens", "limit")),
                "normal_shots": sizes.normal_shots or self.normal_shots,
            }
        )

    def of_expert(self, name: str) -> ExpertRecipe:
        """Settings of the expert of a knowledge type or data set."""
        tokens = self.tokens_of_expert.get(name, self.expert.max_length)
        return self.expert.model_copy(update={"max_length": tokens})


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """The profile of a name, or of a YAML file, with some settings changed.

    Raises:
        MissingData: it is neither. ConfigError: settings that are wrong, all told at once.
    """
    path = Path(name)
    file = path if path.is_file() else find_recipe(f"reproduce-{name}")
    return parse(Profile, {**load_values(file), **(changes or {})}, str(file))
