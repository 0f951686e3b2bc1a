"""Answers that stand in a text: COVID-QA, emrQA and CliCR.

    covid-qa  {"data": [{"paragraphs": [{"context", "document_id", "qas": [
                  {"id", "question", "is_impossible", "answers": [{"text", "answer_start"}]}]}]}]}
    emrqa     {"data": [{"title": "medication", "paragraphs": [{"note_id", "context": [line, ..], "qas": [
                  {"id", "question": [paraphrase, ..], "answers": [
                      {"text", "evidence", "evidence_start", "answer_start", "answer_entity_type"}]}]}]}]}
    clicr     {"version", "data": [{"source", "document": {"title", "context", "qas": [
                  {"id", "query": ".. @placeholder ..", "answers": [{"text", "origin": "dataset" or "UMLS"}]}]}}]}

COVID-QA: in the release of April 2020, 234 answers are one to three characters off their offset: the nearest position within
`NEAR` characters is taken, and an answer found nowhere near is rejected. Split by article.

emrQA (Pampari et al., 2018), as github.com/panushri25/emrQA writes it; its parts differ:

    medication, relations   evidence is complete lines, evidence_start the number of the first one, from 1
    risk-dataset            evidence_start counts characters from 0, in the lines joined by line ends
    smoking, obesity        answers are judgements of the note (CURRENT SMOKER, yes, UNK) without evidence: left out

The answer is `text` inside the evidence, in any case, for answer_entity_type 'single', and the evidence for 'empty' (yes, no,
assertions); 'complex' answers are left out. Evidence is taken at the position nearest to its number. The first answer that
is found counts, and one paraphrase drawn by hash. `QUESTIONS` of the some eighty questions of each note are kept, drawn by
hash. Split 80/10/10 by the note's text.

CliCR (Suster and Daelemans, 2018), blanks to fill from case reports: the text is title and context without the marks of
entities (BEG__left hand__END). The answer is the data set's own where the text has it as words in any case, else the first
synonym that the text has; a query with neither is left out. The authors' splits.
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
from staf.data.example import Example, dedup_key
from staf.data.json_files import json_object
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, Row, draw, drawn, each_record, number_of, spaced, span
from staf.data.sources import listed, named, single_spaced, text_field
from staf.errors import BadData

NEAR = 5
PARTS = ("medication", "relations", "risk-dataset", "smoking", "obesity")
BY_CHARACTER = "risk-dataset"
QUESTIONS = 8
"""Kept of a note."""
PLACEHOLDER = "@placeholder"

_MARK = re.compile(r"BEG__|__END")


def entries(path: Path, *names: str) -> list[dict[str, Any]]:
    """The objects in nested lists of a JSON object: of its field of the first name, of their fields of the second, .."""
    found = [json_object(path)]
    with named(path):
        for name in names:
            found = [inner for outer in found for inner in listed(outer, name)]
    return found


_Asked = tuple[str, tuple[str, ...], Row]
"""A text, its deduplication keys, and a question on it."""


def _articles(path: Path, report: ReadReport) -> Iterator[tuple[str, _Asked]]:
    def questions(place: str, article: Row) -> Iterator[tuple[str, _Asked]]:
        keys = minhash_keys(text_field(article, "context"))
        for number, question in enumerate(listed(article, "qas"), 1):
            yield f"{place}, question {number}", (article["context"], keys, question)

    articles = enumerate(entries(path, "data", "paragraphs"), 1)
    yield from report.each(((f"{path}, article {number}", article) for number, article in articles), questions)


@each_record(_articles)
def covid_qa(place: str, asked: _Asked, part: str, report: ReadReport) -> Iterator[Example]:
    """Questions as task type reading_comprehension, split 80/10/10 by article."""
    context, keys, record = asked
    question, answers = text_field(record, "question"), listed(record, "answers")
    if record.get("is_impossible") or not answers:
        report.skip("the question has no answer in the article")
        return
    answer, said, number = answers[0].get("text"), answers[0].get("answer_start"), record.get("id")
    if not isinstance(answer, str) or not answer.strip() or not isinstance(said, int):
        raise BadData("an answer needs 'text' with something in it, and 'answer_start' as an integer.")
    if not isinstance(number, int):
        raise BadData("field 'id' is missing or not an integer.")
    near = sorted(range(max(0, said - NEAR), said + NEAR + 1), key=lambda at: abs(at - said))
    start = next((at for at in near if context.startswith(answer, at)), -1)
    if start < 0:
        raise BadData(f"the answer does not stand within {NEAR} characters of its offset in the article.")
    text, found = spaced(context, start, start + len(answer))
    yield span(f"covid-qa/{number}", "question", question, text, found, drawn(keys[0], *keys))


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


def _notes(path: Path, report: ReadReport) -> Iterator[tuple[str, Row]]:
    for part in entries(path, "data"):
        title = part.get("title")
        if title not in PARTS:
            raise BadData(f"{path}: a title is none of {', '.join(PARTS)}. Is this the data.json of emrQA?")
        with named(path):
            notes = listed(part, "paragraphs")
        for number, note in enumerate(notes, 1):
            yield f"{path}, {title} note {number}", note | {"title": title}


@each_record(_notes)
def emrqa(place: str, record: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """Questions as task type reading_comprehension, split 80/10/10 by note."""
    note = read_note(record)
    keys = minhash_keys(note.text)
    example_id = f"emrqa/{record['title']}/{number_of(place)}"
    found = {}
    for number, asked in enumerate(listed(record, "qas"), 1):
        with named(f"question {number}"):
            question = _phrasing(asked, f"{example_id}/{number}")
            answer = find_answer(note, listed(asked, "answers"))
        if isinstance(answer, str):
            report.skip(answer)
        else:
            found[str(number)] = (question, answer)
    kept = set(draw(example_id, found, QUESTIONS))
    report.skip(f"beyond {QUESTIONS} questions of a note", len(found) - len(kept))
    for name, (question, answer) in found.items():
        if name in kept:
            yield span(f"{example_id}/{name}", "question", question, note.text, answer, drawn(keys[0], *keys))


def read_note(record: Row) -> _Note:
    """The note of a record of emrQA."""
    context = record.get("context")
    lines = [context] if isinstance(context, str) else context
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines) or not any(map(str.strip, lines)):
        raise BadData("field 'context' is missing, empty, or neither a text nor a list of lines.")
    parts = [single_spaced(line) for line in lines]
    ends = accumulate(len(line) + bool(line) for line in parts)
    raw = accumulate(len(line) + 1 for line in lines)
    return _Note(" ".join(filter(None, parts)), record["title"] == BY_CHARACTER, [0, *raw], [0, *ends][: len(parts)])


def _phrasing(record: Row, example_id: str) -> str:
    """One of the paraphrases; the order in the file is that of a set, so they are sorted first."""
    questions = record.get("question")
    if not isinstance(questions, list) or not questions or not all(isinstance(q, str) and q.strip() for q in questions):
        raise BadData("field 'question' is missing, or not a list of texts.")
    return draw(f"question:{example_id}", sorted(map(single_spaced, questions)), 1)[0]


def find_answer(note: _Note, answers: list[dict[str, Any]]) -> tuple[int, int] | str:
    """Position of the first answer that is found in the note, or why there is none."""
    reason = "the question has no answer"
    for answer in answers:
        text, evidence = (answer.get(name) for name in ("text", "evidence"))
        if not isinstance(text, str) or not isinstance(evidence, str):
            raise BadData("'text' or 'evidence' of an answer is missing or not text.")
        kind, start = answer.get("answer_entity_type") or "single", answer.get("evidence_start")
        if not evidence.strip():
            reason = "the answer is a judgement of the note"
        elif kind not in ("single", "empty", "complex") or not isinstance(start, int):
            raise BadData("an answer has an unknown 'answer_entity_type', or no number in 'evidence_start'.")
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


def _reports(path: Path, report: ReadReport) -> Iterator[tuple[str, _Asked]]:
    def queries(place: str, record: Row) -> Iterator[tuple[str, _Asked]]:
        document = record.get("document")
        if not isinstance(document, dict):
            raise BadData("field 'document' is missing or not an object.")
        title, context = (_unmarked(text_field(document, name)) for name in ("title", "context"))
        keys = (dedup_key(f"clicr document {text_field(record, 'source')}"), *minhash_keys(context))
        for number, query in enumerate(listed(document, "qas"), 1):
            yield f"{place}, query {number}", (f"{title} {context}", keys, query)

    reports = enumerate(entries(path, "data"), 1)
    yield from report.each(((f"{path}, report {number}", record) for number, record in reports), queries)


@each_record(_reports)
def clicr(place: str, asked: _Asked, split: str, report: ReadReport) -> Iterator[Example]:
    """Queries as task type reading_comprehension, in the authors' splits."""
    text, keys, record = asked
    statement, name = _unmarked(text_field(record, "query")), text_field(record, "id")
    if PLACEHOLDER not in statement:
        raise BadData(f"the query has no {PLACEHOLDER}.")
    answers = [(item.get("origin") != "dataset", _unmarked(text_field(item, "text"))) for item in listed(record, "answers")]
    if all(is_synonym for is_synonym, _ in answers):
        raise BadData("none of the answers has the origin 'dataset'.")
    for _, words in sorted(answers, key=lambda answer: answer[0]):
        pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
        if words.lower() in text.lower() and (match := re.search(pattern, text, re.IGNORECASE)):
            question, origin = statement.replace(PLACEHOLDER, "___"), Origin(split, keys, keys[0])
            yield span(f"clicr/{name}", "blank", question, text, match.span(), origin)
            return
    report.skip("the report has no answer")


def _unmarked(text: str) -> str:
    return single_spaced(_MARK.sub("", text))
