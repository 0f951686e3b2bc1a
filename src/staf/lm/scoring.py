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
from typing import Any

import torch
from torch import Tensor

from staf.data.example import Example
from staf.errors import BadData
from staf.lm.batches import encode_answer, encode_prompt, round_up
from staf.lm.model import Base
from staf.lm.prefix_cache import PrefilledBatch, PrefixKV, Tokens, hidden_states, prefill, prefix_batches

LOGIT_ROWS = 256
"""Rows of logits at a time: 256 of the default base's 49,152 are 50 MB in float32."""
NODES = 512
"""Inner nodes of one tree: more answers are several trees after the same prompt, so that no mask grows with N * N."""

OnBatch = Callable[[Sequence[int], Sequence[Any]], None]
"""called after each batch with the indices of its examples and what was found for each"""


@dataclass(frozen=True)
class Trie:
    """A tree of answers: its N inner nodes are the proper prefixes of the answers, each after its own prefixes."""

    tokens: Tensor
    """(N,) the last token of each node"""
    depths: Tensor
    """(N,) tokens from the prompt's end to each node"""
    ancestors: Tensor
    """(N, N) True where the row's node is or descends from the column's"""
    predicted: Tensor
    """(3, tokens of all answers): index of an answer, the node before its token (0 is the prompt's end, 1 the first), token"""


def build_tries(answers: Sequence[Tokens], limit: int) -> list[Trie]:
    """Trees of at most `limit` inner nodes (or of one answer) that hold all answers; one may be a prefix of another.

    Answers are sorted, so neighbours share first tokens; where a tree is full, the next one repeats them.
    """
    found, nodes, predicted = [], dict[tuple[int, ...], int](), list[tuple[int, int, int]]()
    for number in sorted(range(len(answers)), key=lambda i: tuple(answers[i])):
        answer = tuple(answers[number])
        prefixes = [answer[:length] for length in range(1, len(answer))]
        if predicted and len(nodes.keys() | prefixes) > limit:
            found.append(_trie(nodes, predicted))
            nodes, predicted = {}, []
        for prefix in prefixes:
            nodes.setdefault(prefix, len(nodes) + 1)
        predicted += [(number, nodes.get(answer[:i], 0), token) for i, token in enumerate(answer)]
    return [*found, _trie(nodes, predicted)]


def _trie(nodes: dict[tuple[int, ...], int], predicted: list[tuple[int, int, int]]) -> Trie:
    ancestors = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for row, prefix in enumerate(nodes):
        ancestors[row, [nodes[prefix[:length]] - 1 for length in range(1, len(prefix) + 1)]] = True
    tokens = torch.tensor([prefix[-1] for prefix in nodes], dtype=torch.long)
    return Trie(tokens, ancestors.sum(1), ancestors, torch.tensor(predicted, dtype=torch.long).view(-1, 3).T)


NO_ANSWERS = _trie({}, [])


@dataclass(frozen=True)
class Choices:
    """The answers that are scored after a prompt, as trees."""

    lengths: Tensor
    """(answers,) tokens of each"""
    trees: tuple[Trie, ...]

    @property
    def nodes(self) -> int:
        """Tokens that the largest tree adds to a prompt."""
        return max(len(tree.tokens) for tree in self.trees)


@dataclass(frozen=True)
class ScoringRequest:
    """A prompt's tokens and the answers to score after it."""

    prompt: tuple[int, ...]
    choices: Choices


def build_choices(answers: Sequence[Tokens]) -> Choices:
    """Trees of answers (token ids), each of at most `NODES` inner nodes."""
    return Choices(torch.tensor([len(answer) for answer in answers]), tuple(build_tries(answers, NODES)))


@torch.no_grad()
def score_batch(base: Base, requests: Sequence[ScoringRequest], prefix: PrefixKV | None = None) -> list[Tensor]:
    """Summed log-likelihood of each answer of each request: a list of (answers,) float32.

    Args:
        prefix: of all prompts, if it was computed before.
    """
    prompts = prefill(base, [request.prompt for request in requests], prefix, growing=False)
    scores = [torch.zeros(len(request.choices.lengths)) for request in requests]
    for index in range(max(len(request.choices.trees) for request in requests)):
        trees = [r.choices.trees[index] if index < len(r.choices.trees) else NO_ANSWERS for r in requests]
        states, starts, device = _states(prompts, trees), [0], base.device
        for tree in trees:
            starts.append(starts[-1] + 1 + len(tree.tokens))
        before = torch.cat([start + tree.predicted[1] for start, tree in zip(starts, trees, strict=False)])
        tokens = torch.cat([tree.predicted[2] for tree in trees])
        logprobs = _logprobs(base, states, before.to(device), tokens.to(device)).cpu()
        for score, tree, own in zip(scores, trees, logprobs.split([tree.predicted.shape[1] for tree in trees]), strict=True):
            score.index_add_(0, tree.predicted[0], own)
    return scores


