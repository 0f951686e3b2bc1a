"""Documents with any number of labels: Hallmarks of Cancer and WikiMed.

    hallmarks-of-cancer   text/<pmid>.txt     one tokenized sentence a line
                          labels/<pmid>.txt   one slot a sentence, each opened by '<'; labels of a slot joined by ' AND'
    wikimed               WikiMed.json        one page a line: {"_id", "title", "text", "split": "train|valid|test",
                                              "mentions": [{"start_offset", "end_offset", "link_id": "C0000001|C0000002"}]}
                          MRSTY.RRF           semantic types by concept, from the UMLS

Hallmarks (Baker et al., 2016): a label is a path such as 'Genomic instability and mutation--DNA damage--Adducts', of which
the first part is the hallmark; 'NULL' is none. An abstract has the hallmarks of all its sentences. Split 80/10/10 by abstract.

WikiMed (Vashishth et al., 2021): labels are the coarse types (`semantic_types`) of the concepts that the first 2,000
characters of a page mention. Concepts that MRSTY does not list are left out, and so is a page that has no others. The
authors' splits are used (valid is adaptation); a page without one is drawn 80/10/10 by its id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from staf.data.answers import write_several
from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.json_files import json_lines
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import WINDOW, Origin, Row, drawn, example, vocabulary
from staf.data.sources import csv_rows, decoded, listed, one_of, single_spaced, text_field
from staf.data.splits import split_of
from staf.errors import BadData

HALLMARKS = tuple(vocabulary("hallmarks"))
NO_HALLMARK = "NULL"
TYPES = tuple(vocabulary("semantic_types"))
COARSE = {fine: coarse for coarse, fines in vocabulary("semantic_types").items() for fine in fines}
"""Coarse type of each semantic type of the UMLS."""
TYPE_COLUMNS = (*vocabulary("umls_layouts")["MRSTY"].split(), "")
"""Of MRSTY.RRF; every row ends in a bar, so that the last cell is empty."""
SPLITS = {"train": "train", "valid": "adaptation", "test": "test"}

_BETWEEN_LABELS = re.compile(r"\s+AND\s*")
_BITS = {label: 1 << place for place, label in enumerate(TYPES)}
_CONCEPT = re.compile(r"C(\d{7})")


def labelled(
    example_id: str, asked: str, text: str, found: Collection[str], labels: tuple[str, ...], origin: Origin
) -> Example:
    """The example that asks for all labels of a document."""
    answer = write_several(found, labels)
    return example(example_id, "document_classification", asked, text, answer, origin, labels, "multi_label")


def hallmarks(files: Files, report: ReadReport) -> Iterator[Example]:
    """Hallmarks of Cancer as task type document_classification."""
    ((_, path),) = files
    labels = {PurePosixPath(name).stem: content for _, name, content in members(path, "*/labels/*.txt")}

    def make(place: str, abstract: tuple[str, bytes, bytes]) -> Iterator[Example]:
        sentences, slots = decoded(abstract[1]).splitlines(), _slots(decoded(abstract[2]))
        if not all(sentence.strip() for sentence in sentences) or not sentences:
            raise BadData("it is empty, or one of its lines is.")
        if len(slots) != len(sentences):
            raise BadData(f"{len(sentences)} sentences are here, and {len(slots)} slots in its label file.")
        found = set().union(*slots) - {NO_HALLMARK}
        if unknown := found - set(HALLMARKS):
            raise BadData(f"{len(unknown)} of its labels lie under none of the {len(HALLMARKS)} hallmarks.")
        name, text = f"hallmarks-of-cancer/{abstract[0]}", single_spaced(" ".join(sentences))
        yield labelled(name, "hallmarks", text, found, HALLMARKS, drawn(name, *minhash_keys(text)))

    yield from report.each(_abstracts(path, labels), make)
    if labels:
        raise BadData(f"{path}: {len(labels)} label files have no text. Get it again.")


def _abstracts(path: Path, labels: dict[str, bytes]) -> Iterator[tuple[str, tuple[str, bytes, bytes]]]:
    """Each text with its labels, which leave `labels`."""
    for place, name, text in members(path, "*/text/*.txt"):
        pubmed_id = PurePosixPath(name).stem
        if pubmed_id not in labels:
            raise BadData(f"{place}: it has no label file, or comes twice. Get it again.")
        yield place, (pubmed_id, text, labels.pop(pubmed_id))


def _slots(text: str) -> list[set[str]]:
    """The hallmarks of each sentence, NULL among them."""
    before, *slots = text.split("<")
    if before.strip():
        raise BadData("its label file does not begin with '<'.")
    paths = ([path.strip().split("--")[0] for path in _BETWEEN_LABELS.split(slot) if path.strip()] for slot in slots)
    return [{first if first == NO_HALLMARK else first.lower() for first in slot} for slot in paths]


def wikimed(files: Files, report: ReadReport) -> Iterator[Example]:
    """WikiMed as task type document_classification."""
    paths = dict(files)
    known = concept_types(paths["types"], report)

    def make(place: str, record: Row) -> Iterator[Example]:
        name, text = f"wikimed/{text_field(record, '_id')}", record["text"] if text_field(record, "text") else ""
        split = SPLITS[one_of(record, "split", SPLITS)] if record.get("split") is not None else split_of(name)
        shown = len(text) if len(text) <= WINDOW else max(text.rfind(" ", 0, WINDOW + 1), 0) or WINDOW
        spoken = [_mention(mention, len(text)) for mention in listed(record, "mentions")]
        types = [int(np.bitwise_or.reduce(known[concepts])) for end, concepts in spoken if end <= shown]
        report.skip("a mention of concepts that the UMLS file does not list", types.count(0))
        if types and not any(types):
            report.skip("a page all of whose mentions are left out")
            return
        found = {label for label, bit in _BITS.items() if any(bit & held for held in types)}
        text = single_spaced(text[:shown])
        yield labelled(name, "semantic_types", text, found, TYPES, Origin(split, minhash_keys(text), name))

    yield from report.each(json_lines(paths["pages"], report), make)


def concept_types(path: Path, report: ReadReport) -> NDArray[np.uint32]:
    """The coarse types of each concept, one bit a type, by the number of the concept; 0 is unknown."""
    held = np.zeros(10_000_000, dtype=np.uint32)  # every number that an id can have: 40 MB, and a dict would take far more
    for place, row in csv_rows(path, report, TYPE_COLUMNS, delimiter="|", quoted=False, header=False):
        concept, coarse = _CONCEPT.fullmatch(row["CUI"]), COARSE.get(row["STY"])
        if concept is None or coarse is None:
            report.reject(BadData(f"{place}: no concept id, or a semantic type that is none of the {len(COARSE)}."), row)
        else:
            held[int(concept[1])] |= _BITS[coarse]
    return held


def _mention(mention: Row, length: int) -> tuple[int, list[int]]:
    """Where a mention ends, and the numbers of its concepts."""
    start, end = mention.get("start_offset"), mention.get("end_offset")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= length:
        raise BadData("a mention has no offsets, or they lie outside the text.")
    concepts = [_CONCEPT.fullmatch(concept) for concept in text_field(mention, "link_id").split("|")]
    if not all(concepts):
        raise BadData("the 'link_id' of a mention must be UMLS concept ids joined by '|'.")
    return end, [int(concept[1]) for concept in concepts if concept]
