"""Annotated texts as rows: CoNLL-style columns, and brat's pairs of text and offsets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.read_report import ReadReport
from staf.data.sources import decoded, named, paragraphs, text_lines
from staf.errors import BadData, MissingData

DOCUMENT = "-DOCSTART-"
IOB_SUFFIXES = (".conll", ".iob", ".iob2", ".bio")
"""Endings of names of files in CoNLL-style columns."""


def annotation_format(path: Path) -> str:
    """The format of a path: iob by the ending of CoNLL-style columns, brat of a folder with .ann files; '' of anything else."""
    if path.is_dir():
        return "brat" if any(path.glob("*.ann")) else ""
    return "iob" if path.suffix.lower() in IOB_SUFFIXES else ""


def iob_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Sentences between blank lines as tokens, tags (the last column) and document; each its own where none is marked."""
    for number, (place, document, lines) in enumerate(paragraphs(path, ReadReport(), DOCUMENT), 1):
        cells = [line.split("\t" if "\t" in line else None) for line in lines]
        if any(len(row) < 2 for row in cells):
            raise BadData(f"{place}: a line of this sentence has no tag after its token.")
        where = f"document {document}" if document else f"sentence {number}"
        yield {"tokens": [row[0] for row in cells], "tags": [row[-1] for row in cells], "document": f"{path.name} {where}"}


def brat_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a .txt file as text, entities ([start, end, type]) and document; lines that a mention joins are one.

    A mention in several pieces is taken from the start of the first to the end of the last.
    """
    with named(path):
        text = decoded(path.read_bytes())
    found, start, end = list(_annotated(path.with_suffix(".ann"), text)), 0, 0
    for line in text.splitlines(keepends=True):
        end += len(line)
        if any(first < end < last for first, last, _ in found):
            continue
        if text[start:end].strip():
            own = [[first - start, last - start, kind] for first, last, kind in found if start <= first < end]
            yield {"text": text[start:end].replace("\n", " "), "entities": own, "document": path.stem}
        start = end


def _annotated(path: Path, text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and type of each mention of an .ann file."""
    if not path.is_file():
        raise MissingData(f"no annotations {path}: a text without a mention has an empty file. Put it next to the text.")
    for number, line in text_lines(path, ReadReport()):
        if line.startswith("T"):
            try:
                _, place, words = line.split("\t", 2)
                kind, *offsets = place.replace(";", " ").split()
                start, end = int(offsets[0]), int(offsets[-1])
            except (ValueError, LookupError):
                raise BadData(f"{path}, line {number}: 'T1<tab>type start end<tab>words' is expected.") from None
            if len(offsets) == 2 and text[start:end].split() != words.split():
                raise BadData(f"{path}, line {number}: the words are not at their offsets in the text.")
            yield start, end, kind
