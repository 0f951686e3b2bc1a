"""MTS-Dialog (Ben Abacha et al., EACL 2023): short doctor-patient conversations, each with a section of a note.

    Main-Dataset/*.csv   ID, section_header (20 values), section_text, dialogue (lines 'Doctor: ..', 'Patient: ..')

    summarization          section name and conversation -> section text
    medical_conversation   the conversation so far -> the doctor's turn, up to two turns of a conversation

The authors' split is used; validation is adaptation. Numbered and misspelt speakers are recognised, a line without a speaker
continues the turn before it, and of a dialogue that is repeated in its file only the first gives turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.conversations import Dialogue, asked_turns, read_turns, summary, written
from staf.data.sources import csv_rows, find_one, lines_field, text_field, vocabulary
from staf.errors import BadData

FILES = {
    "training": ("MTS-Dialog-TrainingSet.csv", "train"),
    "validation": ("MTS-Dialog-ValidationSet.csv", "adaptation"),
    "test-1": ("MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", "test"),
    "test-2": ("MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv", "test"),
}
"""File and split by the name of the part."""
COLUMNS = ("ID", "section_header", "section_text", "dialogue")
SECTIONS: dict[str, str] = vocabulary("mts_sections")
"""Names of the sections by their headers."""
TURNS = 2
"""Turns of the doctor that are asked for, at most, of one conversation."""

_MARK = re.compile(r'"?([A-Za-z]+(?:_[A-Za-z]+)?)_?(\d?)(?::|(?<=_family)\.) *(.*)')
_SPEAKERS = {
    "doctor": "Doctor", "patient": "Patient", "guest_family": "Guest family", "guest_clinician": "Guest clinician",
    "docotr": "Doctor", "gest_family": "Guest family", "guest_clinican": "Guest clinician",
}  # fmt: skip
"""By mark, the misspelt ones too."""


def files(folder: Path) -> list[Path]:
    """The four files under `folder`; MissingData where one is not there."""
    return [find_one(folder, (f"Main-Dataset/{name}", name), "mts-dialog") for name, _ in FILES.values()]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MTS-Dialog as task types summarization and medical_conversation, in its authors' split."""
    known: dict[str, str] = {}
    for part, path in zip(FILES, files(folder), strict=True):
        yield from report.each(csv_rows(path, COLUMNS, report), _maker(part, known, report))


def _maker(part: str, known: dict[str, str], report: ReadReport) -> Callable[[str, dict[str, str]], Iterator[Example]]:
    """What makes the examples of a row of a part; `known` tells the part of each dialogue that was read before."""

    def make(place: str, row: dict[str, str]) -> Iterator[Example]:
        header = text_field(row, "section_header", place).upper()
        if header not in SECTIONS:
            raise BadData(f"{place}: the section header is none of the {len(SECTIONS)} of MTS-Dialog.")
        section = lines_field(row, "section_text", place)
        text = lines_field(row, "dialogue", place)
        turns = read_turns(text, _marked, place, report)
        name = f"mts-dialog/{part}/{text_field(row, 'ID', place)}"
        dialogue = Dialogue(name, turns, FILES[part][1], minhash_keys(written(turns)), dedup_key(text))
        yield summary(dialogue, "section", f"Section: {SECTIONS[header]}\n{written(turns)}", section)
        before = known.get(row["dialogue"])
        known.setdefault(row["dialogue"], part)
        if before == part:
            report.skip("the turns of a dialogue that its file repeats")
            return
        yield from asked_turns(dialogue, TURNS, report)

    return make


def _marked(line: str) -> tuple[str, str] | None:
    """Speaker and words of a line, None where it names no speaker."""
    found = _MARK.fullmatch(line)
    speaker = _SPEAKERS.get(found[1].lower()) if found else None
    return (f"{speaker} {found[2]}".strip(), found[3]) if found and speaker else None
