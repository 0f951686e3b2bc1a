"""Scoring and fusing as steps on folders: a finished run is read, a fused model of the same router is kept."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

from staf.config import EvaluationSettings
from staf.errors import ConfigError, UnknownName
from staf.evaluate import Method, best_single, evaluate, method_of_router, sample
from staf.experts.store import ExpertSet, load_experts
from staf.export import save_fused
from staf.files import read_json
from staf.routing.mixture import Mixture
from staf.routing.router import only, uniform
from staf.routing.store import Router, load_router
from staf.runs import PeakMemory, Run
from staf.tasks.examples import task_examples
from staf.tasks.rows import Task
from staf.workflow.session import Session


def evaluate_stage(
    session: Session,
    task: Task,
    experts: ExpertSet | None,
    method: Method,
    settings: EvaluationSettings,
    baselines: dict[str, Run] | None = None,
) -> tuple[dict[str, Any], Run]:
    """Score a method on the test set of a task; a finished run is read.

    Raises:
        ConfigError: the task's answers are not one of a list of labels.
    """
    if task.form != "choice":
        raise ConfigError(
            f"task '{task.name}' has answers of the form '{task.form}', which are not scored yet; evaluate takes tasks whose "
            "answer is one of a list of labels. See: staf evaluate --task list"
        )
    examples = sample(task_examples(task, "test", session.library), settings.limit)
    weights = "" if method.weights is None else hashlib.sha256(method.weights.numpy().tobytes()).hexdigest()
    experts_print = "" if experts is None else experts.fingerprint
    ids = "/".join(example.id for example in examples)
    digest = _digest(session.identity["fingerprint"], experts_print, weights, settings.digest(), ids)
    run = Run.at(session.runs, "evaluate", task.name, method.name, method.seed, digest)
    finished = run.result()
    if finished is not None:
        return finished, run
    mixture = None if experts is None else session.mixture(experts)
    with session.watcher.bar(f"score {task.name}: {method.name}", len(examples)) as bar:
        result = evaluate(
            session.base, mixture, task, method, examples, settings, run, baselines, lambda done: bar.advance(done)
        )
    return result, run


def named_method(
    session: Session, task: Task, experts: ExpertSet, name: str, settings: EvaluationSettings, expert: str | None = None
) -> Method:
    """One of the methods that need no router: original, average, or single (the best on the adaptation set).

    Raises:
        UnknownName: it is none of these, or the expert named is not in the set.
    """
    count = len(experts.names)
    if name == "original":
        return Method("original", None)
    if name == "average":
        return Method("average", uniform(count))
    if name != "single":
        raise UnknownName.among("method", name, ("original", "single", "average"))
    if expert is not None:
        if expert not in experts.names:
            raise UnknownName.among("expert", expert, experts.names)
        chosen = only(experts.names.index(expert), count)
        return Method("single", chosen, record={"settings": {"expert": expert}})
    examples = sample(task_examples(task, "adaptation", session.library), settings.selection_limit)
    started, memory = time.perf_counter(), PeakMemory()
    with session.watcher.bar(f"choose the best of {len(experts.names)} experts", len(examples) * len(experts.names)) as bar:
        best, scores = best_single(session.base, session.mixture(experts), examples, settings, lambda done: bar.advance(done))
    return Method(
        "single", only(experts.names.index(best), count), adaptation_examples=len(examples),
        adaptation_seconds=time.perf_counter() - started, adaptation_memory_bytes=memory.bytes,
        record={"settings": {"expert": best, "accuracy_on_adaptation_examples": scores}},
    )  # fmt: skip


def router_method(router: Router) -> Method:
    """The row of a router: few_shot, normal or zero_shot, with `_scaled`, `_free` or `_unit` where its weights are so."""
    name = {"cma": "few_shot", "gradient": "normal", "zero_shot": "zero_shot"}[router.settings.method]
    name += "" if router.settings.weighting == "softmax" else f"_{router.settings.weighting}"
    return method_of_router(name + ("_scaled" if router.settings.learned_scale else ""), router)


def router_and_mixture(session: Session, router: Path, experts: Path) -> tuple[Router, Mixture]:
    """A router, and the experts it was made for attached to the base.

    Raises:
        BaseMismatch, ExpertMismatch: they do not belong together.
    """
    found = load_router(router)
    loaded = load_experts(experts)
    found.check(session.identity, loaded)
    return found, session.mixture(loaded)


def evaluate_named(
    session: Session,
    task: Task,
    settings: EvaluationSettings,
    experts: Path | None,
    router: Path | None,
    method: str,
    expert: str | None,
) -> tuple[dict[str, Any], Run]:
    """Score what a command line names: a router, or a method that needs none.

    Raises:
        ConfigError: a router or a method over experts without a folder of experts.
    """
    if experts is None:
        if router is not None or method != "original":
            raise ConfigError("a router, single and average need the experts: add --experts and the folder of the experts.")
        return evaluate_stage(session, task, None, Method("original", None), settings)
    if router is not None:
        found, mixture = router_and_mixture(session, router, experts)
        return evaluate_stage(session, task, mixture.experts, router_method(found), settings)
    loaded = load_experts(experts)
    return evaluate_stage(session, task, loaded, named_method(session, task, loaded, method, settings, expert), settings)


def fuse_stage(session: Session, router: Router, experts: ExpertSet, out: Path) -> None:
    """Save the fused model of a router in `out`; one that is there is kept if it is of this router, else replaced."""
    card = out / "staf.json"
    if card.is_file():
        if read_json(card).get("router") == router.record["run"]:
            return
        shutil.rmtree(out)
    save_fused(session.mixture(experts), router, out)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
