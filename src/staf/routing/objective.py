"""What a router minimises: L_task + gamma_1 L_r (Eq. 6) of its parameters, with gradients or for candidates without.

L_task is Eq. 5 (`LMLoss`) or, not in the papers, the cross-entropy of the right label among all labels of its example
(`LabelLoss`): Eq. 5 asks for a likely answer, a task is scored by whether it is likelier than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from staf.data.example import Example
from staf.data.splits import seeded_rng
from staf.errors import ConfigError, ExpertMismatch, MissingData
from staf.lm.base import Base
from staf.lm.batches import Encoded, collate, encode, encode_answer, encode_prompt
from staf.lm.loss import answer_logprobs, answer_loss, token_logprobs
from staf.lm.prefix_cache import PrefixKV, hidden_states, prefix_batches
from staf.lm.scoring import ScoringRequest, loglikelihoods, scoring_requests
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.router import alpha_penalty, expert_weights, num_params, weight_penalty

TOKEN_BUDGET = 8192
"""Tokens of a batch without gradients."""
LABELS_A_STEP = 6
"""Labels of an example in a gradient step: the right one and a fixed draw of the others."""


def examples_a_step(recipe: RouterRecipe) -> int:
    """Examples of a gradient step; fewer where each is repeated for its labels, so that memory stays the same."""
    return recipe.batch_size if recipe.objective == "lm" else max(recipe.batch_size // LABELS_A_STEP, 1)


class LMLoss:
    """Eq. 5: mean of -log p over the answer tokens of encoded examples.

    Raises:
        MissingData: no examples.
    """

    def __init__(self, base: Base, items: Sequence[Encoded]) -> None:
        if not items:
            raise MissingData("no examples to compute a loss on. Give at least one.")
        self.base, self.items = base, items
        self.lengths = [len(item.tokens) for item in items]
        """tokens of each example"""

    def batch_loss(self, batch: Sequence[int]) -> Tensor:
        """Mean over the answer tokens of these examples, (), with gradients."""
        items = [self.items[index] for index in batch]
        loss, count = answer_loss(self.base, collate(items, self.base.device))
        return loss / count  # Eq. 5

    @torch.no_grad()
    def __call__(self) -> float:
        """Mean over all answer tokens; each shared prompt prefix is prefilled once."""
        prompts = [item.tokens[: item.answer_start] for item in self.items]
        answers = [len(item.tokens) - item.answer_start for item in self.items]
        batches = prefix_batches(self.base, prompts, [length - 1 for length in answers], TOKEN_BUDGET)
        sums = [self._sum([self.items[i] for i in batch], prefix) for batch, prefix in batches]
        return float(torch.stack(sums).double().sum()) / sum(answers)  # Eq. 5

    def _sum(self, items: Sequence[Encoded], prefix: PrefixKV | None) -> Tensor:
        """Sum of -log p of the answer tokens of some examples that continue from a prefix, ()."""
        start, device = 0 if prefix is None else prefix.length, self.base.device
        hidden = hidden_states(self.base, [item.tokens[:-1] for item in items], prefix)  # (B, T, d)
        rows = [row for row, item in enumerate(items) for _ in item.tokens[item.answer_start :]]
        before = [i - 1 - start for item in items for i in range(item.answer_start, len(item.tokens))]
        targets = torch.tensor([token for item in items for token in item.tokens[item.answer_start :]], device=device)
        states = hidden[torch.tensor(rows, device=device), torch.tensor(before, device=device)]  # (n, d)
        return -token_logprobs(self.base, states, targets).sum()


class LabelLoss:
    """Mean of -log of the right label's share among all labels, each by exp of its log-likelihood without an end token.

    Args:
        max_length: tokens of a prompt and its longest label. seed: of the draw of labels in gradient steps.

    Raises:
        ConfigError: an answer is not one of two or more labels, or a query is too long.
    """

    def __init__(self, base: Base, examples: Sequence[Example], max_length: int, seed: int) -> None:
        for example in examples:
            if example.output_type != "multiple_choice" or example.answer not in example.labels or len(example.labels) < 2:
                raise ConfigError(
                    f"objective = label_ce needs answers that are one of two or more labels; {example.id} has the output type "
                    f"'{example.output_type}' and {len(example.labels)} labels. Use objective = lm for this task."
                )
        self.base, self.examples, self.max_length, self.seed = base, examples, max_length, seed
        self.right = [example.labels.index(example.answer) for example in examples]

    @cached_property
    def requests(self) -> list[ScoringRequest]:
        """All labels of each example."""
        return scoring_requests(self.base, self.examples, self.max_length)

    @cached_property
    def rows(self) -> list[list[Encoded]]:
        """Of each example: the prompt with the right label, then with a draw of the others."""
        return [self._rows(example) for example in self.examples]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example's longest row."""
        return [max(len(row.tokens) for row in rows) for rows in self.rows]

    @torch.no_grad()
    def __call__(self) -> float:
        """Mean over all examples and all their labels."""
        scores = loglikelihoods(self.base, self.requests, token_budget=TOKEN_BUDGET, length_normalised=False)
        shares = [own.log_softmax(0)[right] for own, right in zip(scores, self.right, strict=True)]
        return -float(torch.stack(shares).double().mean())

    def batch_loss(self, batch: Sequence[int]) -> Tensor:
        """Mean over these examples and their drawn labels, (), with gradients."""
        rows = [row for index in batch for row in self.rows[index]]
        logprobs = answer_logprobs(self.base, collate(rows, self.base.device))  # (N,)
        parts = logprobs.split([len(row.tokens) - row.answer_start for row in rows])
        scores = torch.stack([part.sum() for part in parts])  # (rows,)
        shares = [own.log_softmax(0)[0] for own in scores.split([len(self.rows[index]) for index in batch])]
        return -torch.stack(shares).mean()

    def _rows(self, example: Example) -> list[Encoded]:
        others = [label for label in example.labels if label != example.answer]
        if len(others) >= LABELS_A_STEP:
            others = seeded_rng(f"labels:{self.seed}:{example.id}").sample(others, LABELS_A_STEP - 1)
        answers = [encode_answer(label, self.base.tokenizer) for label in (example.answer, *others)]
        prompt = encode_prompt(example, self.base.tokenizer, self.max_length - max(map(len, answers)))
        return [Encoded(example.id, tuple(prompt + answer), len(prompt)) for answer in answers]


