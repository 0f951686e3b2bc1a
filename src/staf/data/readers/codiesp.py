"""CodiEsp (CLEF eHealth 2020): clinical case reports and their ICD-10-CM diagnosis codes.

    final_dataset_v4_to_publish/{train,dev,test}/text_files_en/ID.txt   machine-translated English, one sentence a line
    final_dataset_v4_to_publish/{train,dev,test}/{train,dev,test}D.tsv  ID, tab, diagnosis code in lower case

The authors' split is kept; dev is used for adaptation. A label is the code in upper case, as ICD-10-CM prints it, with its
title where `icd10cm_titles.tsv` has one. Procedures (P) and offsets into the Spanish text (X) are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from staf.data.answers import safe_label, write_several
from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import decoded, find, find_one, single_spaced
from staf.errors import BadData, MissingData

NAME = "codiesp"
ROOT = "final_dataset_v4_to_publish"
PARTS = {"train": "train", "dev": "adaptation", "test": "test"}
"""Split of STAF by part of CodiEsp."""

_CODE = re.compile(r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?")


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
    def group(self) -> str:
        """Deduplication key of the case, the same in every data set built on it."""
        return dedup_key(f"codiesp case {self.id}")


def files(folder: Path) -> list[Path]:
    """The zip archive, or the files unpacked from it."""
    try:
        return [find_one(folder, ("*.zip",), NAME)]
    except MissingData:
        tables = find(folder, (f"{ROOT}/*/*D.tsv",), NAME)
        return [*tables, *find(folder, (f"{ROOT}/*/text_files_en/*.txt",), NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Cases with all their diagnosis codes, task type icd_coding."""
    codes, titles = _codes(folder), dict(rows_of("icd10cm_titles.tsv"))

    def make(place: str, case: Case) -> Iterator[Example]:
        found = codes.pop(case.id, [])
        if not found:
            report.skip("icd_coding: a case without a diagnosis code")
            return
        if not all(_CODE.fullmatch(code) for code in found):
            raise BadData(f"{place}: one of its diagnosis codes is not an ICD-10-CM code.")
        example_id = f"{NAME}/{case.id}"
        labels = [safe_label(f"{code} {titles.get(code, '')}") for code in found]
        origin = Origin(case.split, (case.group, *minhash_keys(case.text)), case.group)
        yield example(
            example_id, "icd_coding", "icd10_all", case.text, write_several(labels, labels), origin, output_type="multi_label"
        )

    yield from report.each(cases(folder), make)
    if codes:
        raise BadData(f"{files(folder)[0]}: {len(codes)} cases have diagnosis codes but no text. Get it again.")


def cases(folder: Path) -> Iterator[tuple[str, Case]]:
    """Each case with its place, in the order of the archive."""
    source = files(folder)[0] if files(folder)[0].suffix == ".zip" else folder
    for name, content in members(source, "*/text_files_en/*.txt"):
        path, place = PurePosixPath(name), f"{source}, {name}"
        if (part := path.parent.parent.name) in PARTS:
            sentences = tuple(filter(None, map(single_spaced, decoded(content, place).splitlines())))
            if not sentences:
                raise BadData(f"{place}: the text is empty.")
            yield place, Case(path.stem, PARTS[part], sentences)


def rows_of(name: str) -> list[list[str]]:
    """Cells of a tab-separated file of this package; a line that begins with '#' is a comment."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


def _codes(folder: Path) -> dict[str, list[str]]:
    """Distinct diagnosis codes of each case, in the order of the tables."""
    source = files(folder)[0] if files(folder)[0].suffix == ".zip" else folder
    found: dict[str, list[str]] = {}
    for name, content in members(source, "*D.tsv"):
        place = f"{source}, {name}"
        for number, line in enumerate(decoded(content, place).splitlines(), start=1):
            case, tab, code = line.partition("\t")
            if not (case and tab and code.strip()):
                raise BadData(f"{place}, line {number}: a case id, a tab and a code are expected.")
            codes = found.setdefault(case, [])
            if (written := code.strip().upper()) not in codes:
                codes.append(written)
    if not found:
        raise BadData(f"{source}: no table of diagnosis codes (*D.tsv) is in it. Get it again.")
    return found
