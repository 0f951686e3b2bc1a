"""ACI-BENCH (Yim et al., Scientific Data 2023): conversations of visits, each with its clinical note.

    challenge_data/{train,valid,clinicalnlp_taskB_test1,clinicalnlp_taskC_test2,clef_taskC_test3}.csv
        dataset, encounter_id, dialogue (lines '[doctor] ..', '[patient] ..', '[patient_guest] ..'), note

    summarization          conversation -> note
    medical_conversation   the last words of the conversation -> the doctor's turn, up to three turns of a conversation

The authors' split is used; valid is adaptation, the three tests are test. A line without a speaker continues the turn before
it. Speakers that speech recognition swapped stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.conversations import Dialogue, asked_turns, read_turns, summary, written
from staf.data.sources import csv_rows, find_one, lines_field, text_field

FILES = {
    "train": ("train.csv", "train"),
    "valid": ("valid.csv", "adaptation"),
    "test1": ("clinicalnlp_taskB_test1.csv", "test"),
    "test2": ("clinicalnlp_taskC_test2.csv", "test"),
    "test3": ("clef_taskC_test3.csv", "test"),
}
"""File and split by the name of the part."""
COLUMNS = ("dataset", "encounter_id", "dialogue", "note")
TURNS = 3
"""Turns of the doctor that are asked for, at most, of one visit."""

_MARK = re.compile(r"\[(doctor|patient|patient_guest)\] *(.*)")
_SPEAKERS = {"doctor": "Doctor", "patient": "Patient", "patient_guest": "Guest"}


def files(folder: Path) -> list[Path]:
    """The five files under `folder`; MissingData where one is not there."""
    layouts = ("challenge_data/{}", "data/challenge_data/{}", "{}")
    return [find_one(folder, [layout.format(name) for layout in layouts], "aci-bench") for name, _ in FILES.values()]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """ACI-BENCH as task types summarization and medical_conversation, in its authors' split."""
    for part, path in zip(FILES, files(folder), strict=True):

        def make(place: str, row: dict[str, str], part: str = part) -> Iterator[Example]:
            text, note = lines_field(row, "dialogue", place), lines_field(row, "note", place)
            turns = read_turns(text, _marked, place, report)
            name = f"aci-bench/{text_field(row, 'encounter_id', place)}"
            dedup_keys = (dedup_key(name), *minhash_keys(written(turns)))
            dialogue = Dialogue(name, turns, FILES[part][1], dedup_keys, name)
            yield summary(dialogue, "note", written(turns), note)
            yield from asked_turns(dialogue, TURNS, report)

        yield from report.each(csv_rows(path, COLUMNS, report), make)


def _marked(line: str) -> tuple[str, str] | None:
    found = _MARK.fullmatch(line)
    return (_SPEAKERS[found[1]], found[2]) if found else None
