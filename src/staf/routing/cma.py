"""Few-shot setting: CMA-ES over the router's numbers (STAF-LLM, section 3.3.3; Hansen and Ostermeier, 1996).

Eqs. 8 and 9 only sketch the method; the real one is the author's own `cma` package, used by ask and tell: it proposes
vectors, is told their losses, and never sees a language model. A loss that is not a number is told as worse than every
number of its generation.

The first candidate of the first generation is the start itself, so no search ends worse than where it began. Candidates follow
from the seed and the losses told before, so the losses are the whole state of a search: one that was stopped asks and tells
them again, evaluates nothing twice, and goes on with the same candidates.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from staf.errors import DamagedFile, TrainingFailed
from staf.routing.stopping import judged, spent


@dataclass(frozen=True)
class Told:
    """What a search was told so far: with its seed, its whole state."""

    losses: np.ndarray
    """(generations, candidates) float64, all finite"""
    judged: np.ndarray
    """(generations,) float64, the loss that judges each generation's best candidate"""
    candidates: str
    """SHA-256 of all candidates in order"""


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
    stop_reason: str
    """cma's own reasons, such as 'tolfun=1e-11', or 'patience=5', or 'max_evaluations=200'"""


def ranked(losses: list[float]) -> list[float]:
    """Losses with each one that is not finite replaced by a number above all finite ones.

    Raises:
        TrainingFailed: no loss of the generation is a finite number.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise TrainingFailed(
            f"all {len(losses)} candidates of a generation have a loss that is not a number. "
            "Check the experts (staf doctor), or search nearer to the start: a smaller `sigma0`."
        )
    worst = max(finite) + abs(max(finite)) + 1.0
    return [loss if math.isfinite(loss) else worst for loss in losses]


class _Search:
    """The strategy, and what it was told."""

    def __init__(self, strategy: Any, start: np.ndarray, evaluations: int, patience: int | None, tolerance: float) -> None:
        self.strategy, self.evaluations, self.patience, self.tolerance = strategy, evaluations, patience, tolerance
        self.best, self.loss = start.astype(float).copy(), math.inf
        self.losses: list[list[float]] = []
        self.judged: list[float] = []
        self.history: list[float] = []
        self.candidates = hashlib.sha256()

    def reason(self) -> str | None:
        """Why the search ends before its next generation; None where it goes on."""
        stop = self.strategy.stop()
        if stop:
            return ", ".join(f"{name}={value}" for name, value in stop.items())
        if spent(self.judged, self.patience, self.tolerance):
            return f"patience={self.patience}"
        if self.history and self.strategy.countevals + self.strategy.popsize > self.evaluations:
            return f"max_evaluations={self.evaluations}"
        return None

    def tell(self, candidates: list[np.ndarray], losses: list[float], judgement: float) -> None:
        """One generation's losses, and the one that judges its best candidate."""
        self.strategy.tell(candidates, losses)
        if judgement < self.loss:
            self.best, self.loss = np.array(candidates[int(np.argmin(losses))]), judgement
        self.losses.append(losses)
        self.judged.append(judgement)
        self.history.append(self.loss)
        self.candidates.update(np.ascontiguousarray(candidates, dtype=np.float64).tobytes())

    def told(self) -> Told:
        """The state so far."""
        return Told(np.array(self.losses), np.array(self.judged), self.candidates.hexdigest())

    def repeat(self, told: Told) -> None:
        """Ask and tell again what was told.

        Raises:
            DamagedFile: this machine draws other candidates, so that the losses are of others.
        """
        for losses, judgement in zip(told.losses.tolist(), told.judged.tolist(), strict=True):
            if self.reason() is None:
                self.tell(self.strategy.ask(), losses, judgement)
        if len(self.losses) < len(told.losses) or self.candidates.hexdigest() != told.candidates:
            raise DamagedFile(
                f"the {told.losses.size} losses of the stopped search belong to other candidates than this machine draws from "
                "the same seed: another processor or library. To begin at the start, delete the checkpoints of the router."
            )


def _strategy(start: np.ndarray, deviation: float, evaluations: int, seed: int, population: int | None) -> Any:
    """The strategy of `cma`, its start among the first candidates; dice of its own, so that no others change its candidates."""
    import cma

    options = {
        "randn": np.random.RandomState(seed + 1).randn,
        "seed": math.nan,
        "maxfevals": evaluations,
        "signals_filename": "",
        "verbose": -9,
        "verb_log": 0,
    }
    if population is not None:
        options["popsize"] = population
    strategy = cma.CMAEvolutionStrategy(start.astype(float), deviation, options)
    strategy.inject([start.astype(float)], force=True)
    return strategy


def fit_cma(
    losses_of: Callable[[list[np.ndarray]], list[float]],
    start: np.ndarray,
    *,
    sigma0: float,
    max_evaluations: int,
    seed: int,
    popsize: int | None = None,
    on_generation: Callable[[int, float], None] | None = None,
    validation_loss: Callable[[np.ndarray], float] | None = None,
    patience: int | None = None,
    tolerance: float = 0.0,
    told: Told | None = None,
    keep: Callable[[Told], None] | None = None,
) -> SearchResult:
    """Minimise a loss from `start` (n,) by CMA-ES.

    Args:
        losses_of: the loss of each candidate of a generation, which may be computed together.
        sigma0: the first step size sigma.
        max_evaluations: at most so many candidates, in whole generations; the first generation always runs.
        popsize: candidates a generation; None takes cma's 4 + 3 ln n.
        on_generation: called with evaluations so far and the lowest loss.
        validation_loss: judges the best candidate of each generation; None judges it by its loss.
        patience, tolerance: stop after so many generations that are no better by more than that; None never stops early.
        told: a stopped search of the same arguments, to go on with. keep: given the state after each generation.

    Raises:
        TrainingFailed: a whole generation without a finite loss. DamagedFile: `told` is not of this search.
    """

    def evaluate(candidates: list[np.ndarray]) -> tuple[list[float], float]:
        losses = ranked(losses_of(candidates))
        lowest = int(np.argmin(losses))
        if validation_loss is None:
            return losses, losses[lowest]
        return losses, judged(validation_loss(candidates[lowest]), f"in generation {len(running.history) + 1}")

    report = on_generation or (lambda evaluations, loss: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = _strategy(start, sigma0, max_evaluations, seed, popsize)
        running = _Search(strategy, start, max_evaluations, patience, tolerance)
        if told is not None:
            running.repeat(told)
            report(strategy.countevals, running.loss)
        while (reason := running.reason()) is None:
            candidates = strategy.ask()
            running.tell(candidates, *evaluate(candidates))
            if keep is not None:
                keep(running.told())
            report(strategy.countevals, running.loss)
    history = tuple(running.history)
    return SearchResult(running.best, running.loss, strategy.countevals, len(history), history, reason)
