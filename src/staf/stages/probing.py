"""A linear probe as a step on folders: fitted on a task's labelled examples, with a router or with the base as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from staf.config import Settings
from staf.data.example import LABEL_TYPES, Example
from staf.data.task import Task
from staf.errors import ConfigError
from staf.evaluate.answer import Answerer, gold_indices, routed
from staf.evaluate.probe import FOLDS, Probe, fit_probe, label_examples
from staf.evaluate.score import PROBED, Answered, Method, setting_of
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.routing.adapt import examples_digest
from staf.routing.store import Router
from staf.routing.tune import folds_of
from staf.runs import PeakMemory
from staf.stages.adaptation import drawn_examples, kept_router
from staf.stages.context import Context
from staf.stages.evaluation import Items, Scored, routed_answers, scored_run


class ProbeSettings(Settings):
    """What a linear probe of the base is fitted on."""

    shots: int | None = Field(32, ge=2)
    """adaptation examples drawn; None takes all"""
    seed: int = Field(0, ge=0)
    """of the draw and the folds"""


def probe_stage(context: Context, task: Task, router: Router, experts: ExpertSet, out: Path) -> Router:
    """The router in `out` with a linear probe of its own labelled examples: loaded where it was fitted before, else made.

    Raises:
        ConfigError: the task has no labels, or others by item; the router reads no labels, or was tuned on these examples.
        BaseMismatch, ExpertMismatch: it is of other experts. MissingData: the examples are of one group.
    """
    if router.recipe.method == "zero_shot" or router.has_own_adapter:
        kind = "was tuned on the examples that a probe would be fitted on" if router.has_own_adapter else "reads no labels"
        raise ConfigError(f"the router for '{router.task}' {kind}. Fit the probe on a router of another kind.")
    router.check(context.identity, experts)
    digest = context.named("probe", router.record.get("run", ""), experts.fingerprint, str(task.label_descriptions))

    def make() -> Router:
        learned, aside = drawn_examples(context, task, router.recipe.shots, router.recipe.seed)
        started = time.perf_counter()
        with routed(context.base, context.mixture(experts), router.weights, router.recipe.granularity):
            probe = fitted_probe(context, task, [*learned, *aside], router.recipe.max_length, router.recipe.seed)
        record = {**router.record, "seconds": router.record["seconds"] + time.perf_counter() - started}
        return replace(router, probe=probe.values(), probe_tensors=probe.tensors(), record=record)

    return kept_router(context, task, out, digest, make)


def base_probe_stage(
    context: Context, task: Task, chosen: ProbeSettings, settings: EvaluationSettings, setting: str | None = None
) -> Scored:
    """Score a linear probe of the base as it is on the test set of a task; raises as `probe_stage`."""
    learned, aside = drawn_examples(context, task, chosen.shots, chosen.seed)
    examples = [*learned, *aside]

    def answer(items: Items) -> Answered:
        started, memory = time.perf_counter(), PeakMemory()
        probe = fitted_probe(context, task, examples, settings.max_length, chosen.seed)
        method = Method(
            PROBED, None, setting=setting or setting_of(chosen.shots), seed=chosen.seed,
            tunable_parameters=probe.weight.numel() + probe.bias.numel(), adaptation_examples=len(examples),
            adaptation_seconds=time.perf_counter() - started, adaptation_memory_bytes=memory.bytes, probe=probe,
            record={"settings": {"method": "probe", "read": probe.read_by, "losses": probe.losses}},
        )  # fmt: skip
        return routed_answers(context, None, None, method, task, settings, items)

    depends_on = ("probe", chosen.digest(), examples_digest(examples), str(task.label_descriptions))
    return scored_run(context, task, settings, PROBED, chosen.seed, depends_on, answer)


def fitted_probe(context: Context, task: Task, examples: Sequence[Example], max_length: int, seed: int) -> Probe:
    """The probe of labelled examples as the base is routed now; raises as `probe_stage`."""
    if task.output_type not in LABEL_TYPES:
        raise ConfigError(f"a linear probe answers labels, and the answers of '{task.name}' are text. Leave the probe out.")
    described = {label: f"{label}: {text}" for label, text in task.label_descriptions.items() if text.strip()}
    named, folds = label_examples(examples, described), folds_of(examples, FOLDS, seed)
    with context.progress.bar(f"probe {task.name}", len(examples) + len(named)) as bar:
        answerer = Answerer(context.base, EvaluationSettings(max_length=max_length), bar.advance)
        shots, names = answerer.features(examples), answerer.features(named)
    gold = np.stack([np.isin(np.arange(len(named)), gold_indices(example)) for example in examples])
    return fit_probe(shots, gold, folds, names, examples[0].labels, task.output_type == "multi_label")
