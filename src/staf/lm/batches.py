"""Examples as padded batches of tokens, grouped by length.

Padding is on the right and needs no attention mask: in a causal model no real token attends to what follows it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from staf.data.example import ANSWER, LABEL_TYPES, Example
from staf.errors import ConfigError
from staf.lm.prompts import PLAIN, PromptFormat

WIDTH_STEP = 16
MIN_SHARED_PREFIX = 16
"""A common prefix of fewer tokens is computed in every row."""
FORWARD_COST = 128
"""Tokens that cost as much as one more forward; on a CPU mostly reading the weights (measured: about 120)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens: prompt, answer, and mostly the end token (`encode`)."""

    id: str
    tokens: tuple[int, ...]
    answer_start: int
    """index of the first answer token"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded examples padded to one width."""

    ids: Tensor
    """(B, T) token ids, padded on the right"""
    answer: Tensor
    """(B, T) bool on the CPU, True at tokens to predict (answer and end token); indexing by it needs no host sync"""
    example_ids: tuple[str, ...]
    prefix_length: int = 0
    """number of first tokens that are equal in all rows and not predicted"""


def encode_prompt(example: Example, tokenizer: Any, limit: int, prompt_format: PromptFormat = PLAIN) -> list[int]:
    """Tokens of the prompt, at most `limit`: a long context is cut at its end, the query never.

    Raises:
        ConfigError: the prompt does not fit even without its context.
    """
    return _fitted(example, tokenizer, limit, prompt_format)[1]


def with_cut_context(example: Example, tokenizer: Any, limit: int, prompt_format: PromptFormat = PLAIN) -> Example:
    """The example with as much of its context as `encode_prompt` reads; raises as it does."""
    return replace(example, context=_fitted(example, tokenizer, limit, prompt_format)[0])


def _fitted(
    example: Example, tokenizer: Any, limit: int, prompt_format: PromptFormat = PLAIN, kept: str = ""
) -> tuple[str, list[int]]:
    """The context that fits, and the tokens of the prompt with it; `kept` stays in it where it is there and fits."""
    context, place = example.context, max(example.context.find(kept), 0)
    while True:
        text, start, end = prompt_format.prompt(example.query, context)
        tokens, offsets = tokenize(text, tokenizer, prompt_format)
        excess = len(tokens) - limit
        if excess <= 0:
            return context, tokens
        if not context:
            raise ConfigError(
                f"example {example.id}: its query takes {len(tokens)} tokens without any context, {limit} are allowed. "
                "Raise max_length, or use fewer labels."
            )
        inside = [(left - start, right - start) for left, right in offsets if start <= left and right <= end]
        first, last = _window(inside, excess, place, place + len(kept))
        part = context[first:last].rstrip()
        context = part.lstrip() if first else part
        place -= first + len(part) - len(context)


