"""Stage I: one expert on one knowledge type (STAF-LLM, Algorithm 1 and appendix A.1 to A.6).

Each step: loss at answer positions, its gradient, the gradient of the orthogonality penalty, importance of every triplet,
one AdamW step, then the mask. The whole state is saved every `checkpoint_steps`; the same command resumes from it and ends
with the same bytes as a run that was never stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.bundles import read_bundle, write_bundle
from staf.config import ExpertSettings
from staf.data.batches import Batch, Encoded, collate, encode, epoch_order
from staf.data.example import Example
from staf.errors import ConfigError, MissingData, TrainingFailed
from staf.experts.adalora import budget
from staf.experts.store import Expert
from staf.experts.trainable import TrainableFactors
from staf.lm.base import Base
from staf.lm.loss import answer_loss


@dataclass(frozen=True)
class StepReport:
    """What one step did, for progress bars and metric files."""

    step: int
    total: int
    loss: float
    """mean over the answer tokens of the batch, without the penalty"""
    penalty: float
    kept: int
    """singular values kept in all"""
    tokens: int
    """real tokens of the batch"""


OnStep = Callable[[StepReport], None]


class ExpertTraining:
    """The state of one expert's training, and one step of it; its factors are attached to the base from the start."""

    def __init__(self, base: Base, items: Sequence[Encoded], settings: ExpertSettings) -> None:
        self.base, self.items, self.settings = base, items, settings
        self.lengths = [len(item.tokens) for item in items]
        self.total = planned_steps(len(items), settings)
        self.step = 0
        self.tokens = 0
        self.curve: list[float] = []
        self.order: tuple[int, list[list[int]]] = (-1, [])
        self.factors = TrainableFactors(base.routed.shapes, settings.initial_rank, settings.seed, base.device, base.dtype)
        self.parameter = torch.nn.Parameter(self.factors.flat)
        self.parameter.grad = self.factors.grad
        self.optimizer = torch.optim.AdamW([self.parameter], lr=settings.learning_rate, weight_decay=0.0, fused=True)
        self.random = torch.Generator().manual_seed(settings.seed).get_state()
        base.routed.attach(*self.factors.views())

    def next_batch(self) -> Batch:
        """The batch of this step; it depends on the seed and the step alone."""
        per_epoch = -(-len(self.items) // self.settings.batch_size)
        epoch, place = divmod(self.step, per_epoch)
        if self.order[0] != epoch:
            self.order = (epoch, epoch_order(self.lengths, self.settings.batch_size, self.settings.seed, epoch))
        chosen = [self.items[i] for i in self.order[1][place]]
        return collate(chosen, self.base.tokenizer.pad_token_id or 0, self.base.device)

    def run_step(self) -> StepReport:
        """One optimiser step.

        Raises:
            TrainingFailed: the loss is not a number; names the example ids. The state is still that of the step before.
        """
        settings, factors = self.settings, self.factors
        batch = self.next_batch()
        loss = self._backward(batch)
        penalty = factors.add_orthogonality(settings.orthogonality)
        scores = factors.scores(settings.importance, settings.beta1, settings.beta2)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(self.step, self.total)
        self.optimizer.step()  # Eq. A.3
        keep = self._budget()
        if self.step < max(self.total - settings.final_steps, 1):
            factors.cut(scores, keep)
        else:
            factors.apply_mask()
        tokens = int(sum(len(self.items[i].tokens) for i in self._current()))
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.curve.append(loss)
        return StepReport(self.step, self.total, loss, penalty, keep, tokens)

    def _current(self) -> list[int]:
        return self.order[1][self.step % len(self.order[1])]

    def _budget(self) -> int:
        s = self.settings
        return budget(
            self.step, matrices=len(self.factors.names), initial_rank=s.initial_rank, target_rank=s.target_rank,
            warmup=s.warmup_steps, final=s.final_steps, total=self.total,
        )  # fmt: skip

    def _backward(self, batch: Batch) -> float:
        """Mean loss of the batch; its gradient is added to the flat gradient."""
        gains = (self.factors.begin_step() * self.settings.scale).to(self.base.dtype)  # (M, r)
        self.base.routed.set_gain(dict(zip(self.factors.names, gains.unbind(), strict=True)))
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            total, count = answer_loss(self.base, batch)
            loss = total / count
            if not bool(torch.isfinite(loss)):
                raise TrainingFailed(
                    f"the loss of step {self.step + 1} is {loss.item()}; nothing was changed by it. "
                    f"Examples: {', '.join(batch.example_ids)}. Lower learning_rate, or take these examples out."
                )
            loss.backward()
            self.random = torch.get_rng_state()
        return loss.item()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and record of a checkpoint."""
        moments = self.optimizer.state[self.parameter]
        tensors = {
            **self.factors.state(),
            "first": moments["exp_avg"],
            "second": moments["exp_avg_sq"],
            "random": self.random,
        }
        return tensors, {"step": self.step, "tokens": self.tokens, "curve": self.curve}

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.factors.load_state(tensors)
        self.optimizer.state[self.parameter] = {
            "step": torch.tensor(float(record["step"])),
            "exp_avg": tensors["first"].to(self.base.device),
            "exp_avg_sq": tensors["second"].to(self.base.device),
        }
        self.random = tensors["random"]
        self.step, self.tokens, self.curve = record["step"], record["tokens"], list(record["curve"])


def planned_steps(examples: int, settings: ExpertSettings) -> int:
    """Optimiser steps in all.

    Raises:
        ConfigError: warm-up and final steps leave no step for the ranks to fall.
    """
    total = settings.steps or settings.epochs * -(-examples // settings.batch_size)
    if settings.target_rank < settings.initial_rank and settings.warmup_steps + settings.final_steps >= total:
        raise ConfigError(
            f"{total} steps in all, but warmup_steps {settings.warmup_steps} and final_steps {settings.final_steps} leave none "
            f"for the ranks to fall from {settings.initial_rank} to {settings.target_rank}. "
            f"Train longer, or lower them: warmup_steps={total // 10}, final_steps={total // 3}, say."
        )
    return total


def rate_factor(step: int, total: int) -> float:
    """Share of the learning rate at a step: up over the first 5 percent, then straight down to 0."""
    warmup = max(total // 20, 1)
    return min((step + 1) / warmup, (total - step) / max(total - warmup, 1))


def training_digest(base: dict[str, str], examples: Sequence[Example], settings: ExpertSettings) -> str:
    """Sixteen hexadecimal digits that name a training: base, examples, settings."""
    parts = (base["fingerprint"], settings.digest(), data_fingerprint(examples))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def data_fingerprint(examples: Sequence[Example]) -> str:
    """Sixteen hexadecimal digits of the examples, as read by the model and in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update("\x1f".join((example.id, example.query, example.context, example.answer)).encode())
    return digest.hexdigest()[:16]


def train_expert(
    base: Base,
    name: str,
    examples: Sequence[Example],
    settings: ExpertSettings,
    checkpoint: Path,
    on_step: OnStep | None = None,
) -> Expert:
    """Train one expert from the start, or from its newest checkpoint.

    Args:
        examples: training examples; none of them may be a test example.
        checkpoint: folder for the state; it is left behind for the caller to remove once the expert is saved.

    Raises:
        TrainingFailed: no examples, or a loss that is not a number. ConfigError: the steps cannot be planned.
    """
    if not examples:
        raise TrainingFailed(f"no examples to train '{name}' on. See what there is: staf data list")
    run = training_digest(base.identity, examples, settings)
    items = [encode(example, base.tokenizer, settings.max_tokens) for example in examples]
    training = ExpertTraining(base, items, settings)
    _resume(training, checkpoint, run)
    base.routed.set_training(True, settings.dropout)
    started = time.perf_counter()
    try:
        while training.step < training.total:
            report = training.run_step()
            if on_step is not None:
                on_step(report)
            if training.step % settings.checkpoint_steps == 0 or training.step == training.total:
                tensors, record = training.state()
                write_bundle(checkpoint, "checkpoint", tensors, {"run": run, **record})
    finally:
        base.routed.set_training(False)
        base.routed.detach()
    subjects = frozenset(subject for example in examples for subject in example.subjects)
    record = {
        "run": run,
        "settings": settings.model_dump(),
        "data_fingerprint": data_fingerprint(examples),
        "examples": len(examples),
        "steps": training.total,
        "tokens": training.tokens,
        "curve": training.curve,
        "seconds_of_last_run": time.perf_counter() - started,
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    return Expert(name, base.identity, settings.scale, training.factors.final(), subjects, record)


def _resume(training: ExpertTraining, checkpoint: Path, run: str) -> None:
    try:
        tensors, record = read_bundle(checkpoint, "checkpoint")
    except MissingData:
        return
    if record["run"] == run:
        training.load_state(tensors, record)
