"""How large the papers' experiments are made: a profile is one YAML file that comes with staf.

cpu      the default base, open data, the sizes of docs/evaluation.md
paper    as printed, for Llama-2-7B and the papers' own corpora
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from staf.compute import ComputeOptions
from staf.config import Settings, find_recipe, load_values, parse
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.routing.recipe import RouterRecipe, TuneRecipe

Sized = TypeVar("Sized", RouterRecipe, EvaluationSettings)


class TaskSizes(Settings):
    """What differs for one task; None keeps the profile's."""

    max_length: int | None = Field(None, ge=16)
    """tokens in adaptation and evaluation, for a long query such as a list of 50 labels"""
    max_new_tokens: int | None = Field(None, ge=1)
    """of a generated answer, such as a sentence of an article"""
    limit: int | None = Field(None, ge=1)
    """test items, where one label is rare"""
    shots: int | None = Field(None, ge=2)
    """adaptation examples of the few-shot setting, where each is slow"""
    normal_shots: int | None = Field(None, ge=2)
    """adaptation examples of the normal setting"""


class Profile(Settings):
    """Sizes, and the task that is run for each of the papers' tasks."""

    base: str | None = None
    """None is the default base"""
    splits: str = "staf-llm"
    strict: bool = False
    """refuse a table where anything is missing; else its cells say so"""
    experts: list[str] = Field(min_length=1)
    """knowledge types, one expert each"""
    expert: ExpertRecipe
    compute: ComputeOptions = ComputeOptions()
    expert_max_length: dict[str, int] = Field(default_factory=dict)
    """max_length of experts with longer queries, by knowledge type or data set"""
    expert_steps: dict[str, int] = Field(default_factory=dict)
    """steps of experts on longer texts, likewise; tinit and tfinal shrink with them"""
    corpora: dict[str, list[str]] = Field(default_factory=dict)
    """the papers' own data sets of each knowledge type; a strict profile requires every one of them"""
    few_shot: RouterRecipe
    normal: RouterRecipe
    tune: TuneRecipe = TuneRecipe()
    """route-then-tune: what becomes of the few-shot router"""
    extra_routers: dict[str, RouterRecipe] = Field(default_factory=dict)
    """routers that the papers do not have, each a row of Tables 3 and 4; without shots they take the normal setting's"""
    init_from: dict[str, str] = Field(default_factory=dict)
    """extra routers whose search starts from the weights of another extra router, which has no start itself"""
    normal_shots: int | None = Field(None, ge=2)
    """adaptation examples of the normal setting, of routers and baselines; None takes all, as where there are fewer"""
    training_set: bool = False
    """the papers' baselines and TF-IDF learn from all that an expert of the task's data would see, as in section 5.1"""
    shown: int | None = Field(None, ge=1)
    """in-context learning: examples of the few-shot draw that are shown, each answer in turn; None shows all that fit"""
    baseline: dict[str, Any] = Field(default_factory=dict)
    """settings that all baselines share, as in BaselineSettings"""
    classifier: dict[str, Any] = Field(default_factory=dict)
    """settings that all classifiers share, as in ClassifierSettings"""
    encoder: str | None = None
    """hub id or folder of Table 5's encoder"""
    language_model: str | None = None
    """hub id or folder of Table 5's other language model, such as Meditron; it learns by LoRA from what the row "new" has"""
    external: dict[str, str] = Field(default_factory=dict)
    """Table 5's systems that staf does not run: by row, a folder with TASK.jsonl for each task (docs/classifiers.md)"""
    evaluation: EvaluationSettings
    task_sizes: dict[str, TaskSizes] = Field(default_factory=dict)
    seeds: int = Field(ge=1)
    fewer_seeds: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """of rows by their name or setting, and of tasks by their output type; the smallest of a cell counts"""
    unseen_data: dict[str, str]
    """Table 3: the papers' task, and the one that is run"""
    unseen_task: dict[Annotated[str, Field(pattern="^(icd_coding|medication|readmission)$")], str]
    """Tables 4 and 5"""
    label_counts: dict[int, str]
    """Figure 5: number of labels, and the task"""
    shots: list[int]
    """Figure 6"""
    expert_counts: list[int]
    """Figure 8"""
    foreign_expert: str = "conll-2003"
    """cross-domain: the data set whose expert replaces that of named entity recognition"""

    @model_validator(mode="after")
    def _starts_exist(self) -> Profile:
        learns = {name for name, router in self.extra_routers.items() if router.method in ("gradient", "cma")}
        starts = self.extra_routers.keys() - self.init_from.keys()
        wrong = sorted(f"{n}: {start}" for n, start in self.init_from.items() if n not in learns or start not in starts)
        if wrong:
            raise ValueError(
                f"init_from: {', '.join(wrong)} found; expected an extra router that learns, and one without a start of its own"
            )
        return self

    def of_task(self, task: str) -> Profile:
        """With the sizes of one task."""
        if task not in self.task_sizes:
            return self
        sizes = self.task_sizes[task].model_dump(exclude_none=True)

        def sized(settings: Sized) -> Sized:
            fixed = {"shots"} if getattr(settings, "shots", None) is None else set()  # a normal router takes normal_shots
            fields = type(settings).model_fields.keys() - fixed
            return settings.model_copy(update={name: size for name, size in sizes.items() if name in fields})

        return self.model_copy(
            update={
                **{name: sized(getattr(self, name)) for name in ("few_shot", "normal", "evaluation")},
                "extra_routers": {name: sized(router) for name, router in self.extra_routers.items()},
                "normal_shots": sizes.get("normal_shots", self.normal_shots),
            }
        )

    def of_expert(self, name: str) -> ExpertRecipe:
        """The recipe of the expert of a knowledge type or data set."""
        own, changed = self.expert, {"max_length": self.expert_max_length.get(name, self.expert.max_length)}
        if (steps := self.expert_steps.get(name)) and own.steps:
            changed |= {"steps": steps, "tinit": own.tinit * steps // own.steps, "tfinal": own.tfinal * steps // own.steps}
        return own.model_copy(update=changed)


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """The profile of a name, or of a YAML file, with some settings changed.

    Raises:
        MissingData: it is neither. ConfigError: settings that are wrong, all reported at once.
    """
    path = Path(name)
    file = path if path.is_file() else find_recipe(f"reproduce-{name}")
    return parse(Profile, {**load_values(file), **(changes or {})}, str(file))
