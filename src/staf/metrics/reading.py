"""Exact match and token F1 of reading comprehension, normalised as SQuAD does (Rajpurkar et al. 2016 and 2018).

Normalised: lower case, ASCII punctuation out, the words a, an and the out, single spaces. That is the field's rule and not
ours: it takes "hepatitis A" and "hepatitis" for the same. Several texts may be right: the best one counts. Where the context
holds no answer only an empty answer is right, and an empty answer to anything else is wrong.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from staf.metrics.shapes import Prediction

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact_match(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) 1 where the normalised answer is one of the gold texts, else 0."""
    return _best_of(predictions, lambda gold, answer: float(gold == answer))


def token_f1(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) best F1 of the words that the normalised answer shares with a gold text, repeats counted."""
    return _best_of(predictions, _word_f1)


def normalised_words(text: str) -> list[str]:
    """The words that are compared."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _best_of(predictions: Sequence[Prediction], score: Callable[[list[str], list[str]], float]) -> np.ndarray:
    best = []
    for prediction in predictions:
        answer = normalised_words(prediction["answer"])
        golds = [words for text in prediction["gold"] if (words := normalised_words(text))] or [[]]
        best.append(max(score(gold, answer) for gold in golds))
    return np.array(best)


def _word_f1(gold: list[str], answer: list[str]) -> float:
    if not gold or not answer:
        return float(gold == answer)
    shared = (Counter(gold) & Counter(answer)).total()
    return 2 * shared / (len(gold) + len(answer))
