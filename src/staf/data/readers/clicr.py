"""CliCR: blanks to fill from clinical case reports (Suster and Daelemans, 2018).

    {"version", "data": [{"source", "document": {"title", "context", "qas": [
        {"id", "query": ".. @placeholder ..", "answers": [{"text", "cui", "sem_type", "origin": "dataset" or "UMLS"}]}]}}]}

in train1.0.json, dev1.0.json and test1.0.json (github.com/clips/clicr, dataset-code/describe_data.py). Title, context and
query mark entities as BEG__left hand__END; the marks are dropped. The text is title and context, as in the authors' own
readers. The answer is the one of the data set where it stands in the text in whole words, whatever the case, else the first
synonym of it that does; a query with neither is left out. An example shows the statement with '___' for its blank, and a
piece of the report around the answer's first place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.data.example import Example, subject
from staf.data.formats.sources import find_one, json_file, listed, single_spaced, text_field
from staf.data.intake import Intake
from staf.data.readers.places import span
from staf.data.sketch import fingerprints
from staf.errors import BadData

NAME = "clicr"
LAYOUTS = {"train": ("train1.0.json",), "adaptation": ("dev1.0.json",), "test": ("test1.0.json",)}
PARTS = {"train": "train", "adaptation": "dev", "test": "test"}
PLACEHOLDER = "@placeholder"
BLANK = "___"
OWN = "dataset"

_MARK = re.compile(r"BEG__|__END")


@dataclass(frozen=True, slots=True)
class _Report:
    """What the queries of a case report share."""

    split: str
    text: str
    lower: str
    document: str
    """Fingerprint of its source."""
    subjects: tuple[str, ...]


def files(folder: Path) -> list[Path]:
    """The three files; MissingData where they are not there."""
    return [find_one(folder, layouts, NAME) for layouts in LAYOUTS.values()]


def read(folder: Path, intake: Intake) -> Iterator[Example]:
    """Queries as kind reading_comprehension, in the authors' splits.

    Raises:
        MissingData: a file is not under `folder`.
        BadData: a field is missing, or a query has no placeholder.
    """

    def make(place: str, record: tuple[_Report, dict[str, Any]]) -> Iterator[Example]:
        yield from _example(place, *record, intake)

    for split, path in zip(LAYOUTS, files(folder), strict=True):
        yield from intake.each(_queries(path, split, intake), make)


def _queries(path: Path, split: str, intake: Intake) -> Iterator[tuple[str, tuple[_Report, dict[str, Any]]]]:
    """Each query with its report; a report without title, text or queries is a bad row as a whole."""
    for number, entry in enumerate(listed(json_file(path, dict), "data", str(path)), 1):
        place = f"{path}, report {number}"
        try:
            document = entry.get("document")
            if not isinstance(document, dict):
                raise BadData(f"{place}: field 'document' is missing or not an object.")
            title, context = (_unmarked(text_field(document, name, place)) for name in ("title", "context"))
            source, queries = text_field(entry, "source", place), listed(document, "qas", place)
        except BadData as problem:
            intake.refuse(problem, entry)
            continue
        intake.count(f"{PARTS[split]} reports")
        about = subject(f"{NAME} document {source}")
        text = f"{title} {context}"
        report = _Report(split, text, text.lower(), about, (about, *fingerprints(context)))
        for index, query in enumerate(queries, 1):
            yield f"{place}, query {index}", (report, query)


def _example(place: str, report: _Report, record: dict[str, Any], intake: Intake) -> Iterator[Example]:
    statement, name = _unmarked(text_field(record, "query", place)), text_field(record, "id", place)
    if PLACEHOLDER not in statement:
        raise BadData(f"{place}: the query has no {PLACEHOLDER}.")
    answers = [(text_field(item, "text", place), item.get("origin")) for item in listed(record, "answers", place)]
    if not any(origin == OWN for _, origin in answers):
        raise BadData(f"{place}: none of the answers has the origin '{OWN}'.")
    intake.count(f"{PARTS[report.split]} queries")
    for text, origin in sorted(answers, key=lambda answer: answer[1] != OWN):
        words = _unmarked(text)
        if words.lower() not in report.lower:
            continue
        if match := re.search(rf"(?<!\w){re.escape(words)}(?!\w)", report.text, re.IGNORECASE):
            if origin != OWN:
                intake.count("queries answered by a synonym")
            yield span(
                f"{NAME}/{name}",
                "blank",
                statement.replace(PLACEHOLDER, BLANK),
                report.text,
                match.span(),
                split=report.split,
                subjects=report.subjects,
                group=report.document,
            )
            return
    intake.skip("no answer stands in the report")


def _unmarked(text: str) -> str:
    return single_spaced(_MARK.sub("", text))
