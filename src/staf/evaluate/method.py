"""A method: one row of a table, with what it cost to come by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from staf.routing.store import Router


@dataclass(frozen=True)
class Method:
    """How a task is answered: the weights of the experts, or a baseline's name, and what it cost."""

    name: str
    """of the row: original, single, average, few_shot, normal, lora ..."""
    weights: Tensor | None
    """(G, K), or None where no expert takes part"""
    granularity: str = "task"
    setting: str = "-"
    seed: int = 0
    tunable_parameters: int = 0
    adaptation_examples: int = 0
    adaptation_seconds: float = 0.0
    adaptation_memory_bytes: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    """what else the result keeps: reason for stopping, settings"""


def method_of_router(name: str, router: Router) -> Method:
    """The row of a learned router."""
    found = router.record
    return Method(
        name,
        router.weights,
        router.settings.granularity,
        {"cma": "few-shot", "gradient": "normal", "zero_shot": "zero-shot"}[router.settings.method],
        router.settings.seed,
        found["tunable_parameters"],
        found["examples"],
        found["seconds"],
        found.get("peak_memory_bytes", 0),
        {"stopped_because": found["stopped_because"], "settings": router.settings.model_dump()},
    )
