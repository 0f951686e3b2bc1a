"""emrQA (Pampari et al., 2018): questions on clinical notes, generated from i2b2 annotations.

    {"data": [{"title": "medication", "paragraphs": [{"note_id", "context": [line, ..], "qas": [
        {"id", "question": [paraphrase, ..], "answers": [
            {"text", "evidence", "evidence_start", "answer_start", "answer_entity_type"}]}]}]}]}

as github.com/panushri25/emrQA writes data.json. Its parts differ:

    medication, relations   evidence is complete lines, evidence_start the number of the first one, from 1
    risk-dataset            evidence_start counts characters from 0, in the lines joined by line ends
    smoking, obesity        answers are judgements of the note (CURRENT SMOKER, yes, UNK) without evidence: left out

The answer is `text` inside the evidence, in any case, for answer_entity_type 'single', and the evidence for 'empty' (yes, no,
assertions); 'complex' answers are left out. Evidence is taken at the position nearest to its number. The first answer that
is found counts, and one paraphrase drawn by hash. `QUESTIONS` of the some eighty questions of each note are kept, drawn by
hash. Split 80/10/10 by the note's text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, draw, span
from staf.data.sources import find_one, json_file, listed, single_spaced
from staf.data.splits import split_of
from staf.errors import BadData

NAME = "emrqa"
LAYOUTS = ("data.json", "data.json.gz")
PARTS = ("medication", "relations", "risk-dataset", "smoking", "obesity")
BY_CHARACTER = "risk-dataset"
QUESTIONS = 8
"""Kept of a note."""


@dataclass(frozen=True, slots=True)
class _Note:
    """A note as one single-spaced text, and where its lines begin, in the file's count and in that text."""

    text: str
    by_character: bool
    raw: list[int]
    spaced: list[int]

    def place(self, start: int) -> int:
        """Where in the text a line (by its number) or a character (by its offset) is, at least by its line."""
        line = bisect_right(self.raw, start) - 1 if self.by_character else start - 1
        return self.spaced[min(max(line, 0), len(self.spaced) - 1)]


def files(folder: Path) -> list[Path]:
    """The file of all five parts; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Questions as task type reading_comprehension, split 80/10/10 by note."""

    def make(place: str, record: tuple[str, dict[str, Any]]) -> Iterator[Example]:
        yield from _examples(place, *record, report)

    for path in files(folder):
        yield from report.each(_paragraphs(path), make)


def _paragraphs(path: Path) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """Each note with the part that it belongs to."""
    for part in listed(json_file(path, dict), "data", str(path)):
        title = part.get("title")
        if title not in PARTS:
            raise BadData(f"{path}: a title is none of {', '.join(PARTS)}. Is this the data.json of emrQA?")
        for number, paragraph in enumerate(listed(part, "paragraphs", f"{path}, {title}"), 1):
            yield f"{path}, {title} note {number}", (title, paragraph)


def _examples(place: str, part: str, paragraph: dict[str, Any], report: ReadReport) -> Iterator[Example]:
    note = _note(place, part, paragraph)
    about = minhash_keys(note.text)
    example_id = f"{NAME}/{part}/{place.rpartition(' ')[2]}"
    found = {}
    questions = listed(paragraph, "qas", place)
    for number, record in enumerate(questions, 1):
        where = f"{place}, question {number}"
        question = _phrasing(record, f"{example_id}/{number}", where)
        answer = _answer(note, listed(record, "answers", where), where)
        if isinstance(answer, str):
            report.skip(answer)
        else:
            found[str(number)] = (question, answer)
    kept = set(draw(example_id, found, QUESTIONS))
    report.skip(f"beyond {QUESTIONS} questions of a note", len(found) - len(kept))
    for name, (question, answer) in found.items():
        if name in kept:
            example = f"{example_id}/{name}"
            split = split_of(about[0])
            origin = Origin(split, about, about[0])
            yield span(example, "question", question, note.text, answer, origin)


def _note(place: str, part: str, paragraph: dict[str, Any]) -> _Note:
    context = paragraph.get("context")
    lines = [context] if isinstance(context, str) else context
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines) or not any(map(str.strip, lines)):
        raise BadData(f"{place}: field 'context' is missing, empty, or neither a text nor a list of lines.")
    parts = [single_spaced(line) for line in lines]
    ends = accumulate(len(line) + bool(line) for line in parts)
    raw = accumulate(len(line) + 1 for line in lines)
    return _Note(" ".join(filter(None, parts)), part == BY_CHARACTER, [0, *raw], [0, *ends][: len(parts)])


def _phrasing(record: dict[str, Any], example_id: str, place: str) -> str:
    """One of the paraphrases; the order in the file is that of a set, so they are sorted first."""
    questions = record.get("question")
    if not isinstance(questions, list) or not questions or not all(isinstance(q, str) and q.strip() for q in questions):
        raise BadData(f"{place}: field 'question' is missing, or not a list of texts.")
    return draw(f"question:{example_id}", sorted(map(single_spaced, questions)), 1)[0]


def _answer(note: _Note, answers: list[dict[str, Any]], place: str) -> tuple[int, int] | str:
    """Position of the first answer that is found in the note, or why there is none."""
    reason = "the question has no answer"
    for answer in answers:
        text, evidence = (answer.get(name) for name in ("text", "evidence"))
        if not isinstance(text, str) or not isinstance(evidence, str):
            raise BadData(f"{place}: 'text' or 'evidence' of an answer is missing or not text.")
        kind, start = answer.get("answer_entity_type", "single"), answer.get("evidence_start")
        if not evidence.strip():
            reason = "the answer is a judgement of the note"
        elif kind not in ("single", "empty", "complex") or not isinstance(start, int):
            raise BadData(f"{place}: an answer has an unknown 'answer_entity_type', or no number in 'evidence_start'.")
        elif kind == "complex":
            reason = "the answer is composed of several passages"
        elif (first := _nearest(note.text, single_spaced(evidence), note.place(start))) < 0:
            reason = "the evidence does not stand in the note"
        else:
            last = first + len(single_spaced(evidence))
            if kind == "empty" or not text.strip():
                return first, last
            words = re.compile(rf"(?<!\w){re.escape(single_spaced(text))}(?!\w)", re.IGNORECASE)
            if match := words.search(note.text, first, last):
                return match.span()
            reason = "the answer does not stand in its evidence"
    return reason


def _nearest(text: str, words: str, expected: int) -> int:
    """The place of `words` nearest to the one that is expected, -1 where there is none."""
    after = text.find(words, expected)
    before = text.rfind(words, 0, expected + len(words))
    return min((at for at in (after, before) if at >= 0), key=lambda at: abs(at - expected), default=-1)
