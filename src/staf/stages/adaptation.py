"""Stage II as a step on folders: a task's router is learned, or read where it exists."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from staf.compute import compute_record
from staf.data.example import Example
from staf.data.selection import default_shots, expert_examples, task_examples
from staf.data.task import Task
from staf.errors import ConfigError, MissingData
from staf.evaluate.answer import Answerer, calibrate, routed
from staf.evaluate.calibrate import Draw, draw
from staf.evaluate.score import FEW, Drawn, sample
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.io import locked
from staf.routing.adapt import adapt_router, adaptation_digest, check_evaluations, examples_digest, planned_progress
from staf.routing.objective import RouterObjective, candidate_losses
from staf.routing.pruning import pruned_weights
from staf.routing.recipe import RouterRecipe
from staf.routing.router import num_params
from staf.routing.searchless import best_expert_router, expert_centroids, zero_shot_router
from staf.routing.store import Router, load_router, load_start, save_router
from staf.runs import PeakMemory
from staf.stages.context import Context

CHECKPOINT = "checkpoint"
"""Folder of an adaptation's states, in that of its router."""


def drawn_examples(context: Context, task: Task, shots: int | None, seed: int) -> Draw:
    """The adaptation examples of a task: all of them, or a draw of `shots` by the seed."""
    return draw(task_examples(task, "adaptation", context.store), shots, seed)


def calibration_set(context: Context, task: Task, settings: EvaluationSettings, drawn: Drawn = FEW) -> list[Example]:
    """What a draw puts aside to calibrate several labels, of fewer shots where the task has fewer; none for other tasks."""
    if task.output_type != "multi_label":
        return []
    shots = None if drawn[0] is None else default_shots(task, context.store, drawn[0])
    return sample(drawn_examples(context, task, shots, drawn[1]).calibrating, settings.calibration_examples)


def planned_adaptation(
    context: Context, task: Task, experts: ExpertSet, recipe: RouterRecipe, start: Router | None = None
) -> tuple[Draw, str]:
    """The examples that an adaptation reads, and the digest that names it."""
    learned, calibrating = drawn_examples(context, task, recipe.shots, recipe.seed)
    if recipe.method == "zero_shot":
        learned = [replace(example, answer="") for example in learned]
    digest = adaptation_digest(context.identity, experts, task.name, learned, recipe, start)
    return Draw(learned, calibrating), context.named(digest, *([examples_digest(calibrating)] if calibrating else []))


def adapt_stage(
    context: Context, task: Task, experts: ExpertSet, recipe: RouterRecipe, out: Path, init_from: Path | None = None,
    centroids: Path | None = None,
) -> Router:  # fmt: skip
    """The router of a task in `out`: loaded where it exists with this recipe, experts and examples, else made and saved.

    Args:
        init_from: folder of another router, of any task, whose parameters are the start of a search.
        centroids: folder that keeps what a zero-shot router needs of the experts; None is `out`.

    Raises:
        BaseMismatch, ExpertMismatch, ConfigError: `init_from` does not fit.
    """
    if recipe.granularity == "task":  # before the base is loaded
        check_evaluations(num_params(1, len(experts.names), recipe), recipe)
    start = None if init_from is None else load_start(init_from, out, context.identity, experts, recipe)
    (learned, calibrating), digest = planned_adaptation(context, task, experts, recipe, start)

    def make() -> Router:
        router = _made(context, task, experts, recipe, learned, start, out / CHECKPOINT, centroids or out)
        return calibrated(context, router, experts, calibrating)

    router = kept_router(context, task, out, digest, make)
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)  # last: the router is complete
    return router


def kept_router(context: Context, task: Task, out: Path, digest: str, make: Callable[[], Router]) -> Router:
    """The router of this digest in `out`: loaded where it is there, else made, and saved with its cost."""
    if (router := _existing(context, out, digest)) is None:
        with locked(out / "router.json", wait=True, log=context.progress.log):
            if (router := _existing(context, out, digest)) is None:  # nor made by the process that was waited for
                memory, router = PeakMemory(), make()
                compute = compute_record(context.base, context.compute)
                peak = max(memory.bytes, router.record.get("peak_memory_bytes", 0))
                record = {**router.record, "run": digest, "compute": compute, "peak_memory_bytes": peak}
                router = replace(router, record=record).of_task(task)
                save_router(out, router)
    return router


