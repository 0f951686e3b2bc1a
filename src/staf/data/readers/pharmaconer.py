"""PharmaCoNER (BioNLP-OST 2019): classes of the drugs named in CodiEsp's case reports.

    train-set.zip, dev-set.zip > */subtrack1/ID.ann   brat rows: T1, tab, TYPE START END, tab, Spanish words

The documents are cases of CodiEsp: the English text and the split are read from the folder `codiesp` next to this one. The
label of a mention is its drug class in `drug_classes.tsv`; substances that are not in that list (laboratory values, reagents,
materials) give no label. So that the text does not contain its own answer, every sentence that names a drug of the list, in
English or Spanish, or a drug class, is removed from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from staf.data.answers import write_several
from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example, normalise
from staf.data.read_report import ReadReport
from staf.data.readers import codiesp
from staf.data.readers.shapes import Origin, example
from staf.data.sources import decoded, find
from staf.errors import BadData

NAME = "pharmaconer"
TYPES = ("NORMALIZABLES", "NO_NORMALIZABLES", "PROTEINAS", "UNCLEAR")
KIND = "medication_recommendation"

_MENTION = re.compile(r"T\d+\t(\w+) \d+ \d+(?:;\d+ \d+)*\t(.+)")


def files(folder: Path) -> list[Path]:
    """The archives of annotations, then the files of CodiEsp."""
    return [*find(folder, ("*.zip",), NAME), *codiesp.files(folder.parent / codiesp.NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Cases with the classes of their drugs, task type medication_recommendation."""
    archives = find(folder, ("*.zip",), NAME)
    cases = {case.id: case for _, case in codiesp.cases(folder.parent / codiesp.NAME)}
    class_of, spoken = drug_list()

    def make(place: str, content: bytes) -> Iterator[Example]:
        case = cases.get(PurePosixPath(place).stem)
        if case is None:
            report.skip("an annotated case that CodiEsp does not have")
            return
        classes = sorted({class_of[name] for name in _mentions(place, content) if name in class_of})
        left = [sentence for sentence in case.sentences if not spoken.search(f" {normalise(sentence)} ")]
        if not classes or not left:
            report.skip("a case that names no drug of the list" if not classes else "a case of which no sentence is left")
            return
        example_id, text = f"{NAME}/{case.id}", " ".join(left)
        origin = Origin(case.split, (case.group, *minhash_keys(case.text)), case.group)
        yield example(example_id, KIND, "all_classes", text, write_several(classes, classes), origin, output_type="multi_label")

    for path in archives:
        found = ((f"{path}, {name}", content) for name, content in members(path, "*subtrack1/*.ann"))
        yield from report.each(found, make)


def drug_list() -> tuple[dict[str, str], re.Pattern[str]]:
    """The class of each drug by its normalised name, and a pattern for all names and classes in normalised text."""
    class_of, words = dict[str, str](), set[str]()
    for drug_class, english, spanish in codiesp.rows_of("drug_classes.tsv"):
        names = [normalise(name) for name in (*english.split("|"), *spanish.split("|"))]
        class_of.update(dict.fromkeys(names, drug_class))
        words.update(names, (normalise(drug_class), normalise(drug_class).removesuffix("s")))
    longest_first = sorted(words, key=lambda name: (-len(name), name))
    return class_of, re.compile(f" (?:{'|'.join(map(re.escape, longest_first))}) ")


def _mentions(place: str, content: bytes) -> Iterator[str]:
    """Normalised Spanish words of each mention."""
    for number, line in enumerate(decoded(content, place).splitlines(), start=1):
        if not line.startswith("T"):
            continue
        match = _MENTION.fullmatch(line)
        if match is None or match[1] not in TYPES:
            raise BadData(f"{place}, line {number}: 'T1 TYPE START END words' is expected, TYPE one of {', '.join(TYPES)}.")
        yield normalise(match[2])
