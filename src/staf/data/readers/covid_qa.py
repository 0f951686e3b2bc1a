"""COVID-QA: questions on articles, answered by a piece of the article (SQuAD format, one answer a question).

    {"data": [{"paragraphs": [{"context", "document_id", "qas": [
        {"id", "question", "is_impossible", "answers": [{"text", "answer_start"}]}]}]}]}

In the release of April 2020, 234 answers are one to three characters off their offset: the nearest position within `NEAR`
characters is taken, and an answer found nowhere near is rejected. An example shows a piece of the article around the
answer. Split by article.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, spaced, span
from staf.data.sources import find_one, json_file, listed, text_field
from staf.data.splits import split_of
from staf.errors import BadData

NAME = "covid-qa"
LAYOUTS = ("200423_covidQA.json", "COVID-QA.json")
NEAR = 5


@dataclass(frozen=True, slots=True)
class _Article:
    """What the questions of an article share."""

    text: str
    """Unchanged: offsets count its characters."""
    dedup_keys: tuple[str, ...]
    """The first one is of the complete text."""


def files(folder: Path) -> list[Path]:
    """The annotation file; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Questions as task type reading_comprehension, split 80/10/10 by article."""

    def make(place: str, record: tuple[_Article, dict[str, Any]]) -> Iterator[Example]:
        yield from _example(place, *record, report)

    for path in files(folder):
        yield from report.each(_questions(path, report), make)


def _questions(path: Path, report: ReadReport) -> Iterator[tuple[str, tuple[_Article, dict[str, Any]]]]:
    """Each question with its article; an article without text or questions is rejected."""
    entries = listed(json_file(path, dict), "data", str(path))
    articles = (article for entry in entries for article in listed(entry, "paragraphs", str(path)))
    for number, article in enumerate(articles, 1):
        place = f"{path}, article {number}"
        try:
            spoken = text_field(article, "context", place)
            questions = listed(article, "qas", place)
        except BadData as problem:
            report.reject(problem, article)
            continue
        about = _Article(article["context"], minhash_keys(spoken))
        for index, question in enumerate(questions, 1):
            yield f"{place}, question {index}", (about, question)


def _example(place: str, article: _Article, record: dict[str, Any], report: ReadReport) -> Iterator[Example]:
    question, answers = text_field(record, "question", place), listed(record, "answers", place)
    if record.get("is_impossible") or not answers:
        report.skip("the question has no answer in the article")
        return
    answer, said = answers[0].get("text"), answers[0].get("answer_start")
    if not isinstance(answer, str) or not answer.strip() or not isinstance(said, int):
        raise BadData(f"{place}: an answer needs 'text' with something in it, and 'answer_start' as an integer.")
    start = _nearest(article.text, answer, said)
    if start < 0:
        raise BadData(f"{place}: the answer does not stand within {NEAR} characters of its offset in the article.")
    text, found = spaced(article.text, start, start + len(answer))
    example_id = f"{NAME}/{_id(record, place)}"
    origin = Origin(split_of(article.dedup_keys[0]), article.dedup_keys, article.dedup_keys[0])
    yield span(example_id, "question", question, text, found, origin)


def _nearest(text: str, answer: str, said: int) -> int:
    """Position of the answer nearest to its offset, -1 where there is none within `NEAR`."""
    starts = sorted(range(max(0, said - NEAR), said + NEAR + 1), key=lambda at: abs(at - said))
    return next((at for at in starts if text.startswith(answer, at)), -1)


def _id(record: dict[str, Any], place: str) -> int:
    """The number of a question in the release."""
    number = record.get("id")
    if not isinstance(number, int):
        raise BadData(f"{place}: field 'id' is missing or not an integer.")
    return number
