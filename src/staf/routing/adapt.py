"""Stage II: a task's router from its adaptation examples (STAF-LLM, Algorithm 2).

Both settings minimise L_task + gamma_1 L_r (Eq. 6) over the same numbers; they differ only in how: Adam or CMA-ES. What judges
them (the best epoch, when to stop, the best restart) is L_task of a part of the adaptation examples that is held out of the
fitting, or, where none is, what is minimised, of all of them; the test set is never seen. With a folder for its state, a
stopped adaptation goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staf import __version__
from staf.data.example import Example
from staf.data.splits import dice, refuse_test
from staf.errors import MissingData
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.batches import epoch_order
from staf.log import Log
from staf.routing import cma, gradient
from staf.routing.checkpoints import AdaptationStates, Clock
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, examples_a_step
from staf.routing.recipe import RouterRecipe
from staf.routing.router import initial_params
from staf.routing.store import Router

OnProgress = Callable[[int, float], None]
"""called with the steps or evaluations done, and the loss"""

RESTART_DEVIATION = {"softmax": 1.0, "l2": 1.0, "unconstrained": 0.1}
"""Of A and b where a later restart begins, at least: logits that favour some experts; free weights near the average."""


def planned_progress(examples: int, settings: RouterRecipe) -> int:
    """Candidates or steps that an adaptation to so many examples takes, all restarts together."""
    if settings.method == "cma":
        return settings.restarts * settings.max_evaluations
    learned = examples - _held_out(examples, settings)
    return settings.restarts * settings.epochs * -(-learned // examples_a_step(settings))


def _held_out(examples: int, settings: RouterRecipe) -> int:
    """Adaptation examples that judge and take no part in the fitting."""
    return max(int(examples * settings.held_out_share), 1) if settings.held_out_share > 0 else 0


def restart_seed(seed: int, restart: int) -> int:
    """The seed of a restart: the first one has the seed of the settings, the others follow from it."""
    return seed if restart == 0 else dice(f"restart:{seed}:{restart}").randrange(2**31)


def adaptation_digest(
    base: dict[str, str], experts: ExpertSet, task: str, examples: Sequence[Example], settings: RouterRecipe,
    start: Router | None = None,
) -> str:  # fmt: skip
    """Sixteen hexadecimal digits that name an adaptation: base, experts, task, examples, settings, start."""
    numbers = "" if start is None else hashlib.sha256(start.numbers.numpy().tobytes()).hexdigest()
    parts = (base["fingerprint"], experts.fingerprint, task, data_fingerprint(examples), settings.digest(), numbers)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Attempt:
    """What one restart found."""

    seed: int
    numbers: Tensor
    loss: float
    history: tuple[float, ...]
    stop_reason: str
    steps: int
    """candidates tried or steps taken"""


def adapt_router(
    mixture: Mixture,
    task: str,
    examples: Sequence[Example],
    settings: RouterRecipe,
    on_progress: OnProgress | None = None,
    *,
    start: Router | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> Router:
    """Learn a router for a task from its adaptation examples.

    Args:
        start: another router, of any task, whose numbers are the start; later restarts begin at random places near it.
        checkpoint: folder for the state after each generation or epoch, gone on with where there is one; it is left behind for
            the caller to remove once the router is saved. None keeps nothing.
        log: told what is gone on with, and what was passed over and why.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. TrainingFailed: no finite loss.
        BaseMismatch, ExpertMismatch, ConfigError: `start` is of another base, of other experts, or its numbers mean something
            else. DamagedFile: no state in `checkpoint` is whole. StafError: the state cannot be written.
    """
    refuse_test(examples)
    if len(examples) < 2:
        raise MissingData(f"{len(examples)} adaptation examples for '{task}'; at least 2 are needed. See: staf data list")
    base, clock = mixture.base, Clock()
    if start is not None:
        start.check_start(base.identity, mixture.experts, settings)
    attempts = _Attempts(RouterObjective(mixture, settings), examples, start, on_progress)
    run = _state_digest(mixture, task, examples, settings, start)
    found = []
    try:
        for restart in range(settings.restarts):
            folder = None if checkpoint is None else checkpoint / f"restart-{restart}"
            states = None if folder is None else AdaptationStates(folder, run, log or (lambda text: None), clock)
            found.append(attempts.run(restart, states))
    finally:
        base.lora.set_rank_scale({})
    return attempts.router(task, found, clock.seconds)


def _state_digest(
    mixture: Mixture, task: str, examples: Sequence[Example], settings: RouterRecipe, start: Router | None
) -> str:
    """Names all that the losses of an adaptation depend on: beside its digest, how and by what they are computed here."""
    base = mixture.base
    what = adaptation_digest(base.identity, mixture.experts, task, examples, settings, start)
    how = (str(base.dtype), base.device.type, *(version(name) for name in ("torch", "numpy", "cma")))
    return hashlib.sha256("\x1f".join((what, *how)).encode()).hexdigest()[:16]


class _Attempts:
    """The restarts of one adaptation: the same examples, the same part held out, other seeds."""

    def __init__(
        self, objective: RouterObjective, examples: Sequence[Example], start: Router | None, on_progress: OnProgress | None
    ) -> None:
        self.objective, self.examples, self.start = objective, examples, start
        self.settings, self.base = objective.settings, objective.mixture.base
        self.report = on_progress or (lambda done, loss: None)
        self.held = _held_out(len(examples), self.settings)
        order = list(range(len(examples)))
        if self.held > 0:
            order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(self.settings.seed)).tolist()
        self.fitted = [examples[i] for i in order[self.held :]]
        self.judging = objective.judge([examples[i] for i in order[: self.held]] or examples)

    def run(self, restart: int, states: AdaptationStates | None) -> _Attempt:
        """One restart, from its beginning or from its newest state."""
        settings, seed = self.settings, restart_seed(self.settings.seed, restart)
        offset = restart * (planned_progress(len(self.examples), settings) // settings.restarts)

        def report(done: int, loss: float) -> None:
            self.report(offset + done, loss)

        method = self._few_shot if settings.method == "cma" else self._normal
        return method(seed, self._origin(restart, seed), states, report)

    def _judged(self, numbers: Tensor) -> float:
        """What judges numbers (n,): L_task of what was held out, or L_total where nothing was."""
        losses = self.objective.task_losses if self.held > 0 else self.objective.values
        return losses([numbers], self.judging)[0]

    def _origin(self, restart: int, seed: int) -> Tensor:
        """Where a restart begins, (n,): at random near 0 (section 3.3.1), or at the numbers of another router.

        Later restarts begin far enough from the first one to end elsewhere.
        """
        settings = self.settings
        least = 0.0 if restart == 0 else RESTART_DEVIATION[settings.weighting]
        random = initial_params(self.objective.shape, seed, max(settings.init_std, least))
        if self.start is None:
            return random
        return self.start.numbers + random if restart > 0 else self.start.numbers

    def _few_shot(self, seed: int, origin: Tensor, states: AdaptationStates | None, report: OnProgress) -> _Attempt:
        settings, fitting, moved = self.settings, self.objective.judge(self.fitted), self.objective.shape.searched

        def whole(candidate: np.ndarray) -> Tensor:
            return torch.cat([origin[: moved.start], torch.as_tensor(candidate, dtype=torch.float32)])

        found = cma.fit_cma(
            lambda candidates: self.objective.values([whole(c) for c in candidates], fitting),
            origin[moved].numpy(), sigma0=settings.sigma0,
            max_evaluations=settings.max_evaluations, seed=seed, popsize=settings.popsize, on_generation=report,
            validation_loss=(lambda c: self._judged(whole(c))) if self.held > 0 else None,
            patience=settings.patience, tolerance=settings.tolerance,
            told=None if states is None else states.told(), keep=None if states is None else states.keep_told,
        )  # fmt: skip
        return _Attempt(seed, whole(found.best), found.loss, found.history, found.stop_reason, found.evaluations)

    def _normal(self, seed: int, origin: Tensor, states: AdaptationStates | None, report: OnProgress) -> _Attempt:
        settings, steps = self.settings, self.objective.steps(self.fitted)
        found = gradient.fit_gradient(
            lambda numbers, batch: self.objective.total(numbers, steps, batch),
            self._judged, origin,
            order=lambda epoch: epoch_order(steps.lengths, examples_a_step(settings), seed, epoch), epochs=settings.epochs,
            learning_rate=settings.learning_rate, on_step=report, patience=settings.patience, tolerance=settings.tolerance,
            state=None if states is None else states.descent(), keep=None if states is None else states.keep_descent,
        )  # fmt: skip
        return _Attempt(seed, found.best, found.loss, found.history, found.stop_reason, found.steps)

    def router(self, task: str, found: Sequence[_Attempt], seconds: float) -> Router:
        """The router of the best restart, with what all of them found."""
        objective, mixture, experts = self.objective, self.objective.mixture, self.objective.mixture.experts
        best = min(range(len(found)), key=lambda restart: found[restart].loss)
        chosen, ids = found[best], sorted(example.id for example in self.examples)
        record: dict[str, Any] = {
            "loss": chosen.loss,
            "penalty": float(objective.penalty(chosen.numbers)),
            "history": list(chosen.history),
            "stop_reason": chosen.stop_reason,
            "evaluations" if self.settings.method == "cma" else "steps": sum(attempt.steps for attempt in found),
            "validation_examples": self.held,
            "restart": best,
            "restarts": [self._restart_record(attempt) for attempt in found],
            "start": None if self.start is None else {"task": self.start.task, "run": self.start.record.get("run")},
            "examples": len(ids),
            "example_ids": ids,
            "examples_fingerprint": hashlib.sha256("/".join(ids).encode()).hexdigest()[:16],
            "tunable_parameters": self._tuned(),
            "prompt_tokens": sum(self.objective.steps(self.examples).lengths),
            "seconds": seconds,
            "versions": {"staf": __version__, "torch": torch.__version__},
        }
        weights = objective.weights(chosen.numbers).detach()
        base = mixture.base
        return Router(task, self.settings, weights, chosen.numbers, experts.names, experts.fingerprint, base.identity, record)

    def _tuned(self) -> int:
        """Numbers that the method moves."""
        shape = self.objective.shape
        return shape.numbers - (shape.searched.start if self.settings.method == "cma" else 0)

    def _restart_record(self, attempt: _Attempt) -> dict[str, Any]:
        weights = self.objective.weights(attempt.numbers).mean(0).tolist()
        return {
            "seed": attempt.seed,
            "loss": attempt.loss,
            "stop_reason": attempt.stop_reason,
            "weights": dict(zip(self.objective.mixture.experts.names, weights, strict=True)),
        }