TaskLoss = LMLoss | LabelLoss
"""L_task on some examples under the base's current weights: called, or `batch_loss` of some with gradients."""


def candidate_losses(mixture: Mixture, weights: Tensor, granularity: str, loss: TaskLoss) -> list[float]:
    """L_task of each of C candidate weights (C, G, K), without gradients. Afterwards the base is the original model.

    Raises:
        ExpertMismatch: weights of another shape.
    """
    if weights.dim() != 3:
        raise ExpertMismatch(
            f"candidates of shape {tuple(weights.shape)}: (candidates, groups, experts) expected. "
            "Give one candidate as weights[None]."
        )
    found = []
    for candidate in weights.detach():
        with mixture.applied(candidate, granularity, tokens=sum(loss.lengths)):
            found.append(loss())
    return found


class RouterObjective:
    """The loss of a router's parameters on encoded examples."""

    def __init__(self, mixture: Mixture, recipe: RouterRecipe) -> None:
        self.mixture, self.recipe = mixture, recipe
        self.descriptor = mixture.descriptor(recipe.granularity).cpu()
        self.num_params = num_params(self.descriptor.shape[0], self.descriptor.shape[1], recipe)

    def loss_on(self, examples: Sequence[Example]) -> TaskLoss:
        """The recipe's L_task on some examples."""
        base, recipe = self.mixture.base, self.recipe
        if recipe.objective == "label_ce":
            return LabelLoss(base, examples, recipe.max_length, recipe.seed)
        return LMLoss(base, [encode(e, base.tokenizer, recipe.max_length, recipe.label_end) for e in examples])

    def weights(self, params: Tensor) -> Tensor:
        """Expert weights (G, K) of parameters (n,)."""
        return expert_weights(params, self.descriptor, self.recipe)

    def penalty(self, params: Tensor) -> Tensor:
        """gamma_1 L_r of parameters (n,)."""
        if self.recipe.penalty == "alpha":
            return self.recipe.gamma_1 * alpha_penalty(params, len(self.descriptor), self.recipe)
        return self.recipe.gamma_1 * weight_penalty(self.weights(params))

    def total(self, params: Tensor, loss: TaskLoss, batch: Sequence[int]) -> Tensor:
        """L_total on some examples of a loss, (); gradients flow to the parameters (n,)."""
        self.mixture.set_weights(self.weights(params), self.recipe.granularity)
        task_loss = loss.batch_loss(batch)
        return task_loss + self.penalty(params).to(task_loss.device)  # Eq. 6

    @torch.no_grad()
    def task_losses(self, candidates: Sequence[Tensor], loss: TaskLoss) -> list[float]:
        """L_task of each candidate (n,), without gradients and without a penalty."""
        weights = torch.stack([self.weights(params) for params in candidates])
        return candidate_losses(self.mixture, weights, self.recipe.granularity, loss)

    @torch.no_grad()
    def values(self, candidates: Sequence[Tensor], loss: TaskLoss) -> list[float]:
        """L_total of each candidate (n,), without gradients."""
        losses = self.task_losses(candidates, loss)
        return [found + float(self.penalty(params)) for found, params in zip(losses, candidates, strict=True)]  # Eq. 6
