"""ROUGE-L of summaries (Lin 2004): F measure of the longest common subsequence of words, a summary being one sequence.

Words are runs of a to z and 0 to 9 in lower case, not stemmed, as in Google's `rouge-score`, whose numbers these are. That
package brings nltk and absl for the fifteen lines below, so it is not required. Several references may be given: the best one
counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from staf.metrics.shapes import Prediction

_WORD = re.compile(r"[a-z0-9]+")


def rouge_l(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) best ROUGE-L F measure of an answer against its references, 0 where nothing is shared."""
    return np.array([max(_f_measure(_words(gold), _words(p["answer"])) for gold in p["gold"]) for p in predictions])


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, by one addition of whole numbers per word (Hyyrö 2004).

    Bit i of `open_steps` is 0 where the length grows at word i of `one`.
    """
    places: dict[str, int] = defaultdict(int)
    for index, word in enumerate(one):
        places[word] |= 1 << index
    every = (1 << len(one)) - 1
    open_steps = every
    for word in other:
        matched = open_steps & places.get(word, 0)
        open_steps = ((open_steps + matched) | (open_steps - matched)) & every
    return len(one) - open_steps.bit_count()


def _f_measure(reference: list[str], answer: list[str]) -> float:
    words = len(reference) + len(answer)
    return 2 * common_subsequence(reference, answer) / words if words else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
