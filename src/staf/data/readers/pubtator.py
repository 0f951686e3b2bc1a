"""Abstracts in PubTator format: BC5CDR (chemicals, diseases, and which chemical induces which disease), NCBI-disease.

    227508|t|<title>
    227508|a|<abstract>
    227508<tab>0<tab>8<tab>Naloxone<tab>Chemical<tab>D009270             mention: offsets into title, space, abstract
    227508<tab>9<tab>30<tab>..<tab>Disease<tab>D1|D2<tab>one|two         composite: its single names in a 7th column
    227508<tab>CID<tab>D008750<tab>D007022                               relation between MeSH ids
    (blank line)

    named_entity_recognition   the title, or a sentence of the abstract -> its mentions, or 'none'
    reading_comprehension      one of them with a single mention of a chemical -> the chemical (BC5CDR)
    relation_extraction        a chemical and a disease of an abstract, by their first names -> related or not

An abstract gives as many unrelated pairs, drawn by hash, as it has relations. Mentions with the id '-1' are in no pair.
NCBI-disease, as its authors distribute it, has no relations and four types of mention, all of them diseases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from staf.data.answers import Entity
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, draw, each_record, example, mentions, of_long, pair
from staf.data.sources import paragraphs, single_spaced
from staf.errors import BadData

TYPES = ("chemical", "disease")
KINDS = {
    "bc5cdr": {"chemical": "chemical", "disease": "disease"},
    "ncbi-disease": dict.fromkeys(("specificdisease", "diseaseclass", "modifier", "compositemention"), "disease"),
}
"""Our types of mention by those of the file, in lower case."""
RELATIONS = ("chemical-induced disease", "no such relation")
UNLINKED = "-1"

_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z(\[\"'])")


@dataclass(frozen=True, slots=True)
class _Mention:
    """A mention: its place in the text, its type in our words, its MeSH ids and the name of each."""

    start: int
    end: int
    kind: str
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Abstract:
    """A record of the file."""

    corpus: str
    pubmed_id: str
    title: str
    text: str
    """Title, one space, abstract."""
    mentions: list[_Mention] = field(default_factory=list)
    relations: set[tuple[str, str]] = field(default_factory=set)

    @property
    def about(self) -> tuple[str, ...]:
        """Its deduplication keys; the first one is the document's."""
        return (dedup_key(f"{self.corpus} document {self.pubmed_id}"), *minhash_keys(self.text))


def _records(path: Path, report: ReadReport) -> Iterator[tuple[str, list[str]]]:
    """The lines of each record, with the place of its first one."""
    seen: set[str] = set()
    for place, _, lines in paragraphs(path, report):
        pubmed_id = lines[0].partition("|")[0]
        if pubmed_id in seen:
            report.skip("an abstract that its file repeats")
        else:
            seen.add(pubmed_id)
            yield place, lines


@each_record(_records)
def bc5cdr(place: str, lines: list[str], split: str, report: ReadReport) -> Iterator[Example]:
    """Mentions and relations, in the corpus's own splits."""
    abstract = _abstract(lines, "bc5cdr")
    yield from _sentences(abstract, split, report)
    yield from _pairs(abstract, split, report)


@each_record(_records)
def ncbi(place: str, lines: list[str], split: str, report: ReadReport) -> Iterator[Example]:
    """Mentions of diseases, in the corpus's own splits."""
    yield from _sentences(_abstract(lines, "ncbi-disease"), split, report)


def _abstract(lines: list[str], corpus: str) -> _Abstract:
    heads = [line.split("|", 2) for line in lines[:2]]
    if [head[1:2] for head in heads] != [["t"], ["a"]] or heads[0][0] != heads[1][0] or not all(head[2:] for head in heads):
        raise BadData("the record does not begin with ID|t|title and ID|a|abstract.")
    pubmed_id, _, title = heads[0]
    record = _Abstract(corpus, pubmed_id, title, f"{title} {heads[1][2]}")
    for line in lines[2:]:
        cells = line.split("\t")
        if cells[0] != pubmed_id or len(cells) not in (4, 6, 7):
            raise BadData("the record holds a line that is neither a mention nor a relation of it.")
        if len(cells) == 4:
            record.relations.add((cells[2], cells[3]))
        else:
            record.mentions.append(_mention(cells, record.text, KINDS[corpus]))
    known = [set().union(*(m.names for m in record.mentions if m.kind == kind)) for kind in TYPES]
    if any(chemical not in known[0] or disease not in known[1] for chemical, disease in record.relations):
        raise BadData("a relation of the record has an id that no mention has.")
    record.mentions.sort(key=lambda mention: (mention.start, mention.end))
    return record


