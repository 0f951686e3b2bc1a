"""Questions that an ontology can give: Human Phenotype Ontology and Human Disease Ontology.

    entity_attribute   the term that a definition describes, of four siblings, or cousins where these are too few
                       HPO: the organ system of a phenotype; Disease Ontology: the definition of a disease, as free text
    entity_synonymy    the term that another name means, of four of its branch, one of them a sibling
    entity_relation    the broader term, of four broad terms of the same branch
                       HPO with phenotype.hpoa: a finding of a disease, of four phenotypes

Only current terms below 'Phenotypic abnormality' and 'disease'. A term is in the split of its first parent, so that siblings,
which are each other's wrong answers, are in one split. Wrong terms are neither broader nor narrower. Items whose context
contains the answer are left out. In the Disease Ontology pseudo-relations in definitions (`located_in`) are read as words;
remarks of a source after a synonym ('(disorder)', '[Ambiguous]', ', NOS') are removed.

Annotations of the Human Phenotype Ontology (phenotype.hpoa), findings of diseases:

    database_id   disease_name   qualifier   hpo_id   reference .. frequency .. aspect   biocuration     (tabs)
    OMIM:619340   Developmental ..           HP:0011097    ..      1/2       ..   P      ..

Only aspect P is a finding. A pair with the qualifier NOT is neither right nor wrong here. The frequency is a term, a fraction,
a percentage or empty; findings of fewer than 5 percent of patients are no right answers. Rows with the same id or
the same name belong to one disease; numbered forms of a disease share a group. Wrong options are findings of other diseases,
frequent ones more often, never broader or narrower than an annotated term.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.ontology import Ontology, Term, below
from staf.data.readers.shapes import Row, choice_of_four, draw, draw_fitting, drawn, example, says
from staf.data.sources import NULLS, csv_rows, single_spaced
from staf.data.splits import seeded_rng
from staf.errors import BadData

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
        yield from _findings(paths["annotations"], known, report)


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


HPOA_COLUMNS = ("database_id", "disease_name", "qualifier", "hpo_id", "frequency", "aspect")
ASPECTS = ("P", "I", "C", "H", "M")
FREQUENCIES = {
    "HP:0040280": 1.0,
    "HP:0040281": 0.8,
    "HP:0040282": 0.3,
    "HP:0040283": 0.05,
    "HP:0040284": 0.01,
    "HP:0040285": 0.0,
}
"""The least share of patients that a term of frequency means: obligate, very frequent, .., very rare, excluded."""
LEAST_SHARE = 0.05
"""Findings of fewer patients than this are not asked for."""
FINDINGS_PER_DISEASE = 3
"""No more findings of one disease than this."""
MOST_FINDINGS = 10_000
"""Findings in all, drawn by hash: about as many as the ontology has other relations to ask for."""

_FRACTION = re.compile(r"(\d+)/(\d+)")
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass
class _Disease:
    """A disease under all its ids and names (by normalised form); the first id and name of the file are used."""

    id: str
    order: int
    names: dict[str, str] = field(default_factory=dict)
    annotated: set[str] = field(default_factory=set)
    findings: set[str] = field(default_factory=set)
    negated: set[str] = field(default_factory=set)

    @property
    def group(self) -> str:
        """The first name without its numbers, which tell the forms of one disease apart."""
        key = next(iter(self.names))
        return f"hpo/disease/{' '.join(word for word in key.split() if not word[0].isdigit()) or key}"

    def absorb(self, other: _Disease) -> None:
        """Take over what another entry of the same disease holds."""
        self.names |= other.names
        self.annotated |= other.annotated
        self.findings |= other.findings
        self.negated |= other.negated


def _findings(path: Path, known: Ontology, report: ReadReport) -> Iterator[Example]:
    """Findings of diseases as task type entity_relation, split 80/10/10 by disease."""
    diseases = {disease.id: disease for disease in _diseases(path, known, report)}
    right = {i: sorted(disease.findings - disease.negated) for i, disease in diseases.items()}
    pool = [finding for own in right.values() for finding in own]
    chosen = []
    for i, disease in diseases.items():
        unnamed = [f for f in right[i] if not any(says(name, known.terms[f].name) for name in disease.names.values())]
        report.skip("the question says its answer", len(right[i]) - len(unnamed))
        chosen += [(i, finding) for finding in draw(f"hpo/findings/{i}", unnamed, FINDINGS_PER_DISEASE)]
    chosen.sort(key=lambda pair: hashlib.sha256(" ".join(pair).encode()).digest())
    report.skip(f"a finding beyond the {MOST_FINDINGS:,} that are drawn", max(0, len(chosen) - MOST_FINDINGS))
    for i, finding in sorted(chosen[:MOST_FINDINGS]):
        yield from _finding(diseases[i], finding, pool, known, report)


def _finding(disease: _Disease, finding: str, pool: list[str], known: Ontology, report: ReadReport) -> Iterator[Example]:
    name = f"hpo/finding/{disease.id}/{finding}"
    own = disease.annotated
    broader = own.union(*(known.ancestors[i] for i in own))
    wrong = draw_fitting(name, pool, 3, lambda i: i not in broader and own.isdisjoint(known.ancestors[i]))
    origin = drawn(disease.group, *map(dedup_key, disease.names))
    context, answer, *others = next(iter(disease.names.values())), *(known.terms[i].name for i in (finding, *wrong))
    yield from choice_of_four(report, name, "entity_relation", "finding", context, answer, others, origin)


def least_share(frequency: str) -> float | None:
    """The least share of patients that a frequency means; None where it is empty."""
    if not frequency:
        return None
    if frequency in FREQUENCIES:
        return FREQUENCIES[frequency]
    if match := _FRACTION.fullmatch(frequency):
        had, seen = int(match[1]), int(match[2])
        if had <= seen and seen > 0:
            return had / seen
    elif match := _PERCENTAGE.fullmatch(frequency):
        return float(match[1]) / 100
    raise BadData("the frequency is none of a term, a fraction and a percentage.")


def _diseases(path: Path, known: Ontology, report: ReadReport) -> list[_Disease]:
    """The diseases in the order of the file."""
    found: dict[str, _Disease] = {}
    rows = csv_rows(path, report, HPOA_COLUMNS, delimiter="\t", quoted=False, comment="#")
    for name, share, row in report.each(rows, _checked):
        if row["aspect"] != "P" or row["hpo_id"] not in known.terms:
            report.skip("an annotation that is no phenotype")
            continue
        disease = _disease(found, row["database_id"], name)
        disease.annotated.add(row["hpo_id"])
        if row["qualifier"] == "NOT":
            disease.negated.add(row["hpo_id"])
        elif share is None or share >= LEAST_SHARE:
            disease.findings.add(row["hpo_id"])
    return list({disease.id: disease for disease in found.values()}.values())


def _disease(found: dict[str, _Disease], disease_id: str, name: str) -> _Disease:
    """The entry of a disease, found by its id or its name; two entries that turn out to be one are joined."""
    keys = (disease_id, normalise(name))
    entries = sorted((found[key] for key in keys if key in found), key=lambda entry: entry.order)
    disease = entries[0] if entries else _Disease(disease_id, len(found))
    if entries and entries[-1] is not disease:
        disease.absorb(entries[-1])
        found.update({key: disease for key, entry in found.items() if entry is entries[-1]})
    disease.names.setdefault(keys[1], name)
    found.update(dict.fromkeys(keys, disease))
    return disease


def _checked(place: str, row: Row) -> Iterator[tuple[str, float | None, Row]]:
    """The name of the disease, the share of its patients, and the row."""
    name = single_spaced(row["disease_name"])
    if not (row["database_id"] and normalise(name) and row["hpo_id"]):
        raise BadData("the disease has no id or no name, or there is no term.")
    row = {column: "" if cell in NULLS and column != "disease_name" else cell for column, cell in row.items()}
    if row["aspect"] not in ASPECTS or row["qualifier"] not in ("", "NOT"):
        raise BadData(f"the aspect must be one of {', '.join(ASPECTS)}, the qualifier NOT or empty.")
    yield name, least_share(row["frequency"]), row
