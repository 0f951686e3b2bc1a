"""In-context learning: adaptation examples before the query, in the query's own format.

    Query: ...                  a shot: its query, its context and its answer
    Context: ...
    Answer: benign

    Query: ...                  the item; it is never cut for a shot
    Context: ...
    Answer:

The item and each shot are as long as for other methods, and shots come on top, with each answer in turn. Shots that do not fit
with a query are left out of its prompt; their number is part of the result. In a chat a shot is a turn of the user and one of
the assistant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from staf.data.example import LABEL_TYPES, Example
from staf.errors import BadData
from staf.evaluate.settings import EvaluationSettings
from staf.lm.batches import encode_answer, encode_prompt, with_cut_context
from staf.lm.prompts import PLAIN, PromptFormat

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
    """to be shown"""
    cut: tuple[bool, ...]
    """whether an example's own context was cut"""

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


def in_turn(shots: Sequence[Example]) -> list[Example]:
    """One shot of each answer in the order given, then a second one of each that has two, and so on."""
    seen, turns = Counter[str](), dict[str, int]()
    for shot in shots:
        turns[shot.id] = seen[shot.answer]
        seen[shot.answer] += 1
    return sorted(shots, key=lambda shot: turns[shot.id])


def with_shots(
    examples: Sequence[Example], shots: Sequence[Example], tokenizer: Any, max_length: int, reserved: int = 0, *,
    own_length: int | None = None, shown: int | None = None, prompt_format: PromptFormat = PLAIN,
) -> FewShotPrompts:  # fmt: skip
    """Examples with as many of the shots, each answer in turn, as fit before each.

    A shot that does not fit is skipped for the next one. An example whose own prompt is too long has none.

    Args:
        max_length: of a prompt and its answer. reserved: tokens kept for an answer that is written; 0 where labels are
            scored, and the longest label is what is kept room for.
        own_length: of an example, or of a shot, and its answer; None cuts no context for it.
        shown: shots at most; None shows all that fit.

    Raises:
        BadData: labels are to be scored, and an example has none. ConfigError: a query does not fit.
    """
    shots = in_turn(shots)[:shown]
    answers = {text: len(encode_answer(text, tokenizer)) for text in _answers(examples, shots)}
    if own_length is not None:
        rooms = [own_length - min(answers[shot.answer], own_length // 2) for shot in shots]
        shots = [with_cut_context(shot, tokenizer, room, prompt_format) for shot, room in zip(shots, rooms, strict=True)]
    texts = {shot.id: prompt_format.shot(shot.query, shot.context, shot.answer) for shot in shots}
    lengths = {name: len(prompt_format.encoded(text, tokenizer)["input_ids"]) for name, text in texts.items()}
    changed, counts, tokens, cut = list[Example](), list[int](), list[int](), list[bool]()
    for example in examples:
        if not example.labels and not reserved:
            raise BadData(f"example {example.id} has no labels to score; its answer is free text. Choose a task with labels.")
        answer = reserved or max(answers[label] for label in example.labels)
        limit, item = max_length - answer, example
        if own_length is not None:
            item = with_cut_context(example, tokenizer, min(own_length, max_length) - answer, prompt_format)
        left, chosen = limit - _tokens(item, tokenizer, prompt_format), list[str]()
        for name, length in lengths.items():
            if length <= left:
                left, chosen = left - length, [*chosen, texts[name]]
        prompt = _before(item, chosen)
        while (own := _tokens(prompt, tokenizer, prompt_format)) > limit and chosen:  # more tokens together than one by one
            chosen.pop()
            prompt = _before(item, chosen)
        changed.append(prompt)
        counts.append(len(chosen))
        tokens.append(own if own <= limit else len(encode_prompt(prompt, tokenizer, limit, prompt_format)))
        cut.append(own > limit or item.context != example.context)
    return FewShotPrompts(tuple(changed), tuple(counts), tuple(tokens), len(shots), tuple(cut))


def _answers(examples: Sequence[Example], shots: Sequence[Example]) -> set[str]:
    """Every label of the examples, and every answer of the shots."""
    return {label for example in examples for label in example.labels} | {shot.answer for shot in shots}


def reserved_for(output_type: str, evaluation: EvaluationSettings) -> int:
    """Tokens kept for an answer: 0 where labels are scored, which are seen to one by one."""
    return 0 if output_type in LABEL_TYPES else evaluation.max_new_tokens


def _before(example: Example, texts: Sequence[str]) -> Example:
    """The example with texts before its query: its prompt is theirs and then its own."""
    return replace(example, query="".join([*texts, _LEAD]).removeprefix(_LEAD) + example.query)


def _tokens(example: Example, tokenizer: Any, prompt_format: PromptFormat) -> int:
    return len(prompt_format.encoded(prompt_format.prompt(example.query, example.context)[0], tokenizer)["input_ids"])
