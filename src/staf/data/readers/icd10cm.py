"""ICD-10-CM, the tabular list: synonyms, broader codes, chapters and sections of diagnoses.

    entity_synonymy   inclusion term -> title of its code, of four of the chapter, one of them a sibling
    entity_relation   title -> title of the parent or category, of four of the same chapter
    icd10_chapter     title -> chapter, of chapters 1 to 14; a downstream task that feeds no expert
    icd10_section     title -> section, such as 'Tuberculosis' (A15-A19); open labels, of which tasks take the most frequent

Split 60/20/20 by three-character category: small chapters have some 40 categories, and the task needs a few dozen test titles
in each.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from staf.data.answers import safe_label
from staf.data.example import SPLITS, Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, choice_of_four, draw, drawn, example, says
from staf.data.sources import opened, single_spaced
from staf.data.splits import seeded_rng
from staf.errors import BadData

DISEASE_CHAPTERS = tuple(str(number) for number in range(1, 20))
"""Chapters of the expert kinds: those after 19 hold external causes, contacts and special purposes, not conditions."""
TASK_CHAPTERS = tuple(str(number) for number in range(1, 15))
"""Chapters of the downstream task: one organ system or kind of disease each."""
TASK_SIZES = {"train": 80, "adaptation": 30, "test": 40}
"""Titles of one chapter in each split of the downstream task, at most."""
TITLES_PER_CATEGORY = 4
"""No more titles of one category in the downstream task: the longest have hundreds that differ in one word."""
TITLES_OF_SECTIONS = 150
"""No more titles of one category where the section is asked for."""
RELATIONS_PER_CATEGORY = 6
TERMS_PER_CODE = 3
LONGEST_TITLE = 80
"""Characters; longer titles are left out, so that prompts stay short."""

_CODE_RANGE = re.compile(r"\s*\([A-Z0-9]+(-[A-Z0-9]+)?\)$")


@dataclass(frozen=True)
class Code:
    """One `diag` element: a code such as 'I25.1', its parent ('' for a category), the number of its chapter, its section."""

    name: str
    title: str
    parent: str
    chapter: str
    section: str
    inclusion_terms: tuple[str, ...]

    @property
    def category(self) -> str:
        """Its first three characters, which name its category."""
        return self.name[:3]

    @property
    def is_short(self) -> bool:
        """True where its title is short enough for a prompt."""
        return len(self.title) <= LONGEST_TITLE

    def origin(self, *dedup_keys: str) -> Origin:
        """The origin of an example of the code, by its category."""
        return drawn(f"icd-10-cm/{self.category}", dedup_key(self.title), *dedup_keys, shares=(60, 20, 20))

    @cached_property
    def split(self) -> str:
        """The split of its category."""
        return self.origin().split


@dataclass(frozen=True)
class Tabular:
    """The tabular list: chapter titles by number, and codes by name, sorted."""

    chapters: dict[str, str]
    codes: dict[str, Code]


def tabular(path: Path) -> Tabular:
    """The tabular list of an XML file, plain or gzipped."""
    chapters: dict[str, str] = {}
    codes: dict[str, Code] = {}
    with opened(path) as stream:
        try:
            for _, element in ET.iterparse(stream):
                if element.tag == "chapter":
                    number = _child_text(element, "name")
                    chapters[number] = _CODE_RANGE.sub("", _child_text(element, "desc"))
                    parents = {child: diag for diag in element.iter("diag") for child in diag.findall("diag")}
                    sections = {diag: part for part in element.iter("section") for diag in part.iter("diag")}
                    for diag in element.iter("diag"):
                        parent = _child_text(parents[diag], "name") if diag in parents else ""
                        code = _code(diag, parent, number, sections.get(diag))
                        if not (code.name and code.title and code.chapter) or code.name in codes:
                            raise BadData(f"{path}, code {len(codes) + 1}: no name, title or chapter, or one listed twice.")
                        codes[code.name] = code
                    element.clear()  # 47,000 codes are kept as `Code`, not also as a tree
        except ET.ParseError as error:
            raise BadData(f"{path}, line {error.position[0]}: not valid XML. Get it again.") from error
    if not chapters or not codes:
        raise BadData(f"{path} holds no chapters or no codes: a tabular list of ICD-10-CM is expected.")
    return Tabular(chapters, dict(sorted(codes.items())))


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """ICD-10-CM as task types entity_synonymy, entity_relation, icd10_chapter and icd10_section, split 60/20/20 by category."""
    listed = tabular(files[0][1])
    yield from _synonymy(listed, report)
    yield from _relations(listed, report)
    yield from _chapters(listed, report)
    yield from _sections(listed, report)


def chapter_label(title: str) -> str:
    """The title of a chapter as a label: 'Diseases of the circulatory system' becomes 'circulatory system'."""
    return title.removeprefix("Diseases of the ").lower()


def _child_text(element: ET.Element, tag: str) -> str:
    return single_spaced(element.findtext(tag) or "")


def _code(element: ET.Element, parent: str, chapter: str, part: ET.Element | None) -> Code:
    notes = tuple(filter(None, (single_spaced(note.text or "") for note in element.findall("inclusionTerm/note"))))
    section = "" if part is None else safe_label(_CODE_RANGE.sub("", _child_text(part, "desc")))
    return Code(_child_text(element, "name"), _child_text(element, "desc"), parent, chapter, section, notes)


def _hash_order(code: Code) -> str:
    return hashlib.sha256(f"icd-10-cm/{code.name}".encode()).hexdigest()


def _synonymy(listed: Tabular, report: ReadReport) -> Iterator[Example]:
    families: dict[str, list[Code]] = defaultdict(list)
    chapters: dict[tuple[str, str], list[str]] = defaultdict(list)
    for code in filter(lambda code: code.is_short, listed.codes.values()):
        if code.parent:
            families[code.parent].append(code)
        chapters[code.chapter, code.split].append(code.title)
    for code in listed.codes.values():
        if code.chapter not in DISEASE_CHAPTERS or not code.inclusion_terms or not code.is_short:
            continue
        own = {normalise(name) for name in (code.title, *code.inclusion_terms)}
        near = [sibling.title for sibling in families[code.parent] if normalise(sibling.title) not in own]
        for term in draw(f"icd-10-cm/terms/{code.name}", code.inclusion_terms, TERMS_PER_CODE):
            name = f"icd-10-cm/same/{code.name}/{dedup_key(term)}"
            wrong = draw(name, near, 1)
            far = draw(f"{name}/far", chapters[code.chapter, code.split], 8)
            wrong += [title for title in far if title not in wrong and normalise(title) not in own]
            origin = code.origin(dedup_key(term))
            yield from choice_of_four(report, name, "entity_synonymy", "synonym", term, code.title, wrong, origin)


def _relations(listed: Tabular, report: ReadReport) -> Iterator[Example]:
    inner = {code.parent for code in listed.codes.values()} - {""}
    broad: dict[tuple[str, str, bool], list[Code]] = defaultdict(list)
    narrow: dict[str, list[Code]] = defaultdict(list)
    for code in listed.codes.values():
        if code.name in inner:
            broad[code.chapter, code.split, code.parent == ""].append(code)
        if code.parent and code.chapter in DISEASE_CHAPTERS:
            narrow[code.category].append(code)
    for family in narrow.values():
        for code in sorted(sorted(family, key=_hash_order)[:RELATIONS_PER_CATEGORY], key=lambda c: c.name):
            name = f"icd-10-cm/broader/{code.name}"
            above = [listed.codes[name] for name in dict.fromkeys((code.parent, code.category)) if name in listed.codes]
            unnamed = [a for a in above if not says(code.title, a.title)]
            if not unnamed or not code.is_short:
                report.skip("the title says the broader one, or is long")
                continue
            answer = seeded_rng(name).choice(unnamed)
            near = broad[code.chapter, code.split, answer.parent == ""]
            wrong = draw(name, (c.title for c in near if c.category != code.category and c.title != answer.title), 3)
            args = (name, "entity_relation", "diagnosis", code.title, answer.title, wrong, code.origin())
            yield from choice_of_four(report, *args)


def _chapters(listed: Tabular, report: ReadReport) -> Iterator[Example]:
    label = {n: chapter_label(listed.chapters[n]) for n in TASK_CHAPTERS if n in listed.chapters}
    labels = tuple(label.values())
    taken: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for code in sorted((c for c in listed.codes.values() if c.chapter in label), key=_hash_order):
        title = normalise(code.title)
        if len(title.split()) < 2 or not code.is_short or says(title, label[code.chapter]) or title in seen:
            report.skip("a title of one word, a long one, one that says its chapter, or one seen before")
            continue
        full = taken[code.chapter, code.split] >= TASK_SIZES[code.split]
        if full or taken[code.category, ""] >= TITLES_PER_CATEGORY:
            continue
        seen.add(title)
        taken.update([(code.chapter, code.split), (code.category, "")])
        name, answer = f"icd-10-cm/chapter/{code.name}", label[code.chapter]
        yield example(name, "icd10_chapter", "chapter", code.title, answer, code.origin(), labels)


def _sections(listed: Tabular, report: ReadReport) -> Iterator[Example]:
    """Titles of the sections that have titles in every split."""
    codes: dict[str, list[Code]] = defaultdict(list)
    taken: Counter[str] = Counter()
    seen: set[str] = set()
    for code in sorted((c for c in listed.codes.values() if c.chapter in DISEASE_CHAPTERS and c.section), key=_hash_order):
        title = normalise(code.title)
        if len(title.split()) < 2 or not code.is_short or says(title, code.section) or title in seen:
            report.skip("a title of one word, a long one, one that says its section, or one seen before")
        elif taken[code.category] < TITLES_OF_SECTIONS:
            seen.add(title)
            taken[code.category] += 1
            codes[code.section].append(code)
    for section, found in codes.items():
        for code in found if {code.split for code in found} == set(SPLITS) else ():
            name, origin = f"icd-10-cm/section/{code.name}", code.origin()
            yield example(name, "icd10_section", "all", code.title, section, origin, output_type="multiple_choice")
