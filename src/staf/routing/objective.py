"""What a router is learned by: L_task + gamma_1 L_r (Eq. 6) of its numbers, with gradients or without.

L_task is Eq. 5, or what `staf.routing.labels` has beside it. Both settings of Stage II minimise the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from staf.data.example import Example
from staf.lm.base import Base
from staf.lm.batches import collate, encode
from staf.lm.loss import answer_loss
from staf.routing.candidates import CandidateLoss
from staf.routing.labels import LABELS_A_STEP, LabelLoss, LabelSteps
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.router import RouterShape, alpha_penalty, expert_weights, unflatten, weight_penalty

TOKEN_BUDGET = 8192
Judge = Callable[[Tensor], list[float]]
"""task loss of each of C candidates, from their weights (C, G, K)"""


def examples_a_step(settings: RouterRecipe) -> int:
    """Examples of a step of the descent: fewer where each is there once for every label, so that memory stays the same."""
    return settings.batch_size if settings.objective == "lm" else max(settings.batch_size // LABELS_A_STEP, 1)


class Steps(Protocol):
    """Examples that a descent takes in batches."""

    lengths: list[int]
    """tokens of each"""

    def loss(self, batch: Sequence[int]) -> Tensor:
        """Task loss of some of them under the weights that are set, ()."""


class AnswerSteps:
    """Eq. 5 of a few examples at a time: the mean of -log p over their answer tokens."""

    def __init__(self, base: Base, examples: Sequence[Example], max_length: int) -> None:
        self.base = base
        self.items = [encode(example, base.tokenizer, max_length) for example in examples]
        self.lengths = [len(item.tokens) for item in self.items]

    def loss(self, batch: Sequence[int]) -> Tensor:
        """Mean over the answer tokens of these examples."""
        chosen = [self.items[index] for index in batch]
        loss, count = answer_loss(self.base, collate(chosen, self.base.tokenizer.pad_token_id or 0, self.base.device))
        return loss / count  # Eq. 5


class RouterObjective:
    """The loss of a router's numbers on encoded examples."""

    def __init__(self, mixture: Mixture, settings: RouterRecipe) -> None:
        self.mixture, self.settings = mixture, settings
        self.descriptor = mixture.descriptor(settings.granularity).cpu()
        self.shape = RouterShape(
            groups=self.descriptor.shape[0],
            experts=self.descriptor.shape[1],
            null_expert=settings.null_expert,
            learned_scale=settings.learned_scale,
            temperature=settings.temperature,
            weighting=settings.weighting,
        )
        self._room: dict[str, Tensor] = {}

    def weights(self, numbers: Tensor) -> Tensor:
        """Expert weights (G, K) of the numbers (n,)."""
        return expert_weights(unflatten(numbers, self.shape), self.descriptor, self.shape)

    def penalty(self, numbers: Tensor) -> Tensor:
        """gamma_1 L_r of the numbers (n,)."""
        params = unflatten(numbers, self.shape)
        if self.settings.penalty == "alpha":
            value = alpha_penalty(params)
        else:
            value = weight_penalty(expert_weights(params, self.descriptor, self.shape))
        return self.settings.gamma_1 * value

    def total(self, numbers: Tensor, steps: Steps, batch: Sequence[int]) -> Tensor:
        """L_total of some of the examples of steps; gradients flow to the numbers."""
        self.mixture.set_weights(self.weights(numbers), self.settings.granularity)
        loss = steps.loss(batch)
        return loss + self.penalty(numbers).to(loss.device)  # Eq. 6

    def steps(self, examples: Sequence[Example]) -> Steps:
        """What gives the task loss of a few of these examples at a time, with gradients."""
        settings, base = self.settings, self.mixture.base
        if settings.objective == "label_ce":
            return LabelSteps(base, examples, settings.max_length, settings.seed)
        return AnswerSteps(base, examples, settings.max_length)

    def judge(self, examples: Sequence[Example]) -> Judge:
        """What gives the task loss of weights on these examples; make it once, and ask it often."""
        mixture, settings = self.mixture, self.settings
        if settings.objective == "label_ce":
            return LabelLoss(
                mixture,
                settings.granularity,
                examples,
                max_length=settings.max_length,
                token_budget=TOKEN_BUDGET,
                room=self._room,
            )
        items = [encode(example, mixture.base.tokenizer, settings.max_length) for example in examples]
        return CandidateLoss(mixture, settings.granularity, items, token_budget=TOKEN_BUDGET, room=self._room)

    @torch.no_grad()
    def task_losses(self, numbers: Sequence[Tensor], judge: Judge) -> list[float]:
        """L_task of each (n,) on the examples of a judge, without gradients and without a penalty."""
        return judge(torch.stack([self.weights(candidate) for candidate in numbers]))

    @torch.no_grad()
    def values(self, numbers: Sequence[Tensor], judge: Judge) -> list[float]:
        """L_total of each (n,) on the examples of a judge, without gradients."""
        losses = self.task_losses(numbers, judge)
        return [loss + float(self.penalty(candidate)) for loss, candidate in zip(losses, numbers, strict=True)]  # Eq. 6
