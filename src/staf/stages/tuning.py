"""Route-then-tune as a step on folders: a router's mixture is tuned, or read where it was.

    out/router.json ...     a router over the adapter, or the router as it was where tuning did not help; which it is, it says
    out/adapter/            the adapter, an expert that PEFT loads; only where it was kept

So what was tuned answers, is scored, merged and exported as any router.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from staf.data.privacy import trained_keys
from staf.data.task import Task
from staf.errors import ConfigError
from staf.experts.store import Expert, ExpertSet, save_expert
from staf.routing.recipe import TuneRecipe
from staf.routing.router import num_params
from staf.routing.store import ADAPTER, Router
from staf.routing.tune import tune_router
from staf.stages.adaptation import calibrated, drawn_examples, kept_router
from staf.stages.context import Context

SOURCES = ("licences", "adapter")
"""What an expert's record says of where it comes from."""


def tune_stage(
    context: Context, task: Task, router: Router, experts: ExpertSet, recipe: TuneRecipe, out: Path
) -> tuple[Router, ExpertSet]:
    """The tuned router in `out` with its experts: loaded where it was tuned before with these settings, else made and saved.

    Raises:
        ConfigError: the router reads no labels. BaseMismatch, ExpertMismatch: it is of other experts. Others as `tune_router`.
    """
    if router.recipe.method == "zero_shot":
        raise ConfigError("a zero-shot router reads no labels, so there is nothing to tune it on. Use another --method.")
    router.check(context.identity, experts)
    weights = hashlib.sha256(router.weights.numpy().tobytes()).hexdigest()
    digest = context.named("tune", router.record.get("run", ""), experts.fingerprint, weights, recipe.digest())
    found = kept_router(context, task, out, digest, lambda: _tuned(context, task, router, experts, recipe, out))
    return found, found.load_experts() if found.has_own_adapter else experts


def _tuned(context: Context, task: Task, router: Router, experts: ExpertSet, recipe: TuneRecipe, out: Path) -> Router:
    for former in (out / "router.json", out / ADAPTER):
        shutil.rmtree(former) if former.is_dir() else former.unlink(missing_ok=True)
    examples, calibrating = drawn_examples(context, task, router.recipe.shots, router.recipe.seed)
    with context.progress.bar(f"tune {task.name}", recipe.steps * recipe.folds) as bar:
        found = tune_router(context.mixture(experts), router, examples, recipe, lambda loss: bar.advance(1, f"loss {loss:.3f}"))
    seconds, memory = router.record["seconds"] + found.seconds, router.record.get("peak_memory_bytes", 0)
    common = {"tuned": found.record, "seconds": seconds, "peak_memory_bytes": memory}
    if found.factors is None:
        return replace(router, record={**router.record, **common})
    keys = frozenset[str]() if task.keep_overlap else trained_keys(examples)
    sources = {one.name: {key: one.record[key] for key in SOURCES if key in one.record} for one in experts.experts}
    made_of = {"router": router.record.get("run"), "weights": router.mean_weights, "made_of": sources, **found.record}
    expert = Expert(ADAPTER, context.base.identity, found.factors, experts.dedup_keys | keys, made_of)
    save_expert(out / ADAPTER, expert)
    own, recipe_of_router, groups = ExpertSet((expert,), out), router.recipe, len(router.weights)
    record = {
        "loss": min(found.record["losses"]), "stop_reason": f"steps={found.record['steps']}",
        "tunable_parameters": expert.num_params, **common,
    }  # fmt: skip
    weights, params = torch.ones(groups, 1), torch.zeros(num_params(groups, 1, recipe_of_router))
    tuned = Router.of(context.base, own, task.name, examples, recipe_of_router, weights, params, record)
    return calibrated(context, tuned, own, calibrating)