def _mention(cells: list[str], text: str, kinds: dict[str, str]) -> _Mention:
    kind = kinds.get(cells[4].casefold(), "")
    start, end = (int(cell) if cell.isdecimal() else -1 for cell in cells[1:3])
    if not kind or start < 0 or not text[start:end].strip() or text[start:end] != cells[3]:
        raise BadData(f"a mention of the record is not the text at its place, or of another type than {', '.join(kinds)}.")
    ids = cells[5].split("|")
    parts = cells[6].split("|") if len(cells) == 7 else []
    if len(parts) != len(ids):
        parts = [cells[3]] * len(ids)
    linked = zip(ids, parts, strict=True)
    return _Mention(start, end, kind, {mesh: single_spaced(part) for mesh, part in linked if mesh != UNLINKED})


def _sentences(abstract: _Abstract, split: str, report: ReadReport) -> Iterator[Example]:
    types, about = tuple(dict.fromkeys(KINDS[abstract.corpus].values())), abstract.about
    for number, (start, end) in enumerate(_pieces(abstract)):
        text = single_spaced(abstract.text[start:end])
        inside = (m for m in abstract.mentions if start <= m.start and m.end <= end)
        found = [Entity(m.kind, single_spaced(abstract.text[m.start : m.end])) for m in inside]
        place, origin = f"{abstract.pubmed_id}/{number}", Origin(split, (*about, *of_long(text)), about[0])
        yield from mentions(report, f"{abstract.corpus}/mentions/{place}", text, found, types, origin)
        chemicals = [entity.text for entity in found if entity.type == "chemical"]
        if len(chemicals) == 1 and chemicals[0] != text:
            name = f"{abstract.corpus}/chemical/{place}"
            yield example(name, "reading_comprehension", "chemical", text, chemicals[0], origin, output_type="span")


def _pieces(abstract: _Abstract) -> Iterator[tuple[int, int]]:
    """Where the title and each sentence of the abstract stand; no cut falls into a mention."""
    cuts = [len(abstract.title)]
    for match in _SENTENCE_END.finditer(abstract.text, len(abstract.title) + 1):
        if not any(m.start < match.end() and match.start() < m.end for m in abstract.mentions):
            cuts.append(match.start())
    for start, end in zip([0, *cuts], [*cuts, len(abstract.text)], strict=True):
        if abstract.text[start:end].strip():
            yield start, end


def _pairs(abstract: _Abstract, split: str, report: ReadReport) -> Iterator[Example]:
    names: dict[str, dict[str, str]] = {kind: {} for kind in TYPES}
    for mention in abstract.mentions:
        for mesh, name in mention.names.items():
            names[mention.kind].setdefault(mesh, name)
    chemicals, diseases = (names[kind] for kind in TYPES)
    others = [f"{c}/{d}" for c, d in product(chemicals, diseases) if (c, d) not in abstract.relations]
    drawn = set(draw(f"bc5cdr/{abstract.pubmed_id}", others, len(abstract.relations)))
    report.skip("a pair that is no relation, beyond as many as there are relations", len(others) - len(drawn))
    text, origin = single_spaced(abstract.text), Origin(split, abstract.about, abstract.about[0])
    for chemical, disease in product(chemicals, diseases):
        related = (chemical, disease) in abstract.relations
        if related or f"{chemical}/{disease}" in drawn:
            example_id = f"bc5cdr/relation/{abstract.pubmed_id}/{chemical}/{disease}"
            answer = RELATIONS[0] if related else RELATIONS[1]
            yield pair(example_id, (chemicals[chemical], diseases[disease]), text, answer, RELATIONS, origin)