def _states(prompts: PrefilledBatch, trees: Sequence[Trie]) -> Tensor:
    """Hidden states of the prompt's end and of all inner nodes, tree by tree, (number of them, d)."""
    longest = max(len(tree.tokens) for tree in trees)
    if not longest:
        return prompts.last
    shape = (len(trees), round_up(longest))
    ids, offsets = torch.zeros(2, *shape, dtype=torch.long).unbind()
    seen = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for row, tree in enumerate(trees):
        count = len(tree.tokens)
        ids[row, :count], offsets[row, :count], seen[row, :count, :count] = tree.tokens, tree.depths - 1, tree.ancestors
    device = prompts.base.device
    hidden = prompts.extend(ids.to(device), offsets.to(device), seen.to(device))  # (B, N, d)
    parts = [torch.cat([prompts.last[row, None], hidden[row, : len(tree.tokens)]]) for row, tree in enumerate(trees)]
    return torch.cat(parts)


def _logprobs(base: Base, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Log p of each of E tokens after the state of its row, (E,) float32, in blocks of `LOGIT_ROWS` logits."""
    found = torch.empty(len(rows), device=rows.device)
    for start in range(0, len(states), LOGIT_ROWS):
        logits = base.logits(states[start : start + LOGIT_ROWS])  # (block, V)
        inside = ((rows >= start) & (rows < start + LOGIT_ROWS)).nonzero()[:, 0]
        own = rows[inside] - start
        found[inside] = logits[own, tokens[inside]] - logits.logsumexp(1)[own]
    return found


@dataclass(frozen=True)
class TokenLogprobs:
    """What a model says of the T tokens of a prompt, and of the one after it."""

    own: Tensor
    """(T - 1,) log p of each token but the first"""
    best: Tensor
    """(T,) the likeliest token after each"""
    best_logprobs: Tensor
    """(T,) log p of each of them"""


@torch.no_grad()
def prompt_logprobs(base: Base, prompts: Sequence[Tokens]) -> list[TokenLogprobs]:
    """Log-probabilities of the tokens of a batch of prompts, with the current weights."""
    found = []
    for states, prompt in zip(hidden_states(base, prompts, None), prompts, strict=True):
        after, blocks = torch.tensor([*prompt[1:], 0], device=base.device), []
        for start in range(0, len(prompt), LOGIT_ROWS):
            stop = min(start + LOGIT_ROWS, len(prompt))
            logprobs = base.logits(states[start:stop]).log_softmax(1)  # (block, V)
            best = logprobs.max(1)
            blocks.append((logprobs.gather(1, after[start:stop, None])[:, 0], best.indices, best.values))
        own, indices, values = (torch.cat(parts).cpu() for parts in zip(*blocks, strict=True))
        found.append(TokenLogprobs(own[:-1], indices, values))
    return found


def score_labels(
    base: Base,
    examples: Sequence[Example],
    *,
    max_length: int,
    token_budget: int,
    length_normalised: bool,
    on_batch: OnBatch | None = None,
) -> list[Tensor]:
    """Score of every label of every example, with the current weights: (labels,) float32 for each example.

    Args:
        max_length: of a prompt and its longest label; a longer context is cut at its end.
        token_budget: tokens of a batch, prompts and answers together; a batch has at least one example.
        length_normalised: divide log p(label | prompt) by the label's number of tokens.

    Raises:
        BadData: an example has no labels. ConfigError: a query does not fit into max_length even without its context.
    """
    requests = scoring_requests(base, examples, max_length)
    return loglikelihoods(base, requests, token_budget=token_budget, length_normalised=length_normalised, on_batch=on_batch)


def loglikelihoods(
    base: Base,
    requests: Sequence[ScoringRequest],
    *,
    token_budget: int,
    length_normalised: bool,
    on_batch: OnBatch | None = None,
) -> list[Tensor]:
    """As `score_labels`, for requests made before."""
    scores: list[Tensor] = [torch.empty(0)] * len(requests)
    prompts, extra = [request.prompt for request in requests], [request.choices.nodes for request in requests]
    for group, prefix in prefix_batches(base, prompts, extra, token_budget):
        batch = [requests[i] for i in group]
        for index, request, sums in zip(group, batch, score_batch(base, batch, prefix), strict=True):
            scores[index] = sums / request.choices.lengths if length_normalised else sums
        if on_batch is not None:
            on_batch(group, [scores[i] for i in group])
    return scores


def scoring_requests(
    base: Base, examples: Sequence[Example], max_length: int, known: dict[tuple[str, ...], Choices] | None = None
) -> list[ScoringRequest]:
    """Prompts and choices of examples; examples with the same labels share their trees. Raises as `score_labels`.

    Args:
        known: choices by labels, which receives those that are made.
    """
    known = {} if known is None else known
    requests = []
    for example in examples:
        if not example.labels:
            raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
        if example.labels not in known:
            known[example.labels] = build_choices([encode_answer(label, base.tokenizer) for label in example.labels])
        choices = known[example.labels]
        prompt = encode_prompt(example, base.tokenizer, max_length - int(choices.lengths.max()), base.prompt_format)
        requests.append(ScoringRequest(tuple(prompt), choices))
    return requests
