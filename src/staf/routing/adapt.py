"""Stage II: learns a task's router from its adaptation examples (STAF-LLM, Algorithm 2).

Both settings minimise L_task + gamma_1 L_r (Eq. 6) over the same parameters, by Adam or by CMA-ES. Epochs, generations and
restarts are compared by L_task on adaptation examples held out from the fit, or, without any, by the training objective on
all; the test set is never read. With a checkpoint folder an interrupted adaptation resumes and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staf.compute import numerics
from staf.data.example import Example
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import ConfigError, MissingData
from staf.experts.checkpoint import Checkpoints
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.batches import epoch_order
from staf.log import Log
from staf.routing import cma, gradient
from staf.routing.gradient import FitResult, State
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, examples_a_step
from staf.routing.recipe import RouterRecipe
from staf.routing.router import initial_params, searched_params
from staf.routing.store import Router
from staf.runs import digest_of

OnProgress = Callable[[int, float], None]
"""called with the number of steps or evaluations, and the loss"""

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


def check_evaluations(count: int, recipe: RouterRecipe) -> slice:
    """Which of n parameters are learned; raises ConfigError where CMA-ES has more of them than evaluations."""
    moved = searched_params(count, recipe)
    size, other = moved.stop - moved.start, "" if recipe.granularity == "task" else "granularity = task, "
    if recipe.method == "cma" and size > recipe.max_evaluations:
        raise ConfigError(
            f"granularity = {recipe.granularity} gives CMA-ES {size} parameters, more than max_evaluations = "
            f"{recipe.max_evaluations}. Use {other}method = gradient, or raise max_evaluations to several times {size}."
        )
    return moved


def restart_seed(seed: int, restart: int) -> int:
    """The seed of a restart; the first one uses the recipe's."""
    return seed if restart == 0 else seeded_rng(f"restart:{seed}:{restart}").randrange(2**31)


def examples_digest(examples: Sequence[Example]) -> str:
    """Sixteen hexadecimal digits of all that is computed from some examples: texts, answers and labels."""
    return digest_of(data_fingerprint(examples), *("\x1e".join(example.labels) for example in examples))


def adaptation_digest(
    base: dict[str, str], experts: ExpertSet, task: str, examples: Sequence[Example], recipe: RouterRecipe,
    init_from: Router | None = None,
) -> str:  # fmt: skip
    """Sixteen hexadecimal digits that name an adaptation by all that decides it besides dtype, device and versions."""
    params = "" if init_from is None else hashlib.sha256(init_from.params.numpy().tobytes()).hexdigest()
    model = (base["fingerprint"], base.get("tokenizer", ""), experts.fingerprint)
    return digest_of(*model, task, examples_digest(examples), recipe.digest(), params)


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
    name = adaptation_digest(mixture.base.identity, mixture.experts, task, examples, recipe, init_from)
    name = digest_of(name, *(version(library) for library in ("torch", "numpy", "cma")))

    def checkpoints(restart: int) -> Checkpoints | None:
        if checkpoint is None:
            return None
        return Checkpoints(checkpoint / f"restart-{restart}", name, log or (lambda text: None), numerics(mixture.base))

    adaptation = _Adaptation(RouterObjective(mixture, recipe), examples, init_from, on_progress)
    try:
        results = [adaptation.fit(restart, checkpoints(restart)) for restart in range(recipe.restarts)]
    finally:
        mixture.base.lora.set_rank_scale({})
    record = adaptation.record(results)
    best = results[record["restart"]].best
    weights = adaptation.objective.weights(best).detach()
    return Router.of(mixture.base, mixture.experts, task, examples, recipe, weights, best, record)


