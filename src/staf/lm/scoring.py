"""Log-likelihoods of several answers after one prompt, each token computed once.

Prompts are prefilled in batches. Then their answers are scored as a tree of tokens, in which common first tokens are one node;
a node attends to its prompt and its ancestors, and its position is its depth:

    acute | pain | chronic pain             the prompt's last token
                                             |       |       |
    a node with children is computed:      acute   pain   chronic
    it predicts the tokens after it                          |
    a leaf is only predicted                                pain

For P tokens of a prompt and N inner nodes of all its answers that is P + N tokens through the model, where a forward for each
of A answers takes A * P. The results equal those forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staf.data.example import Example
from staf.errors import BadData
from staf.lm.base import Base
from staf.lm.batches import encode_answer, encode_prompt, round_up
from staf.lm.prefix_cache import PrefilledBatch, PrefixKV, Tokens, common_length, prefill, prefix_batches

ROOT = 0
LOGIT_ROWS = 256
"""Rows of logits at a time: 256 of the default base's 49,152 are 50 MB in float32."""
NODES = 512
"""Inner nodes of one tree: more answers are several trees after the same prompt, so that no mask grows with N * N."""

OnDone = Callable[[int], None]
"""called with the number of examples that have just been scored"""


@dataclass(frozen=True)
class Trie:
    """A tree of answers; nodes with children come first, each after its parent, node 0 is the root."""

    tokens: tuple[int, ...]
    """of each node; -1 for the root"""
    parents: tuple[int, ...]
    """of each node; -1 for the root"""
    depths: tuple[int, ...]
    """tokens from the root to each node"""
    inner: int
    """nodes 0 to inner - 1 have children, or are the root"""
    ends: tuple[int, ...]
    """the node at which each answer ends, in the order of the answers"""

    @cached_property
    def ancestors(self) -> NDArray[np.bool_]:
        """(inner - 1, inner - 1): True where the row's node, from 1 on, is or descends from the column's."""
        seen = np.eye(self.inner, dtype=bool)
        for node in range(1, self.inner):
            seen[node] |= seen[self.parents[node]]
        return seen[1:, 1:]

    @cached_property
    def paths(self) -> NDArray[np.int64]:
        """(2, tokens of all answers): index of an answer, and a node on its path."""
        pairs = []
        for answer, node in enumerate(self.ends):
            while node != ROOT:
                pairs.append((answer, node))
                node = self.parents[node]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def build_trie(answers: Sequence[Tokens]) -> Trie:
    """The tree of some answers; one may be a prefix of another, or equal to it."""
    tokens, parents, children = [-1], [-1], [dict[int, int]()]
    ends = []
    for answer in answers:
        node = ROOT
        for token in answer:
            if token not in children[node]:
                children[node][token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                children.append({})
            node = children[node][token]
        ends.append(node)
    order = sorted(range(len(tokens)), key=lambda node: (node != ROOT and not children[node], node))
    number_of = {node: number for number, node in enumerate(order)} | {-1: -1}
    sorted_parents = [number_of[parents[node]] for node in order]
    depths = [0] * len(order)
    for number in range(1, len(order)):
        depths[number] = depths[sorted_parents[number]] + 1
    inner = max(1, sum(map(bool, children)))
    ends = [number_of[end] for end in ends]
    return Trie(tuple(tokens[node] for node in order), tuple(sorted_parents), tuple(depths), inner, tuple(ends))


def build_tries(answers: Sequence[Tokens], limit: int) -> list[tuple[list[int], Trie]]:
    """Trees of at most `limit` inner nodes (or of one answer), each with the indices of its answers.

    Answers are sorted, so neighbours share first tokens; where a tree is full, the next one repeats them.
    """
    groups: list[list[int]] = []
    size, before = 0, tuple[int, ...]()
    for number in sorted(range(len(answers)), key=lambda i: tuple(answers[i])):
        answer = tuple(answers[number])
        size += len(answer) - 1 - max(min(common_length(before, answer), len(before) - 1), 0)
        if not groups or size > limit:
            groups.append([])
            size = len(answer)
        groups[-1].append(number)
        before = answer
    return [(group, build_trie([answers[number] for number in group])) for group in groups]


NO_ANSWERS = build_trie([])


@dataclass(frozen=True)
class Choices:
    """The answers that are scored after a prompt, as trees."""

    lengths: Tensor
    """(answers,) tokens of each"""
    trees: tuple[Trie, ...]
    order: Tensor
    """(answers,) index of each answer among those of all trees in turn"""

    @property
    def nodes(self) -> int:
        """Tokens that the largest tree adds to a prompt."""
        return max(tree.inner - 1 for tree in self.trees)


@dataclass(frozen=True)
class ScoringRequest:
    """A prompt's tokens and the answers to score after it."""

    prompt: tuple[int, ...]
    choices: Choices


def build_choices(answers: Sequence[Tokens]) -> Choices:
    """Trees of answers (token ids), each of at most `NODES` inner nodes."""
    trees = build_tries(answers, NODES)
    given = [number for numbers, _ in trees for number in numbers]
    lengths = torch.tensor([len(answer) for answer in answers])
    return Choices(lengths, tuple(tree for _, tree in trees), torch.tensor(given).argsort())


@torch.no_grad()
def score_batch(base: Base, requests: Sequence[ScoringRequest], prefix: PrefixKV | None = None) -> list[Tensor]:
    """Summed log-likelihood of each answer of each request: a list of (answers,) float32.

    Args:
        prefix: of all prompts, if it was computed before.
    """
    prompts = prefill(base, [request.prompt for request in requests], prefix, growing=False)
    rounds = max(len(request.choices.trees) for request in requests)
    parts: list[list[Tensor]] = [[] for _ in requests]
    for index in range(rounds):
        trees = [r.choices.trees[index] if index < len(r.choices.trees) else NO_ANSWERS for r in requests]
        for row, sums in enumerate(_score_trees(prompts, trees)):
            parts[row].append(sums)
    return [torch.cat(part)[request.choices.order] for part, request in zip(parts, requests, strict=True)]


def _score_trees(prompts: PrefilledBatch, trees: Sequence[Trie]) -> list[Tensor]:
    """Summed log-likelihood of each answer of one tree for each prompt: a list of (answers,) float32."""
    states = _states(prompts, trees)  # (inner nodes of all trees, d)
    starts = np.cumsum([0] + [tree.inner for tree in trees])
    rows = np.concatenate([start + np.array(tree.parents[1:]) for start, tree in zip(starts, trees, strict=False)])
    tokens = np.concatenate([tree.tokens[1:] for tree in trees])
    logprobs = _logprobs(prompts.base, states, torch.from_numpy(rows).long(), torch.from_numpy(tokens).long())
    found = []
    for tree, own in zip(trees, logprobs.split([len(tree.tokens) - 1 for tree in trees]), strict=True):
        answers, nodes = torch.from_numpy(tree.paths)
        found.append(torch.zeros(len(tree.ends)).index_add_(0, answers, own[nodes - 1]))
    return found


def _states(prompts: PrefilledBatch, trees: Sequence[Trie]) -> Tensor:
    """Hidden states of all inner nodes, tree by tree; that of a root is the prompt's last one."""
    longest = max(tree.inner - 1 for tree in trees)
    if not longest:
        return prompts.last
    shape = (len(trees), round_up(longest))
    ids, offsets = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    seen = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for row, tree in enumerate(trees):
        count = tree.inner - 1
        ids[row, :count] = torch.tensor(tree.tokens[1 : tree.inner])
        offsets[row, :count] = torch.tensor(tree.depths[1 : tree.inner]) - 1
        seen[row, :count, :count] = torch.from_numpy(tree.ancestors)
    device = prompts.base.device
    hidden = prompts.extend(ids.to(device), offsets.to(device), seen.to(device))  # (B, N, d)
    parts = [torch.cat([prompts.last[row, None], hidden[row, : tree.inner - 1]]) for row, tree in enumerate(trees)]
    return torch.cat(parts)


def _logprobs(base: Base, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Log p of each of E tokens after the state of its row, (E,) float32, in blocks of `LOGIT_ROWS` logits."""
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
    """Score of every label of every example, with the current weights: (labels,) float32 for each example.

    Args:
        max_length: of a prompt and its longest label; a longer context is cut at its end.
        token_budget: tokens of a batch, prompts and answers together; a batch has at least one example.
        length_normalised: divide log p(label | prompt) by the label's number of tokens.

    Raises:
        BadData: an example has no labels.
        ConfigError: a query does not fit into max_length even without its context.
    """
    requests = scoring_requests(base, examples, max_length)
    return loglikelihoods(base, requests, token_budget=token_budget, length_normalised=length_normalised, on_done=on_done)


def loglikelihoods(
    base: Base,
    requests: Sequence[ScoringRequest],
    *,
    token_budget: int,
    length_normalised: bool,
    on_done: OnDone | None = None,
) -> list[Tensor]:
    """As `score_labels`, for requests made before."""
    scores: list[Tensor] = [torch.empty(0)] * len(requests)
    prompts, extra = [request.prompt for request in requests], [request.choices.nodes for request in requests]
    for group, prefix in prefix_batches(base, prompts, extra, token_budget):
        batch = [requests[i] for i in group]
        for index, request, sums in zip(group, batch, score_batch(base, batch, prefix), strict=True):
            scores[index] = sums / request.choices.lengths if length_normalised else sums
        if on_done is not None:
            on_done(len(group))
    return scores


def scoring_requests(base: Base, examples: Sequence[Example], max_length: int) -> list[ScoringRequest]:
    """Prompts and choices of examples; examples with the same labels share their trees. Raises as `score_labels`."""
    known: dict[tuple[str, ...], Choices] = {}
    requests = []
    for example in examples:
        if not example.labels:
            raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
        if example.labels not in known:
            known[example.labels] = build_choices([encode_answer(label, base.tokenizer) for label in example.labels])
        choices = known[example.labels]
        prompt = encode_prompt(example, base.tokenizer, max_length - int(choices.lengths.max()))
        requests.append(ScoringRequest(tuple(prompt), choices))
    return requests
