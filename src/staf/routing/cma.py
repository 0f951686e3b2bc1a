"""Few-shot setting: a router's parameters by CMA-ES (STAF-LLM, section 3.3.3; Hansen and Ostermeier, 1996).

Eqs. 8 and 9 only sketch the method; this is the real one, by its author's package `cma`. The first candidate is the start
itself, so no search ends worse than it began. Candidates follow from the seed and the losses before them, so the losses are
the full state: a resumed search asks and tells them again without evaluating anything, then continues.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from staf.errors import DamagedFile, TrainingFailed
from staf.routing.gradient import FitResult, State, require_finite, should_stop
from staf.routing.recipe import RouterRecipe

STATE = {"candidates": "g", "losses": "gc", "val_losses": "g"}
"""Shapes after g generations: a checksum of the candidates, their losses, and the validation loss of each generation."""


def fit_cma(
    losses_of: Callable[[list[np.ndarray]], list[float]],
    start: np.ndarray,
    recipe: RouterRecipe,
    validate: Callable[[np.ndarray], float] | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    resume_from: State | None = None,
    on_checkpoint: Callable[[int, State], None] | None = None,
) -> FitResult:
    """Minimise a loss by CMA-ES from `start` (n,), in full generations, of which the first always runs.

    Args:
        losses_of: losses of the candidates of a generation.
        validate: validation loss of a generation's best candidate; None uses its loss.
        on_progress: called with the number of evaluations and the lowest validation loss.
        resume_from: the `STATE` of an interrupted search with the same arguments. on_checkpoint: called with generation
            and state.

    Raises:
        TrainingFailed: a generation without any finite loss. DamagedFile: `resume_from` is of another search.
    """
    known = 0 if resume_from is None else len(resume_from["losses"])
    asked, losses, val_losses, best = list[float](), list[list[float]](), list[float](), start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        es = _strategy(start, recipe)
        while (reason := _stop_reason(es, val_losses, recipe)) is None:
            candidates, generation = es.ask(), len(losses)
            asked.append(_checksum(candidates))
            if resume_from is not None and generation < known:
                found, val_loss = resume_from["losses"][generation].tolist(), float(resume_from["val_losses"][generation])
                if len(found) != len(candidates) or float(resume_from["candidates"][generation]) != asked[-1]:
                    raise _other_search(resume_from["losses"].numel())
            else:
                found = rank_non_finite_last(losses_of(candidates))
                chosen, when = candidates[int(np.argmin(found))], f"in generation {generation + 1}"
                val_loss = min(found) if validate is None else require_finite(validate(chosen), when)
            es.tell(candidates, found)
            if val_loss < min(val_losses, default=math.inf):
                best = np.array(candidates[int(np.argmin(found))])
            losses.append(found)
            val_losses.append(val_loss)
            if on_checkpoint is not None and generation >= known:
                on_checkpoint(generation + 1, _state(asked, losses, val_losses))
            if on_progress is not None and generation >= known - 1:
                on_progress(es.countevals, min(val_losses))
    if len(losses) < known:
        raise _other_search(known * len(losses[0]))
    history = tuple(np.minimum.accumulate(val_losses).tolist())
    return FitResult(torch.as_tensor(best, dtype=torch.float32), history[-1], history, es.countevals, reason)


def _state(*values: Any) -> State:
    return {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in zip(STATE, values, strict=True)}


def _checksum(candidates: list[np.ndarray]) -> float:
    """48 bits of the SHA-256 of a generation's candidates, as a float64 holds them."""
    return float(int(hashlib.sha256(np.array(candidates, dtype=np.float64).tobytes()).hexdigest()[:12], 16))


def _other_search(losses: int) -> DamagedFile:
    return DamagedFile(
        f"the {losses} losses of the interrupted search belong to other candidates than this machine draws from the same "
        "seed: another processor or library version. Delete the router's checkpoint folder to start again."
    )


def _strategy(start: np.ndarray, recipe: RouterRecipe) -> Any:
    """The strategy of `cma` with an RNG of its own and the start among its first candidates."""
    import cma

    options = {
        "randn": np.random.RandomState(recipe.seed + 1).randn, "seed": math.nan, "maxfevals": recipe.max_evaluations,
        "signals_filename": "", "verbose": -9, "verb_log": 0,
    }  # fmt: skip
    popsize = {} if recipe.popsize is None else {"popsize": recipe.popsize}
    es = cma.CMAEvolutionStrategy(start.astype(float), recipe.sigma0, options | popsize)
    es.inject([start.astype(float)], force=True)
    return es


def _stop_reason(es: Any, val_losses: list[float], recipe: RouterRecipe) -> str | None:
    """Why the search stops before its next generation; None if it continues."""
    if stop := es.stop():
        return ", ".join(f"{name}={value}" for name, value in stop.items())
    if should_stop(val_losses, recipe):
        return f"patience={recipe.patience}"
    if val_losses and es.countevals + es.popsize > recipe.max_evaluations:
        return f"max_evaluations={recipe.max_evaluations}"
    return None


def rank_non_finite_last(losses: list[float]) -> list[float]:
    """Losses with each non-finite one replaced by a number above all finite ones.

    Raises:
        TrainingFailed: none is finite.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise TrainingFailed(
            f"all {len(losses)} candidates of a generation have a non-finite loss. "
            "Check the experts (staf env), or search closer to the start with a smaller sigma0."
        )
    worst = max(finite) + abs(max(finite)) + 1.0
    return [loss if math.isfinite(loss) else worst for loss in losses]
