"""One training loop for all trained baselines, and one search for its learning rate.

Each rate is a trial: a model loaded afresh learns from one part of the adaptation examples, and the other part says after which
epoch it was best. With the best rate and number of epochs a last model learns from all of them. No test item is seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from staf.baselines.plain import answer_logprobs, plain_mean_loss, plain_model
from staf.baselines.rows import BASELINES
from staf.baselines.settings import BaselineSettings
from staf.data.example import Example
from staf.data.splits import dice, refuse_test
from staf.errors import ConfigError, TrainingFailed
from staf.lm.base import Base
from staf.lm.batches import Batch, Encoded, collate, encode, epoch_order, plan_batches

LARGEST_GRADIENT = 1.0
"""Norm that the gradient of a step is cut to."""


@dataclass(frozen=True)
class Trial:
    """One learning rate that was tried."""

    learning_rate: float
    losses: tuple[float, ...]
    """mean training loss of each epoch, -log p of an answer token"""
    held_out: tuple[float, ...]
    """loss on the held-out part before the first epoch and after each"""
    diverged: bool
    """a loss was not a number: the epochs before it are listed"""
    seconds: float

    @property
    def epochs(self) -> int:
        """After so many epochs, at least one, the held-out loss was lowest; 0 where there is none."""
        after = self.held_out[1:]
        return 1 + after.index(min(after)) if after else 0

    @property
    def best(self) -> float:
        """The held-out loss there; infinite where there is none."""
        return min(self.held_out[1:], default=math.inf)


OnTrial = Callable[[Trial], None]
"""called after each learning rate"""


@dataclass(frozen=True)
class Choice:
    """What a search chose."""

    learning_rate: float
    epochs: int
    trials: list[dict[str, Any]]
    """every trial"""
    validation_ids: list[str]
    """of the examples that judged"""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "validation_examples": len(self.validation_ids)}


@dataclass(frozen=True)
class Tuned:
    """A model that learned from all adaptation examples, and how it came about."""

    model: Any
    record: dict[str, Any]


class Tuning:
    """The training of one baseline on the adaptation examples of one task.

    Args:
        max_length: of one example, answer included; virtual tokens come on top. token_budget: places of a batch that judges.

    Raises:
        TestLeak: a test example is among those given.
        ConfigError: fewer than two examples, or a query that does not fit into max_length.
    """

    def __init__(
        self, base: Base, examples: Sequence[Example], settings: BaselineSettings, max_length: int, token_budget: int
    ) -> None:
        refuse_test(examples)
        self.base, self.settings, self.token_budget = base, settings, token_budget
        self.row = BASELINES[settings.method]
        held = max(int(len(examples) * settings.val_fraction), 1)
        if len(examples) < 2:
            raise ConfigError(
                f"baseline {settings.method}: {len(examples)} adaptation examples cannot be torn into a part to learn from and "
                "a part that judges the learning rate. Give at least 2."
            )
        ordered = sorted(examples, key=lambda example: example.id)
        order = dice(f"baseline:{settings.seed}").sample(range(len(ordered)), len(ordered))
        self.items = [encode(example, base.tokenizer, max_length) for example in ordered]
        self.held = [self.items[i] for i in order[:held]]
        self.fitted = [self.items[i] for i in order[held:]]

    def search(self, on_trial: OnTrial | None = None) -> Tuned:
        """Try the learning rates, and learn from all examples with the best; raises as `choose` and `learn`."""
        return self.learn(self.choose(on_trial))

    def choose(self, on_trial: OnTrial | None = None) -> Choice:
        """Try the learning rates.

        Raises:
            TrainingFailed: no rate gave a loss that is a number.
        """
        trials = []
        for rate in self.settings.learning_rates or self.row.learning_rates:
            trials.append(self.fit(self.fitted, rate, self.settings.epochs, self.held)[1])
            if on_trial is not None:
                on_trial(trials[-1])
        best = min(trials, key=lambda trial: trial.best)
        if not best.epochs:
            raise TrainingFailed(
                f"baseline {self.settings.method}: no loss was a number with any of the learning rates "
                f"{', '.join(str(trial.learning_rate) for trial in trials)}. Try lower ones (learning_rates)."
            )
        tried = [{**asdict(trial), "epochs": trial.epochs} for trial in trials]
        return Choice(best.learning_rate, best.epochs, tried, [item.id for item in self.held])

    def learn(self, choice: Choice) -> Tuned:
        """Learn from all examples as a search chose.

        Raises:
            TrainingFailed: the loss is not a number.
        """
        model, last = self.fit(self.items, choice.learning_rate, choice.epochs)
        if last.diverged:
            raise TrainingFailed(
                f"baseline {self.settings.method}: with learning rate {choice.learning_rate}, the best on the held-out part, "
                "the loss on all adaptation examples was not a number. Try lower ones (learning_rates)."
            )
        record = {
            **choice.as_dict(),
            "losses": last.losses,
            "tunable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }
        return Tuned(model, record)

    def fresh(self) -> Any:
        """The plain base with the baseline's trainable parameters, in float32, started by the seed."""
        if self.row.wrap is None:
            raise ConfigError(f"baseline {self.settings.method} is not trained. Ask for its predictions instead.")
        devices = [self.base.device] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            model = self.row.wrap(plain_model(self.base), self.settings).to(self.base.device)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model

    def fit(self, items: Sequence[Encoded], rate: float, epochs: int, held: Sequence[Encoded] = ()) -> tuple[Any, Trial]:
        """A fresh model after some epochs on items, and its losses; it ends early where a loss is not a number."""
        started, model = time.perf_counter(), self.fresh()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
        judges = plan_batches([len(item.tokens) for item in held], self.token_budget)
        judging = [self._batch(held, group) for group in judges]
        losses, judged, diverged = list[float](), list[float](), False
        for epoch in range(epochs + 1):
            learned = [self._epoch(model, optimizer, items, epoch)] if epoch else []
            with self._mixed():
                found = [plain_mean_loss(model, judging)] if judging else []
            if not all(map(math.isfinite, learned + found)):
                diverged = True
                break
            losses += learned
            judged += found
        return model, Trial(rate, tuple(losses), tuple(judged), diverged, time.perf_counter() - started)

    def _epoch(self, model: Any, optimizer: torch.optim.Optimizer, items: Sequence[Encoded], epoch: int) -> float:
        """One pass; mean of -log p over its answer tokens as they were met."""
        model.train()
        total, count = 0.0, 0
        for group in epoch_order([len(item.tokens) for item in items], self.settings.batch_size, self.settings.seed, epoch):
            with self._mixed():
                chances = answer_logprobs(model, self._batch(items, group))
            optimizer.zero_grad(set_to_none=True)
            (-chances.mean()).backward()
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], LARGEST_GRADIENT)
            optimizer.step()
            total, count = total - float(chances.detach().sum()), count + chances.shape[0]
        return total / count

    def _mixed(self) -> torch.autocast:
        """Products in bfloat16 over trained float32, as trainers do it, where the base is kept in bfloat16."""
        return torch.autocast(self.base.device.type, torch.bfloat16, enabled=self.base.dtype == torch.bfloat16)

    def _batch(self, items: Sequence[Encoded], group: Sequence[int]) -> Batch:
        return collate([items[i] for i in group], self.base.tokenizer.eos_token_id, self.base.device)
