"""Stage I: one expert on one knowledge type (STAF-LLM, Algorithm 1 and appendix A.1 to A.6).

Each step: loss at answer positions, its gradient, the gradient of the orthogonality penalty, importance of every triplet,
one AdamW step, then the mask. The complete state is saved every `save_steps`; re-running the command resumes from it and ends
with the same bytes as an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from staf.compute import ComputeOptions, compute_record, numerics
from staf.data.example import Example
from staf.data.privacy import trained_keys
from staf.errors import ExpertMismatch, TrainingFailed
from staf.experts.adalora import TrainableFactors, budget
from staf.experts.checkpoint import Checkpoints
from staf.experts.distributed import SINGLE_PROCESS, World, is_sharded
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import Expert
from staf.lm.batches import Batch, Encoded, collate, encode, epoch_order
from staf.lm.loss import answer_loss
from staf.lm.model import Base, decoder_layers
from staf.log import Log


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
        kept = {name: getattr(self, name) for name in ("loss", "penalty", "kept", "tokens", "learning_rate")}
        return {**kept, "tokens_per_second": self.tokens / self.seconds}


OnStep = Callable[[StepReport], None]


class ExpertTraining:
    """The state of one expert's training, and one step of it; its factors are attached to the base from the start."""

    def __init__(
        self, base: Base, items: Sequence[Encoded], recipe: ExpertRecipe, options: ComputeOptions | None = None,
        world: World = SINGLE_PROCESS,
    ) -> None:  # fmt: skip
        self.base, self.items, self.recipe, self.world = base, items, recipe, world
        self.options = options or ComputeOptions()
        self.lengths = [len(item.tokens) for item in items]
        self.total = recipe.planned_steps(len(items))
        self.tinit, self.tfinal = recipe.schedule(self.total)
        self.step, self.tokens, self.curve = 0, 0, list[float]()
        self.order: tuple[int, list[list[int]]] = (-1, [])
        self.factors = TrainableFactors(trainable_shapes(base), recipe.initial_rank, recipe.seed, base.device, recipe.init)
        self.parameter = self.factors.master_params
        self.optimizer = torch.optim.AdamW([self.parameter], lr=recipe.learning_rate, weight_decay=0.0, fused=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block the base computes as in training; afterwards it is the original model."""
        self.base.lora.set_training(True, self.recipe.dropout)
        try:
            with gradient_checkpointing(self.base, self.options.gradient_checkpointing):
                yield
        finally:
            self.base.lora.set_training(False)
            self.base.lora.detach()

    def next_batch(self) -> Batch:
        """The batch of this step, all micro-batches of it; it depends on the seed and the step only."""
        per_epoch = -(-len(self.items) // self.recipe.batch_size)
        epoch, index = divmod(self.step, per_epoch)
        if self.order[0] != epoch:
            self.order = (epoch, epoch_order(self.lengths, self.recipe.batch_size, self.recipe.seed, epoch))
        chosen = [self.items[i] for i in self.order[1][index]]
        batch = collate(chosen, self.base.device)
        recompute_prefix = self.options.gradient_checkpointing or is_sharded(self.base)
        return replace(batch, prefix_length=0) if recompute_prefix else batch

    def run_step(self) -> StepReport:
        """One optimiser step.

        Raises:
            TrainingFailed: the loss or its gradient is not finite; names the example ids. The state is still that of the step
                before.
        """
        recipe, factors, started = self.recipe, self.factors, time.perf_counter()
        batch = self.next_batch()
        loss = self._backward(batch)
        penalty = factors.add_orthogonality(recipe.orth_reg_weight)
        self._check_finite("gradient", torch.stack(torch.aminmax(factors.grad)), batch)
        if recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameter, recipe.max_grad_norm)
        scores = factors.scores(recipe.importance, recipe.beta1, recipe.beta2)
        rate = recipe.learning_rate * lr_multiplier(self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()  # Eq. A.3
        keep = budget(
            self.step, modules=len(factors.names), initial_rank=recipe.initial_rank, target_rank=recipe.target_rank,
            tinit=self.tinit, tfinal=self.tfinal, total=self.total,
        )  # fmt: skip
        if self.step <= self.total - self.tfinal:
            factors.prune_to_budget(scores, keep)
        else:
            factors.apply_mask()
        tokens = sum(self.lengths[i] for i in self.order[1][self.step % len(self.order[1])])
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.curve.append(loss)
        return StepReport(self.step, self.total, loss, penalty, keep, tokens, time.perf_counter() - started, rate)

    def _backward(self, batch: Batch) -> float:
        """Mean loss of the batch, whose gradient replaces the flat gradient."""
        predicted = int(batch.answer.sum())
        self.factors.grad.zero_()
        loss = 0.0
        with torch.random.fork_rng(devices=[self.base.device] if self.base.device.type == "cuda" else []):
            self.world.seed_step(self.recipe.seed, self.step)
            for micro_batch in micro_batches(batch, self.options.gradient_accumulation_steps):
                self.base.lora.attach(self.factors.modules(self.base.dtype, self.recipe.lora_scaling))
                share = answer_loss(self.base, self.world.rows(micro_batch))[0] / predicted
                total = self.world.all_reduce(share.detach().clone())
                self._check_finite("loss", total, micro_batch)
                share.backward()
                loss += total.item()
            self.world.all_reduce(self.factors.grad)
        return loss

    def _check_finite(self, what: str, found: Tensor, batch: Batch) -> None:
        if not bool(torch.isfinite(found).all()):
            raise TrainingFailed(
                f"the {what} of step {self.step + 1} is {found.detach().sum().item()}; nothing was changed by it. "
                f"Examples: {', '.join(batch.example_ids)}. Lower learning_rate, set max_grad_norm=1, or remove these examples."
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and record of a checkpoint."""
        moments = self.optimizer.state[self.parameter]
        moments = {name: moments.get(name, torch.zeros_like(self.factors.grad)) for name in ("exp_avg", "exp_avg_sq")}
        return {**self.factors.state(), **moments}, {"step": self.step, "tokens": self.tokens, "curve": self.curve}

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self.factors.load_state(tensors)
        moments = {name: tensors[name].to(self.base.device) for name in ("exp_avg", "exp_avg_sq")}
        step = torch.tensor(float(record["step"]), device=self.base.device)
        self.optimizer.state[self.parameter] = {"step": step, **moments}
        self.step, self.tokens, self.curve = record["step"], record["tokens"], list(record["curve"])


@contextmanager
def gradient_checkpointing(base: Base, enabled: bool = True) -> Iterator[None]:
    """Within the block the decoder layers of `base` keep only their input and are recomputed in the backward pass.

    Not by transformers' own switch, which acts in training mode only and changed its name in 5.20.
    """
    if not enabled:
        yield
        return
    layers = list(decoder_layers(base.model)[1])
    for layer in layers:
        layer.forward = partial(recomputed, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def micro_batches(batch: Batch, count: int) -> list[Batch]:
    """A batch in at most `count` parts of similar size, which keep its width."""
    size = -(-len(batch.example_ids) // count)
    parts = zip(batch.ids.split(size), batch.answer.split(size), strict=True)
    return [replace(batch, ids=ids, answer=answer, example_ids=batch.example_ids[i * size : (i + 1) * size])
            for i, (ids, answer) in enumerate(parts)]  # fmt: skip


def lr_multiplier(step: int, total: int) -> float:
    """Share of the learning rate at a step: up over the first 5 percent, then straight down to 0."""
    warmup = max(total // 20, 1)
    return min((step + 1) / warmup, (total - step) / max(total - warmup, 1))


def training_digest(base: dict[str, Any], examples: Sequence[Example], recipe: ExpertRecipe) -> str:
    """Sixteen hexadecimal digits that name a training: base, examples, recipe."""
    parts = (base["fingerprint"], recipe.digest(), data_fingerprint(examples))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def data_fingerprint(examples: Sequence[Example]) -> str:
    """Sixteen hexadecimal digits of the examples, as read by the model and in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update("\x1f".join((example.id, example.query, example.context, example.answer)).encode())
    return digest.hexdigest()[:16]


def trainable_shapes(base: Base) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of what an expert of this base adapts; raises ExpertMismatch where that is nothing."""
    if not base.lora.layers:
        raise ExpertMismatch(
            f"the type {base.model.config.model_type} of {base.name} has no linear maps (nn.Linear) in decoder layers, so no "
            "expert can be trained on it. It can be scored: --method original."
        )
    return base.lora.shapes


def train_expert(
    base: Base,
    name: str,
    examples: Sequence[Example],
    recipe: ExpertRecipe,
    checkpoint: Path,
    on_step: OnStep | None = None,
    log: Log | None = None,
    world: World = SINGLE_PROCESS,
    options: ComputeOptions | None = None,
) -> Expert:
    """Train one expert from the start, or from its newest intact checkpoint.

    Args:
        examples: training examples; none of them may be a test example.
        checkpoint: folder for the state; the caller deletes it once the expert is saved.
        log: gets which checkpoint is resumed, and which are skipped and why.
        world: the processes that train it together; all return the expert, one writes checkpoints.

    Raises:
        TrainingFailed: no examples, or a loss that is not finite; the state before it is saved. DamagedFile: no checkpoint is
            intact. ConfigError: it is of another dtype, device or number of threads. StafError: one cannot be written.
    """
    if not examples:
        raise TrainingFailed(f"no examples to train '{name}' on. List the data sets: staf data list")
    log = log or (lambda text: None)
    run = training_digest(base.identity, examples, recipe)
    checkpoints = Checkpoints(checkpoint, f"{run}/{base.identity.get('tokenizer')}", log, numerics(base))
    items = [encode(example, base.tokenizer, recipe.max_length) for example in examples]
    training = ExpertTraining(base, items, recipe, options, world)
    if training.tinit != recipe.tinit:
        log(f"{name}: {training.total} steps are too few for tinit {recipe.tinit} and tfinal {recipe.tfinal}: "
            f"{training.tinit} and {training.tfinal} are taken")  # fmt: skip
    if (found := checkpoints.load(*training.state())) is not None:
        training.load_state(*found)
    world.check_same(int(run[:15], 16), "training (base, examples, recipe)")
    world.check_same(training.step, "step to resume from")
    started = time.perf_counter()
    with training.running():
        _run_steps(training, checkpoints, on_step)
    record = {
        "run": run, "recipe": recipe.model_dump(), "compute": compute_record(base, training.options),
        "schedule": {"steps": training.total, "tinit": training.tinit, "tfinal": training.tfinal},
        "data_fingerprint": data_fingerprint(examples), "examples": len(examples), "steps": training.total,
        "tokens": training.tokens, "curve": training.curve, "seconds_of_last_run": time.perf_counter() - started,
    }  # fmt: skip
    return Expert(name, base.identity, training.factors.folded(recipe.lora_scaling), trained_keys(examples), record)


def _run_steps(training: ExpertTraining, checkpoints: Checkpoints, on_step: OnStep | None) -> None:
    """All steps that are left, with a checkpoint every `save_steps`, at the end, and before a step that fails."""

    def save() -> None:  # the main process writes, the others wait for it
        if training.world.is_main_process and training.step > 0 and not checkpoints.has(training.step):
            checkpoints.save(training.step, *training.state())
        training.world.barrier()

    while training.step < training.total:
        try:
            report = training.run_step()
        except TrainingFailed:
            save()
            raise
        if on_step is not None:
            on_step(report)
        if training.step % training.options.save_steps == 0 or training.step == training.total:
            save()
