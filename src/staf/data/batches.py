"""From examples to tensors: tokens, where the answer is, and batches of like length.

Padding is on the right and needs no attention mask: in a causal model no real token ever looks at what follows it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from staf.data.example import Example, prompt_of
from staf.errors import ConfigError

_LEAD = "Answer:"
WIDTH_STEP = 16
WORTH_SHARING = 16
"""A common beginning of fewer tokens is computed row by row."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens: prompt, then answer and end token."""

    id: str
    tokens: tuple[int, ...]
    answer_start: int
    """Index of the first answer token."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of like length side by side."""

    ids: Tensor
    """(B, T) token ids, padded on the right"""
    answer: Tensor
    """(B, T) bool, True where a token is to be predicted (answer and end token)"""
    example_ids: tuple[str, ...]
    shared: int = 0
    """first tokens that are the same in all rows and none of which is predicted"""


def encode_prompt(example: Example, tokenizer: Any, limit: int) -> list[int]:
    """Tokens of the prompt, at most `limit`: a context that is too long loses its end, the query loses nothing.

    Raises:
        ConfigError: the prompt does not fit even without any context.
    """
    context = example.context
    while True:
        encoded = tokenizer(prompt_of(example.query, context), return_offsets_mapping=True)
        tokens: list[int] = encoded["input_ids"]
        excess = len(tokens) - limit
        if excess <= 0:
            return tokens
        if not context:
            raise ConfigError(
                f"example {example.id}: its query takes {len(tokens)} tokens without any context, {limit} are allowed. "
                "Raise max_length, or use fewer labels."
            )
        context = _shortened(context, encoded["offset_mapping"], len(prompt_of(example.query, context)), excess)


def _shortened(context: str, offsets: list[tuple[int, int]], prompt_length: int, excess: int) -> str:
    """The context without its last `excess` tokens, by the character offsets of the whole prompt's tokens."""
    end_of_context = prompt_length - len("\n" + _LEAD)
    start_of_context = end_of_context - len(context)
    inside = [start for start, stop in offsets if start_of_context <= start and stop <= end_of_context]
    if excess >= len(inside):
        return ""
    return context[: max(inside[-excess] - start_of_context, 0)].rstrip()


def encode_answer(answer: str, tokenizer: Any) -> list[int]:
    """Tokens of an answer as they follow 'Answer:', without the end token."""
    lead = tokenizer(_LEAD, add_special_tokens=False)["input_ids"]
    whole = tokenizer(f"{_LEAD} {answer}", add_special_tokens=False)["input_ids"]
    return whole[len(lead) :]


def encode(example: Example, tokenizer: Any, max_length: int) -> Encoded:
    """Prompt, answer and end token, at most `max_length` in all; the answer is never cut before half of them."""
    answer = encode_answer(example.answer, tokenizer)[: max_length // 2 - 1] + [tokenizer.eos_token_id]
    prompt = encode_prompt(example, tokenizer, max_length - len(answer))
    return Encoded(example.id, tuple(prompt + answer), len(prompt))


def collate(items: Sequence[Encoded], pad: int, device: torch.device) -> Batch:
    """One batch from encoded examples."""
    width = rounded(max(len(item.tokens) for item in items))
    ids = torch.full((len(items), width), pad, dtype=torch.long)
    answer = torch.zeros((len(items), width), dtype=torch.bool)
    for row, item in enumerate(items):
        ids[row, : len(item.tokens)] = torch.tensor(item.tokens)
        answer[row, item.answer_start : len(item.tokens)] = True
    ends = min(item.answer_start for item in items) - 1
    shared = shared_prefix([item.tokens for item in items], ends)
    return Batch(ids.to(device), answer.to(device), tuple(item.id for item in items), shared)


def rounded(width: int) -> int:
    """Width of a batch, up to the next multiple of `WIDTH_STEP`.

    oneDNN compiles a kernel for every new shape; with few widths the kernels are found again.
    """
    return -(-width // WIDTH_STEP) * WIDTH_STEP


def shared_prefix(rows: Sequence[Sequence[int]], limit: int) -> int:
    """How many first tokens all rows have in common, at most `limit`; 0 where it is not worth computing them apart."""
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    common = 0
    while common < min(limit, len(first), len(last)) and first[common] == last[common]:
        common += 1
    return common if len(rows) > 1 and common >= WORTH_SHARING else 0


def epoch_order(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of indices for one epoch: every index once, like lengths together, order by seed and epoch.

    Shuffled first, then sorted by length inside windows of 16 batches, so that batches differ between epochs.
    """
    chance = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    window = size * 16
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda i: lengths[i])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    chance.shuffle(batches)
    return batches


def by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Batches of indices in order of length, each of at most `token_budget` places (at least one example)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
