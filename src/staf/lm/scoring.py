"""Log-likelihood of several answers after one prompt, each token computed once.

Prompts first, many at a time: their keys and values are kept. Then the answers, as a tree in which beginnings that they have
in common are there once (`staf.lm.trie`): a node sees its prompt and its ancestors, and its position is its depth.

    p p p p --- blue               blue, green and red are leaves: they are only predicted
           \\--- dark --- green     dark is computed once, at the fifth position
                    \\--- red

No token of a prompt ever attends to an answer, a leaf is only predicted, and logits are computed once for each node that has
children. For P tokens of a prompt and N such nodes of all its answers that is P + N tokens through the model and P * P / 2 +
N * (P + N) pairs in attention, where a forward for each of A answers takes A * P and A * P * P / 2. Equal to that forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from staf.data.batches import encode_answer, encode_prompt, rounded
from staf.data.example import Example
from staf.errors import BadData
from staf.lm.base import Base
from staf.lm.beginnings import in_batches
from staf.lm.prompts import Beginning, Prompts, read
from staf.lm.trie import Answer, Trie, forest, grow

LOGIT_ROWS = 256
"""Rows of logits at a time: 256 of the default base's 49,152 are 50 MB in float32."""
NODES = 512
"""Nodes of one tree at a time: more answers are several trees after the same prompt, so that no mask grows with N * N."""

OnDone = Callable[[int], None]
"""called with the number of examples that have just been scored"""
NO_ANSWERS = grow([])


@dataclass(frozen=True)
class Candidates:
    """The answers that a prompt may have, as trees."""

    lengths: Tensor
    """(answers,) tokens of each"""
    trees: tuple[Trie, ...]
    order: Tensor
    """(answers,) where each answer is among those of all trees, one tree after the other"""

    @property
    def nodes(self) -> int:
        """Places that the largest tree takes beside a prompt."""
        return max(tree.inner - 1 for tree in self.trees)


@dataclass(frozen=True)
class Question:
    """A prompt's tokens and its candidate answers."""

    prompt: tuple[int, ...]
    candidates: Candidates


def candidates(answers: Sequence[Answer]) -> Candidates:
    """Trees of answers (token ids), each of at most `NODES` nodes."""
    trees = forest(answers, NODES)
    given = [number for numbers, _ in trees for number in numbers]
    lengths = torch.tensor([len(answer) for answer in answers])
    return Candidates(lengths, tuple(tree for _, tree in trees), torch.tensor(given).argsort())


@torch.no_grad()
def score_batch(base: Base, questions: Sequence[Question], beginning: Beginning | None = None) -> list[Tensor]:
    """Summed log-likelihood of each answer of each question: a list of (answers,) float32.

    Args:
        beginning: what all prompts begin with, if it was computed before.
    """
    prompts = read(base, [question.prompt for question in questions], beginning, grows=False)
    rounds = max(len(question.candidates.trees) for question in questions)
    parts: list[list[Tensor]] = [[] for _ in questions]
    for index in range(rounds):
        trees = [q.candidates.trees[index] if index < len(q.candidates.trees) else NO_ANSWERS for q in questions]
        for row, sums in enumerate(_score_trees(prompts, trees)):
            parts[row].append(sums)
    return [torch.cat(part)[question.candidates.order] for part, question in zip(parts, questions, strict=True)]


def _score_trees(prompts: Prompts, trees: Sequence[Trie]) -> list[Tensor]:
    """Summed log-likelihood of each answer of one tree for each prompt: a list of (answers,) float32."""
    states = _states(prompts, trees)  # (inner nodes of all trees, d)
    starts = np.cumsum([0] + [tree.inner for tree in trees])
    rows = np.concatenate([start + np.array(tree.parents[1:]) for start, tree in zip(starts, trees, strict=False)])
    tokens = np.concatenate([tree.tokens[1:] for tree in trees])
    chances = _log_chances(prompts.base, states, torch.from_numpy(rows).long(), torch.from_numpy(tokens).long())
    found = []
    for tree, own in zip(trees, chances.split([len(tree.tokens) - 1 for tree in trees]), strict=True):
        answers, nodes = torch.from_numpy(tree.paths)
        found.append(torch.zeros(len(tree.ends)).index_add_(0, answers, own[nodes - 1]))
    return found


