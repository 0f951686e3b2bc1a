"""Stage I: one expert on one knowledge type (STAF-LLM, Algorithm 1 and appendix A.1 to A.6).

Each step: loss at answer positions, its gradient, the gradient of the orthogonality penalty, importance of every triplet,
one AdamW step, then the mask. The examples of a step may be computed in parts, whose gradients are summed. The whole state is
saved every `checkpoint_steps`; the same command resumes from it and ends with the same bytes as a run that was never stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.data.example import Example
from staf.errors import ConfigError, TrainingFailed
from staf.experts.adalora import budget
from staf.experts.checkpoints import Checkpoints, Log
from staf.experts.parallel import ALONE, World
from staf.experts.recipe import ExpertRecipe
from staf.experts.recompute import recomputing
from staf.experts.store import Expert
from staf.experts.trainable import TrainableFactors
from staf.lm.base import Base
from staf.lm.batches import Batch, Encoded, collate, encode, epoch_order
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
    seconds: float
    learning_rate: float

    @property
    def numbers(self) -> dict[str, float]:
        """What is kept of a step for good, by name."""
        return {
            "loss": self.loss, "penalty": self.penalty, "kept": self.kept, "tokens": self.tokens,
            "tokens_per_second": self.tokens / self.seconds, "learning_rate": self.learning_rate,
        }  # fmt: skip


OnStep = Callable[[StepReport], None]

TENSORS = ("flat", "average", "uncertainty", "mask", "first", "second", "random")
RECORD = ("step", "tokens", "curve")
"""What the state of a training is."""


class ExpertTraining:
    """The state of one expert's training, and one step of it; its factors are attached to the base from the start."""

    def __init__(self, base: Base, items: Sequence[Encoded], settings: ExpertRecipe, world: World = ALONE) -> None:
        self.base, self.items, self.settings, self.world = base, items, settings, world
        self.lengths = [len(item.tokens) for item in items]
        self.total = planned_steps(len(items), settings)
        self.step = 0
        self.tokens = 0
        self.curve: list[float] = []
        self.order: tuple[int, list[list[int]]] = (-1, [])
        self.factors = TrainableFactors(
            base.lora.shapes, settings.initial_rank, settings.seed, base.device, base.dtype, settings.start
        )
        self.parameter = torch.nn.Parameter(self.factors.flat)
        self.parameter.grad = self.factors.grad
        self.optimizer = torch.optim.AdamW([self.parameter], lr=settings.learning_rate, weight_decay=0.0, fused=True)
        self.random = torch.Generator(base.device).manual_seed(settings.seed).get_state()
        base.lora.attach(*self.factors.views())

    def next_batch(self) -> Batch:
        """The batch of this step, all parts of it; it depends on the seed and the step alone."""
        per_epoch = -(-len(self.items) // self.settings.batch_size)
        epoch, place = divmod(self.step, per_epoch)
        if self.order[0] != epoch:
            self.order = (epoch, epoch_order(self.lengths, self.settings.batch_size, self.settings.seed, epoch))
        chosen = [self.items[i] for i in self.order[1][place]]
        batch = collate(chosen, self.base.tokenizer.pad_token_id or 0, self.base.device)
        return replace(batch, prefix_length=0) if self.settings.checkpoint_activations else batch

    def run_step(self) -> StepReport:
        """One optimiser step.

        Raises:
            TrainingFailed: the loss or its gradient is not a number; names the example ids. The state is still that of the
                step before.
        """
        settings, factors, started = self.settings, self.factors, time.perf_counter()
        batch = self.next_batch()
        loss, random = self._backward(batch)
        penalty = factors.add_orthogonality(settings.orthogonality)
        self._check_number("gradient", torch.stack(torch.aminmax(factors.grad)), batch)
        self.random = random
        rate = settings.learning_rate * rate_factor(self.step, self.total)
        scores = factors.scores(settings.importance, settings.beta1, settings.beta2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()  # Eq. A.3
        keep = self._budget()
        if self.step <= self.total - settings.final_steps:
            factors.cut(scores, keep)
        else:
            factors.apply_mask()
        tokens = int(sum(len(self.items[i].tokens) for i in self._current()))
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.curve.append(loss)
        seconds = time.perf_counter() - started
        return StepReport(self.step, self.total, loss, penalty, keep, tokens, seconds, rate)

    def _current(self) -> list[int]:
        return self.order[1][self.step % len(self.order[1])]

    def _budget(self) -> int:
        s = self.settings
        return budget(
            self.step, matrices=len(self.factors.names), initial_rank=s.initial_rank, target_rank=s.target_rank,
            warmup=s.warmup_steps, final=s.final_steps, total=self.total,
        )  # fmt: skip

    def _backward(self, batch: Batch) -> tuple[float, Tensor]:
        """Mean loss of the batch, whose gradient is added to the flat gradient; and the state of chance after it."""
        predicted = int(batch.answer.sum())
        leaf, loss = self.factors.begin_step(), 0.0
        with drawing_from(self.random, self.base.device) as random:
            self.world.own_draws(self.settings.seed, self.step)
            for part in parts(batch, self.settings.accumulation):
                gains = (leaf * self.settings.scale).to(self.base.dtype)  # (M, r)
                self.base.lora.set_rank_scale(dict(zip(self.factors.names, gains.unbind(), strict=True)))
                share = answer_loss(self.base, self.world.rows(part))[0] / predicted
                whole = self.world.sum_(share.detach().clone())
                self._check_number("loss", whole, part)
                share.backward()
                loss += whole.item()
            self.world.sum_(self.factors.grad)
            return loss, random()

    def _check_number(self, what: str, found: Tensor, batch: Batch) -> None:
        if not bool(torch.isfinite(found).all()):
            raise TrainingFailed(
                f"the {what} of step {self.step + 1} is {found.detach().sum().item()}; nothing was changed by it. "
                f"Examples: {', '.join(batch.example_ids)}. Lower learning_rate, or take these examples out."
            )

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
            "step": torch.tensor(float(record["step"]), device=self.base.device),
            "exp_avg": tensors["first"].to(self.base.device),
            "exp_avg_sq": tensors["second"].to(self.base.device),
        }
        self.random = tensors["random"]
        self.step, self.tokens, self.curve = record["step"], record["tokens"], list(record["curve"])


@contextmanager
def drawing_from(state: Tensor, device: torch.device) -> Iterator[Callable[[], Tensor]]:
    """Within the block `device` draws from this state of chance, and afterwards from its own again.

    Yields:
        what gives the state now.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        if cuda:
            torch.cuda.set_rng_state(state, device)
            yield lambda: torch.cuda.get_rng_state(device)
        else:
            torch.set_rng_state(state)
            yield torch.get_rng_state


def parts(batch: Batch, count: int) -> list[Batch]:
    """A batch in at most `count` parts of like size, which keep its width."""
    size = -(-len(batch.example_ids) // count)
    cuts = [slice(start, start + size) for start in range(0, len(batch.example_ids), size)]
    return [Batch(batch.ids[cut], batch.answer[cut], batch.example_ids[cut], batch.prefix_length) for cut in cuts]


def planned_steps(examples: int, settings: ExpertRecipe) -> int:
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


def training_digest(base: dict[str, str], examples: Sequence[Example], settings: ExpertRecipe) -> str:
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
    settings: ExpertRecipe,
    checkpoint: Path,
    on_step: OnStep | None = None,
    log: Log | None = None,
    world: World = ALONE,
) -> Expert:
    """Train one expert from the start, or from its newest whole checkpoint.

    Args:
        examples: training examples; none of them may be a test example.
        checkpoint: folder for the state; it is left behind for the caller to remove once the expert is saved.
        log: told which checkpoint it goes on from, and which it passed over and why.
        world: the processes that compute it together; all return the expert, one writes checkpoints.

    Raises:
        TrainingFailed: no examples, or a loss that is not a number; the state before it is saved. ConfigError: the steps
            cannot be planned. DamagedFile: no checkpoint is whole. StafError: a checkpoint cannot be written.
    """
    if not examples:
        raise TrainingFailed(f"no examples to train '{name}' on. See what there is: staf data list")
    run = training_digest(base.identity, examples, settings)
    checkpoints = Checkpoints(checkpoint, run, log or (lambda text: None))
    items = [encode(example, base.tokenizer, settings.max_length) for example in examples]
    training = ExpertTraining(base, items, settings, world)
    found = checkpoints.load(TENSORS, RECORD)
    if found is not None:
        training.load_state(*found)
    world.check_same(int(run[:15], 16), "training (base, examples, settings)")
    world.check_same(training.step, "step to go on from")
    base.lora.set_training(True, settings.dropout)
    started = time.perf_counter()
    try:
        with recomputing(base, settings.checkpoint_activations):
            _run_steps(training, checkpoints, on_step)
    finally:
        base.lora.set_training(False)
        base.lora.detach()
    dedup_keys = frozenset(dedup_key for example in examples for dedup_key in example.dedup_keys)
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
    return Expert(name, base.identity, training.factors.folded(settings.scale), dedup_keys, record)


def _run_steps(training: ExpertTraining, checkpoints: Checkpoints, on_step: OnStep | None) -> None:
    """All steps that are left, with a checkpoint every so often, at the end, and before a step that fails."""
    while training.step < training.total:
        try:
            report = training.run_step()
        except TrainingFailed:
            _keep(training, checkpoints)
            raise
        if on_step is not None:
            on_step(report)
        if training.step % training.settings.checkpoint_steps == 0 or training.step == training.total:
            _keep(training, checkpoints)


def _keep(training: ExpertTraining, checkpoints: Checkpoints) -> None:
    """Save the state where it is not saved yet: process 0 writes, the others wait for it."""
    if training.world.leads and training.step > 0 and not checkpoints.has(training.step):
        checkpoints.save(training.step, *training.state())
    training.world.barrier()
