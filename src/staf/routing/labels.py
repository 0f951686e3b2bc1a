"""How well the right label is told from the others: what an answer's own likelihood does not say.

Eq. 5 asks that the right answer be likely, not that it be likelier than the wrong ones, and a task is scored by the second. So
this loss, which is not in the papers, is the mean over examples of -log of the right label's share among all labels of its
example, each weighed by exp of its mean log-likelihood a token, as evaluation ranks them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staf.data.example import Example
from staf.data.splits import dice
from staf.errors import ConfigError
from staf.lm.base import Base
from staf.lm.batches import Encoded, collate, encode_answer, encode_prompt
from staf.lm.loss import answer_logprobs
from staf.lm.scoring import loglikelihoods, scoring_requests
from staf.routing.candidates import weighted
from staf.routing.merge import Mixture

LABELS_A_STEP = 6
"""Labels of an example that a step of the descent weighs: the right one and a fixed draw of the others."""


def refuse_other_forms(examples: Sequence[Example]) -> None:
    """See that every example's answer is one of its labels.

    Raises:
        ConfigError: naming the first that is not.
    """
    odd = next(
        (e for e in examples if e.output_type != "multiple_choice" or e.answer not in e.labels or len(e.labels) < 2), None
    )
    if odd is not None:
        raise ConfigError(
            f"objective = label_ce needs answers that are one of two or more labels; {odd.id} has the "
            f"output type '{odd.output_type}' and {len(odd.labels)} labels. Use objective = lm for this task."
        )


class LabelLoss:
    """The loss of weights on some examples, all labels weighed, without gradients.

    Args:
        granularity: as in `Mixture.set_weights`. max_length: of a prompt and its longest label.
        token_budget: places of one batch. room: as in `staf.routing.candidates.weighted`.

    Raises:
        ConfigError: as `refuse_other_forms`, or a query that does not fit.
    """

    def __init__(
        self, mixture: Mixture, granularity: str, examples: Sequence[Example], *, max_length: int, token_budget: int,
        room: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        refuse_other_forms(examples)
        self.mixture, self.granularity, self.token_budget = mixture, granularity, token_budget
        self.questions = scoring_requests(mixture.base, examples, max_length)
        self.right = [example.labels.index(example.answer) for example in examples]
        self._room: dict[str, Tensor] = {} if room is None else room

    @torch.no_grad()
    def __call__(self, weights: Tensor) -> list[float]:
        """Loss of each of C candidates, from their weights (C, G, K). Afterwards the base is the original model."""
        return [self._loss(one) for one in weights.detach()]

    def _loss(self, weights: Tensor) -> float:
        with weighted(self.mixture, weights, self.granularity, self._room):
            scores = loglikelihoods(self.mixture.base, self.questions, token_budget=self.token_budget, length_normalised=True)
        shares = [own.log_softmax(0)[right] for own, right in zip(scores, self.right, strict=True)]
        return -float(torch.stack(shares).double().mean())


class LabelSteps:
    """The same loss of a few examples at a time, with gradients to the weights that are set.

    Args:
        seed: of the draw of labels where there are more than `LABELS_A_STEP`.

    Attributes:
        lengths: tokens of each example's longest row.
    """

    def __init__(self, base: Base, examples: Sequence[Example], max_length: int, seed: int) -> None:
        refuse_other_forms(examples)
        self.base = base
        self.rows = [self._rows(example, max_length, seed) for example in examples]
        self.lengths = [max(len(row.tokens) for row in rows) for rows in self.rows]

    def _rows(self, example: Example, max_length: int, seed: int) -> list[Encoded]:
        """Prompt and label of each label that is weighed, the right one first."""
        others = [label for label in example.labels if label != example.answer]
        if len(others) >= LABELS_A_STEP:
            others = dice(f"labels:{seed}:{example.id}").sample(others, LABELS_A_STEP - 1)
        answers = [encode_answer(label, self.base.tokenizer) for label in (example.answer, *others)]
        prompt = encode_prompt(example, self.base.tokenizer, max_length - max(map(len, answers)))
        return [Encoded(example.id, tuple(prompt + answer), len(prompt)) for answer in answers]

    def loss(self, batch: Sequence[int]) -> Tensor:
        """Mean over these examples, ()."""
        rows = [row for index in batch for row in self.rows[index]]
        pad = self.base.tokenizer.pad_token_id or 0
        chances = answer_logprobs(self.base, collate(rows, pad, self.base.device))  # (N,)
        parts = chances.split([len(row.tokens) - row.answer_start for row in rows])
        scores = torch.stack([part.mean() for part in parts])  # (rows,)
        shares = [own.log_softmax(0)[0] for own in scores.split([len(self.rows[index]) for index in batch])]
        return -torch.stack(shares).mean()
