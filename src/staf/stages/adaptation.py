"""Stage II as a step on folders: a task's router is learned, or read where it is there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from staf.data.example import Example
from staf.data.selection import expert_examples, task_examples
from staf.data.splits import few_shot
from staf.data.task import Task
from staf.experts.store import ExpertSet
from staf.routing.adapt import adapt_router, adaptation_digest, planned_progress
from staf.routing.best_expert import best_expert_router
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, load_start, save_router
from staf.routing.zero_shot import expert_centroids, zero_shot_router
from staf.runs import PeakMemory
from staf.stages.context import Context


def adaptation_examples(context: Context, task: Task, shots: int | None, seed: int) -> list[Example]:
    """The adaptation examples of a task: all of them, or a draw of `shots` by the seed."""
    examples = task_examples(task, "adaptation", context.store)
    return examples if shots is None else few_shot(examples, shots, seed)


def adapt_stage(
    context: Context, task: Task, experts: ExpertSet, settings: RouterRecipe, out: Path, start: Path | None = None
) -> Router:
    """Learn the router of a task into `out`, or load it where it is there with these settings, experts and examples.

    Args:
        start: folder of another router, of any task, whose numbers are the start.

    Raises:
        BaseMismatch, ExpertMismatch, ConfigError: the start does not fit.
    """
    begun = None if start is None else load_start(start, out, context.identity, experts, settings)
    examples = adaptation_examples(context, task, settings.shots, settings.seed)
    digest = _named(context, adaptation_digest(context.identity, experts, task.name, examples, settings, begun))
    checkpoint = out / "checkpoint"
    if (kept := _kept(context, out, digest)) is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)
        return kept
    mixture, memory = context.mixture(experts), PeakMemory()
    with context.progress.bar(f"adapt {task.name} ({settings.method})", planned_progress(len(examples), settings)) as bar:
        done = 0

        def on_progress(now: int, loss: float) -> None:
            nonlocal done
            bar.advance(now - done, f"loss {loss:.3f}")
            done = now

        router = adapt_router(
            mixture, task.name, examples, settings, on_progress,
            start=begun, checkpoint=checkpoint, log=context.progress.log,
        )  # fmt: skip
    router = _keep(out, router, digest, memory)  # last: a router that is there is never adapted again
    shutil.rmtree(checkpoint, ignore_errors=True)
    return router


def adapt_seeds(
    context: Context, task: Task, experts: ExpertSet, settings: RouterRecipe, out: Path, seeds: int, start: Path | None = None
) -> dict[Path, Router]:
    """Routers in out/seed-<seed> for `seeds` seeds from that of the settings on, each with its own draw of the shots."""
    changed = [settings.model_copy(update={"seed": settings.seed + i}) for i in range(seeds)]
    return {(folder := out / f"seed-{one.seed}"): adapt_stage(context, task, experts, one, folder, start) for one in changed}


def zero_shot_stage(
    context: Context, task: Task, experts: ExpertSet, folder: Path, settings: RouterRecipe, out: Path
) -> Router:
    """A router of a task from unlabelled inputs into `out`, or the one that is there.

    Args:
        folder: where the experts lie; what is kept of each for this, its centroid, is written beside them.
    """
    inputs = [replace(example, answer="") for example in adaptation_examples(context, task, settings.shots, settings.seed)]
    digest = _named(context, adaptation_digest(context.identity, experts, task.name, inputs, settings))
    if (kept := _kept(context, out, digest)) is not None:
        return kept
    memory = PeakMemory()
    with context.progress.bar("describe experts", len(experts.names)) as bar:
        centroids = expert_centroids(
            context.base, experts, folder, lambda name: expert_examples(name, context.store)[0],
            on_done=lambda name: bar.advance(1, name),
        )  # fmt: skip
    return _keep(out, zero_shot_router(context.base, experts, task.name, inputs, centroids, settings), digest, memory)


def best_expert_stage(context: Context, task: Task, experts: ExpertSet, settings: RouterRecipe, out: Path) -> Router:
    """A router of a task that leads with its best single expert into `out`, or the one that is there."""
    examples = adaptation_examples(context, task, settings.shots, settings.seed)
    digest = _named(context, adaptation_digest(context.identity, experts, task.name, examples, settings))
    if (kept := _kept(context, out, digest)) is not None:
        return kept
    mixture, memory = context.mixture(experts), PeakMemory()
    with context.progress.bar(f"try experts on {task.name}", len(experts.names)) as bar:
        router = best_expert_router(
            mixture, task.name, examples, settings, lambda name, loss: bar.advance(1, f"{name} {loss:.3f}")
        )
    return _keep(out, router, digest, memory)


def _named(context: Context, digest: str) -> str:
    """A digest that tells number formats apart where one was asked for."""
    return digest if context.dtype is None else context.named(digest)


def _kept(context: Context, out: Path, digest: str) -> Router | None:
    """The router in a folder, if it is the one of the digest."""
    if (out / "router.json").is_file():
        router = load_router(out)
        if router.record.get("run") == digest:
            context.progress.log(f"router {out.name}: adapted before, reused")
            return router
    return None


def _keep(out: Path, router: Router, digest: str, memory: PeakMemory) -> Router:
    """Write a router with what it took."""
    router = replace(router, record={**router.record, "run": digest, "peak_memory_bytes": memory.bytes})
    save_router(out, router)
    return router
