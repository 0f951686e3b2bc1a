"""Metrics of written answers: SQuAD's exact match and token F1, ROUGE, and entity F1.

Exact match and token F1 normalise as SQuAD does (Rajpurkar et al. 2016, 2018): lower case, no ASCII punctuation, no articles.
Several texts may be right: the best one counts. Where the context holds no answer only an empty answer is right.

Entities match exactly (same type, same words, whatever their case) or by overlap: same type, and words that could lie over
each other in a text ("chest pain" in "acute chest pain"). Each mention is matched once at most, and as many as can be. Answers
hold no positions, so this is as much as can be known. What was answered counts as answered, invented or not.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from staf.metrics.classification import Counts
from staf.metrics.schema import Prediction

Words = tuple[str, ...]
ROUGE = {"rouge_l": "rougeL", "rouge_1": "rouge1", "rouge_2": "rouge2"}
"""The package's name of each metric."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact_match(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) 1 where the normalised answer is one of the gold texts, else 0."""
    return _best_of(predictions, lambda gold, answer: float(gold == answer))


def token_f1(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) best F1 of the words that the normalised answer shares with a gold text, repeats counted."""

    def f1(gold: list[str], answer: list[str]) -> float:
        shared = (Counter(gold) & Counter(answer)).total()
        return 2 * shared / (len(gold) + len(answer)) if gold and answer else float(gold == answer)

    return _best_of(predictions, f1)


def normalised_words(text: str) -> list[str]:
    """The words that exact match and token F1 compare."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _best_of(predictions: Sequence[Prediction], score: Callable[[list[str], list[str]], float]) -> np.ndarray:
    best = []
    for prediction in predictions:
        answer = normalised_words(prediction["answer"])
        golds = [words for text in prediction["gold"] if (words := normalised_words(text))] or [[]]
        best.append(max(score(gold, answer) for gold in golds))
    return np.array(best)


def rouge(predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """(n,) best ROUGE F measure (Lin 2004) of an answer against its references, unstemmed, by metric."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE.values()), use_stemmer=False)
    scores = [[scorer.score(gold, p["answer"]) for gold in p["gold"]] for p in predictions]
    return {name: np.array([max(score[kind].fmeasure for score in own) for own in scores]) for name, kind in ROUGE.items()}


def entity_counts(predictions: Sequence[Prediction], matches: Callable[[list[Words], list[Words]], int]) -> Counts:
    """(n, types) counts as F1 takes them; types are those of any answer, gold or given, sorted."""

    def words(mentions: list[dict[str, str]], name: str) -> list[Words]:
        return [tuple(mention["text"].casefold().split()) for mention in mentions if mention["type"] == name]

    types = sorted({mention["type"] for p in predictions for key in ("gold", "answer") for mention in p[key]})
    right, both = np.zeros((2, len(predictions), len(types)))
    for row, prediction in enumerate(predictions):
        for column, name in enumerate(types):
            gold, answered = words(prediction["gold"], name), words(prediction["answer"], name)
            right[row, column], both[row, column] = matches(gold, answered), len(gold) + len(answered)
    return right, both


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