class _Adaptation:
    """The restarts of one adaptation: same examples, same held-out part, different seeds."""

    def __init__(
        self, objective: RouterObjective, examples: Sequence[Example], init_from: Router | None, on_progress: OnProgress | None
    ) -> None:
        self.objective, self.recipe, self.init_from = objective, objective.recipe, init_from
        self.count, self.on_progress, self.started = len(examples), on_progress, time.perf_counter()
        self.moved = check_evaluations(objective.num_params, self.recipe)
        self.size = self.moved.stop - self.moved.start
        self.held_out = _held_out(len(examples), self.recipe)
        order = list(range(len(examples)))
        if self.held_out > 0:
            order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(self.recipe.seed)).tolist()
        self.fitted = objective.loss_on([examples[i] for i in order[self.held_out :]])
        self.validation = objective.loss_on([examples[i] for i in order[: self.held_out]]) if self.held_out else self.fitted

    def fit(self, restart: int, states: Checkpoints | None) -> FitResult:
        """One restart, from its start or from its newest state."""
        recipe = self.recipe.model_copy(update={"seed": restart_seed(self.recipe.seed, restart)})
        start, report = self._start(restart, recipe), self._progress(restart)
        state, save = (None, None) if states is None else (self._load(states), partial(self._save, states))
        if recipe.method == "gradient":
            return gradient.fit_gradient(
                lambda params, batch: self.objective.total(params, self.fitted, batch), self._validate, start, recipe,
                lambda epoch: epoch_order(self.fitted.lengths, examples_a_step(recipe), recipe.seed, epoch), report, state,
                save,
            )  # fmt: skip

        def full(candidate: np.ndarray) -> Tensor:
            return torch.cat([start[: self.moved.start], torch.as_tensor(candidate, dtype=torch.float32)])

        found = cma.fit_cma(
            lambda candidates: self.objective.values([full(c) for c in candidates], self.fitted), start[self.moved].numpy(),
            recipe, (lambda candidate: self._validate(full(candidate))) if self.held_out > 0 else None, report, state, save,
        )  # fmt: skip
        return replace(found, best=full(found.best.numpy()))

    def _validate(self, params: Tensor) -> float:
        """L_task on what is held out, or L_total on all examples."""
        losses = self.objective.task_losses if self.held_out > 0 else self.objective.values
        return losses([params], self.validation)[0]

    def _start(self, restart: int, recipe: RouterRecipe) -> Tensor:
        """Initial parameters (n,): random near 0 (section 3.3.1), or another router's; later restarts farther from there."""
        std = recipe.init_std if restart == 0 else max(recipe.init_std, RESTART_STD[recipe.weighting])
        random = initial_params(self.objective.num_params, recipe, std)
        if self.init_from is None:
            return random
        return self.init_from.params + random if restart > 0 else self.init_from.params

    def _load(self, states: Checkpoints) -> State | None:
        shapes = cma.STATE if self.recipe.method == "cma" else gradient.STATE
        found = states.load(tuple(shapes), ("seconds",))
        if found is None:
            return None
        gradient.check_state(found[0], shapes, self.size)
        self.started = min(self.started, time.perf_counter() - found[1]["seconds"])
        return found[0]

    def _save(self, states: Checkpoints, step: int, state: State) -> None:
        states.save(step, state, {"seconds": time.perf_counter() - self.started})

    def _progress(self, restart: int) -> OnProgress | None:
        report, offset = self.on_progress, restart * (planned_progress(self.count, self.recipe) // self.recipe.restarts)
        return None if report is None else lambda done, loss: report(offset + done, loss)

    def record(self, results: Sequence[FitResult]) -> dict[str, Any]:
        """What a router keeps of its restarts, of which that with the lowest loss is its own."""
        best = min(range(len(results)), key=lambda restart: results[restart].loss)
        chosen, start = results[best], self.init_from
        weights = [self.objective.weights(result.best).mean(0).tolist() for result in results]
        restarts = [
            {"seed": restart_seed(self.recipe.seed, restart), "loss": result.loss, "stop_reason": result.stop_reason,
             "weights": dict(zip(self.objective.mixture.experts.names, weights[restart], strict=True))}
            for restart, result in enumerate(results)
        ]  # fmt: skip
        return {
            "loss": chosen.loss,
            "penalty": float(self.objective.penalty(chosen.best)),
            "history": list(chosen.history),
            "stop_reason": chosen.stop_reason,
            "evaluations" if self.recipe.method == "cma" else "steps": sum(result.steps for result in results),
            "validation_examples": self.held_out,
            "restart": best,
            "restarts": restarts,
            "init_from": None if start is None else {"task": start.task, "run": start.record.get("run")},
            "tunable_parameters": self.size,
            "prompt_tokens": sum(self.fitted.lengths) + (sum(self.validation.lengths) if self.held_out else 0),
            "seconds": time.perf_counter() - self.started,
        }
