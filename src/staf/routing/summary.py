"""What routers weigh, and how much that varies: over seeds, over the restarts of one adaptation, or over its groups."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staf.routing.store import Router


@dataclass(frozen=True)
class Weighing:
    """The weight of each expert, averaged over groups and routers, and its standard deviation."""

    weights: dict[str, float]
    spread: dict[str, float] | None
    """sample standard deviation; None where there is nothing to vary over"""
    over: str | None
    """what it varies over, such as '5 seeds', '3 restarts' or '30 groups'"""
    beside: dict[str, float] = field(default_factory=dict)
    """the null expert's share and the learned scale, as `Router.other_weights`"""

    def rows(self) -> list[dict[str, Any]]:
        """One row for each expert: name, weight, spread and a bar; then what is beside them."""
        title = f"spread over {self.over}" if self.over else "spread"
        experts = [
            {
                "expert": name,
                "weight": f"{weight:.3f}",
                title: None if self.spread is None else f"{self.spread[name]:.3f}",
                "": "█" * round(max(weight, 0.0) * 40),
            }
            for name, weight in self.weights.items()
        ]
        beside = [{"expert": name, "weight": f"{value:.3f}", title: None, "": ""} for name, value in self.beside.items()]
        return [*experts, *beside]


def weighing(routers: Sequence[Router]) -> Weighing:
    """The weights of routers for the same experts, at least one.

    Several routers vary over seeds. A single one varies over its restarts, else over its groups; its weights are its own, those
    of the best restart.
    """
    if len(routers) > 1:
        varied = [router.mean_weights for router in routers]
        beside = _means([router.other_weights for router in routers])
        return Weighing(_means(varied), _spread(varied), f"{len(routers)} seeds", beside)
    router = routers[0]
    restarts = [restart["weights"] for restart in router.record.get("restarts", [])]
    if len(restarts) > 1:
        return Weighing(router.mean_weights, _spread(restarts), f"{len(restarts)} restarts", router.other_weights)
    groups = [dict(zip(router.experts, row, strict=True)) for row in router.weights.tolist()]
    if len(groups) > 1:
        return Weighing(router.mean_weights, _spread(groups), f"{len(groups)} groups", router.other_weights)
    return Weighing(router.mean_weights, None, None, router.other_weights)


def seed_rows(routers: Mapping[Path, Router]) -> list[dict[str, Any]]:
    """One row for each router: seed, loss, why it stopped, seconds, folder; and a last one with mean and deviation."""
    rows = [
        {
            "seed": router.recipe.seed,
            "loss": f"{router.record['loss']:.3f}",
            "stop_reason": router.record["stop_reason"],
            "seconds": f"{router.record['seconds']:.0f}",
            "folder": str(folder),
        }
        for folder, router in routers.items()
    ]
    losses, seconds = (_mean_and_spread([router.record[name] for router in routers.values()]) for name in ("loss", "seconds"))
    last = {
        "seed": "mean ± deviation",
        "loss": f"{losses['mean']:.3f} ± {losses['spread']:.3f}",
        "seconds": f"{seconds['mean']:.0f} ± {seconds['spread']:.0f}",
    }
    return [*rows, last]


def record_of(routers: Mapping[Path, Router]) -> dict[str, Any]:
    """Routers of one task by their folders, at least one, as one JSON object.

    Of a single router all that its record holds; of several the mean and the deviation, and each one's own object in `routers`.
    """
    found = weighing(list(routers.values()))
    common = {"weights": found.weights, "spread": found.spread, "spread_over": found.over, "beside": found.beside}
    if len(routers) == 1:
        ((folder, router),) = routers.items()
        return {"task": router.task, **common, "settings": router.recipe.model_dump(), "folder": str(folder), **router.record}
    each = [record_of({folder: router}) for folder, router in routers.items()]
    loss = _mean_and_spread([router.record["loss"] for router in routers.values()])
    return {"task": each[0]["task"], **common, "loss": loss, "routers": each}


def _mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation of at least two values."""
    return {"mean": statistics.fmean(values), "spread": statistics.stdev(values)}


def _means(varied: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(weights[name] for weights in varied) for name in varied[0]}


def _spread(varied: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.stdev(weights[name] for weights in varied) for name in varied[0]}
