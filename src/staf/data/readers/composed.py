"""Text composed of short mentions that never contains its own answer.

    Patient: 71 years old; female. Admission: emergency; from emergency room. Service: cardiac surgery.

A mention is left out where, with the text before it, it would contain a forbidden phrase.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from staf.data.example import normalise


def compose(mentions: Iterable[tuple[str, str]], forbidden: Collection[str] = ()) -> tuple[str, int]:
    """The text of (topic, mention) pairs, one sentence for mentions of the same topic in a row, and how many are left out."""
    phrases = [f" {phrase} " for phrase in map(normalise, forbidden) if phrase]
    sentences: list[str] = []
    said, topic, left_out = " ", "", 0
    for about, mention in mentions:
        opening = f"{_words(about)} " if about != topic else ""
        longer = f"{said}{opening}{_words(mention)} "
        if any(phrase in longer for phrase in phrases):
            left_out += 1
            continue
        if about != topic:
            sentences.append(f"{about}: {mention}")
        else:
            sentences[-1] += f"; {mention}"
        said, topic = longer, about
    return "".join(f"{sentence}. " for sentence in sentences).strip(), left_out


@lru_cache(maxsize=10_000)
def _words(text: str) -> str:
    return normalise(text)
