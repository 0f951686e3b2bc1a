"""Greedy generation in batches: free text, or spans of the context.

Prompts of different lengths share a batch; each is prefilled once, and every step computes one token a row on the kept keys
and values. The result equals a plain loop that recomputes everything for each token. A row ends with an end token, with a stop
string, or at the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from staf.data.example import Example
from staf.errors import BadData
from staf.lm.batches import encode_prompt, tokenize
from staf.lm.model import Base
from staf.lm.prefix_cache import PrefilledBatch, PrefixKV, Tokens, prefill, prefix_batches
from staf.lm.scoring import OnBatch


@dataclass
class SpanConstraint:
    """Allows only tokens that continue a span of a context; spans start and end between characters."""

    text: str
    tokens: tuple[int, ...]
    """of the context, as they are in its prompt"""
    offsets: tuple[tuple[int, int], ...]
    """(start, end) characters of each token in the text"""
    ends: tuple[int, ...]
    """end tokens of the model"""
    taken: int = 0
    """tokens of the span so far"""
    next: list[int] = field(init=False)
    """indices of context tokens that may follow, one for each occurrence of the span so far"""

    def __post_init__(self) -> None:
        self.next = [i for i, (start, end) in enumerate(self.offsets) if self.text[start:end].strip() and self._starts(i)]

    def _starts(self, token: int) -> bool:
        """True where no character crosses the start of a token (or the end of the last one)."""
        return token in (0, len(self.tokens)) or self.offsets[token][0] >= self.offsets[token - 1][1]

    def allowed(self) -> list[int]:
        """Tokens that may come next, end tokens included where the span may end."""
        following = {self.tokens[i] for i in self.next if i < len(self.tokens)}
        if self.taken and any(self._starts(i) for i in self.next):
            following.update(self.ends)
        return sorted(following)

    def take(self, token: int) -> None:
        """Append an allowed token that is no end token."""
        self.next = [i + 1 for i in self.next if i < len(self.tokens) and self.tokens[i] == token]
        self.taken += 1

    @property
    def complete(self) -> bool:
        """True at the end of the context, where nothing can follow."""
        return self.next == [len(self.tokens)]

    def span(self) -> str:
        """The span at its first occurrence, a part of the context."""
        start, end = self.offsets[self.next[0] - self.taken][0], self.offsets[self.next[0] - 1][1]
        return self.text[start:end].strip()


class Decoding:
    """Greedy decoding of one batch: each step appends a token to every open row, with the weights of that moment.

    Args:
        constraints: one for each prompt, or None where every token is allowed; each is at the end of its answer afterwards.
        limits: tokens of each answer, at least 1.
        stops: of each row, strings that end its answer; the tokens up to the one that completes it are kept.
        prefix: of all prompts, if it was computed before.
    """

    def __init__(
        self, base: Base, prompts: Sequence[Tokens], constraints: Sequence[SpanConstraint | None], limits: Sequence[int],
        stops: Sequence[Sequence[str]], prefix: PrefixKV | None = None,
    ) -> None:  # fmt: skip
        self.base, self.answers, self.rows = base, [list[int]() for _ in prompts], list(range(len(prompts)))
        self._constraints, self._limits, self._stops = constraints, limits, stops
        self._prompts, self._prefix = prompts, prefix
        self._batch: PrefilledBatch | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Compute the next token of each of `rows`, and leave in `rows` those that are still open."""
        base, rows = self.base, self.rows
        if self._batch is None:
            self._batch = prefill(base, self._prompts, self._prefix, growing=True)
            hidden = self._batch.last
        else:
            ids = torch.tensor([self.answers[row][-1:] for row in rows], device=base.device)  # (rows, 1)
            offsets = torch.arange(len(self.answers[rows[0]]), device=base.device).expand(len(rows), -1)
            hidden = self._batch.extend(ids, offsets, torch.ones_like(offsets, dtype=torch.bool)[:, None])[:, 0]
        tokens = _argmax(base.logits(hidden), [self._constraints[row] for row in rows])
        self.keep([row for row, token in zip(rows, tokens, strict=True) if self._append(row, token)])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these open rows only."""
        kept = [i for i, row in enumerate(self.rows) if row in {*rows}]
        if self._batch is not None and 0 < len(kept) < len(self.rows):
            self._batch.select(torch.tensor(kept, device=self.base.device))
        self.rows = [self.rows[i] for i in kept]

    def _append(self, row: int, token: int) -> bool:
        """Append a token to a row's answer unless it is an end token; True where another one follows."""
        base, answer, constraint = self.base, self.answers[row], self._constraints[row]
        if token in base.end_tokens:
            return False
        answer.append(token)
        if constraint is not None:
            constraint.take(token)
            if constraint.complete:
                return False
        stop = self._stops[row]
        if stop and any(mark in decoded(base, answer) for mark in stop):
            return False
        return len(answer) < self._limits[row]


