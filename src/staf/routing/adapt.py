"""Stage II: learns a task's router from its adaptation examples (STAF-LLM, Algorithm 2).

Both settings minimise L_task + gamma_1 L_r (Eq. 6) over the same parameters, by Adam or by CMA-ES. Epochs, generations and
restarts are compared by L_task on adaptation examples held out from the fit, or, without any, by the training objective on
all; the test set is never read. With a checkpoint folder an interrupted adaptation resumes and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from staf.compute import numerics
from staf.data.example import Example
from staf.data.privacy import kept_ids
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import ConfigError, MissingData
from staf.experts.checkpoint import Checkpoints
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.batches import epoch_order
from staf.log import Log
from staf.routing.cma import SearchHistory, fit_cma
from staf.routing.gradient import FitResult, GradientState, fit_gradient
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, examples_a_step
from staf.routing.recipe import RouterRecipe
from staf.routing.router import initial_params
from staf.routing.store import Router
from staf.runs import digest_of

OnProgress = Callable[[int, float], None]
"""called with the number of steps or evaluations, and the loss"""
State = TypeVar("State", SearchHistory, GradientState)

RESTART_STD = {"softmax": 1.0, "l2": 1.0, "unconstrained": 0.1}
"""Minimum standard deviation of a later restart's start: some experts are preferred, or weights are near the average."""


