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


def setting_of(shots: int | None) -> str:
    """The setting of a table's row: few-shot from a draw, normal from all adaptation examples."""
    return "normal" if shots is None else "few-shot"


def method_of_router(name: str, router: Router, setting: str | None = None) -> Method:
    """The row of a learned router.

    Args:
        setting: of the row; None takes few-shot where the router had a draw of the adaptation examples, by whatever search.
    """
    found, chosen = router.record, router.recipe
    zero_shot = chosen.method == "zero_shot"
    return Method(
        name,
        router.weights,
        chosen.granularity,
        "zero-shot" if zero_shot else setting or setting_of(chosen.shots),
        chosen.seed,
        found["tunable_parameters"],
        found["examples"],
        found["seconds"],
        found.get("peak_memory_bytes", 0),
        {"stop_reason": found["stop_reason"], "settings": chosen.model_dump()},
    )
