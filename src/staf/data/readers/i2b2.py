"""i2b2/VA 2010 concepts, as CliNER reads them: notes of one tokenised sentence a line, each with a .con file.

    note.txt   He has chest pain .
    note.con   c="chest pain" 1:2 1:3||t="problem"      line from 1, words from 0, both ends included, lower case

Layouts, where each folder of .con files has its notes:

    concept_assertion_relation_training_data/{beth,partners}/concept    ../txt              train and adaptation, 90 to 10
    reference_standard_for_test_data/{concepts,concept}                 test_data, ../txt   test
    one folder with both kinds of file                                  itself              drawn by note

An example is a sentence; without a concept its answer is 'none'. A note with a concept that is not at its position is
rejected. Deduplication keys are the note's text and, of sentences of twelve words or more, the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from staf.data.answers import Entity
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, mentions, of_long
from staf.data.sources import find, single_spaced, text_lines
from staf.data.splits import split_of
from staf.errors import BadData

NAME = "i2b2-2010"
TYPES = ("problem", "test", "treatment")
TRAINING = "concept_assertion_relation_training_data/*/concept/*.con"
TEST = ("reference_standard_for_test_data/concepts/*.con", "reference_standard_for_test_data/concept/*.con")
FLAT = "*.con"
SHARES = (90, 10, 0)

_CONCEPT = re.compile(r'c="(.*)" (\d+):(\d+) (\d+):(\d+)\|\|t="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Note:
    """A note's two files, and the split that its layout gives; '' where it is drawn."""

    text: Path
    concepts: Path
    split: str


def files(folder: Path) -> list[Path]:
    """The notes that are there and their concepts, in the order that they are read in; MissingData where there are none."""
    return [path for note in _notes(folder) for path in (note.text, note.concepts) if path.is_file()]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Concepts of notes as task type named_entity_recognition."""

    def make(place: str, note: _Note) -> Iterator[Example]:
        yield from _examples(place, note, report)

    yield from report.each(((str(note.concepts), note) for note in _notes(folder)), make)


def _notes(folder: Path) -> list[_Note]:
    found = find(folder, (TRAINING, FLAT), NAME)
    if found[0].parent == folder:
        return [_Note(path.with_suffix(".txt"), path, "") for path in found]
    training = [_Note(path.parent.parent / "txt" / f"{path.stem}.txt", path, "train") for path in found]
    tested = find(folder, TEST, NAME)
    homes = (folder / "test_data", folder / "test_data" / "txt", tested[0].parent.parent / "txt")
    home = next((home for home in homes if (home / f"{tested[0].stem}.txt").is_file()), homes[0])
    return training + [_Note(home / f"{path.stem}.txt", path, "test") for path in tested]


def _examples(place: str, note: _Note, report: ReadReport) -> Iterator[Example]:
    if not note.text.is_file():
        raise BadData(f"{place}: its note {note.text.name} is not in {note.text.parent}. Get the notes too.")
    lines = dict(text_lines(note.text, report))
    found = _concepts(note.concepts, lines, report)
    about = minhash_keys(single_spaced(" ".join(lines.values())))
    split = split_of(about[0], SHARES) if note.split == "train" else note.split or split_of(about[0])
    for number, line in lines.items():
        text = single_spaced(line)
        if not any(letter.isalpha() for letter in text):
            if text:
                report.skip("a line without a letter")
            continue
        entities = [entity for _, entity in sorted(found.get(number, {}).items())]
        dedup_keys = (*about, *of_long(text))
        yield from mentions(report, f"{NAME}/{_name(note)}/{number}", text, entities, TYPES, Origin(split, dedup_keys))


def _name(note: _Note) -> str:
    """The unique name of a note: its split and hospital where the layout has them, and the name of its file."""
    hospital = (note.text.parent.parent.name,) if note.split == "train" else ()
    return "/".join((note.split or "note", *hospital, note.concepts.stem))


def _concepts(path: Path, lines: dict[int, str], report: ReadReport) -> dict[int, dict[tuple[int, int, str], Entity]]:
    """The concepts of a note by line, then by first word, last word and type; repeated rows count once."""
    found: dict[int, dict[tuple[int, int, str], Entity]] = {}
    for at, row in text_lines(path, report):
        if not row.strip():
            continue
        place = f"{path}, line {at}"
        match = _CONCEPT.fullmatch(row.strip())
        if match is None or match[6] not in TYPES:
            raise BadData(f'{place}: c=".." LINE:WORD LINE:WORD||t=".." is expected, with a type of {", ".join(TYPES)}.')
        line, first, last_line, last = (int(number) for number in match.group(2, 3, 4, 5))
        if line != last_line:
            report.skip("a concept runs over several lines")
            continue
        words = _words(lines.get(line, ""), first, last, match[1])
        if not words:
            raise BadData(f"{place}: the concept is not the words at its place in the note.")
        found.setdefault(line, {})[first, last, match[6]] = Entity(match[6], words)
    return found


def _words(line: str, first: int, last: int, concept: str) -> str:
    """The words at a place, '' where they are not the concept; counted between white space, or by single spaces."""
    for tokens in (line.split(), line.split(" ")):
        words = single_spaced(" ".join(tokens[first : last + 1]))
        if words and words.casefold() == single_spaced(concept).casefold():
            return words
    return ""
