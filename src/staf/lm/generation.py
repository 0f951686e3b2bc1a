"""Answers written token by token, greedily: free ones, one of a list, or words of the context.

Prompts of different lengths share a batch; each is read once, and every step computes one token a row on the keys and
values that are kept. What may come next is said by a walk:

    FreeWalk      any token
    AnswerWalk    down the tree of the answers; its rest is taken at once where only one answer is left
    SpanWalk      along every place of the context where the tokens so far stand

A row ends with the end token or when it is full. Equal to a plain loop that computes everything anew for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from staf.data.batches import encode_answer, encode_prompt
from staf.data.example import Example, prompt_of
from staf.errors import BadData
from staf.lm.base import Base
from staf.lm.beginnings import in_batches
from staf.lm.prompts import Beginning, Tokens, read
from staf.lm.trie import ROOT, Trie, grow

OnDone = Callable[[int], None]
"""called with the number of examples that have just been answered"""


class Walk(Protocol):
    """What one answer may go on with."""

    def allowed(self) -> list[int] | None:
        """Tokens that may come next, the end token among them where it may end here; None for all."""

    def take(self, token: int) -> None:
        """Go on with a token that is allowed and does not end the answer."""

    def rest(self) -> list[int] | None:
        """The only tokens that can still come before the end, or None where there is a choice."""


class FreeWalk:
    """Any token at any time."""

    def allowed(self) -> list[int] | None:
        """No limit."""
        return None

    def take(self, token: int) -> None:
        """Nothing to keep in mind."""

    def rest(self) -> list[int] | None:
        """Never known."""
        return None


@dataclass
class AnswerWalk:
    """From the root of a tree of answers to the end of one of them."""

    tree: Trie
    end: int
    node: int = ROOT

    def allowed(self) -> list[int] | None:
        """The node's children, and the end token where an answer ends."""
        ends = [self.end] if self.node in self.tree.ends else []
        return sorted([*self.tree.children[self.node], *ends])

    def take(self, token: int) -> None:
        """Down to a child."""
        self.node = self.tree.children[self.node][token]

    def rest(self) -> list[int] | None:
        """The way to the last answer that is left."""
        node, way = self.node, []
        while len(self.tree.children[node]) == 1 and node not in self.tree.ends:
            ((token, node),) = self.tree.children[node].items()
            way.append(token)
        return None if self.tree.children[node] else way


@dataclass(frozen=True)
class Context:
    """The tokens of a context, as they stand in its prompt."""

    text: str
    tokens: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    """(start, end) characters of each token in the text"""

    def whole(self, token: int) -> bool:
        """True where no character lies across the beginning of a token (or the end of the last one)."""
        return token in (0, len(self.tokens)) or self.places[token][0] >= self.places[token - 1][1]


@dataclass
class SpanWalk:
    """Along a context: one or more tokens that stand there one after the other, cut between characters."""

    context: Context
    end: int
    taken: int = 0
    at: list[int] = field(init=False)
    """indices of the tokens that may come next, one for each place where the tokens so far stand"""

    def __post_init__(self) -> None:
        context = self.context
        self.at = [i for i, (start, end) in enumerate(context.places) if context.text[start:end].strip() and context.whole(i)]

    def allowed(self) -> list[int] | None:
        """What stands next at any of the places, and the end token where a character ends at one of them."""
        following = {self.context.tokens[i] for i in self.at if i < len(self.context.tokens)}
        if self.taken and any(self.context.whole(i) for i in self.at):
            following.add(self.end)
        return sorted(following)

    def take(self, token: int) -> None:
        """On to the next token at the places where this one stands."""
        self.at = [i + 1 for i in self.at if i < len(self.context.tokens) and self.context.tokens[i] == token]
        self.taken += 1

    def rest(self) -> list[int] | None:
        """Nothing, at the end of the context."""
        return [] if self.at == [len(self.context.tokens)] else None

    def words(self) -> str:
        """The text at the first of the places where the tokens so far stand, a part of the context."""
        start, end = self.context.places[self.at[0] - self.taken][0], self.context.places[self.at[0] - 1][1]
        return self.context.text[start:end].strip()


