"""From a text to the work of the engine, and from what that found to the answer: the same as `staf predict` gives."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from staf.data.example import Example
from staf.errors import BadData
from staf.evaluate.answer import Answerer, label_prediction
from staf.lm.batches import encode_prompt
from staf.lm.generation import SpanConstraint, cut_at, decoded, span_constraint
from staf.lm.model import Base
from staf.lm.scoring import Choices, scoring_requests
from staf.predict import answer_of, example_of
from staf.serve.engine import Generation, PromptScoring, Scoring
from staf.serve.routers import ServedModel
from staf.serve.settings import ServeSettings

LABEL_SETS = 64
"""Sets of labels whose trees are kept."""


class LabelRow(NamedTuple):
    """A row of labels that is being scored."""

    example: Example
    truncated: bool
    work: Scoring


class Reader:
    """Makes work of texts, and answers of what was found; used by one thread at a time, for the tokenizer's sake."""

    def __init__(self, base: Base, settings: ServeSettings) -> None:
        self.base, self.settings = base, settings
        self._limit = min(settings.max_length, base.context_length)
        self._rows = int(base.model.get_input_embeddings().weight.shape[0])
        self._choices: dict[tuple[str, ...], Choices] = {}

    def label_row(self, model: ServedModel, place: str, row: str | Mapping[str, Any]) -> LabelRow:
        """A text, or a row as `staf predict` reads one, for a router of labels; raises BadData or ConfigError."""
        example = self._example(model, place, row)
        if len(example.labels) > max(self.settings.max_labels, len(_prompt(model).labels or ())):
            raise BadData(f"{place}: {len(example.labels)} labels are given, {self.settings.max_labels} are allowed.")
        (request,) = scoring_requests(self.base, [example], model.settings.max_length, self._choices)
        while len(self._choices) > LABEL_SETS:
            del self._choices[next(iter(self._choices))]
        self._check(request.prompt, request.choices.nodes)
        (truncated,) = Answerer(self.base, model.settings).truncated([example])
        return LabelRow(example, truncated, Scoring(model.routing, request.prompt, self._deadline(), choices=request.choices))

    def label_answer(self, model: ServedModel, row: LabelRow, scores: Tensor, threshold: float | None) -> dict[str, Any]:
        """The answer, the probability of every label, and with a threshold whether it abstained."""
        values, fitted = scores.numpy().astype(float), model.calibrator
        if fitted is None or row.example.output_type == "multiple_choice":
            found = label_prediction(row.example, values, None)
        else:
            found = label_prediction(row.example, fitted.log_odds(row.example.labels, values), fitted.threshold)
        return {**answer_of(row.example, found, threshold), "truncated": row.truncated}

    def task_text(
        self, model: ServedModel, row: str | Mapping[str, Any], limit: int | None = None, stop: Sequence[str] = ()
    ) -> Generation:  # fmt: skip
        """A text for a router whose answers are text; raises BadData or ConfigError."""
        example, own = self._example(model, "the text", row), model.settings
        prompt = encode_prompt(example, self.base.tokenizer, own.max_length - own.max_new_tokens, self.base.prompt_format)
        constraint = span_constraint(self.base, example, prompt) if example.output_type == "span" else None
        tokens = min(limit or own.max_new_tokens, own.max_new_tokens)
        return self.text(model, prompt, tokens, (*own.stop, *stop), constraint)

    def text(
        self, model: ServedModel, prompt: Sequence[int], limit: int, stop: Sequence[str],
        constraint: SpanConstraint | None = None,
    ) -> Generation:  # fmt: skip
        """A text that follows a prompt's tokens; raises BadData."""
        if limit > self.settings.max_new_tokens:
            raise BadData(f"max_tokens {limit}: at most {self.settings.max_new_tokens} are allowed.")
        self._check(prompt, limit)
        return Generation(
            model.routing, tuple(prompt), self._deadline(), limit=limit, stop=tuple(stop), constraint=constraint
        )  # fmt: skip

    def prompt_scores(self, model: ServedModel, prompt: Sequence[int]) -> PromptScoring:
        """The log-probabilities of a prompt's own tokens; raises BadData."""
        self._check(prompt, 1)
        return PromptScoring(model.routing, tuple(prompt), self._deadline())

    def tokens_of(self, text: str) -> list[int]:
        """Tokens of a text, without the end tokens that some tokenizers append."""
        encoded = self.base.tokenizer(text, return_special_tokens_mask=True)
        count = len(encoded["input_ids"])
        while count and encoded["special_tokens_mask"][count - 1]:
            count -= 1
        return list(encoded["input_ids"][: count or len(encoded["input_ids"])])

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of messages by the base's chat template; raises BadData where it has none, or does not take them."""
        tokenizer = self.base.tokenizer
        if not tokenizer.chat_template:
            raise BadData("the base has no chat template. Use /v1/completions, or a router as the model.")
        try:
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:
            raise BadData(f"the chat template of the base does not take these messages ({type(error).__name__}).") from error
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _example(self, model: ServedModel, place: str, row: str | Mapping[str, Any]) -> Example:
        return example_of(_prompt(model), place, row)

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.timeout

    def _check(self, prompt: Sequence[int], more: int) -> None:
        if not prompt:
            raise BadData("an empty prompt has no token to start from.")
        if len(prompt) + more > self._limit:
            raise BadData(f"a prompt of {len(prompt)} tokens and {more} of its answer: at most {self._limit} are allowed.")
        if not 0 <= min(prompt) <= max(prompt) < self._rows:
            raise BadData(f"a token id is not one of the {self._rows} that the base has.")


def final_text(base: Base, work: Generation, tokens: Sequence[int]) -> str:
    """The text of the tokens of an answer, up to the first stop string in it."""
    return work.constraint.span() if work.constraint else cut_at(decoded(base, tokens), work.stop)


def finish_reason(base: Base, work: Generation, tokens: Sequence[int]) -> str:
    """Why a text ended: stop (an end token, a stop string, the end of a span) or length."""
    full = len(tokens) < work.limit or (work.constraint is not None and work.constraint.complete)
    return "stop" if full or any(mark in decoded(base, tokens) for mark in work.stop) else "length"


def _prompt(model: ServedModel) -> Any:
    if model.prompt is None:
        raise BadData("this model is the base, which has no task. Give the name of a router as the model.")
    return model.prompt
