"""A model of transformers or PEFT as one who answers: labels by full forwards, words by transformers' own generation.

One example at a time is written: prompt and prefix methods change what a row begins with, and padding on the left is not the
same to all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from staf.baselines.plain import plain_scores
from staf.config import EvaluationSettings
from staf.data.batches import encode_prompt
from staf.data.example import Example
from staf.lm.base import Base
from staf.lm.generation import FreeWalk, Walk, span_walks
from staf.lm.scoring import OnDone


class PlainAnswerer:
    """A trained baseline.

    Args:
        model: of transformers or PEFT. base: whose tokenizer and device are used; its own weights are not.
        on_done: called with the number of examples just answered.
    """

    def __init__(self, model: Any, base: Base, settings: EvaluationSettings, on_done: OnDone | None = None) -> None:
        self.model, self.base, self.settings, self.on_done = model.eval(), base, settings, on_done

    def scores(self, examples: Sequence[Example]) -> list[Tensor]:
        """As `plain_scores`."""
        return plain_scores(
            self.model, self.base, examples, max_tokens=self.settings.max_tokens, token_budget=self.settings.token_budget,
            length_normalised=self.settings.length_normalised, on_done=self.on_done,
        )  # fmt: skip

    def spans(self, examples: Sequence[Example]) -> list[str]:
        """Words of each context, chosen token by token as `extract_spans` does."""
        found = []
        for example in examples:
            (prompt,), (walk,) = span_walks(self.base, [example], self._limit)
            self._write(prompt, walk)
            found.append(walk.words())
        return found

    def texts(self, examples: Sequence[Example]) -> list[str]:
        """Free answers, written as `generate` does."""
        tokenizer, found = self.base.tokenizer, []
        for example in examples:
            written = self._write(encode_prompt(example, tokenizer, self._limit), FreeWalk())
            found.append(tokenizer.decode(written, skip_special_tokens=True).strip())
        return found

    @property
    def _limit(self) -> int:
        return self.settings.max_tokens - self.settings.max_new_tokens

    @torch.no_grad()
    def _write(self, prompt: Sequence[int], walk: Walk) -> list[int]:
        """The tokens of one answer, without the end token; the walk stands at its end."""
        from transformers import GenerationConfig

        end, everything = self.base.tokenizer.eos_token_id, list(range(self.model.config.vocab_size))
        taken = 0

        def follow(tokens: list[int]) -> None:
            nonlocal taken
            for token in tokens[taken:]:
                walk.take(token)
            taken = len(tokens)

        def allowed(_: int, ids: Tensor) -> list[int]:
            follow(ids[len(prompt) :].tolist())
            found = walk.allowed()
            return everything if found is None else found

        ids = torch.tensor([list(prompt)], device=self.base.device)
        greedy = GenerationConfig(
            max_new_tokens=self.settings.max_new_tokens, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        with warnings.catch_warnings():
            # PEFT leaves places to be counted from what is kept, virtual tokens included, which is right for one row
            warnings.filterwarnings("ignore", "Position ids are not supported for parameter efficient tuning")
            written = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy, prefix_allowed_tokens_fn=allowed
            )
        answer: list[int] = written[0, len(prompt) :].tolist()
        if end in answer:
            answer = answer[: answer.index(end)]
        follow(answer)
        if self.on_done is not None:
            self.on_done(1)
        return answer
