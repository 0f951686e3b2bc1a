"""A loaded base with experts, which adapts to tasks and scores methods on them: a thin face of `staf.stages`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

from staf.compute import ComputeOptions
from staf.config import parse
from staf.data.fetch import cache_folder
from staf.data.selection import default_shots
from staf.data.task import Task, find_task
from staf.errors import ConfigError, MissingData
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet, load_experts
from staf.log import NullProgress, Terminal
from staf.model.adapted import Adapted, Scores
from staf.routing.recipe import RouterRecipe, TuneRecipe, usual_settings
from staf.routing.store import load_router
from staf.stages.adaptation import adapt_stage, planned_adaptation
from staf.stages.context import Context
from staf.stages.named import evaluate_named
from staf.stages.probing import probe_stage
from staf.stages.tuning import tune_stage


class Model:
    """A base model and a set of experts, shared by all that is adapted from it. Made by `staf.load_model`.

    The base is loaded on first use. Results and routers that are given no folder are kept in a private one of the cache
    (STAF_CACHE), so the same call is answered from there. Calls from several threads take turns.
    """

    def __init__(self, experts: ExpertSet | None, context: Context) -> None:
        self.experts, self.context, self._store, self._lock = experts, context, context.store, RLock()
        self._task: Task | None = None

    @property
    def needed_experts(self) -> ExpertSet:
        """The experts; raises MissingData where the model has none."""
        if self.experts is None:
            raise MissingData(
                "this needs experts, and the model was loaded without. Give their folder, load_model(experts=FOLDER); to train "
                "some: staf train --data NAMES --out FOLDER"
            )
        return self.experts

    @contextmanager
    def using(self, task: Task | str | Path | None = None) -> Iterator[tuple[Context, Any]]:
        """The context, and a task in it, for one thread at a time."""
        with self._lock:
            if task is not None and task is not self._task:  # its data is read anew, and one at a time is kept
                store = replace(self._store, _local={})
                self._task, self.context.store = store.with_task(str(task) if isinstance(task, Path) else task)
            yield self.context, self._task

    def adapt(
        self, task: Task | str | Path, shots: int | None = 32, method: str = "cma", seed: int = 0,
        out: str | Path | None = None, tune: bool | Mapping[str, Any] = False, probe: bool = False,
        **recipe: Any,
    ) -> Adapted:  # fmt: skip
        """Learn a router over the experts from labelled examples of a task (STAF-LLM, Stage II).

        The same call reads the router that is there; an interrupted one resumes.

        Args:
            task: a task, its name or its file.
            shots: labelled examples, drawn by the seed; all where the task has fewer, or for None.
            method: cma or gradient (searches), best_expert, zero_shot (inputs without their labels).
            seed: of the draw and the search.
            out: folder of the router; None is a private one in the cache.
            tune: train the routed mixture on as one adapter, in OUT/tuned, where that improves the held-out loss; may be
                settings of `staf.routing.recipe.TuneRecipe`, such as {"steps": 80}.
            probe: fit a linear probe of the routed model's hidden states and label scores, in OUT/probe, that answers in their
                place; not together with tune.
            recipe: further settings of `staf.routing.recipe.RouterRecipe`, such as max_length=256.

        Raises:
            MissingData: no experts, or the task's data is not here. ConfigError: settings that are unknown or out of range.
            BaseMismatch: the experts were trained on another base.
        """
        experts = self.needed_experts
        with self.using(task) as (context, found):
            drawn = None if shots is None else default_shots(found, context.store, shots)
            values = {**usual_settings(method), "shots": drawn, "seed": seed, **recipe}
            settings = parse(RouterRecipe, values, "Model.adapt")
            if out is None:
                digest = planned_adaptation(context, found, experts, settings)[1]
                out = private_folder() / "routers" / f"{found.name}-{digest}"
            router = adapt_stage(context, found, experts, settings, Path(out))
            if probe and tune:
                raise ConfigError("a probe would be fitted on the examples of tuning. Give tune or probe, not both.")
            if probe:
                return Adapted(self, probe_stage(context, found, router, experts, Path(out) / "probe"), found)
            if not tune:
                return Adapted(self, router, found)
            tuning = parse(TuneRecipe, {} if tune is True else dict(tune), "Model.adapt, tune")
            router, experts = tune_stage(context, found, router, experts, tuning, Path(out) / "tuned")
            return Adapted(self, router, found, experts if router.has_own_adapter else None)

    def evaluate(
        self, task: Task | str | Path, method: str = "original", limit: int | None = None, shots: int | None = None,
        expert: str | None = None, **settings: Any,
    ) -> Scores:  # fmt: skip
        """Score a method that needs no router on a task's test set, with 95 % intervals.

        Args:
            method: original (the base model), average, single (best expert), lorahub, in_context, lora and other trained
                baselines, tfidf and other classifiers.
            limit: maximum test items.
            shots: labelled examples of baselines and classifiers; None takes all.
            expert: of the method single; None takes the best one on labelled examples.
            settings: of `staf.evaluate.settings.EvaluationSettings`, and of the method, such as seed=1.

        Raises:
            UnknownName: no such method. MissingData: the task's data is not here. TestLeak: an expert saw a test item.
        """
        own = {name: value for name, value in settings.items() if name in EvaluationSettings.model_fields}
        evaluation = parse(EvaluationSettings, {"limit": limit, **own}, "Model.evaluate")
        rest = {name: value for name, value in settings.items() if name not in own}
        with self.using(task) as (context, found):
            return Scores(
                evaluate_named(
                    context, found, evaluation, method, experts=self.experts, expert=expert, shots=shots, method_args=rest
                )
            )

    def load(self, router: str | Path) -> Adapted:
        """What `Adapted.save` or `staf adapt` saved, on this model.

        Raises:
            MissingData, DamagedFile: there is no router. BaseMismatch, ExpertMismatch: it was made for another model.
        """
        found = load_router(Path(router))
        adapter = found.load_experts() if found.has_own_adapter else None
        found.check(self.context.identity, adapter or self.needed_experts)
        return Adapted(self, found, adapter=adapter)

    def __repr__(self) -> str:
        names = "no experts" if self.experts is None else ", ".join(self.experts.names)
        return f"Model({self.context.identity['name']} with {names})"

    def __reduce__(self) -> Any:
        one, experts = self.context, self.experts
        options: dict[str, Any] = {"dtype": one.dtype, "device": one.compute.device, "runs": one.runs, "data": one.data}
        return partial(load_model, (experts and experts.folder) or experts, one.base_name, **options), ()


def load_model(
    experts: str | Path | ExpertSet | None = None, base: str | Path | None = None, *, dtype: str | None = None,
    device: str | None = None, runs: str | Path | None = None, data: str | Path | None = None, progress: bool | None = None,
) -> Model:  # fmt: skip
    """A base model with experts.

    Args:
        experts: a folder of experts; loaded ones; "reference" for those that come with staf; None for the base only.
        base: hub id, folder or GGUF file; None is the default, SmolLM2-135M-Instruct.
        dtype: bfloat16, float16, float32, or nf4 for four bits; None takes what the processor has instructions for.
        device: a device of PyTorch, such as cuda or cpu; None takes the first GPU, or the CPU.
        runs: folder of results; None is a private one in the cache.
        data: folder of corpora; None uses packages.
        progress: show bars with the time left; None does so in notebooks and other interactive sessions.

    Raises:
        MissingData: no base or experts there. DamagedFile: one does not load. BaseMismatch: experts of another base.
    """
    shown = hasattr(sys, "ps1") if progress is None else progress
    context = Context(
        None if base is None else str(base), None if data is None else Path(data),
        private_folder() / "runs" if runs is None else Path(runs), Terminal() if shown else NullProgress(),
        compute=ComputeOptions(dtype=dtype, device=device),
    )  # fmt: skip
    found, identity = find_experts(experts), context.identity
    if found is not None:
        found.check(identity, found.shapes)
    return Model(found, context)


def find_experts(experts: str | Path | ExpertSet | None) -> ExpertSet | None:
    """The experts of `load_model`; raises as it does."""
    return experts if experts is None or isinstance(experts, ExpertSet) else load_experts(Path(experts))


def load_task(name: str | Path) -> Task:
    """The task of a name (`staf tasks list`) or of a YAML file; raises UnknownName, MissingData or ConfigError."""
    return find_task(str(name))


def load_adapted(
    router: str | Path, experts: str | Path | None = None, base: str | Path | None = None, **options: Any
) -> Adapted:
    """What `Adapted.save` or `staf adapt` saved, ready to answer.

    Args:
        router: its folder.
        experts, base: None are those it was made for, where they were then.
        options: others of `load_model`.

    Raises:
        MissingData, DamagedFile: no router, experts or base there. BaseMismatch, ExpertMismatch: they do not belong together.
    """
    found = load_router(Path(router))
    loaded = found.load_experts(None if experts is None else Path(experts))
    return load_model(loaded, base or found.base["name"], **options).load(router)


def private_folder() -> Path:
    """The folder of runs and routers made in Python without one of their own; readable by its owner only."""
    folder = cache_folder() / "python"
    folder.mkdir(0o700, parents=True, exist_ok=True)
    return folder
