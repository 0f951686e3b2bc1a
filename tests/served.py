"""Routers of every kind in one folder, for the tests of the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import COLOURS, make_examples, random_expert, three_experts

from staf.data.example import Example
from staf.evaluate.calibrate import LabelCalibrator
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet, load_experts, save_expert
from staf.lm.base import Base
from staf.routing.merge import module_groups
from staf.routing.recipe import RouterRecipe
from staf.routing.router import num_params
from staf.routing.store import ADAPTER, Router, save_router

LABELS = ("blue", "green", "red")


def examples_of(output_type: str) -> list[Example]:
    """Two examples of a task of this output type."""
    if output_type == "multiple_choice":
        return make_examples(2)
    labels, answer = (LABELS, "none") if output_type == "multi_label" else ((), "sky")
    queries = {"multi_label": "Which colours are in it?", "span": "What is named?", "generate_until": "Go on."}
    return [
        Example(f"e{i}", "colour", queries[output_type], f"the {thing} {i}", answer, labels, "train", (), output_type)
        for i, thing in enumerate(list(COLOURS)[:2])
    ]  # fmt: skip


def make_router(base: Base, experts: ExpertSet, task: str, output_type: str, granularity: str, seed: int) -> Router:
    """A router of random weights."""
    groups, count = max(module_groups(base, granularity)) + 1, len(experts.names)
    recipe = RouterRecipe(granularity=granularity, max_length=128)  # type: ignore[arg-type]
    weights = torch.randn(groups, count, generator=torch.Generator().manual_seed(seed))
    params = torch.zeros(num_params(groups, count, recipe))
    router = Router.of(base, experts, task, examples_of(output_type), recipe, weights, params, {"seconds": 1.0, "run": task})
    if output_type != "multi_label":
        return router
    fitted = LabelCalibrator(
        rates=dict.fromkeys(LABELS, 0.4), means=dict.fromkeys(LABELS, -5.0), rate=0.4, mean=-5.0, slope=0.7, threshold=0.0
    )
    return replace(router, calibration=fitted.model_dump())


def write_routers(base: Base, folder: Path) -> dict[str, Path]:
    """Routers over three experts, one over another set, and a tuned one; their folders by name."""
    routers = folder / "routers"
    write_set(folder / "experts", three_experts(base).experts)
    write_set(folder / "others", (random_expert(base, "another", 9),))
    all_experts, others = load_experts(folder / "experts"), load_experts(folder / "others")
    save_expert(routers / "tuned" / ADAPTER, random_expert(base, ADAPTER, 11))
    tuned = ExpertSet((load_experts(routers / "tuned").experts[0],), routers / "tuned")
    kinds: dict[str, tuple[ExpertSet, str, str]] = {
        "colour": (all_experts, "multiple_choice", "task"), "by-layer": (all_experts, "multiple_choice", "layer"),
        "by-matrix": (all_experts, "multi_label", "matrix"), "several": (all_experts, "multi_label", "task"),
        "text": (all_experts, "generate_until", "task"), "span": (all_experts, "span", "layer"),
        "other": (others, "multiple_choice", "task"), "tuned": (tuned, "multiple_choice", "task"),
    }  # fmt: skip
    for seed, (name, (experts, output_type, granularity)) in enumerate(kinds.items()):
        router = make_router(base, experts, name, output_type, granularity, seed)
        if name == "tuned":
            router = replace(router, record={**router.record, "tuned": {"kept": True}})
        save_router(routers / name, router)
    return {name: routers / name for name in kinds}


def predicted(folder: Path, base: Base, rows: list[Any], threshold: float | None = None) -> list[dict[str, Any]]:
    """What staf predict answers for these rows."""
    from staf.predict import answer_rows
    from staf.routing.store import load_router
    from staf.stages.context import Context

    router = load_router(folder)
    context = Context(str(base.folder), None, folder / "runs", dtype="float32")
    return answer_rows(context, router, router.load_experts(), rows, threshold=threshold)
