"""A model as transformers and PEFT have it: its loss on answers, and the scores of labels by full forwards.

`score_labels` knows our routed base only; prompt and prefix methods change the forward itself. So each label is scored by its
own forward of prompt and answer here: slower, equal within 1e-4 on an untouched model, right for anything that has logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf.data.batches import Batch, Encoded, by_length, collate, encode_answer, encode_prompt
from staf.data.example import Example
from staf.errors import BadData
from staf.lm.base import Base
from staf.lm.scoring import OnDone


def plain_model(base: Base) -> Any:
    """The base as transformers loads it, anew from its folder, in its number format, nothing trainable."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype, use_safetensors=True)
    return model.to(base.device).requires_grad_(False)


def answer_log_chances(model: Any, batch: Batch) -> Tensor:
    """Log p of every answer token of a batch, (N,) float32, row by row.

    Logits are computed in the columns in which some row has an answer. These are counted from the end, since prompt methods
    lengthen every row at its beginning.
    """
    asked = batch.answer[:, 1:]
    columns = asked.any(0).nonzero()[:, 0]
    logits = model(input_ids=batch.ids, logits_to_keep=columns - batch.ids.shape[1], use_cache=False).logits  # (B, C, V)
    targets = batch.ids[:, 1:][asked]
    chances = functional.log_softmax(logits[asked[:, columns]].float(), dim=-1)  # (N, V)
    return chances.gather(1, targets[:, None])[:, 0]


@torch.no_grad()
def plain_mean_loss(model: Any, batches: Sequence[Batch]) -> float:
    """Mean of -log p over all answer tokens of the batches."""
    model.eval()
    chances = torch.cat([answer_log_chances(model, batch) for batch in batches])
    return -float(chances.mean())


@torch.no_grad()
def plain_scores(
    model: Any,
    base: Base,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    token_budget: int,
    length_normalised: bool,
    on_done: OnDone | None = None,
) -> list[Tensor]:
    """Score of every label of every example under a model, prompts and answers as `score_labels` has them.

    Args:
        model: of transformers or PEFT. base: whose tokenizer and device are used; its own weights are not.
        max_tokens: of a prompt and its longest label; virtual tokens come on top.
        token_budget: places of a batch, prompts and answers together.

    Returns:
        for each example (labels,) float32: log p(label | prompt), divided by its tokens where length_normalised.

    Raises:
        BadData: an example has no labels.
        ConfigError: a query does not fit into max_tokens even without its context.
    """
    model.eval()
    rows = [row for example in examples for row in _rows(example, base.tokenizer, max_tokens)]
    owners = [index for index, example in enumerate(examples) for _ in example.labels]
    left = Counter(owners)
    sums = torch.empty(len(rows))
    answers = torch.tensor([len(row.tokens) - row.answer_start for row in rows])
    for group in by_length([len(row.tokens) for row in rows], token_budget):
        batch = collate([rows[i] for i in group], base.tokenizer.eos_token_id, base.device)
        chances = answer_log_chances(model, batch).cpu().split(answers[group].tolist())
        sums[group] = torch.stack([own.sum() for own in chances])
        left.subtract(owners[i] for i in group)
        finished = sum(left[owner] == 0 for owner in {owners[i] for i in group})
        if on_done is not None and finished:
            on_done(finished)
    scores = sums / answers if length_normalised else sums
    return list(scores.split([len(example.labels) for example in examples]))


def _rows(example: Example, tokenizer: Any, max_tokens: int) -> list[Encoded]:
    """Prompt and answer of each label of an example; the prompt is the same in all."""
    if not example.labels:
        raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
    answers = [encode_answer(label, tokenizer) for label in example.labels]
    prompt = encode_prompt(example, tokenizer, max_tokens - max(map(len, answers)))
    return [Encoded(example.id, tuple(prompt + answer), len(prompt)) for answer in answers]
