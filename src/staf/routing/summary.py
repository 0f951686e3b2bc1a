"""Weights of routers as they are printed, and how they vary: over seeds, restarts of one adaptation, or groups."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.routing.store import Router

Weights = dict[str, float]


@dataclass(frozen=True)
class WeightSummary:
    """The weight of each expert, averaged over groups and routers, and its sample standard deviation."""

    weights: Weights
    spread: Weights | None
    """None where nothing varies"""
    over: str | None
    """what it varies over, such as '5 seeds', '3 restarts' or '30 groups'"""
    other: Weights
    """the base's share and the learned scale, as `Router.other_weights`"""

    def rows(self) -> list[dict[str, Any]]:
        """One row for each expert: name, weight, spread and a bar; then the other weights."""
        title = f"spread over {self.over}" if self.over else "spread"
        spread = {} if self.spread is None else {name: f"{value:.3f}" for name, value in self.spread.items()}
        bars = {name: "█" * round(max(weight, 0.0) * 40) for name, weight in self.weights.items()}
        return [
            {"expert": name, "weight": f"{weight:.3f}", title: spread.get(name), "": bars.get(name, "")}
            for name, weight in (self.weights | self.other).items()
        ]


def summarize_weights(routers: Sequence[Router]) -> WeightSummary:
    """The weights of routers for the same experts, at least one.

    Several routers vary over seeds. A single one varies over its restarts, else over its groups; its weights are its own.
    """
    router, varied, over = routers[0], [one.mean_weights for one in routers], "seeds"
    mean = _mean(varied)
    if len(routers) == 1:
        varied, over = [one["weights"] for one in router.record.get("restarts", [])], "restarts"
    if len(varied) < 2:
        varied, over = [dict(zip(router.experts, row, strict=True)) for row in router.weights.tolist()], "groups"
    other = _mean([one.other_weights for one in routers])
    if len(varied) < 2:
        return WeightSummary(mean, None, None, other)
    spread = {name: statistics.stdev(one[name] for one in varied) for name in router.experts}
    return WeightSummary(mean, spread, f"{len(varied)} {over}", other)


def _mean(found: Sequence[Weights]) -> Weights:
    return {name: statistics.fmean(one[name] for one in found) for name in found[0]}


def seed_rows(routers: Mapping[Path, Router]) -> list[dict[str, Any]]:
    """One row for each router: seed, loss, stop reason, seconds, folder; and a last one with mean and deviation."""
    rows = [
        {"seed": router.recipe.seed, "loss": f"{router.record['loss']:.3f}", "stop_reason": router.record["stop_reason"],
         "seconds": f"{router.record['seconds']:.0f}", "folder": str(folder)}
        for folder, router in routers.items()
    ]  # fmt: skip
    loss, seconds = (_mean_and_spread(routers, name) for name in ("loss", "seconds"))
    last = {
        "seed": "mean ± deviation", "loss": f"{loss['mean']:.3f} ± {loss['spread']:.3f}",
        "seconds": f"{seconds['mean']:.0f} ± {seconds['spread']:.0f}",
    }  # fmt: skip
    return [*rows, last]


def record_of(routers: Mapping[Path, Router]) -> dict[str, Any]:
    """Routers of one task by folder, at least one, as a JSON object.

    Of a single router its full record; of several the mean and the deviation, and each one's object in `routers`.
    """
    found = summarize_weights(list(routers.values()))
    common = {"weights": found.weights, "spread": found.spread, "spread_over": found.over, "other_weights": found.other}
    if len(routers) == 1:
        ((folder, router),) = routers.items()
        return {"task": router.task, **common, "recipe": router.recipe.model_dump(), "folder": str(folder), **router.record}
    each = [record_of({folder: router}) for folder, router in routers.items()]
    return {"task": each[0]["task"], **common, "loss": _mean_and_spread(routers, "loss"), "routers": each}


def _mean_and_spread(routers: Mapping[Path, Router], name: str) -> dict[str, float]:
    values = [router.record[name] for router in routers.values()]
    return {"mean": statistics.fmean(values), "spread": statistics.stdev(values)}
