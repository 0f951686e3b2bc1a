"""Words of a text and a vocabulary of them, made from what is fitted on alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from staf.baselines.classifiers.settings import ClassifierSettings

PAD, UNKNOWN = 0, 1
"""Numbers that stand for no word, and for a word that is not in the vocabulary."""

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of words, from 2 on."""

    numbers: dict[str, int]
    max_words: int
    """of a text; what follows is not read"""

    @classmethod
    def of(cls, texts: Iterable[str], settings: ClassifierSettings) -> Vocabulary:
        """The most frequent words of the texts that are frequent enough; equally frequent ones in order of the alphabet."""
        counts = Counter(word for text in texts for word in words_of(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in ranked if counts[word] >= settings.min_count][: settings.max_vocabulary]
        return cls({word: number for number, word in enumerate(kept, start=2)}, settings.max_words)

    def __len__(self) -> int:
        """Words, and the two numbers that stand for none."""
        return len(self.numbers) + 2

    def encode(self, text: str) -> list[int]:
        """Numbers of the first words of a text; one unknown word where there is none."""
        return [self.numbers.get(word, UNKNOWN) for word in words_of(text)[: self.max_words]] or [UNKNOWN]