def planned_progress(examples: int, recipe: RouterRecipe) -> int:
    """Evaluations or steps of an adaptation to a number of examples, over all restarts."""
    if recipe.method == "cma":
        return recipe.restarts * recipe.max_evaluations
    fitted = examples - _held_out(examples, recipe)
    return recipe.restarts * recipe.epochs * -(-fitted // examples_a_step(recipe))


def _held_out(examples: int, recipe: RouterRecipe) -> int:
    """Number of adaptation examples held out for validation."""
    return max(int(examples * recipe.held_out_share), 1) if recipe.held_out_share > 0 else 0


def restart_seed(seed: int, restart: int) -> int:
    """The seed of a restart; the first one uses the recipe's."""
    return seed if restart == 0 else seeded_rng(f"restart:{seed}:{restart}").randrange(2**31)


def adaptation_digest(
    base: dict[str, str], experts: ExpertSet, task: str, examples: Sequence[Example], recipe: RouterRecipe,
    init_from: Router | None = None,
) -> str:  # fmt: skip
    """Sixteen hexadecimal digits that name an adaptation: base, experts, task, examples, recipe, initial router."""
    params = "" if init_from is None else hashlib.sha256(init_from.params.numpy().tobytes()).hexdigest()
    parts = (base["fingerprint"], experts.fingerprint, task, data_fingerprint(examples), recipe.digest(), params)
    return digest_of(*parts)


def adapt_router(
    mixture: Mixture,
    task: str,
    examples: Sequence[Example],
    recipe: RouterRecipe,
    on_progress: OnProgress | None = None,
    *,
    init_from: Router | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> Router:
    """Learn a router for a task from its adaptation examples.

    Args:
        init_from: another router, of any task, whose parameters are the start; later restarts start near it at random.
        checkpoint: folder for the state after each generation or epoch, resumed where there is one; the caller removes it
            after the router is saved. None: no checkpoints.
        log: receives what is resumed, and what is skipped and why.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. TrainingFailed: no finite loss.
        BaseMismatch, ExpertMismatch, ConfigError: `init_from` has another base, other experts or another shape, or CMA-ES
            has more parameters than evaluations. DamagedFile: no intact state in `checkpoint`. StafError: it is not writable.
    """
    refuse_test(examples)
    if len(examples) < 2:
        raise MissingData(f"{len(examples)} adaptation examples for '{task}'; at least 2 are needed. See: staf data list")
    if init_from is not None:
        init_from.check_start(mixture.base.identity, mixture.experts, recipe)
    adaptation = _Adaptation(RouterObjective(mixture, recipe), task, examples, init_from, on_progress)
    try:
        results = [adaptation.fit(restart, checkpoint, log) for restart in range(recipe.restarts)]
    finally:
        mixture.base.lora.set_rank_scale({})
    return adaptation.router(results)


class _Adaptation:
    """The restarts of one adaptation: same examples, same held-out part, different seeds."""

    def __init__(
        self, objective: RouterObjective, task: str, examples: Sequence[Example], init_from: Router | None,
        on_progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.objective, self.task, self.examples, self.init_from = objective, task, examples, init_from
        self.recipe, self.report, self.started = objective.recipe, on_progress, time.perf_counter()
        self.moved = objective.shape.searched(self.recipe.penalty)
        self._check_dimension()
        self.held_out = _held_out(len(examples), self.recipe)
        order = list(range(len(examples)))
        if self.held_out > 0:
            order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(self.recipe.seed)).tolist()
        self.fitted = [examples[i] for i in order[self.held_out :]]
        self.validation = objective.loss_on([examples[i] for i in order[: self.held_out]] or examples)
        self.seeds = [restart_seed(self.recipe.seed, restart) for restart in range(self.recipe.restarts)]

    def _check_dimension(self) -> None:
        size, most = self.moved.stop - self.moved.start, self.recipe.max_evaluations
        if self.recipe.method == "cma" and size > most:
            raise ConfigError(
                f"granularity = {self.recipe.granularity} gives CMA-ES {size} parameters, more than max_evaluations = {most}. "
                f"Use granularity = task, method = gradient, or raise max_evaluations to several times {size}."
            )

    def fit(self, restart: int, checkpoint: Path | None, log: Log | None) -> FitResult:
        """One restart, from its start or from its newest state."""
        states, base = None, self.objective.mixture.base
        if checkpoint is not None:
            states = Checkpoints(
                checkpoint / f"restart-{restart}", self._state_digest(), log or (lambda text: None), numerics(base)
            )
        return self._fit_cma(restart, states) if self.recipe.method == "cma" else self._fit_gradient(restart, states)

    def _fit_cma(self, restart: int, states: Checkpoints | None) -> FitResult:
        recipe, start, loss = self.recipe, self._start(restart), self.objective.loss_on(self.fitted)

        def full(candidate: np.ndarray) -> Tensor:
            return torch.cat([start[: self.moved.start], torch.as_tensor(candidate, dtype=torch.float32)])

        found = fit_cma(
            lambda candidates: self.objective.values([full(c) for c in candidates], loss),
            start[self.moved].numpy(), recipe.sigma0, seed=self.seeds[restart],
            max_evaluations=recipe.max_evaluations, popsize=recipe.popsize,
            validate=(lambda candidate: self._validate(full(candidate))) if self.held_out > 0 else None,
            patience=recipe.patience, tolerance=recipe.tolerance, on_generation=self._progress(restart),
            resume_from=self._load(states, SearchHistory),
            on_checkpoint=None if states is None else lambda state: self._save(states, len(state.losses), state),
        )  # fmt: skip
        return FitResult(full(found.best.numpy()), found.loss, found.history, found.steps, found.stop_reason)

    def _fit_gradient(self, restart: int, states: Checkpoints | None) -> FitResult:
        recipe, loss = self.recipe, self.objective.loss_on(self.fitted)
        return fit_gradient(
            lambda params, batch: self.objective.total(params, loss, batch),
            self._validate, self._start(restart),
            batches=lambda epoch: epoch_order(loss.lengths, examples_a_step(recipe), self.seeds[restart], epoch),
            epochs=recipe.epochs, learning_rate=recipe.learning_rate, patience=recipe.patience, tolerance=recipe.tolerance,
            on_step=self._progress(restart), resume_from=self._load(states, GradientState),
            on_checkpoint=None if states is None else lambda state: self._save(states, len(state.history) - 1, state),
        )  # fmt: skip

    def _validate(self, params: Tensor) -> float:
        """L_task on what is held out, or L_total on all examples."""
        losses = self.objective.task_losses if self.held_out > 0 else self.objective.values
        return losses([params], self.validation)[0]

    def _start(self, restart: int) -> Tensor:
        """Initial parameters (n,): random near 0 (section 3.3.1), or another router's; later restarts farther from there."""
        recipe = self.recipe
        std = max(recipe.init_std, 0.0 if restart == 0 else RESTART_STD[recipe.weighting])
        random = initial_params(self.objective.shape, self.seeds[restart], std)
        if self.init_from is None:
            return random
        return self.init_from.params + random if restart > 0 else self.init_from.params

    def _progress(self, restart: int) -> OnProgress | None:
        report, offset = self.report, restart * (planned_progress(len(self.examples), self.recipe) // self.recipe.restarts)
        return None if report is None else lambda done, loss: report(offset + done, loss)

    def _state_digest(self) -> str:
        """Names what the losses depend on besides dtype, device and threads: the adaptation and the libraries."""
        mixture = self.objective.mixture
        what = adaptation_digest(
            mixture.base.identity, mixture.experts, self.task, self.examples, self.recipe, self.init_from
        )  # fmt: skip
        return digest_of(what, *(version(name) for name in ("torch", "numpy", "cma")))

    def _save(self, states: Checkpoints, step: int, state: SearchHistory | GradientState) -> None:
        tensors = {name: value for name, value in vars(state).items() if isinstance(value, Tensor)}
        record = {name: value for name, value in vars(state).items() if name not in tensors}
        states.save(step, tensors, {**record, "seconds": time.perf_counter() - self.started})

    def _load(self, states: Checkpoints | None, kind: type[State]) -> State | None:
        tensors: set[str] = {field.name for field in fields(kind) if field.type == "Tensor"}
        others: set[str] = {field.name for field in fields(kind)} - tensors
        found = None if states is None else states.load(tensors, {*others, "seconds"})
        if found is None:
            return None
        self.started = min(self.started, time.perf_counter() - found[1]["seconds"])
        values: dict[str, Any] = {name: found[1][name] for name in others}
        return kind(**found[0], **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})  # type: ignore[arg-type]

    def router(self, results: Sequence[FitResult]) -> Router:
        """The router of the restart with the lowest loss."""
        objective, mixture = self.objective, self.objective.mixture
        best = min(range(len(results)), key=lambda restart: results[restart].loss)
        chosen, ids = results[best], sorted(example.id for example in self.examples)
        cma = self.recipe.method == "cma"
        record: dict[str, Any] = {
            "loss": chosen.loss,
            "penalty": float(objective.penalty(chosen.best)),
            "history": list(chosen.history),
            "stop_reason": chosen.stop_reason,
            "evaluations" if cma else "steps": sum(result.steps for result in results),
            "validation_examples": self.held_out,
            "restart": best,
            "restarts": [self._restart_record(*pair) for pair in zip(self.seeds, results, strict=True)],
            "init_from": None
            if self.init_from is None
            else {"task": self.init_from.task, "run": self.init_from.record.get("run")},
            "examples": len(ids),
            "example_ids": kept_ids(self.examples),
            "examples_fingerprint": hashlib.sha256("/".join(ids).encode()).hexdigest()[:16],
            "tunable_parameters": self.moved.stop - self.moved.start if cma else objective.shape.num_params,
            "prompt_tokens": sum(objective.loss_on(self.examples).lengths),
            "seconds": time.perf_counter() - self.started,
        }
        weights = objective.weights(chosen.best).detach()
        return Router.of(
            mixture.base, mixture.experts, self.task, self.examples, self.recipe, weights, chosen.best, record
        )  # fmt: skip

    def _restart_record(self, seed: int, result: FitResult) -> dict[str, Any]:
        weights = self.objective.weights(result.best).mean(0).tolist()
        return {
            "seed": seed,
            "loss": result.loss,
            "stop_reason": result.stop_reason,
            "weights": dict(zip(self.objective.mixture.experts.names, weights, strict=True)),
        }
