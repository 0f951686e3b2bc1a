"""Summaries and conversations: MeQSum, MTS-Dialog and ACI-BENCH.

    meqsum      sheet QS of a workbook   File, CHQ (consumer health question), Summary
    mts-dialog  Main-Dataset/*.csv       ID, section_header, section_text, dialogue (lines 'Doctor: ..', 'Patient: ..')
    aci-bench   challenge_data/*.csv     dataset, encounter_id, dialogue (lines '[doctor] ..', '[patient_guest] ..'), note

    summarization          consumer's question -> short question; (section name and) conversation -> section or note
    medical_conversation   the conversation so far -> the doctor's turn, up to two (MTS-Dialog) or three turns of a conversation

MeQSum (Ben Abacha and Demner-Fushman, ACL 2019): `SUBJECT:` and `MESSAGE:` stay, each on a line of its own; misspellings
stay. Split 80/10/10 by the question. MTS-Dialog (Ben Abacha et al., EACL 2023) and ACI-BENCH (Yim et al., Scientific Data
2023) have their authors' splits; validation is adaptation. Numbered and misspelt speakers are recognised, a line without a
speaker continues the turn before it, and of a dialogue that is repeated in its file only the first gives turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from staf.data.archives import sheet_rows
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import WINDOW, Origin, Row, drawn, each_record, example, number_of, vocabulary
from staf.data.sources import csv_rows, lines_field, text_field
from staf.data.splits import seeded_rng
from staf.errors import BadData

SPLITS = {"training": "train", "validation": "adaptation"}
"""Ours by the parts of MTS-Dialog; the others are test."""
DOCTOR = "Doctor"
SHORTEST_TURN = 6
"""Words; a shorter turn ('okay, all right') says too little to be asked for."""
SECTIONS: dict[str, str] = vocabulary("mts_sections")
"""Names of the sections by their headers."""
SPEAKERS: dict[str, str] = vocabulary("speakers")
"""By mark, the misspelt ones too."""

_NAMED = re.compile(r'"?([A-Za-z]+(?:_[A-Za-z]+)?)_?(\d?)(?::|(?<=_family)\.) *(.*)')
_BRACKETED = re.compile(r"\[(doctor|patient|patient_guest)\]() *(.*)")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says; the speaker is '' where the conversation begins without a mark."""

    speaker: str
    text: str

    @property
    def line(self) -> str:
        """The turn as it is written down."""
        return f"{self.speaker}: {self.text}" if self.speaker else self.text


@each_record(partial(sheet_rows, sheet="QS", columns=("File", "CHQ", "Summary")))
def meqsum(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """MeQSum as task type summarization, split 80/10/10 by the hash of the question."""
    question, summary = lines_field(row, "CHQ"), text_field(row, "Summary")
    origin = drawn(dedup_key(question), *minhash_keys(question))
    yield example(f"meqsum/{number_of(place)}", "summarization", "question", question, summary, origin)


def mts_dialog(files: Files, report: ReadReport) -> Iterator[Example]:
    """MTS-Dialog as task types summarization and medical_conversation, in its authors' split."""
    seen: set[tuple[str, str]] = set()

    @each_record(partial(csv_rows, columns=("ID", "section_header", "section_text", "dialogue")))
    def read(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
        header = text_field(row, "section_header").upper()
        if header not in SECTIONS:
            raise BadData(f"the section header is none of the {len(SECTIONS)} of MTS-Dialog.")
        section, text = lines_field(row, "section_text"), lines_field(row, "dialogue")
        turns, name = read_turns(text, _NAMED), f"mts-dialog/{part}/{text_field(row, 'ID')}"
        origin = Origin(SPLITS.get(part, "test"), minhash_keys(written(turns)), dedup_key(text))
        said = f"Section: {SECTIONS[header]}\n{written(turns)}"
        yield example(f"{name}/section", "summarization", "section", said, section, origin)
        if (part, row["dialogue"]) in seen:
            report.skip("the turns of a dialogue that its file repeats")
        else:
            seen.add((part, row["dialogue"]))
            yield from asked_turns(name, turns, origin, 2, report)

    return read(files, report)


@each_record(partial(csv_rows, columns=("dataset", "encounter_id", "dialogue", "note")))
def aci_bench(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """ACI-BENCH as task types summarization and medical_conversation, in its authors' split."""
    text, note = lines_field(row, "dialogue"), lines_field(row, "note")
    turns, name = read_turns(text, _BRACKETED), f"aci-bench/{text_field(row, 'encounter_id')}"
    origin = Origin(part.rstrip("123"), (dedup_key(name), *minhash_keys(written(turns))), name)
    yield example(f"{name}/note", "summarization", "note", written(turns), note, origin)
    yield from asked_turns(name, turns, origin, 3, report)


def read_turns(text: str, mark: re.Pattern[str]) -> tuple[Turn, ...]:
    """The turns of a conversation, one line a turn, or more; turns without words are dropped.

    Args:
        text: lines; one without a mark of a known speaker continues the turn before it.
        mark: of a line with a speaker: its groups are the speaker, a number or '', and the words.
    """
    turns: list[Turn] = []
    for line in text.splitlines():
        found = mark.fullmatch(line)
        if found and (speaker := SPEAKERS.get(found[1].lower())):
            turns.append(Turn(f"{speaker} {found[2]}".strip(), found[3]))
        else:
            last = turns.pop() if turns else Turn("", "")
            turns.append(Turn(last.speaker, f"{last.text} {line}".strip()))
    if not any(turn.speaker for turn in turns):
        raise BadData("no line of the conversation begins with a speaker.")
    return tuple(turn for turn in turns if turn.text)


def written(turns: Sequence[Turn]) -> str:
    """Turns as text, one a line."""
    return "\n".join(turn.line for turn in turns)


def asked_turns(name: str, turns: Sequence[Turn], origin: Origin, most: int, report: ReadReport) -> Iterator[Example]:
    """Up to `most` turns of the doctor as task type medical_conversation, drawn by the conversation's name, in their order.

    A turn that is asked for follows somebody else's, and has `SHORTEST_TURN` words or more.
    """
    fit = [
        index
        for index in range(1, len(turns))
        if turns[index].speaker == DOCTOR
        and not turns[index - 1].speaker.startswith(DOCTOR)
        and len(turns[index].text.split()) >= SHORTEST_TURN
    ]
    report.skip("a conversation without a doctor's turn to ask for", not fit)
    for index in sorted(seeded_rng(f"turns:{name}").sample(fit, min(most, len(fit)))):
        context = last_words(turns[:index])
        yield example(f"{name}/turn/{index + 1}", "medical_conversation", "turn", context, turns[index].text, origin)


def last_words(turns: Sequence[Turn], size: int = WINDOW) -> str:
    """The end of a conversation in at most `size` characters: complete turns, or the end of the last one."""
    kept = ""
    for turn in reversed(turns):
        longer = f"{turn.line}\n{kept}" if kept else turn.line
        if len(longer) > size:
            return kept or longer[-size:].partition(" ")[2]
        kept = longer
    return kept