def greedy_decode(
    base: Base,
    prompts: Sequence[Tokens],
    constraints: Sequence[SpanConstraint | None],
    limit: int,
    prefix: PrefixKV | None = None,
    stop: Sequence[str] = (),
) -> list[list[int]]:
    """Greedy tokens after each prompt of one batch, without the end token: `Decoding` to its end.

    Args:
        limit: tokens of an answer. stop: as `Decoding`, the same for all rows.
    """
    count = len(prompts)
    decoding = Decoding(base, prompts, constraints, [limit] * count, [stop] * count, prefix)
    while limit > 0 and decoding.rows:
        decoding.step()
    return decoding.answers


def _argmax(logits: torch.Tensor, constraints: Sequence[SpanConstraint | None]) -> list[int]:
    """The most likely allowed token of each row of logits (B, V)."""
    for row, constraint in enumerate(constraints):
        if constraint is not None:
            allowed = torch.tensor(constraint.allowed(), device=logits.device)
            logits[row] = torch.full_like(logits[row], -torch.inf).index_copy_(0, allowed, logits[row, allowed])
    tokens: list[int] = logits.argmax(-1).tolist()
    return tokens


def generate(
    base: Base,
    examples: Sequence[Example],
    *,
    max_length: int,
    max_new_tokens: int,
    token_budget: int,
    spans: bool = False,
    stop: Sequence[str] = (),
    on_batch: OnBatch | None = None,
) -> list[str]:
    """A free answer to every example, or a span of its context, with the current weights.

    Args:
        max_length: of a prompt and its answer; a longer context is cut at its end.
        max_new_tokens: of an answer.
        token_budget: tokens of a batch; a batch has at least one example.
        spans: take each answer from the part of the context that fits into the prompt.
        stop: strings at which a free answer ends; neither they nor what follows is returned.

    Raises:
        BadData: a span is asked for where no context fits into the prompt.
        ConfigError: a query does not fit into max_length even without its context.
    """
    limit = max_length - max_new_tokens
    prompts = [encode_prompt(example, base.tokenizer, limit, base.prompt_format) for example in examples]
    constraints: list[SpanConstraint | None] = [
        span_constraint(base, example, prompt) if spans else None for example, prompt in zip(examples, prompts, strict=True)
    ]
    texts, extra = [""] * len(prompts), [max_new_tokens] * len(prompts)
    for group, prefix in prefix_batches(base, prompts, extra, token_budget, max_new_tokens + 1):
        limits = [constraints[i] for i in group]
        found = greedy_decode(base, [prompts[i] for i in group], limits, max_new_tokens, prefix, stop)
        for index, tokens, constraint in zip(group, found, limits, strict=True):
            texts[index] = constraint.span() if constraint else cut_at(decoded(base, tokens), stop).strip()
        if on_batch is not None:
            on_batch(group, [texts[i] for i in group])
    return texts


def decoded(base: Base, tokens: Tokens) -> str:
    """The text of generated tokens."""
    return str(base.tokenizer.decode(list(tokens), skip_special_tokens=True))


def cut_at(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of some strings in it."""
    return text[: min([len(text), *(text.index(mark) for mark in stop if mark in text)])]


def span_constraint(base: Base, example: Example, prompt: Tokens) -> SpanConstraint:
    """The constraint to an example's context, as far as it is in the prompt; raises BadData where nothing of it is."""
    text, first, last = base.prompt_format.prompt(example.query, example.context)
    tokens, offsets = [], []
    for own, full, (start, stop) in zip(prompt, *tokenize(text, base.tokenizer, base.prompt_format), strict=False):
        if own != full or stop > last:
            break
        if stop > first and stop > start:
            tokens.append(own)
            offsets.append((max(start, first) - first, stop - first))
    constraint = SpanConstraint(example.context, tuple(tokens), tuple(offsets), base.end_tokens)
    if not constraint.next:
        raise BadData(
            f"example {example.id} has no context in its prompt to take a span from. Raise max_length, or generate text."
        )
    return constraint
