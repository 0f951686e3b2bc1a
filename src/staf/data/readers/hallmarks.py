"""Hallmarks of Cancer (Baker et al., 2016): which of ten hallmarks an abstract gives evidence of.

    text/<pmid>.txt     one tokenized sentence a line
    labels/<pmid>.txt   one slot per sentence, each opened by '<'; labels of a slot joined by ' AND'; 'NULL' is no hallmark

A label is a path such as 'Genomic instability and mutation--DNA damage--Adducts'; its first part is the hallmark. An abstract
has the hallmarks of all its sentences, or none. Split 80/10/10 by abstract.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from staf.data.answers import write_several
from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import decoded, find_one, single_spaced, vocabulary
from staf.data.splits import split_of
from staf.errors import BadData

LAYOUTS = ("Hallmarks-of-Cancer-*.tar.gz", "Hallmarks-of-Cancer-*.zip")
HALLMARKS = tuple(vocabulary("hallmarks"))
NO_HALLMARK = "NULL"
LEVELS = "--"

_BETWEEN_LABELS = re.compile(r"\s+AND\s*")


def files(folder: Path) -> list[Path]:
    """The archive of the repository under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "hallmarks-of-cancer")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Hallmarks of Cancer as task type document_classification."""
    (path,) = files(folder)
    labelled = {_pubmed_id(name): content for name, content in members(path, "*/labels/*.txt")}

    def make(place: str, abstract: tuple[str, bytes, bytes]) -> Iterator[Example]:
        pubmed_id, text, labels = abstract
        yield _example(pubmed_id, _slots(labels, place), _sentences(text, place), place)

    yield from report.each(_abstracts(path, labelled), make)
    if labelled:
        raise BadData(f"{path}: {len(labelled)} label files have no text. Get it again.")


def _abstracts(path: Path, labelled: dict[str, bytes]) -> Iterator[tuple[str, tuple[str, bytes, bytes]]]:
    """Each text with its labels, which leave `labelled`."""
    for name, text in members(path, "*/text/*.txt"):
        pubmed_id = _pubmed_id(name)
        if pubmed_id not in labelled:
            raise BadData(f"{path}, {name}: it has no label file, or comes twice. Get it again.")
        yield f"{path}, {name}", (pubmed_id, text, labelled.pop(pubmed_id))


def _example(pubmed_id: str, slots: list[set[str]], sentences: list[str], place: str) -> Example:
    if len(slots) != len(sentences):
        raise BadData(f"{place}: {len(sentences)} sentences are here, and {len(slots)} slots in its label file.")
    found = set().union(*slots)
    unknown = found - {*HALLMARKS, NO_HALLMARK}
    if unknown:
        raise BadData(f"{place}: {len(unknown)} of its labels lie under none of the {len(HALLMARKS)} hallmarks.")
    example_id, text = f"hallmarks-of-cancer/{pubmed_id}", single_spaced(" ".join(sentences))
    origin = Origin(split_of(example_id), minhash_keys(text), example_id)
    answer = write_several(found - {NO_HALLMARK}, HALLMARKS)
    return example(
        example_id, "document_classification", "hallmarks", text, answer, origin, HALLMARKS, output_type="multi_label"
    )


def _sentences(text: bytes, place: str) -> list[str]:
    sentences = decoded(text, place).splitlines()
    if not all(sentence.strip() for sentence in sentences) or not sentences:
        raise BadData(f"{place}: it is empty, or one of its lines is.")
    return sentences


def _slots(labels: bytes, place: str) -> list[set[str]]:
    """The hallmarks of each sentence, NULL among them."""
    before, *slots = decoded(labels, place).split("<")
    if before.strip():
        raise BadData(f"{place}: its label file does not begin with '<'.")
    return [{_hallmark(path.strip()) for path in _BETWEEN_LABELS.split(slot) if path.strip()} for slot in slots]


def _hallmark(path: str) -> str:
    first = path.split(LEVELS)[0]
    return first if first == NO_HALLMARK else first.lower()


def _pubmed_id(name: str) -> str:
    return PurePosixPath(name).stem
