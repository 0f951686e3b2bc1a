"""Few-shot setting: CMA-ES over the router's numbers (STAF-LLM, section 3.3.3; Hansen and Ostermeier, 1996).

Eqs. 8 and 9 only sketch the method; the real one is the author's own `cma` package, used by ask and tell: it proposes
vectors, is told their losses, and never sees a language model. A loss that is not a number is told as worse than every
number of its generation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from staf.errors import TrainingFailed


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and why it ended."""

    best: np.ndarray
    """(n,) the vector with the lowest loss that was ever evaluated"""
    loss: float
    evaluations: int
    generations: int
    history: tuple[float, ...]
    """lowest loss after each generation"""
    stopped_because: str
    """cma's own reasons, such as 'tolfun=1e-11', or 'evaluations=200'"""


def ranked(losses: list[float]) -> list[float]:
    """Losses with each one that is not finite replaced by a number above all finite ones.

    Raises:
        TrainingFailed: no loss of the generation is a finite number.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise TrainingFailed(
            f"all {len(losses)} candidates of a generation have a loss that is not a number. "
            "Check the experts (staf doctor), or search nearer to the start: a smaller `deviation`."
        )
    worst = max(finite) + abs(max(finite)) + 1.0
    return [loss if math.isfinite(loss) else worst for loss in losses]


def search(
    loss_of: Callable[[np.ndarray], float],
    start: np.ndarray,
    *,
    deviation: float,
    evaluations: int,
    seed: int,
    population: int | None = None,
    on_generation: Callable[[int, float], None] | None = None,
) -> SearchResult:
    """Minimise `loss_of` from `start` (n,) by CMA-ES.

    Args:
        deviation: the first step size sigma.
        evaluations: at most so many calls of `loss_of`, in whole generations; the first generation always runs.
        population: candidates a generation; None takes cma's 4 + 3 ln n.
        on_generation: called with evaluations so far and the lowest loss.

    Raises:
        TrainingFailed: a whole generation without a finite loss.
    """
    import cma

    options = {
        "seed": seed + 1,
        "maxfevals": evaluations,
        "verbose": -9,
        "verb_log": 0,
    }  # cma takes seed 0 for the clock
    if population is not None:
        options["popsize"] = population
    history: list[float] = []
    best, best_loss = start.astype(float).copy(), math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = cma.CMAEvolutionStrategy(start.astype(float), deviation, options)
        while not strategy.stop() and (not history or strategy.countevals + strategy.popsize <= evaluations):
            candidates = strategy.ask()
            losses = ranked([loss_of(candidate) for candidate in candidates])
            strategy.tell(candidates, losses)
            lowest = int(np.argmin(losses))
            if losses[lowest] < best_loss:
                best, best_loss = np.array(candidates[lowest]), losses[lowest]
            history.append(best_loss)
            if on_generation is not None:
                on_generation(strategy.countevals, best_loss)
        reasons = ", ".join(f"{name}={value}" for name, value in strategy.stop().items()) or f"evaluations={evaluations}"
    return SearchResult(best, best_loss, strategy.countevals, len(history), tuple(history), reasons)
