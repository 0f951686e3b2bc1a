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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staf.errors import DamagedFile, TrainingFailed
from staf.routing.gradient import FitResult, require_finite, should_stop


@dataclass(frozen=True)
class SearchHistory:
    """The losses of a search so far; with its arguments they determine the rest."""

    losses: Tensor
    """(generations, candidates) float64, all finite"""
    val_losses: Tensor
    """(generations,) float64, validation loss of each generation's best candidate"""
    candidates: str
    """SHA-256 of all candidates in order"""


def fit_cma(
    losses_of: Callable[[list[np.ndarray]], list[float]],
    start: np.ndarray,
    sigma0: float,
    *,
    seed: int,
    max_evaluations: int,
    popsize: int | None = None,
    validate: Callable[[np.ndarray], float] | None = None,
    patience: int | None = None,
    tolerance: float = 0.0,
    on_generation: Callable[[int, float], None] | None = None,
    resume_from: SearchHistory | None = None,
    on_checkpoint: Callable[[SearchHistory], None] | None = None,
) -> FitResult:
    """Minimise a loss by CMA-ES from `start` (n,).

    Args:
        losses_of: losses of the candidates of a generation.
        sigma0: first step size.
        max_evaluations: maximum number of candidates, in full generations; the first generation always runs.
        popsize: candidates a generation; None is cma's 4 + 3 ln n.
        validate: validation loss of a generation's best candidate; None uses its loss.
        patience, tolerance: as in `should_stop`, on validation losses.
        on_generation: called with the number of evaluations and the lowest validation loss.
        resume_from: the history of an interrupted search with the same arguments. on_checkpoint: called each generation.

    Raises:
        TrainingFailed: a generation without any finite loss. DamagedFile: `resume_from` is of another search.
    """
    so_far, best = _Generations(resume_from), start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        es = _strategy(start, sigma0, seed, max_evaluations, popsize)
        while (reason := _stop_reason(es, so_far.val_losses, max_evaluations, patience, tolerance)) is None:
            candidates = es.ask()
            found, val_loss = so_far.recorded() or _evaluate(candidates, losses_of, validate, len(so_far.losses) + 1)
            es.tell(candidates, found)
            if val_loss < min(so_far.val_losses, default=math.inf):
                best = np.array(candidates[int(np.argmin(found))])
            so_far.add(candidates, found, val_loss)
            if on_checkpoint is not None and len(so_far.losses) > so_far.former:
                on_checkpoint(so_far.history())
            if on_generation is not None and len(so_far.losses) >= so_far.former:
                on_generation(es.countevals, min(so_far.val_losses))
    so_far.check_complete()
    history = tuple(np.minimum.accumulate(so_far.val_losses).tolist())
    return FitResult(torch.as_tensor(best, dtype=torch.float32), history[-1], history, es.countevals, reason)


class _Generations:
    """The generations of a search so far; the first ones are taken from an interrupted search."""

    def __init__(self, resume_from: SearchHistory | None) -> None:
        self.resume_from = resume_from
        self.former = 0 if resume_from is None else len(resume_from.losses)
        self.losses: list[list[float]] = []
        self.val_losses: list[float] = []
        self.digest = hashlib.sha256()

    def recorded(self) -> tuple[list[float], float] | None:
        """Losses and validation loss of the next generation, where the interrupted search has them."""
        index = len(self.losses)
        if self.resume_from is None or index >= self.former:
            return None
        return self.resume_from.losses[index].tolist(), float(self.resume_from.val_losses[index])

    def add(self, candidates: list[np.ndarray], losses: list[float], val_loss: float) -> None:
        """Append a generation. Raises DamagedFile where the interrupted search had other candidates."""
        self.digest.update(np.ascontiguousarray(candidates, dtype=np.float64).tobytes())
        self.losses.append(losses)
        self.val_losses.append(val_loss)
        if self.resume_from is not None and len(self.losses) == self.former:
            _check(self.resume_from, self.digest.hexdigest())

    def check_complete(self) -> None:
        """Raise DamagedFile where the search stops before the interrupted one did."""
        if self.resume_from is not None and len(self.losses) < self.former:
            _check(self.resume_from, "")

    def history(self) -> SearchHistory:
        """What a later search resumes from."""
        return SearchHistory(_float64(self.losses), _float64(self.val_losses), self.digest.hexdigest())


def _evaluate(
    candidates: list[np.ndarray], losses_of: Callable[[list[np.ndarray]], list[float]],
    validate: Callable[[np.ndarray], float] | None, generation: int,
) -> tuple[list[float], float]:  # fmt: skip
    """Losses of a generation, and the validation loss of its best candidate."""
    losses = rank_non_finite_last(losses_of(candidates))
    lowest = int(np.argmin(losses))
    if validate is None:
        return losses, losses[lowest]
    return losses, require_finite(validate(candidates[lowest]), f"in generation {generation}")


def _strategy(start: np.ndarray, sigma0: float, seed: int, max_evaluations: int, popsize: int | None) -> Any:
    """The strategy of `cma` with an RNG of its own and the start among its first candidates."""
    import cma

    options = {
        "randn": np.random.RandomState(seed + 1).randn, "seed": math.nan, "maxfevals": max_evaluations, "signals_filename": "",
        "verbose": -9, "verb_log": 0,
    }  # fmt: skip
    es = cma.CMAEvolutionStrategy(start.astype(float), sigma0, options | ({} if popsize is None else {"popsize": popsize}))
    es.inject([start.astype(float)], force=True)
    return es


def _stop_reason(es: Any, val_losses: list[float], max_evaluations: int, patience: int | None, tolerance: float) -> str | None:
    """Why the search stops before its next generation; None if it continues."""
    if stop := es.stop():
        return ", ".join(f"{name}={value}" for name, value in stop.items())
    if should_stop(val_losses, patience, tolerance):
        return f"patience={patience}"
    if val_losses and es.countevals + es.popsize > max_evaluations:
        return f"max_evaluations={max_evaluations}"
    return None


def _float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _check(history: SearchHistory, candidates: str) -> None:
    if candidates != history.candidates:
        raise DamagedFile(
            f"the {history.losses.numel()} losses of the interrupted search belong to other candidates than this machine draws "
            "from the same seed: another processor or library version. Delete the router's checkpoint folder to start again."
        )


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
