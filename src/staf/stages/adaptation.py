"""Stage II as a step on folders: a task's router is learned, or read where it exists."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from staf.compute import compute_record
from staf.data.example import Example
from staf.data.selection import expert_examples, task_examples
from staf.data.splits import few_shot
from staf.data.task import Task
from staf.errors import ConfigError, MissingData
from staf.evaluate.answer import Answerer, calibrate, routed
from staf.evaluate.score import sample
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet, load_experts
from staf.routing.adapt import adapt_router, adaptation_digest, planned_progress
from staf.routing.best_expert import best_expert_router
from staf.routing.objective import RouterObjective, candidate_losses
from staf.routing.pruning import pruned_weights
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, load_start, save_router
from staf.routing.zero_shot import expert_centroids, zero_shot_router
from staf.runs import PeakMemory
from staf.stages.context import Context

SEARCHLESS = ("zero_shot", "best_expert")
"""Methods that compute a router without a search."""


def adaptation_examples(context: Context, task: Task, shots: int | None, seed: int) -> list[Example]:
    """The adaptation examples of a task: all of them, or a draw of `shots` by the seed."""
    examples = task_examples(task, "adaptation", context.store)
    return examples if shots is None else few_shot(examples, shots, seed)


def adapt_stage(
    context: Context, task: Task, experts: ExpertSet, recipe: RouterRecipe, out: Path, init_from: Path | None = None
) -> Router:
    """Learn the router of a task into `out`, or load it where it exists with this recipe, experts and examples.

    Args:
        init_from: folder of another router, of any task, whose parameters are the start.

    Raises:
        BaseMismatch, ExpertMismatch, ConfigError: `init_from` does not fit.
    """
    start = None if init_from is None else load_start(init_from, out, context.identity, experts, recipe)
    examples = adaptation_examples(context, task, recipe.shots, recipe.seed)
    digest = _digest(context, experts, task, examples, recipe, start)
    checkpoint = out / "checkpoint"
    router = _existing(context, out, digest)
    if router is None:
        memory = PeakMemory()
        with context.progress.bar(f"adapt {task.name} ({recipe.method})", planned_progress(len(examples), recipe)) as bar:
            done = 0

            def on_progress(now: int, loss: float) -> None:
                nonlocal done
                bar.advance(now - done, f"loss {loss:.3f}")
                done = now

            router = adapt_router(
                context.mixture(experts), task.name, examples, recipe, on_progress,
                init_from=start, checkpoint=checkpoint, log=context.progress.log,
            )  # fmt: skip
        router = _save(context, out, _calibrated(context, router, experts, examples), digest, memory)
    shutil.rmtree(checkpoint, ignore_errors=True)  # last: the router is complete
    return router


def adapt_folders(
    context: Context, task: Task, folder: Path, recipe: RouterRecipe, out: Path, seeds: int = 1, init_from: Path | None = None
) -> dict[Path, Router]:
    """Routers of a task over the experts in a folder, by the recipe's method: one in `out`, or by seed in out/seed-<seed>.

    Each seed has its own draw of the shots.

    Raises:
        ConfigError: several seeds or `init_from` without a search. BaseMismatch, ExpertMismatch: `init_from` does not fit.
    """
    experts = load_experts(folder)
    if recipe.method in SEARCHLESS and (seeds > 1 or init_from is not None):
        name = recipe.method.replace("_", "-")
        raise ConfigError(f"a {name} router is computed, not searched for: leave --seeds and --init-from out.")
    if recipe.method == "zero_shot":
        return {out: zero_shot_stage(context, task, experts, folder, recipe, out)}
    if recipe.method == "best_expert":
        return {out: best_expert_stage(context, task, experts, recipe, out)}
    if seeds == 1:
        return {out: adapt_stage(context, task, experts, recipe, out, init_from)}
    changed = [recipe.model_copy(update={"seed": recipe.seed + i}) for i in range(seeds)]
    return {
        (folder := out / f"seed-{one.seed}"): adapt_stage(context, task, experts, one, folder, init_from) for one in changed
    }


def zero_shot_stage(context: Context, task: Task, experts: ExpertSet, folder: Path, recipe: RouterRecipe, out: Path) -> Router:
    """A router of a task from unlabelled inputs into `out`, or the one that exists.

    Args:
        folder: of the experts; their centroids are saved in it.
    """
    inputs = [replace(example, answer="") for example in adaptation_examples(context, task, recipe.shots, recipe.seed)]
    digest = _digest(context, experts, task, inputs, recipe)
    if (existing := _existing(context, out, digest)) is not None:
        return existing
    memory = PeakMemory()
    with context.progress.bar("describe experts", len(experts.names)) as bar:
        centroids = expert_centroids(
            context.base, experts, folder, lambda name: expert_examples(name, context.store)[0],
            on_done=lambda name: bar.advance(1, name),
        )  # fmt: skip
    router = zero_shot_router(context.base, experts, task.name, inputs, centroids, recipe)
    return _save(context, out, router, digest, memory)


def best_expert_stage(context: Context, task: Task, experts: ExpertSet, recipe: RouterRecipe, out: Path) -> Router:
    """A router of a task that prefers its best single expert into `out`, or the one that exists."""
    examples = adaptation_examples(context, task, recipe.shots, recipe.seed)
    digest = _digest(context, experts, task, examples, recipe)
    if (existing := _existing(context, out, digest)) is not None:
        return existing
    mixture, memory = context.mixture(experts), PeakMemory()
    with context.progress.bar(f"evaluate experts on {task.name}", len(experts.names)) as bar:
        router = best_expert_router(
            mixture, task.name, examples, recipe, lambda name, loss: bar.advance(1, f"{name} {loss:.3f}")
        )
    return _save(context, out, _calibrated(context, router, experts, examples), digest, memory)


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
    examples = adaptation_examples(context, task, recipe.shots, recipe.seed)
    kept = [experts.names.index(name) for name in smaller.names]
    found = {}
    for name, some, weights in (
        ("before", experts, router.weights), ("after", smaller, pruned_weights(router.weights, kept))
    ):  # fmt: skip
        mixture = context.mixture(some)
        loss = RouterObjective(mixture, recipe).loss_on(examples)
        (found[name],) = candidate_losses(mixture, weights[None], recipe.granularity, loss)
    return found


def _digest(
    context: Context, experts: ExpertSet, task: Task, examples: Sequence[Example], recipe: RouterRecipe,
    init_from: Router | None = None,
) -> str:  # fmt: skip
    """Names an adaptation, with the dtype where one was asked for."""
    digest = adaptation_digest(context.identity, experts, task.name, examples, recipe, init_from)
    return digest if context.dtype is None else context.named(digest)


def _calibrated(context: Context, router: Router, experts: ExpertSet, examples: Sequence[Example]) -> Router:
    """The router with the calibration of several labels, from its own adaptation examples; else as it is."""
    settings = EvaluationSettings(max_length=router.recipe.max_length)
    if router.prompt.output_type != "multi_label":
        return router
    try:
        with routed(context.base, context.mixture(experts), router.weights, router.recipe.granularity):
            fitted = calibrate(Answerer(context.base, settings), sample(examples, settings.calibration_examples))
    except MissingData as error:
        context.progress.log(f"router {router.task}: no calibration, so it cannot predict new files ({error})")
        return router
    return replace(router, calibration=fitted.model_dump())


def _existing(context: Context, out: Path, digest: str) -> Router | None:
    """The router in a folder, if it has this digest."""
    if (out / "router.json").is_file():
        router = load_router(out)
        if router.record.get("run") == digest:
            context.progress.log(f"router {out.name}: adapted before, reused")
            return router
    return None


def _save(context: Context, out: Path, router: Router, digest: str, memory: PeakMemory) -> Router:
    """Write a router with how it was computed and what it took."""
    compute = compute_record(context.base, context.compute)
    record = {**router.record, "run": digest, "compute": compute, "peak_memory_bytes": memory.bytes}
    save_router(out, replace(router, record=record))
    return replace(router, record=record)
