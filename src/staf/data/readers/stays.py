"""Examples of the three clinical tasks from any records, and text composed of short mentions.

Patient: 71 years old; female. Admission: emergency; from emergency room. Service: cardiac surgery.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from staf.data.example import Example, normalise
from staf.data.readers.shapes import Origin, example
from staf.data.splits import SHARES, split_of

YES_NO = ("yes", "no")
"""Labels of readmission."""


def stay_example(
    example_id: str,
    task_type: str,
    patient: str,
    text: str,
    answer: str,
    shares: tuple[int, int, int] = SHARES,
    minhash: tuple[str, ...] = (),
) -> Example:
    """One example; `patient` is its fingerprint and its group, `sketch` those of the text. Codes and drugs have open labels."""
    asked, labels = ("thirty_days", YES_NO) if task_type == "readmission" else ("all", ())
    origin = Origin(split_of(patient, shares), (patient, *minhash), patient)
    return example(
        example_id, task_type, asked, text, answer, origin, labels, output_type="multiple_choice" if labels else "multi_label"
    )


def compose(mentions: Iterable[tuple[str, str]], forbidden: Collection[str] = ()) -> tuple[str, int]:
    """Text of (topic, mention) pairs, one sentence for consecutive mentions of a topic, and how many are left out.

    A mention is left out where, with the text before it, it would contain a forbidden phrase.
    """
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