@torch.no_grad()
def continue_greedily(
    base: Base, prompts: Sequence[Tokens], walks: Sequence[Walk], limit: int, beginning: Beginning | None = None
) -> list[list[int]]:
    """Write the most likely token that is allowed, again and again, after each prompt of one batch.

    Args:
        walks: what each answer may be; each stands at the end of its answer afterwards.
        limit: tokens of an answer, without the end token.
        beginning: what all prompts begin with, if it was computed before.

    Returns:
        the tokens of each answer, without the end token.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    rows = [row for row, walk in enumerate(walks) if _goes_on(walk, answers[row], limit)]
    if not rows:
        return answers
    chosen = [prompts[row] for row in rows]
    state = read(base, chosen, beginning, grows=True)
    hidden, device = state.last, base.device
    while True:
        logits = base.logits(hidden)  # (rows, V)
        kept = [place for place, row in enumerate(rows) if _write(walks[row], answers[row], logits[place], base, limit)]
        if not kept:
            return answers
        if len(kept) < len(rows):
            state.select(torch.tensor(kept, device=device))
            rows = [rows[place] for place in kept]
        ids = torch.tensor([answers[row][-1:] for row in rows], device=device)  # (rows, 1)
        offsets = torch.arange(len(answers[rows[0]]), device=device).expand(len(rows), -1)
        hidden = state.follow(ids, offsets, torch.ones_like(offsets, dtype=torch.bool)[:, None])[:, 0]


def _write(walk: Walk, answer: list[int], logits: Tensor, base: Base, limit: int) -> bool:
    """Add the best token to an answer; true where another one is to come."""
    allowed = walk.allowed()
    token = int(logits.argmax()) if allowed is None else allowed[int(logits[allowed].argmax())]
    if token == base.tokenizer.eos_token_id:
        return False
    walk.take(token)
    answer.append(token)
    return _goes_on(walk, answer, limit)


def _goes_on(walk: Walk, answer: list[int], limit: int) -> bool:
    """False where an answer is full, or where only one way was left, which was then taken."""
    rest = walk.rest()
    for token in (rest or [])[: limit - len(answer)]:
        walk.take(token)
        answer.append(token)
    return rest is None and len(answer) < limit


def generate(
    base: Base,
    examples: Sequence[Example],
    *,
    max_length: int,
    max_new_tokens: int,
    token_budget: int,
    on_done: OnDone | None = None,
) -> list[str]:
    """A free answer to every example, with the base as it is routed now.

    Args:
        max_length: of a prompt and its answer; a longer context loses its end.
        max_new_tokens: of an answer.
        token_budget: places of a batch; at least one example is in a batch.

    Raises:
        ConfigError: a query does not fit into max_length even without its context.
    """
    prompts = [encode_prompt(example, base.tokenizer, max_length - max_new_tokens) for example in examples]
    written = _in_batches(base, prompts, [FreeWalk() for _ in prompts], max_new_tokens, token_budget, on_done)
    return [base.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in written]


def choose_labels(
    base: Base, examples: Sequence[Example], *, max_length: int, token_budget: int, on_done: OnDone | None = None
) -> list[str]:
    """One label for every example, chosen token by token; options as for `generate`.

    Where `staf.lm.scoring.score_labels` weighs whole labels, this weighs what comes next, and computes no label that it leaves.

    Raises:
        BadData: an example has no labels.
        ConfigError: a query does not fit into max_length even without its context.
    """
    trees: dict[tuple[str, ...], Trie] = {}
    walks, prompts = [], []
    for example in examples:
        if not example.labels:
            raise BadData(f"example {example.id} has no labels to choose from. Choose a task with labels, or `generate`.")
        if example.labels not in trees:
            trees[example.labels] = grow([encode_answer(label, base.tokenizer) for label in example.labels])
        walk = AnswerWalk(trees[example.labels], base.tokenizer.eos_token_id)
        prompts.append(encode_prompt(example, base.tokenizer, max_length - max(walk.tree.depths)))
        walks.append(walk)
    longest = max((max(tree.depths) for tree in trees.values()), default=0)
    _in_batches(base, prompts, walks, longest, token_budget, on_done)
    return [example.labels[walk.tree.ends.index(walk.node)] for example, walk in zip(examples, walks, strict=True)]


def extract_spans(
    base: Base,
    examples: Sequence[Example],
    *,
    max_length: int,
    max_new_tokens: int,
    token_budget: int,
    on_done: OnDone | None = None,
) -> list[str]:
    """Words of the context for every example: always a part of it, and of what of it fits into the prompt.

    Options as for `generate`. A span begins and ends between two tokens of the prompt.

    Raises:
        BadData: an example has no context, or none of it fits into the prompt.
        ConfigError: a query does not fit into max_length even without its context.
    """
    prompts, walks = span_walks(base, examples, max_length - max_new_tokens)
    _in_batches(base, prompts, walks, max_new_tokens, token_budget, on_done)
    return [walk.words() for walk in walks]


def span_walks(base: Base, examples: Sequence[Example], limit: int) -> tuple[list[list[int]], list[SpanWalk]]:
    """The prompt of each example, of at most `limit` tokens, and the walk along what of its context is in there.

    Raises:
        BadData, ConfigError: as `extract_spans`.
    """
    prompts = [encode_prompt(example, base.tokenizer, limit) for example in examples]
    end = base.tokenizer.eos_token_id
    walks = [SpanWalk(context_in(base, e, prompt), end) for e, prompt in zip(examples, prompts, strict=True)]
    for example, walk in zip(examples, walks, strict=True):
        if not walk.at:
            raise BadData(
                f"example {example.id} has no context in its prompt to take words from. Raise max_length, or `generate`."
            )
    return prompts, walks


def _in_batches(
    base: Base, prompts: Sequence[Tokens], walks: Sequence[Walk], limit: int, token_budget: int, on_done: OnDone | None
) -> list[list[int]]:
    """The tokens of each answer, in the order of the prompts."""
    answers: list[list[int]] = [[] for _ in prompts]
    for group, beginning in in_batches(base, prompts, [limit] * len(prompts), token_budget, limit + 1):
        found = continue_greedily(base, [prompts[i] for i in group], [walks[i] for i in group], limit, beginning)
        for index, answer in zip(group, found, strict=True):
            answers[index] = answer
        if on_done is not None:
            on_done(len(group))
    return answers


def context_in(base: Base, example: Example, prompt: Tokens) -> Context:
    """The tokens of an example's prompt that hold its context, which may have lost its end there."""
    text = prompt_of(example.query, example.context)
    encoded = base.tokenizer(text, return_offsets_mapping=True)
    last = len(text) - len("\nAnswer:")
    first = last - len(example.context)
    tokens, places = [], []
    for mine, whole, (start, stop) in zip(prompt, encoded["input_ids"], encoded["offset_mapping"], strict=False):
        if mine != whole or stop > last:
            break
        if stop > first and stop > start:
            tokens.append(mine)
            places.append((max(start, first) - first, stop - first))
    return Context(example.context, tuple(tokens), tuple(places))
