"""A task's comparison: constants, simple classifiers and every use of the language model on the same rows, within a time.

    out/plan.json         what has begun, and what it was given; a stopped comparison continues with it
    out/comparison.json   the result, written last
    out/router/           the few-shot router, and in tuned/ what tuning made of it

Every row is a run of its own under the folder of runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from staf.baselines import embedding
from staf.baselines.classifiers import SENTENCE_ENCODERS
from staf.baselines.peft import Choice
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.data.example import LABEL_TYPES, Example
from staf.data.selection import task_examples
from staf.data.task import Task
from staf.errors import ConfigError, MissingData, TrainingFailed
from staf.evaluate.score import Method, router_method, sample
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.io import locked, write_json
from staf.metrics.by_output_type import metric_of_runs
from staf.metrics.methods import METHODS
from staf.metrics.stats import Statistic, compare_seeds, measure
from staf.routing.adapt import examples_digest
from staf.routing.recipe import RouterRecipe
from staf.runs import digest_of
from staf.stages.adaptation import adapt_stage, drawn_examples
from staf.stages.budget import FULL, ROUTED_COST, TUNE, UNKNOWN, Budget, Costs, router_pass
from staf.stages.context import Context
from staf.stages.deadline import Deadline, OutOfTime
from staf.stages.evaluation import (
    Scored,
    baseline_stage,
    classifier_stage,
    evaluate_stage,
    select_single_expert,
)
from staf.stages.probing import ProbeSettings, base_probe_stage
from staf.stages.recommendation import recommendation
from staf.stages.tuning import tune_stage

ROWS = {
    "majority": "Majority", "nearest_label": "Nearest label name", "tfidf": "TF-IDF, logistic regression",
    "embedding": "Sentence encoder, logistic regression", "original": "Base model", "in_context": "In-context learning",
    "linear_probe": "Linear probe of hidden states", "lora": "LoRA", "single": "Best single expert",
    "few_shot": "Few-shot router", "route_then_tune": "Route-then-tune",
}  # fmt: skip
"""Rows of the table, in order."""
SIMPLE = ("majority", "nearest_label", "tfidf", "embedding")
"""Rows without a language model."""
CURVE = ("tfidf", "embedding")
CURVE_SHOTS = (8, 16, 32)
SIMPLE_SHARE = 1 / 3
"""Part of the time that rows without a language model may take, their learning curves included."""
SAY_EVERY = 15.0
"""Seconds between two lines about a row without a language model."""
LIMIT = 500
"""Test rows, at most, where nothing else is asked for."""
NO_EXPERTS = (
    "it needs experts, and none were given: add --experts reference for those that come with staf, or a FOLDER. `staf train` "
    "makes more, and `staf experts add` takes any LoRA adapter of this base"
)


def compare(
    context: Context, task: Task, experts: ExpertSet | None = None, *, shots: int = 32, minutes: float = 10.0,
    limit: int = LIMIT, seed: int = 0, encoder: str | None = None, out: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the ways to answer a task on the same test rows; what was done before is read, what was stopped resumes.

    Args:
        experts: None leaves their rows out. shots: labelled examples that every row learns from, fewer where there are fewer.
        minutes: for all; what does not fit is lowered or left out, and named. limit: maximum test rows.
        encoder: sentence encoder by hub id or folder; None is the default one. out: folder of the result; None takes
            compare/TASK in the folder of runs.

    Returns:
        `rows` (value, low, high, to_majority, to_simple, seconds, memory_bytes ... each), `curve`, `left_out`, `reduced` and
        the `recommendation`; scores and differences are between 0 and 1.

    Raises:
        MissingData: the task has no adaptation or test examples. TestLeak: an expert was trained on a test item.
    """
    folder = out or context.runs / "compare" / task.name
    with locked(folder / "comparison.json", wait=True, log=context.progress.log):
        return _Comparing.of(context, task, experts, shots, minutes, limit, seed, encoder, folder).result()


