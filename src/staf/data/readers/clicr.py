"""CliCR (Suster and Daelemans, 2018): blanks to fill from clinical case reports.

    {"version", "data": [{"source", "document": {"title", "context", "qas": [
        {"id", "query": ".. @placeholder ..", "answers": [{"text", "cui", "sem_type", "origin": "dataset" or "UMLS"}]}]}}]}

in train1.0.json, dev1.0.json and test1.0.json. The text is title and context without the marks of entities
(BEG__left hand__END). The answer is the data set's own where the text has it as words in any case, else the first synonym
that the text has; a query with neither is left out. An example shows the statement and a piece of the report around the
answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, span
from staf.data.sources import find_one, json_file, listed, single_spaced, text_field
from staf.errors import BadData

NAME = "clicr"
LAYOUTS = {"train": ("train1.0.json",), "adaptation": ("dev1.0.json",), "test": ("test1.0.json",)}
PLACEHOLDER = "@placeholder"
BLANK = "___"
OWN = "dataset"

_MARK = re.compile(r"BEG__|__END")


@dataclass(frozen=True, slots=True)
class _Report:
    """What the queries of a case report share."""

    text: str
    lower: str
    origin: Origin


def files(folder: Path) -> list[Path]:
    """The three files; MissingData where they are not there."""
    return [find_one(folder, layouts, NAME) for layouts in LAYOUTS.values()]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Queries as task type reading_comprehension, in the authors' splits."""

    def make(place: str, record: tuple[_Report, dict[str, Any]]) -> Iterator[Example]:
        yield from _example(place, *record, report)

    for split, path in zip(LAYOUTS, files(folder), strict=True):
        yield from report.each(_queries(path, split, report), make)


def _queries(path: Path, split: str, report: ReadReport) -> Iterator[tuple[str, tuple[_Report, dict[str, Any]]]]:
    """Each query with its report; a report without title, text or queries is rejected."""
    for number, entry in enumerate(listed(json_file(path, dict), "data", str(path)), 1):
        place = f"{path}, report {number}"
        try:
            document = entry.get("document")
            if not isinstance(document, dict):
                raise BadData(f"{place}: field 'document' is missing or not an object.")
            title, context = (_unmarked(text_field(document, name, place)) for name in ("title", "context"))
            source, queries = text_field(entry, "source", place), listed(document, "qas", place)
        except BadData as problem:
            report.reject(problem, entry)
            continue
        about = dedup_key(f"{NAME} document {source}")
        text = f"{title} {context}"
        case = _Report(text, text.lower(), Origin(split, (about, *minhash_keys(context)), about))
        for index, query in enumerate(queries, 1):
            yield f"{place}, query {index}", (case, query)


def _example(place: str, case: _Report, record: dict[str, Any], report: ReadReport) -> Iterator[Example]:
    statement, name = _unmarked(text_field(record, "query", place)), text_field(record, "id", place)
    if PLACEHOLDER not in statement:
        raise BadData(f"{place}: the query has no {PLACEHOLDER}.")
    answers = [(text_field(item, "text", place), item.get("origin")) for item in listed(record, "answers", place)]
    if not any(origin == OWN for _, origin in answers):
        raise BadData(f"{place}: none of the answers has the origin '{OWN}'.")
    for text, _ in sorted(answers, key=lambda answer: answer[1] != OWN):
        words = _unmarked(text)
        if words.lower() not in case.lower:
            continue
        if match := re.search(rf"(?<!\w){re.escape(words)}(?!\w)", case.text, re.IGNORECASE):
            question = statement.replace(PLACEHOLDER, BLANK)
            yield span(f"{NAME}/{name}", "blank", question, case.text, match.span(), case.origin)
            return
    report.skip("the report has no answer")


def _unmarked(text: str) -> str:
    return single_spaced(_MARK.sub("", text))
