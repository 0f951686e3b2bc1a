"""Human Disease Ontology: definitions, synonyms and broader terms of diseases.

    entity_attribute   the disease that a definition describes, of four; the definition of a disease, as free text
    entity_synonymy    the disease that another name means, of four, one of them a sibling
    entity_relation    the broader disease, of four of the same branch

Only current terms below 'disease'. Pseudo-relations in definitions (`located_in`) are read as words; remarks of a source
after a synonym ('(disorder)', '[Ambiguous]', ', NOS') are removed. Items whose context contains the answer are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers import term_choices
from staf.data.readers.ontology import Ontology, Term, below
from staf.data.readers.shapes import Origin, example
from staf.data.sources import find_one, single_spaced

LAYOUTS = ("doid.obo", "doid.obo.gz", "src/ontology/doid.obo")
ROOT = "DOID:4"

_REMARK = re.compile(
    r"\s*(\((disorder|finding|function|category|qualifier value|morphologic abnormality|context-dependent category)\)"
    r"|\[(ambiguous|dup|obs)\]|,?\s+NOS)$",
    re.IGNORECASE,
)


def files(folder: Path) -> list[Path]:
    """The ontology under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "disease-ontology")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """The ontology as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10."""
    known = diseases(files(folder)[0], report)
    yield from term_choices.definitions(known, "defined", report)
    yield from _define(known, report)
    yield from term_choices.synonymy(known, report)
    yield from term_choices.relations(known, "broader", report)


def diseases(path: Path, report: ReadReport) -> Ontology:
    """The current terms below 'disease', their definitions and synonyms in plain words."""
    known = below(path, "disease-ontology", ROOT, report)
    return replace(known, terms={i: _in_words(term) for i, term in known.terms.items()})


def _in_words(term: Term) -> Term:
    synonyms = tuple(replace(synonym, text=_without_remarks(synonym.text)) for synonym in term.synonyms)
    return replace(term, definition=single_spaced(term.definition.replace("_", " ")), synonyms=synonyms)


def _without_remarks(name: str) -> str:
    """A name without what its source wrote after it: 'Angina NOS (disorder) [Ambiguous]' becomes 'Angina'."""
    while (shorter := _REMARK.sub("", name)) not in ("", name):
        name = shorter
    return name


def _define(known: Ontology, report: ReadReport) -> Iterator[Example]:
    for term_id, term in known.terms.items():
        if not 1 <= len(term.definition) <= term_choices.LONGEST_DEFINITION:
            report.skip("no definition, or a long one, to be given as text")
            continue
        example_id = f"disease-ontology/define/{term_id}"
        origin = Origin(known.split(term_id), (dedup_key(term.name), *minhash_keys(term.definition)), known.group(term_id))
        yield example(
            example_id, "entity_attribute", "define", term.name, term.definition, origin, output_type="generate_until"
        )