@dataclass
class _Comparing:
    """The rows of one comparison."""

    context: Context
    task: Task
    experts: ExpertSet | None
    seed: int
    encoder: str | None
    out: Path
    test: list[Example]
    shots: list[Example]
    labelled: int
    """adaptation examples"""
    available: int
    """test examples"""
    budget: Budget
    left_out: dict[str, str]
    done: dict[str, Scored]
    unfitted: list[str] = field(default_factory=list)
    """points of the learning curves that there was no time for"""
    saying: str = ""
    said: float = 0.0
    """what was last shown, and when"""

    @classmethod
    def of(
        cls, context: Context, task: Task, experts: ExpertSet | None, shots: int, minutes: float, limit: int, seed: int,
        encoder: str | None, folder: Path,
    ) -> _Comparing:  # fmt: skip
        """The comparison of these things, with what an earlier process began."""
        adaptation, every = task_examples(task, "adaptation", context.store), task_examples(task, "test", context.store)
        test = sample(every, limit)
        learned, aside = drawn_examples(context, task, min(shots, len(adaptation)), seed)
        drawn = [*learned, *aside]
        asked = (str(minutes), str(limit), str(seed), str(encoder), task.output_type, task.metric)
        of = digest_of(
            context.named(*asked), examples_digest(test), examples_digest(drawn), "" if experts is None else experts.fingerprint
        )
        budget = Budget(
            folder / "plan.json",
            of,
            60 * minutes,
            len(test),
            len(drawn),
            0 if experts is None else len(experts.names),
            len(aside),
        ).load()
        return cls(context, task, experts, seed, encoder, folder, test, drawn, len(adaptation), len(every), budget, {}, {})

    def result(self) -> dict[str, Any]:
        """Run every row that can answer, and put the table together."""
        self.left_out = self._unable()
        for name in SIMPLE:
            self._run(name, partial(self._simple, name, len(self.shots)))
        curve = {name: self._curve(name) for name in CURVE if name in self.done}
        embedding.forget()
        models = [name for name in ROWS if name not in (*SIMPLE, *self.left_out)]
        for number, name in enumerate(models):
            self._run(name, partial(self._model, name, models[number:]))
        found = self._table(curve)
        write_json(self.out / "comparison.json", found)
        self.budget.save()
        return found

    def _unable(self) -> dict[str, str]:
        """Rows that cannot answer this task, and why."""
        found = dict.fromkeys(("single", "few_shot", "route_then_tune"), NO_EXPERTS) if self.experts is None else {}
        if self.task.output_type not in LABEL_TYPES:
            return (
                dict.fromkeys((*SIMPLE, "linear_probe"), "it answers labels, and this task's answers are words of a text")
                | found
            )
        if len({example.labels for example in (*self.test, *self.shots)}) > 1:
            return dict.fromkeys((*CURVE, "linear_probe"), "it needs the same labels in every row") | found
        return found

    def _run(self, name: str, run: Callable[[], Scored | None]) -> None:
        if name in self.left_out:
            return
        try:
            scored = run()
        except (ConfigError, MissingData, TrainingFailed, OutOfTime) as error:
            self.left_out[name] = str(error)
            return
        if scored is not None:
            self.done[name] = scored
            self.budget.save()

    def _simple(self, name: str, shots: int | None) -> Scored:
        settings = ClassifierSettings(seed=self.seed, encoder=self.encoder if name in SENTENCE_ENCODERS else None)
        if shots == len(self.shots):
            embedding.forget()  # each row pays for its own vectors
        step = partial(self._step, f"{ROWS[name]}, {shots} labelled examples")
        evaluation = EvaluationSettings(limit=len(self.test))
        return classifier_stage(self.context, self.task, name, shots, settings, evaluation, on_step=step)

    def _step(self, what: str) -> None:
        """Show now and then what is being fitted; raises OutOfTime where simple rows have had their part of the time."""
        budget = self.budget
        if budget.elapsed > SIMPLE_SHARE * budget.seconds:
            part = f"rows without a language model have {100 * SIMPLE_SHARE:.0f} % of {budget.seconds / 60:g} min"
            raise OutOfTime(f"there is no time for it: {part}. Raise --minutes.")
        if what != self.saying or time.perf_counter() - self.said > SAY_EVERY:
            self.saying, self.said = what, time.perf_counter()
            self.context.progress.log(f"{what}: {budget.left:.0f} s of {budget.seconds:.0f} s are left")

    def _curve(self, name: str) -> dict[int, Scored]:
        """A classifier by the number of labelled examples."""
        points, late = {}, list[str]()
        for shots in sorted({*(count for count in CURVE_SHOTS if count < self.labelled), len(self.shots), self.labelled}):
            try:
                points[shots] = self._simple(name, shots) if shots != len(self.shots) else self.done[name]
            except (ConfigError, MissingData):
                continue  # too few groups to validate
            except OutOfTime:
                late.append(str(shots))
        if late:
            self.unfitted.append(f"{ROWS[name]}: not fitted on {', '.join(late)} labelled examples, for lack of time")
        return points

    def _model(self, name: str, rows: Sequence[str]) -> Scored | None:
        """A row of the language model, or None where there is no time for it."""
        budget, is_new = self.budget, self.budget.is_new(name)
        if is_new and (budget.costs == UNKNOWN or not budget.is_measured):
            budget.costs = Costs.measured(self.context.base, self.test, self.shots, EvaluationSettings(), budget.left)
            budget.is_measured = True
        if is_new and name == "few_shot" and self.experts is not None and budget.costs.learn < budget.left:
            learn = router_pass(self.context.mixture(self.experts), self._recipe(2), self.shots)
            budget.costs = replace(budget.costs, learn=learn / ROUTED_COST)
        if name == "route_then_tune" and "few_shot" not in self.done:
            self.left_out[name] = f"it tunes the few-shot router, which was left out: {self.left_out['few_shot']}"
            return None
        if (plan := budget.begin(name, rows)) is None:
            self.left_out[name] = budget.stopped.get(name) or _no_time(budget, name)
            return None
        self.context.progress.log(
            f"{ROWS[name]}: about {budget.cost(name):.0f} s; {budget.left:.0f} s of {budget.seconds:.0f} s are left"
        )
        with self._ended(name, rows):
            scored = self._scored(name, plan, EvaluationSettings(limit=plan["test_rows"]))
        if name == "original" and is_new:
            budget.measured(scored[0]["seconds_of_predicting"] / (plan["test_rows"] + budget.calibration))
        return scored

    @contextmanager
    def _ended(self, name: str, rows: Sequence[str]) -> Iterator[None]:
        """End a row that takes much longer than planned; raises OutOfTime."""
        budget, shown, started = self.budget, self.context.progress, time.perf_counter()
        planned, self.context.progress = budget.cost(name), Deadline(shown, budget.limit(name, rows))
        try:
            yield
        except OutOfTime as error:
            took = f"{time.perf_counter() - started:.0f} s, where {planned:.0f} s were planned"
            budget.stop(name, f"stopped: took longer than planned ({took}): raise --minutes")
            raise OutOfTime(budget.stopped[name]) from error
        finally:
            self.context.progress = shown

    def _scored(self, name: str, plan: dict[str, int], evaluation: EvaluationSettings) -> Scored:
        context, task, experts, shots = self.context, self.task, self.experts, len(self.shots)
        drawn = (shots, self.seed)
        if name == "in_context":
            shown = BaselineSettings(method="in_context", shots=shots, shown=plan["shown"], seed=self.seed)
            return baseline_stage(context, task, shown, evaluation)
        if name == "linear_probe":
            return base_probe_stage(context, task, ProbeSettings(shots=shots, seed=self.seed), evaluation)
        if name == "lora":
            epochs, rates = plan["epochs"], METHODS["lora"]["rates"]
            own = BaselineSettings(method="lora", shots=shots, seed=self.seed, batch_size=4, epochs=epochs)
            choice = None if plan["rates"] == len(rates) else Choice(rates[len(rates) // 2], epochs, [])
            return baseline_stage(context, task, own, evaluation, choice=choice)
        if name == "original" or experts is None:
            return evaluate_stage(context, task, None, Method("original", None, drawn=drawn), evaluation)
        if name == "single":
            chosen = select_single_expert(context, task, experts, evaluation, self.shots[: plan["choosing"]], drawn)
            return evaluate_stage(context, task, experts, chosen, evaluation)
        router = adapt_stage(context, task, experts, self._recipe(plan["evaluations"]), self.out / "router")
        if name == "route_then_tune":
            recipe = TUNE.model_copy(update={"steps": plan["tune_steps"]})
            router, experts = tune_stage(context, task, router, experts, recipe, self.out / "router" / "tuned")
        return evaluate_stage(context, task, experts, router_method(router), evaluation)

    def _recipe(self, evaluations: int) -> RouterRecipe:
        return RouterRecipe(method="cma", shots=len(self.shots), seed=self.seed, max_evaluations=evaluations)

    def _table(self, curve: dict[str, dict[int, Scored]]) -> dict[str, Any]:
        """The result of all rows that were run, on the test rows that all of them answered."""
        metric = self.task.metric
        answers = {name: run.predictions() for name, (_, run) in self.done.items()}
        every = [{p["id"] for p in found} for found in answers.values()]
        shared = every[0].intersection(*every) if every else {example.id for example in self.test}
        answers = {name: [p for p in found if p["id"] in shared] for name, found in answers.items()}
        values: dict[str, Any] = {name: self._value(found) for name, found in answers.items()}
        simple = max((n for n in SIMPLE if values.get(n)), key=lambda n: values[n]["value"], default=None)
        reference = simple or ("original" if values.get("original") else None)
        rows = []
        for name in (name for name in ROWS if values.get(name)):
            result, run = self.done[name]
            rows.append({
                "name": name, "title": ROWS[name], "language_model": name not in SIMPLE,
                **values[name], "test_rows": len(shared), "to_majority": self._difference(answers, name, "majority"),
                "to_simple": self._difference(answers, name, reference),
                "seconds": result["seconds"], "memory_bytes": result["peak_memory_bytes"],
                "examples": result["adaptation_examples"], "truncated": result["truncated_prompts"],
                "run": run.folder.relative_to(self.context.runs).as_posix(),
            })  # fmt: skip
        undefined = {name: f"its {metric} is undefined on these rows" for name in values if not values[name]}
        found = {
            "stage": "compare", "task": self.task.name, "task_title": self.task.title, "output_type": self.task.output_type,
            "metric": metric, "shots": len(self.shots), "labelled": self.labelled, "test_rows": len(shared),
            "available_test_rows": self.available, "minutes": self.budget.seconds / 60, "seconds": self.budget.elapsed,
            "base": self.context.identity["name"], "experts": [] if self.experts is None else list(self.experts.names),
            "reference": reference, "rows": rows, "curve": self._lines(curve, shared), "reduced": self._reduced(),
            "left_out": [
                {"name": name, "title": ROWS[name], "reason": reason, "seconds": self.budget.left_out.get(name)}
                for name, reason in sorted({**self.left_out, **undefined}.items(), key=lambda item: list(ROWS).index(item[0]))
            ],
        }  # fmt: skip
        return {**found, "recommendation": recommendation(found)}

    def _lines(self, curve: dict[str, dict[int, Scored]], shared: set[str]) -> list[dict[str, Any]]:
        """Scores of classifiers by the number of labelled examples."""
        lines = []
        for name, points in curve.items():
            values = {n: self._value([p for p in run.predictions() if p["id"] in shared]) for n, (_, run) in points.items()}
            found = [{"shots": shots, **value} for shots, value in values.items() if value is not None]
            lines.append({"name": name, "title": ROWS[name], "points": found})
        return lines

    def _statistics(self, *answers: list[dict[str, Any]]) -> list[list[Statistic]]:
        task = self.task
        return metric_of_runs(task.output_type, task.metric, *([found] for found in answers), fixed_labels=task.fixed_labels)

    def _value(self, answers: list[dict[str, Any]]) -> dict[str, float] | None:
        """The score of answers with its interval; None where it is undefined."""
        found = measure(self._statistics(answers)[0], EvaluationSettings().resamples)[0]
        return None if found is None else {"value": found.value, "low": found.low, "high": found.high}

    def _difference(self, answers: dict[str, list[dict[str, Any]]], name: str, other: str | None) -> dict[str, Any] | None:
        """The paired difference of a row to another."""
        if other not in answers or name == other:
            return None
        one, two = self._statistics(answers[name], answers[other])
        compared = compare_seeds(one, two, EvaluationSettings().resamples)
        return None if compared is None else {**asdict(compared), "than": other}

    def _reduced(self) -> list[str]:
        """What rows were given less of than they have where time allows."""
        fixed, full = self.budget.fixed, self.budget.full
        lowered = {name: value for name, value in fixed.items() if value < full[name]}
        texts = {
            "test_rows": f"all rows: judged on {fixed.get('test_rows')} of {full['test_rows']} test rows, the language model's",
            "shown": f"{ROWS['in_context']}: {fixed.get('shown')} of {full['shown']} examples shown",
            "rates": f"{ROWS['lora']}: one learning rate, not the best of {FULL['rates']}",
            "epochs": f"{ROWS['lora']}: {fixed.get('epochs')} of {full['epochs']} passes over the examples",
            "choosing": f"{ROWS['single']}: chosen on {fixed.get('choosing')} of {full['choosing']} examples",
            "evaluations": f"{ROWS['few_shot']}: {fixed.get('evaluations')} of {full['evaluations']} candidates tried",
            "tune_steps": f"{ROWS['route_then_tune']}: {fixed.get('tune_steps')} of {full['tune_steps']} steps",
        }
        found = [text for name, text in texts.items() if name in lowered]
        found += self.unfitted
        if len(self.test) < self.available:
            found.insert(0, f"all rows: {len(self.test)} of {self.available} test rows (--limit)")
        return found


def _no_time(budget: Budget, name: str) -> str:
    """Why a row was left out for lack of time, with what it would take at least."""
    return f"it takes at least {budget.left_out[name]:.0f} s, more than {budget.seconds / 60:g} min leave: raise --minutes"