def _existing(context: Context, out: Path, digest: str) -> Router | None:
    """The router in a folder, if it has this digest."""
    router = load_router(out) if (out / "router.json").is_file() else None
    if router is None or router.record.get("run") != digest:
        return None
    context.progress.log(f"router {out.name}: adapted before, reused")
    context.say_if_computed_otherwise(f"router {out}", router.record.get("compute"))
    return router


def reduction_loss(context: Context, task: Task, router: Router, experts: ExpertSet, smaller: ExpertSet) -> dict[str, float]:
    """L_task on the examples that a router was learned from: `before`, and `after` with a smaller set of experts.

    The weight of experts that are left out goes to those that are kept; nothing is adapted again.

    Raises:
        MissingData: the task's data is not here. BaseMismatch, ExpertMismatch: the router was made for another base or set.
        ConfigError: the router is of another task.
    """
    router.check(context.identity, experts)
    if task.name != router.task:
        raise ConfigError(f"the router is of the task '{router.task}', not of '{task.name}'. Give that task's file.")
    recipe = router.recipe
    examples = drawn_examples(context, task, recipe.shots, recipe.seed).learned
    kept = [experts.names.index(name) for name in smaller.names]
    found = {}
    for name, some, weights in (
        ("before", experts, router.weights), ("after", smaller, pruned_weights(router.weights, kept))
    ):  # fmt: skip
        mixture = context.mixture(some)
        loss = RouterObjective(mixture, recipe).loss_on(examples)
        (found[name],) = candidate_losses(mixture, weights[None], recipe.granularity, loss)
    return found


def _made(
    context: Context, task: Task, experts: ExpertSet, recipe: RouterRecipe, examples: Sequence[Example], start: Router | None,
    checkpoint: Path, centroids: Path,
) -> Router:  # fmt: skip
    """A router by the recipe's method: computed, or searched for from the state in `checkpoint` if there is one."""
    progress, count = context.progress, len(experts.names)
    if recipe.method == "zero_shot":
        with progress.bar("describe experts", count) as bar:
            found = expert_centroids(
                context.base, experts, centroids, lambda name: expert_examples(name, context.store)[0],
                on_done=lambda name: bar.advance(1, name),
            )  # fmt: skip
        return zero_shot_router(context.base, experts, task.name, examples, found, recipe)
    mixture = context.mixture(experts)
    if recipe.method == "best_expert":
        with progress.bar(f"evaluate experts on {task.name}", count) as bar:
            return best_expert_router(
                mixture, task.name, examples, recipe, lambda name, loss: bar.advance(1, f"{name} {loss:.3f}")
            )
    with progress.bar(f"adapt {task.name} ({recipe.method})", planned_progress(len(examples), recipe)) as bar:
        done = 0

        def on_progress(now: int, loss: float) -> None:
            nonlocal done
            bar.advance(now - done, f"loss {loss:.3f}")
            done = now

        return adapt_router(
            mixture, task.name, examples, recipe, on_progress, init_from=start, checkpoint=checkpoint, log=progress.log
        )


def calibrated(context: Context, router: Router, experts: ExpertSet, calibrating: Sequence[Example]) -> Router:
    """The router with the calibration of several labels, from examples that it has not learned from; else as it is."""
    if router.prompt.output_type != "multi_label" or router.recipe.method == "zero_shot":
        return router
    settings = EvaluationSettings(max_length=router.recipe.max_length)
    try:
        with (
            routed(context.base, context.mixture(experts), router.weights, router.recipe.granularity),
            context.progress.bar(f"calibrate {router.task}", len(calibrating)) as bar,
        ):
            fitted = calibrate(Answerer(context.base, settings, bar.advance), calibrating)
    except MissingData as error:
        context.progress.log(f"router {router.task}: no calibration, so it cannot predict new files ({error})")
        return router
    return replace(router, calibration=fitted.model_dump())
