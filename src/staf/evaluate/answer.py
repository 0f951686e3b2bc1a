"""How a base answers: label scores, spans of the context, free text. What becomes of the answers is the same for all."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from staf.data.example import Example
from staf.evaluate.settings import EvaluationSettings
from staf.lm.base import Base
from staf.lm.generation import extract_spans, generate
from staf.lm.scoring import OnDone, score_labels


class Answerer:
    """A base answers examples in their order, in whichever of the three ways their form asks for, as it is routed now.

    Args:
        on_done: called with the number of examples just answered.
    """

    def __init__(self, base: Base, settings: EvaluationSettings, on_done: OnDone | None = None) -> None:
        self.base, self.settings, self.on_done = base, settings, on_done

    def scores(self, examples: Sequence[Example]) -> list[Tensor]:
        """As `staf.lm.scoring.score_labels`."""
        return score_labels(
            self.base, examples, max_length=self.settings.max_length, token_budget=self.settings.token_budget,
            length_normalised=self.settings.length_normalised, on_done=self.on_done,
        )  # fmt: skip

    def spans(self, examples: Sequence[Example]) -> list[str]:
        """As `staf.lm.generation.extract_spans`."""
        return extract_spans(
            self.base, examples, max_length=self.settings.max_length, max_new_tokens=self.settings.max_new_tokens,
            token_budget=self.settings.token_budget, on_done=self.on_done,
        )  # fmt: skip

    def texts(self, examples: Sequence[Example]) -> list[str]:
        """As `staf.lm.generation.generate`."""
        return generate(
            self.base, examples, max_length=self.settings.max_length, max_new_tokens=self.settings.max_new_tokens,
            token_budget=self.settings.token_budget, on_done=self.on_done,
        )  # fmt: skip
