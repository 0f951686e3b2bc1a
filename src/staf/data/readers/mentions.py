"""Mentions in sentences: NCBI-disease, CoNLL-2003 and i2b2/VA 2010.

    ncbi-disease   adenomatous<tab>B-Disease      one token and tag a line, a blank line between sentences; the tag may be B
                                                  or I only; or in PubTator format (`pubtator`)
    conll-2003     Commission NNP I-NP I-ORG      the same; or 240 packaged sentences, train only
    i2b2-2010      note.txt   He has chest pain .                                   one tokenised sentence a line
                   note.con   c="chest pain" 1:2 1:3||t="problem"      line from 1, words from 0, both ends included, lower case

IOB1 and IOB2 are read by one rule: a mention begins at B-, and at I- after O or another type. The text is the tokens joined
by spaces. NCBI-disease has no documents any more and is kept apart by sentence; CoNLL-2003 marks them by -DOCSTART-.

Layouts of i2b2, as CliNER reads it; each folder of .con files has its notes:

    concept_assertion_relation_training_data/{beth,partners}/concept    ../txt              train and adaptation, 90 to 10
    reference_standard_for_test_data/{concepts,concept}                 test_data, ../txt   test
    one folder with both kinds of file                                  itself              drawn by note

An example is a sentence; without a concept its answer is 'none'. A note with a concept that is not at its position is
rejected. Deduplication keys are the note's text and, of sentences of twelve words or more, the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from staf.data.answers import Entity
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers import pubtator
from staf.data.readers.shapes import Origin, each_record, mentions, of_long
from staf.data.sources import paragraphs, single_spaced, text_lines
from staf.data.splits import SHARES, split_of
from staf.errors import BadData

NCBI_TYPES = {"Disease": "disease"}
CONLL_TYPES = {"PER": "person", "ORG": "organization", "LOC": "location", "MISC": "miscellaneous"}
DOCUMENT = "-DOCSTART-"
I2B2_TYPES = ("problem", "test", "treatment")

_CONCEPT = re.compile(r'c="(.*)" (\d+):(\d+) (\d+):(\d+)\|\|t="([^"]*)"')

_Sentence = tuple[int, int, list[str]]
"""Number, number of its document (0 where the file marks none), and lines."""
_Concepts = dict[int, dict[tuple[int, int, str], Entity]]
"""The concepts of a note by line, then by first word, last word and type."""


def ncbi(files: Files, report: ReadReport) -> Iterator[Example]:
    """NCBI-disease as task type named_entity_recognition, in its own splits."""
    if files[0][1].suffix == ".txt":
        yield from pubtator.ncbi(files, report)
    else:
        yield from _tagged("ncbi-disease", files, 2, NCBI_TYPES, report)


def conll(files: Files, report: ReadReport) -> Iterator[Example]:
    """CoNLL-2003 (English) as task type named_entity_recognition, in its own splits; news, not medicine."""
    yield from _tagged("conll-2003", files, 4, CONLL_TYPES, report)


def _tagged(name: str, files: Files, columns: int, types: Mapping[str, str], report: ReadReport) -> Iterator[Example]:
    def sentences(path: Path, report: ReadReport) -> Iterator[tuple[str, _Sentence]]:
        for number, (place, document, lines) in enumerate(paragraphs(path, report, DOCUMENT), 1):
            yield place, (number, document, lines)

    @each_record(sentences)
    def read(place: str, sentence: _Sentence, split: str, report: ReadReport) -> Iterator[Example]:
        number, document, lines = sentence
        tagged = [_cells(line, columns, types) for line in lines]
        text, labels = " ".join(token for token, _ in tagged), tuple(types.values())
        about = dedup_key(f"{name} {split} document {document}") if document else ""
        origin = Origin(split, (about, *of_long(text)) if about else minhash_keys(text), about)
        yield from mentions(report, f"{name}/{split}/{number}", text, chunks(tagged, types), labels, origin)

    return read(files, report)


def _cells(line: str, columns: int, types: Mapping[str, str]) -> tuple[str, str]:
    """Token and tag, which are the first and the last column."""
    cells = line.split("\t" if "\t" in line else " ")
    if len(cells) != columns or not cells[0].strip():
        raise BadData(f"in this sentence a line has not the {columns} columns that are expected.")
    mark, dash, kind = cells[-1].partition("-")
    if not dash and mark in ("B", "I") and len(types) == 1:  # as BioBERT's authors pass NCBI-disease on
        kind = next(iter(types))
    if cells[-1] != "O" and (mark not in ("B", "I") or kind not in types):
        raise BadData(f"in this sentence a tag is neither O nor B- or I- and one of {', '.join(types)}.")
    return cells[0], f"{mark}-{kind}" if kind else mark


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


def i2b2(files: Files, report: ReadReport) -> Iterator[Example]:
    """Concepts of notes as task type named_entity_recognition."""
    texts = {_note_name(part.removesuffix("-texts"), path): path for part, path in files if part.endswith("-texts")}
    for part, path in files:
        if not part.endswith("-texts"):
            name = _note_name(part, path)
            yield from report.each([(str(path), path)], partial(_note, name, texts.get(name), report))


def _note_name(part: str, path: Path) -> str:
    """The unique name of a note: its part, its hospital where the layout has them, and the name of its files."""
    return "/".join((part, *((path.parent.parent.name,) if part == "train" else ()), path.stem))


def _note(name: str, text_path: Path | None, report: ReadReport, place: str, path: Path) -> Iterator[Example]:
    if text_path is None:
        raise BadData(f"its note {path.stem}.txt is not in the folder of the notes. Get the notes too.")
    lines = dict(text_lines(text_path, report))
    found = _concepts(path, lines, report)
    about = minhash_keys(single_spaced(" ".join(lines.values())))
    part = name.partition("/")[0]
    split = "test" if part == "test" else split_of(about[0], (90, 10, 0) if part == "train" else SHARES)
    for number, line in lines.items():
        text = single_spaced(line)
        if not any(letter.isalpha() for letter in text):
            report.skip("a line without a letter", bool(text))
            continue
        entities = [entity for _, entity in sorted(found.get(number, {}).items())]
        origin = Origin(split, (*about, *of_long(text)))
        yield from mentions(report, f"i2b2-2010/{name}/{number}", text, entities, I2B2_TYPES, origin)


def _concepts(path: Path, lines: dict[int, str], report: ReadReport) -> _Concepts:
    """The concepts of a note; repeated rows count once."""
    found: _Concepts = {}
    for number, row in text_lines(path, report):
        if not row.strip():
            continue
        match = _CONCEPT.fullmatch(row.strip())
        if match is None or match[6] not in I2B2_TYPES:
            expected = f'c=".." LINE:WORD LINE:WORD||t=".." is expected, with a type of {", ".join(I2B2_TYPES)}'
            raise BadData(f"line {number}: {expected}.")
        line, first, last_line, last = (int(number) for number in match.group(2, 3, 4, 5))
        if line != last_line:
            report.skip("a concept runs over several lines")
            continue
        words = _words(lines.get(line, ""), first, last, match[1])
        if not words:
            raise BadData(f"line {number}: the concept is not the words at its place in the note.")
        found.setdefault(line, {})[first, last, match[6]] = Entity(match[6], words)
    return found


def _words(line: str, first: int, last: int, concept: str) -> str:
    """The words at a place, '' where they are not the concept; counted between white space, or by single spaces."""
    for tokens in (line.split(), line.split(" ")):
        words = single_spaced(" ".join(tokens[first : last + 1]))
        if words and words.casefold() == single_spaced(concept).casefold():
            return words
    return ""
