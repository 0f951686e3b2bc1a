"""A router's mixture as one plain LoRA adapter (STAF-LLM, Eq. 4), in the one form that all tools read alike.

Weights, lambda and scale are folded into B, lora_alpha is the rank, and all modules have one rank from vLLM's list, padded
with zeros (`staf.experts.adapter.write_adapter`).
"""

from __future__ import annotations

from staf.experts.adapter import Factors
from staf.experts.reduce import relative_error
from staf.experts.store import ExpertSet
from staf.routing.store import Router
from staf.routing.tune import truncated_mixture


def adapter_factors(experts: ExpertSet, router: Router, rank: int | None = None) -> tuple[dict[str, Factors], float]:
    """The mixture's factors by module, B (d_out, r) and A (r, d_in), and their relative Frobenius error.

    Args:
        rank: at most that of each module, the best approximation; None is exact, of the sum of the experts' ranks.

    Raises:
        ConfigError: a rank below 1.
    """
    if rank is None:
        return {module: router.factors_of(experts, module) for module in experts.shapes}, 0.0
    found = truncated_mixture(experts, router, rank)
    return {module: part.factors for module, part in found.items()}, relative_error(list(found.values()))
