"""Log-likelihood of several answers after one prompt, in one forward.

The answers follow the prompt as branches of one sequence; a mask lets each branch see the prompt and itself, and positions
go on from the prompt's end, so every branch is read as if it stood alone:

    prompt p p p p | answer 1: a a | answer 2: b b b        position 0 1 2 3 | 4 5 | 4 5 6

A prompt is thus computed once, however many labels there are. Equal to a full forward for each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.data.batches import by_length, encode_answer, encode_prompt, rounded, shared_prefix
from staf.data.example import Example
from staf.errors import BadData
from staf.lm.base import Base

LOGIT_ROWS = 256
"""Rows of logits at a time: 256 of the default base's 49,152 are 50 MB in float32."""

OnDone = Callable[[int], None]
"""called with the number of examples that have just been scored"""


@dataclass(frozen=True, slots=True)
class Branched:
    """A prompt and its candidate answers as one sequence."""

    tokens: tuple[int, ...]
    """prompt, then each answer without its last token"""
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    """0 for the prompt, 1 + index for an answer"""
    answers: tuple[tuple[int, ...], ...]


def branch(prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Branched:
    """Lay answers out after their prompt."""
    tokens, positions, owner = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    for index, answer in enumerate(answers):
        body = list(answer[:-1])  # the last token predicts nothing
        tokens += body
        positions += range(len(prompt), len(prompt) + len(body))
        owner += [index + 1] * len(body)
    return Branched(tuple(tokens), tuple(positions), tuple(owner), tuple(tuple(a) for a in answers))


def visible(owner: Tensor) -> Tensor:
    """Who sees whom: owner (B, T), -1 for padding, to bool (B, T, T), True where row sees column."""
    width = owner.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=owner.device).tril()
    same = owner[:, :, None] == owner[:, None, :]
    prompt = (owner == 0)[:, None, :]
    return causal & (same | prompt)  # (B, T, T)


@torch.no_grad()
def score_batch(base: Base, items: Sequence[Branched]) -> list[Tensor]:
    """Summed log-likelihood of each answer of each item: a list of (answers,) float32."""
    width = rounded(max(len(item.tokens) for item in items))
    pad = base.tokenizer.pad_token_id or 0
    ids = torch.tensor([(*i.tokens, *(pad,) * (width - len(i.tokens))) for i in items])
    positions = torch.tensor([(*i.positions, *(0,) * (width - len(i.tokens))) for i in items])
    owner = torch.tensor([(*i.branch, *(-1,) * (width - len(i.tokens))) for i in items])
    seen = visible(owner)[:, None]  # (B, 1, T, T)
    mask = torch.zeros(seen.shape, dtype=base.dtype).masked_fill_(~seen, torch.finfo(base.dtype).min)
    shared = shared_prefix([item.tokens for item in items], min(item.branch.count(0) for item in items) - 1)
    hidden = base.hidden(
        ids.to(base.device),
        shared,
        position_ids=positions[:, shared:].to(base.device),
        attention_mask=mask[:, :, shared:].to(base.device),
    )  # (B, T - shared, d)
    rows, places, targets = _targets(items)
    chosen = _log_chances(base, hidden[rows, [place - shared for place in places]], targets)  # (N,)
    lengths = [len(answer) for item in items for answer in item.answers]
    sums = torch.stack([part.sum() for part in chosen.split(lengths)])
    return list(sums.split([len(item.answers) for item in items]))


def _log_chances(base: Base, hidden: Tensor, targets: list[int]) -> Tensor:
    """Log p of one token after each hidden state (N, d), (N,) float32; never more than a block of logits at a time."""
    found = []
    for start in range(0, hidden.shape[0], LOGIT_ROWS):
        logits = base.logits(hidden[start : start + LOGIT_ROWS])  # (rows, V)
        wanted = torch.tensor(targets[start : start + LOGIT_ROWS], device=logits.device)
        found.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(found).cpu()


def _targets(items: Sequence[Branched]) -> tuple[list[int], list[int], list[int]]:
    """Row and place of the hidden state that predicts each answer token, and that token."""
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row, item in enumerate(items):
        prompt = item.branch.count(0)
        start = prompt
        for answer in item.answers:
            body = len(answer) - 1
            rows += [row] * len(answer)
            places += [prompt - 1, *range(start, start + body)]
            targets += answer
            start += body
    return rows, places, targets


def score_labels(
    base: Base,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    token_budget: int,
    length_normalised: bool,
    on_done: OnDone | None = None,
) -> list[Tensor]:
    """Score of every label of every example, with the base as it is routed now.

    Returns:
        for each example (labels,) float32: log p(label | prompt), divided by its tokens where length_normalised.

    Raises:
        BadData: an example has no labels.
    """
    items = [_prepare(base, example, max_tokens) for example in examples]
    scores: list[Tensor] = [torch.empty(0)] * len(items)
    for group in by_length([len(item.tokens) for item in items], token_budget):
        for index, sums in zip(group, score_batch(base, [items[i] for i in group]), strict=True):
            lengths = torch.tensor([len(answer) for answer in items[index].answers])
            scores[index] = sums / lengths if length_normalised else sums
        if on_done is not None:
            on_done(len(group))
    return scores


def _prepare(base: Base, example: Example, max_tokens: int) -> Branched:
    if not example.labels:
        raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
    answers = [encode_answer(label, base.tokenizer) for label in example.labels]
    longest = max(len(answer) for answer in answers)
    return branch(encode_prompt(example, base.tokenizer, max_tokens - longest), answers)
