"""A model adapted to one task: answers in memory, scores with intervals, saving and exporting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from staf.config import parse
from staf.data.task import Task
from staf.errors import BadData, ConfigError, MissingData
from staf.evaluate.score import router_method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet
from staf.predict import answer_rows
from staf.report.formatting import result_lines
from staf.routing.store import Router, save_router
from staf.stages.evaluation import Scored, evaluate_stage
from staf.stages.exporting import export_stage

if TYPE_CHECKING:
    from staf.model.model import Model


class Metric(NamedTuple):
    """A metric and its 95 % confidence interval over test items."""

    value: float
    low: float | None
    high: float | None
    examples: int


class Scores(dict[str, Metric]):
    """The metrics of one method on a task's test set, by name; printed as a table.

    Attributes:
        result: all that was measured, such as seconds, weights and settings.
        run: its folder and its predictions.
    """

    def __init__(self, scored: Scored) -> None:
        self.result, self.run = scored
        found = {name: metric for name, metric in self.result["metrics"].items() if metric is not None}
        super().__init__({n: Metric(m["value"], m.get("low"), m.get("high"), m["examples"]) for n, m in found.items()})

    @property
    def primary(self) -> Metric | None:
        """The primary metric; None where it is undefined on these items."""
        return self.get(self.result["primary_metric"])

    def __repr__(self) -> str:
        return "\n".join(result_lines(self.result))


class Adapted:
    """A model adapted to one task: a router over the experts of a `Model`, which it shares with others.

    Made by `Model.adapt`, `Model.load` and `staf.load_adapted`. Calls from several threads take turns.
    """

    def __init__(self, model: Model, router: Router, task: Task | None = None, adapter: ExpertSet | None = None) -> None:
        self.model, self.router, self.task, self.adapter = model, router, task, adapter

    @property
    def experts(self) -> ExpertSet:
        """Those that the router weighs: the model's, or the adapter of a tuned router."""
        return self.adapter or self.model.needed_experts

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels, in the order of `predict_proba`; () for free text, None where each input has its own."""
        return self.router.prompt.labels

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each expert, averaged over layers or matrices."""
        return self.router.mean_weights

    def predict(self, inputs: Iterable[Any]) -> list[Any]:
        """The answer to each input: a label; a list of labels (multi_label); text (span, ner, generate_until).

        Args:
            inputs: texts, or rows with the columns of the task: a list, an array, a Series, a DataFrame, a data set. A row
                may bring "context", "query" and "labels" of its own.

        Raises:
            BadData: an input does not fit the task; names it by number, never its text. MissingData: no calibration.
        """
        return [found["answer"] for found in self._answers(inputs)]

    def predict_proba(self, inputs: Iterable[Any]) -> np.ndarray:
        """Probabilities (inputs, labels), columns as `labels`; a row sums to 1 but for multi_label tasks.

        Raises:
            ConfigError: the task, or an input, has labels of its own or none. Others as `predict`.
        """
        answers, labels = self._answers(inputs) if self.labels else [], self.labels or ()
        if not labels or any(found["probabilities"].keys() != set(labels) for found in answers):
            raise ConfigError("not all inputs have the same labels, so there is no table of probabilities. Use predict.")
        return np.array([[found["probabilities"][label] for label in labels] for found in answers]).reshape(-1, len(labels))

    def evaluate(self, limit: int | None = None, task: Task | str | Path | None = None, **settings: Any) -> Scores:
        """Metrics with 95 % intervals on the task's test set; an interrupted call resumes, a finished one is read.

        Args:
            limit: maximum test items.
            task: needed after `load`, as a router keeps no data.
            settings: of `staf.evaluate.settings.EvaluationSettings`.

        Raises:
            MissingData: no task, or its data is not here. TestLeak: an expert was trained on a test item.
        """
        if task is None and self.task is None:
            raise MissingData(f"a router keeps no data. Give the task: evaluate(task='{self.router.task}' or its file).")
        values = {"max_length": self.router.prompt.max_length, "limit": limit, **settings}
        with self.model.using(self.task if task is None else task) as (context, found):
            if found.name != self.router.task:
                raise ConfigError(f"the router is of the task '{self.router.task}', not of '{found.name}'.")
            parsed = parse(EvaluationSettings, values, "Adapted.evaluate")
            return Scores(evaluate_stage(context, found, self.experts, router_method(self.router), parsed))

    def save(self, folder: str | Path) -> Path:
        """Save the router; `staf.load_adapted` and `staf predict --router` read it.

        It names the base and the folder of its experts; experts that are only in memory are saved in its own folder.
        """
        path, router, experts = Path(folder), self.router, self.experts
        if experts.folder is None:
            write_set(path / "experts", experts.experts)
            router = replace(router, experts_folder=path / "experts")
        save_router(path, router)
        return path

    def export(self, folder: str | Path, format: str = "hf", dtype: str | None = None, rank: int | None = None) -> Path:
        """Save an ordinary model or adapter that other tools load without staf, with task, card and probes (docs/export.md).

        Args:
            format: "hf", the experts merged into the base's weights (transformers); "peft", one LoRA adapter of the base
                whose rank is the sum of the experts' (PEFT, vLLM); "gguf", the same for llama.cpp; "router-json", the experts
                for llama.cpp with the weights of a request.
            dtype: of a merged model: bfloat16, float16 or float32; None keeps the base's.
            rank: of an adapter, at most; its error is in staf.json. None is exact.

        Raises:
            UnknownName: no such format. ConfigError: dtype or rank do not act on it. StafError: another thing is in the folder.
        """
        with self.model.using() as (context, _):
            export_stage(context, self.router, self.experts, Path(folder), format, rank=rank, dtype=dtype)
        return Path(folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "task": None if self.task is None or self.task.rows else self.task}  # no text is pickled

    def __repr__(self) -> str:
        recipe, count = self.router.recipe, self.router.record["examples"]
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in self.weights.items())
        return f"Adapted(task='{self.router.task}', method='{recipe.method}', examples={count}, weights: {weights})"

    def _answers(self, inputs: Any) -> list[dict[str, Any]]:
        if isinstance(inputs, str | bytes | Mapping):
            raise BadData(f"one {type(inputs).__name__} was given: a list of texts or rows was expected.")
        rows = inputs.to_dict("records") if hasattr(inputs, "columns") else list(inputs)
        with self.model.using() as (context, _):
            return answer_rows(context, self.router, self.experts, rows)
