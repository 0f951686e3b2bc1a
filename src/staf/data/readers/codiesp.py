"""CodiEsp (CLEF eHealth 2020), clinical case reports with their ICD-10-CM codes, and PharmaCoNER, the drugs named in them.

    final_dataset_v4_to_publish/{train,dev,test}/text_files_en/ID.txt   machine-translated English, one sentence a line
    final_dataset_v4_to_publish/{train,dev,test}/{train,dev,test}D.tsv  ID, tab, diagnosis code in lower case
    train-set.zip, dev-set.zip > */subtrack1/ID.ann                     brat rows: T1, tab, TYPE START END, tab, Spanish words

The authors' split is kept; dev is used for adaptation. A label of CodiEsp is the code in upper case, as ICD-10-CM prints it,
with its title where `icd10cm_titles.tsv` has one. Procedures (P) and offsets into the Spanish text (X) are not read.

PharmaCoNER (BioNLP-OST 2019) annotates the cases of CodiEsp: the English text and the split are read from the folder
`codiesp` next to its own. The label of a mention is its drug class in `drug_classes.tsv`; substances that are not in that list
(laboratory values, reagents, materials) give no label. So that the text does not contain its own answer, every sentence that
names a drug of the list, in English or Spanish, or a drug class, is removed from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from staf.data.answers import safe_label, write_several
from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import decoded, named, single_spaced
from staf.errors import BadData

PARTS = {"train": "train", "dev": "adaptation", "test": "test"}
"""Split of STAF by part of CodiEsp."""
TYPES = ("NORMALIZABLES", "NO_NORMALIZABLES", "PROTEINAS", "UNCLEAR")

_CODE = re.compile(r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?")
_MENTION = re.compile(r"T\d+\t(\w+) \d+ \d+(?:;\d+ \d+)*\t(.+)")


@dataclass(frozen=True, slots=True)
class Case:
    """One case report."""

    id: str
    split: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences on one line."""
        return " ".join(self.sentences)

    @property
    def origin(self) -> Origin:
        """The same in every data set built on the case."""
        group = dedup_key(f"codiesp case {self.id}")
        return Origin(self.split, (group, *minhash_keys(self.text)), group)


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """Cases with all their diagnosis codes, task type icd_coding."""
    codes, titles = _codes(files), dict(rows_of("icd10cm_titles.tsv"))

    def make(place: str, case: Case) -> Iterator[Example]:
        found = codes.pop(case.id, [])
        if not found:
            report.skip("icd_coding: a case without a diagnosis code")
            return
        if not all(_CODE.fullmatch(code) for code in found):
            raise BadData("one of its diagnosis codes is not an ICD-10-CM code.")
        labels = [safe_label(f"{code} {titles.get(code, '')}") for code in found]
        answer = write_several(labels, labels)
        yield example(
            f"codiesp/{case.id}", "icd_coding", "icd10_all", case.text, answer, case.origin, output_type="multi_label"
        )

    yield from report.each(cases(files), make)
    if codes:
        raise BadData(f"{files[0][1]}: {len(codes)} cases have diagnosis codes but no text. Get it again.")


def cases(files: Files) -> Iterator[tuple[str, Case]]:
    """Each case with its place, in the order of the archive."""
    for _, path in files:
        for place, name, content in members(path, "*/text_files_en/*.txt"):
            inside = PurePosixPath(name)
            if (part := inside.parent.parent.name) in PARTS:
                with named(place):
                    sentences = tuple(filter(None, map(single_spaced, decoded(content).splitlines())))
                    if not sentences:
                        raise BadData("the text is empty.")
                yield place, Case(inside.stem, PARTS[part], sentences)


def rows_of(name: str) -> list[list[str]]:
    """Cells of a tab-separated file of this package; a line that begins with '#' is a comment."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


def _codes(files: Files) -> dict[str, list[str]]:
    """Distinct diagnosis codes of each case, in the order of the tables."""
    found: dict[str, dict[str, None]] = {}
    for place, _, content in (member for _, path in files for member in members(path, "*D.tsv")):
        with named(place):
            for number, line in enumerate(decoded(content).splitlines(), start=1):
                case, tab, code = line.partition("\t")
                if not (case and tab and code.strip()):
                    raise BadData(f"line {number}: a case id, a tab and a code are expected.")
                found.setdefault(case, {})[code.strip().upper()] = None
    if not found:
        raise BadData(f"{files[0][1]}: no table of diagnosis codes (*D.tsv) is in it. Get it again.")
    return {case: list(codes) for case, codes in found.items()}


def pharmaconer(files: Files, report: ReadReport) -> Iterator[Example]:
    """Cases with the classes of their drugs, task type medication_recommendation."""
    known = {case.id: case for _, case in cases([source for source in files if source[0] != "annotations"])}
    class_of, spoken = drug_list()

    def make(place: str, content: bytes) -> Iterator[Example]:
        case = known.get(PurePosixPath(place).stem)
        if case is None:
            report.skip("an annotated case that CodiEsp does not have")
            return
        classes = sorted({class_of[name] for name in _mentions(content) if name in class_of})
        left = [sentence for sentence in case.sentences if not spoken.search(f" {normalise(sentence)} ")]
        if not classes or not left:
            report.skip("a case that names no drug of the list" if not classes else "a case of which no sentence is left")
            return
        asked = (f"pharmaconer/{case.id}", "medication_recommendation", "all_classes")
        yield example(*asked, " ".join(left), write_several(classes, classes), case.origin, output_type="multi_label")

    for part, path in files:
        if part == "annotations":
            found = ((place, content) for place, _, content in members(path, "*subtrack1/*.ann"))
            yield from report.each(found, make)


def drug_list() -> tuple[dict[str, str], re.Pattern[str]]:
    """The class of each drug by its normalised name, and a pattern for all names and classes in normalised text."""
    class_of, words = dict[str, str](), set[str]()
    for drug_class, english, spanish in rows_of("drug_classes.tsv"):
        names = [normalise(name) for name in (*english.split("|"), *spanish.split("|"))]
        class_of.update(dict.fromkeys(names, drug_class))
        words.update(names, (normalise(drug_class), normalise(drug_class).removesuffix("s")))
    longest_first = sorted(words, key=lambda name: (-len(name), name))
    return class_of, re.compile(f" (?:{'|'.join(map(re.escape, longest_first))}) ")


def _mentions(content: bytes) -> Iterator[str]:
    """Normalised Spanish words of each mention."""
    for number, line in enumerate(decoded(content).splitlines(), start=1):
        if not line.startswith("T"):
            continue
        match = _MENTION.fullmatch(line)
        if match is None or match[1] not in TYPES:
            raise BadData(f"line {number}: 'T1 TYPE START END words' is expected, TYPE one of {', '.join(TYPES)}.")
        yield normalise(match[2])
