"""Questions that an ontology can give: Human Phenotype Ontology and Human Disease Ontology.

    entity_attribute   the term that a definition describes, of four siblings, or cousins where these are too few
                       HPO: the organ system of a phenotype; Disease Ontology: the definition of a disease, as free text
    entity_synonymy    the term that another name means, of four of its branch, one of them a sibling
    entity_relation    the broader term, of four broad terms of the same branch
                       HPO with phenotype.hpoa: a finding of a disease, of four (`staf.data.readers.hpoa`)

Only current terms below 'Phenotypic abnormality' and 'disease'. A term is in the split of its first parent, so that siblings,
which are each other's wrong answers, are in one split. Wrong terms are neither broader nor narrower. Items whose context
contains the answer are left out. In the Disease Ontology pseudo-relations in definitions (`located_in`) are read as words;
remarks of a source after a synonym ('(disorder)', '[Ambiguous]', ', NOS') are removed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers import hpoa
from staf.data.readers.ontology import Ontology, Term, below
from staf.data.readers.shapes import choice_of_four, draw, draw_fitting, example, says
from staf.data.sources import single_spaced
from staf.data.splits import seeded_rng

PHENOTYPES, DISEASES = "HP:0000118", "DOID:4"
SMALLEST_SYSTEM = 60
"""Organ systems with fewer terms of their own are no label."""
LARGEST_SYSTEM = 500
"""No more examples than this of one organ system: the nervous system has 2,133 terms."""
LONGEST_DEFINITION = 500
"""Characters; longer definitions (1 in 40) are left out, so that prompts stay short."""
NAMES_PER_TERM = 2
"""No more synonyms of one term than this."""

_VARIANT_TYPES = ("plural_form", "uk_spelling", "obsolete_synonym")
_REMARK = re.compile(
    r"\s*(\((disorder|finding|function|category|qualifier value|morphologic abnormality|context-dependent category)\)"
    r"|\[(ambiguous|dup|obs)\]|,?\s+NOS)$",
    re.IGNORECASE,
)


def hpo(files: Files, report: ReadReport) -> Iterator[Example]:
    """HPO as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10."""
    paths = dict(files)
    known = below(paths["ontology"], "hpo", PHENOTYPES, report)
    yield from _systems(known, report)
    yield from _definitions(known, "definition", report)
    yield from _synonymy(known, report)
    yield from _relations(known, "phenotype", report)
    if "annotations" in paths:
        yield from hpoa.findings(paths["annotations"], known, report)


def disease_ontology(files: Files, report: ReadReport) -> Iterator[Example]:
    """The Disease Ontology as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10."""
    known = diseases(files[0][1], report)
    yield from _definitions(known, "defined", report)
    for term_id, term in known.terms.items():
        if _is_defined(term, report):
            name = f"disease-ontology/define/{term_id}"
            origin = known.origin(term_id, dedup_key(term.name), *minhash_keys(term.definition))
            yield example(name, "entity_attribute", "define", term.name, term.definition, origin)
    yield from _synonymy(known, report)
    yield from _relations(known, "broader", report)


def diseases(path: Path, report: ReadReport) -> Ontology:
    """The current terms below 'disease', their definitions and synonyms in plain words."""
    known = below(path, "disease-ontology", DISEASES, report)
    return replace(known, terms={i: _in_words(term) for i, term in known.terms.items()})


def _in_words(term: Term) -> Term:
    synonyms = tuple(replace(synonym, text=_without_remarks(synonym.text)) for synonym in term.synonyms)
    return replace(term, definition=single_spaced(term.definition.replace("_", " ")), synonyms=synonyms)


def _without_remarks(name: str) -> str:
    """A name without what its source wrote after it: 'Angina NOS (disorder) [Ambiguous]' becomes 'Angina'."""
    while (shorter := _REMARK.sub("", name)) not in ("", name):
        name = shorter
    return name


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
        unnamed = [i for i in members[system] if not says(known.terms[i].name, label[system])]
        report.skip("the question says its answer", len(members[system]) - len(unnamed))
        for term_id in sorted(draw(system, sorted(unnamed), LARGEST_SYSTEM)):
            name = known.terms[term_id].name
            origin = known.origin(term_id, dedup_key(name))
            yield example(f"hpo/system/{term_id}", "entity_attribute", "system", name, label[system], origin, labels)


def _is_defined(term: Term, report: ReadReport) -> bool:
    is_defined = 1 <= len(term.definition) <= LONGEST_DEFINITION
    report.skip("no definition, or a long one", not is_defined)
    return is_defined


def _definitions(known: Ontology, asked: str, report: ReadReport) -> Iterator[Example]:
    for term_id, term in known.terms.items():
        if _is_defined(term, report):
            name = f"{known.dataset}/definition/{term_id}"
            wrong = draw(name, (known.terms[i].name for i in known.siblings(term_id)), 3)
            further = [known.terms[i].name for i in known.cousins(term_id)]
            wrong += draw(f"{name}/far", (name for name in further if name not in wrong), 3 - len(wrong))
            origin = known.origin(term_id, dedup_key(term.name), *minhash_keys(term.definition))
            yield from choice_of_four(report, name, "entity_attribute", asked, term.definition, term.name, wrong, origin)


def _relations(known: Ontology, asked: str, report: ReadReport) -> Iterator[Example]:
    inner: dict[str, list[str]] = defaultdict(list)
    for term_id in known.children:
        if term_id != known.root:
            for branch in known.branches(term_id):
                inner[branch].append(term_id)
    for term_id, term in known.terms.items():
        name = f"{known.dataset}/broader/{term_id}"
        unnamed = [p for p in known.parents[term_id] if p != known.root and not says(term.name, known.terms[p].name)]
        if not unnamed:
            report.skip("the question says its answer")
            continue
        answer = known.terms[seeded_rng(name).choice(unnamed)].name
        wrong = _strangers(known, term_id, inner[known.branches(term_id)[0]], term_id)
        origin = known.origin(term_id, dedup_key(term.name))
        yield from choice_of_four(report, name, "entity_relation", asked, term.name, answer, wrong, origin)


def _synonymy(known: Ontology, report: ReadReport) -> Iterator[Example]:
    members: dict[str, list[str]] = defaultdict(list)
    for term_id in known.terms:
        members[known.branches(term_id)[0]].append(term_id)
    for term_id, term in known.terms.items():
        own = {normalise(name) for name in (term.name, *(s.text for s in term.synonyms))}
        near = [known.terms[i].name for i in known.siblings(term_id) if normalise(known.terms[i].name) not in own]
        for other in draw(f"{known.dataset}/synonyms/{term_id}", other_names(term), NAMES_PER_TERM):
            name = f"{known.dataset}/same/{term_id}/{dedup_key(other)}"
            wrong = draw(name, near, 1)
            wrong += [far for far in _strangers(known, term_id, members[known.branches(term_id)[0]], name) if far not in wrong]
            origin = known.origin(term_id, dedup_key(term.name), dedup_key(other))
            yield from choice_of_four(report, name, "entity_synonymy", "synonym", other, term.name, wrong, origin)


def other_names(term: Term) -> list[str]:
    """Exact synonyms that are more than another spelling or word order of the name, each wording once."""
    seen = {wording(term.name)}
    names = []
    for synonym in term.synonyms:
        words = wording(synonym.text)
        if synonym.scope == "EXACT" and synonym.type not in _VARIANT_TYPES and words and words not in seen:
            seen.add(words)
            names.append(synonym.text)
    return names


def wording(text: str) -> tuple[str, ...]:
    """The words of a name as compared for sameness: without order and without a plural s."""
    return tuple(sorted(word.removesuffix("s") for word in normalise(text).split()))


def _strangers(known: Ontology, term_id: str, near: list[str], key: str) -> list[str]:
    """Three names out of `near` that are neither broader nor narrower than the term; fewer where there are not enough."""
    drawn = draw_fitting(f"{known.dataset}/strangers/{key}", near, 3, lambda found: not known.related(found, term_id))
    return [known.terms[found].name for found in drawn]
