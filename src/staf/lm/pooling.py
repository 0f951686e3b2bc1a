"""Mean hidden states of contexts at some depths of the model: what a linear probe reads (`staf.evaluate.probe`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from staf.data.example import Example
from staf.lm.batches import common_prefix_length, plan_batches, tokenize, with_cut_context
from staf.lm.model import Base
from staf.lm.prefix_cache import hidden_states, prefill_prefix

DEPTHS = (2 / 3, 5 / 6, 1.0)
"""Parts of the layers after which states are read; 1 is what the logits are computed from."""


@torch.no_grad()
def pooled_states(base: Base, examples: Sequence[Example], max_length: int, token_budget: int) -> Tensor:
    """The mean state from the first token of an example's context to the end of its prompt, after each of `DEPTHS`.

    The query, which is the same for all items of a task, is read and left out of the mean.

    Args:
        max_length: tokens of a prompt; a longer context is cut at its end. token_budget: tokens of a batch.

    Returns:
        (examples, depths, d) float32 on the CPU, with the current weights of the base.

    Raises:
        ConfigError: a query does not fit into max_length.
    """
    read = [_tokens(base, example, max_length) for example in examples]
    prompts, firsts = [tokens for tokens, _ in read], [first for _, first in read]
    shared = common_prefix_length(prompts, min(firsts)) if len(prompts) > 1 else 0
    prefix = prefill_prefix(base, prompts[0][:shared])
    found = torch.empty(len(prompts), len(DEPTHS), base.model.config.get_text_config().hidden_size)
    with _states_of(base) as states:
        for batch in plan_batches([len(prompt) - shared for prompt in prompts], token_budget):
            last = hidden_states(base, [prompts[i] for i in batch], prefix)
            for row, index in enumerate(batch):
                part = slice(firsts[index] - shared, len(prompts[index]) - shared)
                means = [each[row, part].float().mean(0) for each in (*states, last)]
                found[index] = torch.stack(means).cpu()
    return found


def _tokens(base: Base, example: Example, max_length: int) -> tuple[list[int], int]:
    """The tokens of a prompt, and the index of the first one of its context, 0 where it has none."""
    fitted = with_cut_context(example, base.tokenizer, max_length, base.prompt_format)
    text, start, end = base.prompt_format.prompt(fitted.query, fitted.context)
    tokens, characters = tokenize(text, base.tokenizer, base.prompt_format)
    first = next((i for i, (_, right) in enumerate(characters) if right > start), 0) if end > start else 0
    return tokens, min(first, len(tokens) - 1)


@contextmanager
def _states_of(base: Base) -> Iterator[list[Tensor]]:
    """A list in which each forward puts the states (B, T, d) after all `DEPTHS` but the last."""
    layers = next(part for part in base.model.get_decoder().children() if isinstance(part, nn.ModuleList))
    states = [torch.empty(0)] * (len(DEPTHS) - 1)

    def keeping(index: int) -> object:
        def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
            states[index] = output if isinstance(output, Tensor) else output[0]

        return layers[max(round(len(layers) * DEPTHS[index]), 1) - 1].register_forward_hook(keep)

    hooks = [keeping(index) for index in range(len(states))]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]