def tokenize(text: str, tokenizer: Any, prompt_format: PromptFormat = PLAIN) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of a prompt, and the characters of each, without the end tokens that some tokenizers append."""
    encoded = prompt_format.encoded(text, tokenizer, return_offsets_mapping=True, return_special_tokens_mask=True)
    count = len(encoded["input_ids"])
    while count and encoded["special_tokens_mask"][count - 1]:
        count -= 1
    return encoded["input_ids"][:count], encoded["offset_mapping"][:count]


def _window(tokens: list[tuple[int, int]], excess: int, start: int, stop: int) -> tuple[int, int | None]:
    """First and last character (None for the end) of a context without `excess` of its tokens, cut at both ends.

    Args:
        tokens: of the context, by their characters. start, stop: characters to keep; 0 and 0 cut at the end only.
    """
    room = len(tokens) - excess
    if room <= 0:
        return 0, 0
    before = sum(right <= start for _, right in tokens)
    wanted = sum(left < stop for left, _ in tokens) - before
    first = min(max(before - max(room - wanted, 0) // 2, 0), excess)
    return tokens[first - 1][1] if first else 0, tokens[first + room][0] if first < excess else None


def encode_answer(answer: str, tokenizer: Any) -> list[int]:
    """Tokens of an answer as they follow 'Answer:', without the end token.

    A tokenizer that merges the end of 'Answer:' with the answer gets the answer's own tokens instead.
    """
    lead: list[int] = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer(f"{ANSWER} {answer}", add_special_tokens=False)["input_ids"]
    if full[: len(lead)] == lead:
        return full[len(lead) :]
    return list(tokenizer(f" {answer}", add_special_tokens=False)["input_ids"])


def encode(example: Example, tokenizer: Any, max_length: int, label_end: bool = True) -> Encoded:
    """Prompt, answer and end token, at most `max_length`; an answer gets at least half of them.

    A truncated answer has no end token, so that it does not teach the model to stop early. A context that is too long is cut at
    both ends around the answer where that is a span of it; an evaluation, which may not know it, cuts at the end.

    Args:
        label_end: labels have an end token too. They are scored without it.
    """
    end = [tokenizer.eos_token_id] if label_end or example.output_type not in LABEL_TYPES else []
    answer, room = [*encode_answer(example.answer, tokenizer), *end], max_length // 2
    answer = answer if len(answer) <= room else answer[:room]
    span = example.answer if example.output_type == "span" else ""
    prompt = _fitted(example, tokenizer, max_length - len(answer), kept=span)[1]
    return Encoded(example.id, tuple(prompt + answer), len(prompt))


def collate(items: Sequence[Encoded], device: torch.device) -> Batch:
    """One batch from encoded examples, padded with the id 0, which every embedding has and nothing attends to."""
    width = round_up(max(len(item.tokens) for item in items))
    ids = torch.zeros((len(items), width), dtype=torch.long)
    answer = torch.zeros((len(items), width), dtype=torch.bool)
    for row, item in enumerate(items):
        ids[row, : len(item.tokens)] = torch.tensor(item.tokens)
        answer[row, item.answer_start : len(item.tokens)] = True
    limit = min(item.answer_start for item in items) - 1
    prefix_length = common_prefix_length([item.tokens for item in items], limit)
    return Batch(ids.to(device), answer, tuple(item.id for item in items), prefix_length)


def round_up(width: int) -> int:
    """Width of a batch, rounded up to a multiple of `WIDTH_STEP`.

    oneDNN compiles a kernel for every new shape; few widths let it reuse kernels.
    """
    return -(-width // WIDTH_STEP) * WIDTH_STEP


def common_length(one: Sequence[int], two: Sequence[int]) -> int:
    """Number of first tokens that two rows share."""
    return next((i for i, (left, right) in enumerate(zip(one, two, strict=False)) if left != right), min(len(one), len(two)))


def common_prefix_length(rows: Sequence[Sequence[int]], limit: int) -> int:
    """Number of first tokens shared by all rows, at most `limit`; 0 if fewer than `MIN_SHARED_PREFIX`."""
    common = min(limit, common_length(min(map(tuple, rows)), max(map(tuple, rows))))
    return common if len(rows) > 1 and common >= MIN_SHARED_PREFIX else 0


def epoch_order(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of indices for one epoch: every index once, similar lengths together, order by seed and epoch.

    Indices are shuffled, then sorted by length within windows of 16 batches, so that batches differ between epochs.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = size * 16
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda i: lengths[i])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    rng.shuffle(batches)
    return batches


def plan_batches(
    lengths: Sequence[int],
    token_budget: int,
    *,
    extra: Sequence[int] | None = None,
    cached: int = 0,
    forward_cost: int = FORWARD_COST,
) -> list[list[int]]:
    """Batches of indices in order of length that minimise the cost of forwards and padding together.

    Args:
        lengths: tokens of each row.
        token_budget: tokens of a batch, padding included; a batch has at least one row.
        extra: tokens appended to each row later (answers).
        cached: tokens of each row whose keys and values exist already.
        forward_cost: tokens that cost as much as one more forward.
    """
    extra = [0] * len(lengths) if extra is None else extra
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i] + extra[i], i))
    best: list[tuple[float, int]] = [(0, 0)]  # cost of the first rows, and where their last batch starts
    for end in range(1, len(order) + 1):
        width, after, least = 0, 0, (float("inf"), 0)
        for start in range(end - 1, -1, -1):
            width, after = max(width, lengths[order[start]]), max(after, extra[order[start]])
            tokens = (end - start) * (round_up(width) + round_up(after))
            if tokens + (end - start) * cached > token_budget and start < end - 1:
                break
            least = min(least, (best[start][0] + tokens + forward_cost, start))
        best.append(least)
    batches, end = [], len(order)
    while end:
        batches.append(order[best[end][1] : end])
        end = best[end][1]
    return batches[::-1]