def _states(prompts: Prompts, trees: Sequence[Trie]) -> Tensor:
    """Hidden states of all nodes with children, tree by tree; that of a root is the prompt's last one."""
    longest = max(tree.inner - 1 for tree in trees)
    if not longest:
        return prompts.last
    shape = (len(trees), rounded(longest))
    ids, offsets = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    seen = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for row, tree in enumerate(trees):
        count = tree.inner - 1
        ids[row, :count] = torch.tensor(tree.tokens[1 : tree.inner])
        offsets[row, :count] = torch.tensor(tree.depths[1 : tree.inner]) - 1
        seen[row, :count, :count] = torch.from_numpy(tree.ancestors)
    device = prompts.base.device
    hidden = prompts.follow(ids.to(device), offsets.to(device), seen.to(device))  # (B, N, d)
    parts = [torch.cat([prompts.last[row, None], hidden[row, : tree.inner - 1]]) for row, tree in enumerate(trees)]
    return torch.cat(parts)


def _log_chances(base: Base, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Log p of each of E tokens after the state of its row, (E,) float32; never more than a block of logits at a time."""
    found = torch.empty(len(rows))
    for start in range(0, len(states), LOGIT_ROWS):
        logits = base.logits(states[start : start + LOGIT_ROWS])  # (block, V)
        inside = ((rows >= start) & (rows < start + LOGIT_ROWS)).nonzero()[:, 0]
        own, wanted = rows[inside].to(logits.device) - start, tokens[inside].to(logits.device)
        found[inside] = (logits[own, wanted] - logits.logsumexp(1)[own]).cpu()
    return found


def score_labels(
    base: Base,
    examples: Sequence[Example],
    *,
    max_length: int,
    token_budget: int,
    length_normalised: bool,
    on_done: OnDone | None = None,
) -> list[Tensor]:
    """Score of every label of every example, with the base as it is routed now.

    Args:
        max_length: of a prompt and its longest label; a longer context loses its end.
        token_budget: places of a batch, those of prompts and answers together; at least one example is in a batch.

    Returns:
        for each example (labels,) float32: log p(label | prompt), divided by its tokens where length_normalised.

    Raises:
        BadData: an example has no labels.
        ConfigError: a query does not fit into max_length even without its context.
    """
    return score_questions(
        base, questions_of(base, examples, max_length), token_budget=token_budget, length_normalised=length_normalised,
        on_done=on_done,
    )  # fmt: skip


def score_questions(
    base: Base,
    questions: Sequence[Question],
    *,
    token_budget: int,
    length_normalised: bool,
    on_done: OnDone | None = None,
) -> list[Tensor]:
    """As `score_labels`, of questions that were made before."""
    scores: list[Tensor] = [torch.empty(0)] * len(questions)
    prompts, after = [question.prompt for question in questions], [question.candidates.nodes for question in questions]
    for group, beginning in in_batches(base, prompts, after, token_budget):
        batch = [questions[i] for i in group]
        for index, question, sums in zip(group, batch, score_batch(base, batch, beginning), strict=True):
            scores[index] = sums / question.candidates.lengths if length_normalised else sums
        if on_done is not None:
            on_done(len(group))
    return scores


def questions_of(base: Base, examples: Sequence[Example], max_length: int) -> list[Question]:
    """Prompts and candidates of examples; examples with the same labels share their trees. Raises as `score_labels`."""
    known: dict[tuple[str, ...], Candidates] = {}
    questions = []
    for example in examples:
        if not example.labels:
            raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
        if example.labels not in known:
            known[example.labels] = candidates([encode_answer(label, base.tokenizer) for label in example.labels])
        own = known[example.labels]
        prompt = encode_prompt(example, base.tokenizer, max_length - int(own.lengths.max()))
        questions.append(Question(tuple(prompt), own))
    return questions
