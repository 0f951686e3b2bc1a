"""In-context learning: adaptation examples before the query, in the query's own format.

    Query: ...                  a shot: its query, its context and its answer
    Context: ...
    Answer: benign

    Query: ...                  the item; it is never cut for a shot
    Context: ...
    Answer:

Shots that do not fit with a query are left out of its prompt; their number is part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from staf.data.example import LABEL_TYPES, Example, prompt_of
from staf.errors import BadData
from staf.evaluate.settings import EvaluationSettings
from staf.lm.batches import encode_answer, encode_prompt

_LEAD = "Query: "


@dataclass(frozen=True)
class FewShotPrompts:
    """Examples with shots before their queries."""

    examples: tuple[Example, ...]
    counts: tuple[int, ...]
    """shots before each"""
    tokens: tuple[int, ...]
    """of each prompt after truncation"""
    shots: int
    """that were given"""

    @property
    def record(self) -> dict[str, Any]:
        """How many shots were shown and cut, and what that costs in tokens."""
        return {
            "shots": self.shots,
            "shots_shown_least": min(self.counts, default=0),
            "shots_shown_mean": fmean(self.counts or (0,)),
            "shots_shown_most": max(self.counts, default=0),
            "shots_cut": sum(self.shots - count for count in self.counts),
            "queries_with_shots_cut": sum(count < self.shots for count in self.counts),
            "queries_without_shots": sum(count == 0 for count in self.counts),
            "prompt_tokens_mean": fmean(self.tokens or (0,)),
        }


def with_shots(
    examples: Sequence[Example], shots: Sequence[Example], tokenizer: Any, max_length: int, reserved: int = 0
) -> FewShotPrompts:
    """Examples with as many of the shots, in their order, as fit before each.

    A shot that does not fit is skipped for the next one. An example whose own prompt is too long has none. No example is its
    own shot.

    Args:
        max_length: of a prompt and its answer. reserved: tokens kept for an answer that is written; 0 where labels are
            scored, and the longest label is what is kept room for.

    Raises:
        BadData: labels are to be scored, and an example has none. ConfigError: a query does not fit.
    """
    texts = {shot.id: f"{prompt_of(shot.query, shot.context)} {shot.answer}\n\n" for shot in shots}
    lengths = {name: len(tokenizer(text)["input_ids"]) for name, text in texts.items()}
    answers = {label: len(encode_answer(label, tokenizer)) for label in {x for e in examples for x in e.labels}}
    changed, counts, tokens = list[Example](), list[int](), list[int]()
    for example in examples:
        if not example.labels and not reserved:
            raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
        limit = max_length - (reserved or max(answers[label] for label in example.labels))
        left, chosen = limit - _tokens(example, tokenizer), list[str]()
        for name, length in lengths.items():
            if length <= left and name != example.id:
                left, chosen = left - length, [*chosen, texts[name]]
        prompt = _before(example, chosen)
        while (own := _tokens(prompt, tokenizer)) > limit and chosen:  # together they may be more tokens than one by one
            chosen.pop()
            prompt = _before(example, chosen)
        changed.append(prompt)
        counts.append(len(chosen))
        tokens.append(own if own <= limit else len(encode_prompt(prompt, tokenizer, limit)))
    return FewShotPrompts(tuple(changed), tuple(counts), tuple(tokens), len(shots))


def reserved_for(output_type: str, evaluation: EvaluationSettings) -> int:
    """Tokens kept for an answer: 0 where labels are scored, which are seen to one by one."""
    return 0 if output_type in LABEL_TYPES else evaluation.max_new_tokens


def _before(example: Example, texts: Sequence[str]) -> Example:
    """The example with texts before its query: its prompt is theirs and then its own."""
    return replace(example, query="".join([*texts, _LEAD]).removeprefix(_LEAD) + example.query)


def _tokens(example: Example, tokenizer: Any) -> int:
    return len(tokenizer(prompt_of(example.query, example.context))["input_ids"])
