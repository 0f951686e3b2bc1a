"""Conversations: turns read line by line, and the doctor's turns as examples.

    Doctor: Where does it hurt?
    Patient: Here, on the left.

A line without a speaker continues the turn before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import WINDOW, Origin, example
from staf.data.splits import seeded_rng
from staf.errors import BadData

DOCTOR = "Doctor"
SHORTEST_TURN = 6
"""Words; a shorter turn ('okay, all right') says too little to be asked for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says; the speaker is '' where the conversation begins without a mark."""

    speaker: str
    text: str

    @property
    def line(self) -> str:
        """The turn as it is written down."""
        return f"{self.speaker}: {self.text}" if self.speaker else self.text


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation, and what its examples share; their ids begin with its id."""

    id: str
    turns: tuple[Turn, ...]
    split: str
    dedup_keys: tuple[str, ...]
    group: str


def read_turns(text: str, marked: Callable[[str], tuple[str, str] | None], place: str, report: ReadReport) -> tuple[Turn, ...]:
    """The turns of a conversation; turns without words are dropped.

    Args:
        text: one line a turn, or more.
        marked: speaker and words of a line; None where it names no speaker.
        place: file and record, for messages.
    """
    turns: list[Turn] = []
    for line in text.splitlines():
        found = marked(line)
        if found is None:
            last = turns.pop() if turns else Turn("", "")
            found = last.speaker, f"{last.text} {line}".strip()
        turns.append(Turn(*found))
    if not any(turn.speaker for turn in turns):
        raise BadData(f"{place}: no line of the conversation begins with a speaker.")
    return tuple(turn for turn in turns if turn.text)


def written(turns: Sequence[Turn]) -> str:
    """Turns as text, one a line."""
    return "\n".join(turn.line for turn in turns)


def asked_turns(dialogue: Dialogue, most: int, report: ReadReport) -> Iterator[Example]:
    """Up to `most` turns of the doctor as task type medical_conversation, drawn by the conversation's id, in their order.

    A turn that is asked for follows somebody else's, and has `SHORTEST_TURN` words or more.
    """
    turns = dialogue.turns
    fit = [
        index
        for index in range(1, len(turns))
        if turns[index].speaker == DOCTOR
        and not turns[index - 1].speaker.startswith(DOCTOR)
        and len(turns[index].text.split()) >= SHORTEST_TURN
    ]
    if not fit:
        report.skip("a conversation without a doctor's turn to ask for")
    for index in sorted(seeded_rng(f"turns:{dialogue.id}").sample(fit, min(most, len(fit)))):
        example_id = f"{dialogue.id}/turn/{index + 1}"
        origin = Origin(dialogue.split, dialogue.dedup_keys, dialogue.group)
        context = last_words(turns[:index])
        yield example(
            example_id, "medical_conversation", "turn", context, turns[index].text, origin, output_type="generate_until"
        )


def last_words(turns: Sequence[Turn], size: int = WINDOW) -> str:
    """The end of a conversation in at most `size` characters: complete turns, or the end of the last one."""
    kept = ""
    for turn in reversed(turns):
        longer = f"{turn.line}\n{kept}" if kept else turn.line
        if len(longer) > size:
            return kept or longer[-size:].partition(" ")[2]
        kept = longer
    return kept


def summary(dialogue: Dialogue, asked: str, context: str, answer: str) -> Example:
    """A conversation as task type summarization; `asked` is the family of queries."""
    example_id = f"{dialogue.id}/{asked}"
    origin = Origin(dialogue.split, dialogue.dedup_keys, dialogue.group)
    return example(example_id, "summarization", asked, context, answer, origin, output_type="generate_until")
