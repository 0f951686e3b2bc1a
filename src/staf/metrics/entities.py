"""Entity-level counts: how many mentions of each type were found, exactly or by overlap.

Exact: the same type and the same words, whatever their case; a mention that stands twice must be found twice. Overlap: the same
type, and words that could lie over each other in a text: one mention within the other ("chest pain" in "acute chest pain"), or
the end of one being the beginning of the other. Sharing a word alone is not enough ("loss of weight", "signs of fever").
Answers hold no positions, so this is as much as can be known. Each mention is matched once at most, and as many as can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from staf.metrics.shapes import Prediction

Words = tuple[str, ...]
Matches = Callable[[list[Words], list[Words]], int]


def entity_counts(predictions: Sequence[Prediction], matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, types) counts right, gold, answered; types are those that occur in any answer, gold or given, sorted."""
    types = sorted({mention["type"] for p in predictions for key in ("gold", "answer") for mention in p[key]})
    counts = np.zeros((3, len(predictions), len(types)), dtype=int)
    for row, prediction in enumerate(predictions):
        for column, kind in enumerate(types):
            gold, answered = _words(prediction["gold"], kind), _words(prediction["answer"], kind)
            counts[:, row, column] = matches(gold, answered), len(gold), len(answered)
    return counts[0], counts[1], counts[2]


def exact_matches(gold: list[Words], answered: list[Words]) -> int:
    """How many mentions are the same on both sides, repeats counted."""
    return (Counter(gold) & Counter(answered)).total()


def overlap_matches(gold: list[Words], answered: list[Words]) -> int:
    """The most pairs of overlapping mentions in which none takes part twice; at least as many as exact ones."""
    from scipy.optimize import linear_sum_assignment

    meet = np.array([[overlap(a, b) for b in answered] for a in gold], dtype=int).reshape(len(gold), len(answered))
    rows, columns = linear_sum_assignment(meet, maximize=True)
    return int(meet[rows, columns].sum())


def overlap(one: Words, other: Words) -> bool:
    """Whether two mentions could lie over each other in a text by at least one word."""
    return any(
        one[max(0, shift) : shift + len(other)] == other[max(0, -shift) : len(one) - shift]
        for shift in range(1 - len(other), len(one))
    )


def _words(mentions: list[dict[str, str]], kind: str) -> list[Words]:
    return [tuple(mention["text"].casefold().split()) for mention in mentions if mention["type"] == kind]
