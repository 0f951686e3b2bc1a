"""Ontologies in OBO 1.2, and as a graph: the current terms below a root, their ancestors, siblings and cousins.

    [Term]
    id: HP:0000003
    name: Multicystic kidney dysplasia
    def: "Multicystic dysplasia of the kidney is .." [https://orcid.org/..]
    synonym: "Multicystic kidneys" EXACT layperson []
    is_a: HP:0000107 ! Renal cyst

A stanza without id or name, with an unquoted definition, or with an id seen before is rejected by its line; unknown tags,
comments and trailing modifiers are ignored. (obonet keeps no line numbers, accepts repeated ids and tags, and cuts quoted text
at ' ! '.) A term is in the split of its first parent, so that siblings, which are each other's wrong answers, are in one split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, drawn
from staf.data.sources import single_spaced, text_lines
from staf.errors import BadData

SCOPES = ("EXACT", "BROAD", "NARROW", "RELATED")

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)')
_VALUE = re.compile(r'((?:"(?:[^"\\]|\\.)*"|\\.|[^"\\])*?)(?:\s*\{(?:"(?:[^"\\]|\\.)*"|[^{}"])*\})?(?:(?:^|\s+)!.*)?')
"""A value before its trailing modifiers ({source="..."}) and its comment (! ..), neither of which begins in quotes."""
_ESCAPE = re.compile(r"\\(.)")
_SPACES = {"n": " ", "W": " ", "t": " "}


@dataclass(frozen=True, slots=True)
class Synonym:
    """Another name of a term; `scope` is one of `SCOPES`, `type` such as 'layperson' or ''."""

    text: str
    scope: str
    type: str


@dataclass(frozen=True, slots=True)
class Term:
    """One [Term] stanza; `definition` may be '', `is_a` holds the ids of the broader terms."""

    id: str
    name: str
    definition: str
    synonyms: tuple[Synonym, ...]
    is_a: tuple[str, ...]
    obsolete: bool


def terms(path: Path, report: ReadReport | None = None) -> Iterator[Term]:
    """The terms of an OBO file, plain or gzipped, in their order, obsolete ones included."""
    report = report or ReadReport()
    seen: set[str] = set()

    def make(place: str, tags: list[tuple[int, str, str]]) -> Iterator[Term]:
        term = _term(path, place, tags)
        if term.id in seen:
            raise BadData(f"{place}: the id of this term was used before.")
        seen.add(term.id)
        yield term

    yield from report.each(_stanzas(path, report), make)


def _stanzas(path: Path, report: ReadReport) -> Iterator[tuple[str, list[tuple[int, str, str]]]]:
    """Each [Term] stanza as the place of its head and its (line, tag, value) triples."""
    header, start, is_term = False, 0, False
    tags: list[tuple[int, str, str]] = []
    for number, line in text_lines(path, report):
        if line.startswith("["):
            if is_term:
                yield f"{path}, line {start}", tags
            start, tags, is_term = number, [], line.strip() == "[Term]"
        elif line.strip() and not line.startswith("!"):
            tag, colon, value = line.partition(":")
            if not colon:
                report.reject(BadData(f"{path}, line {number}: 'tag: value' is expected."), line)
                continue
            header = header or tag == "format-version"
            match = _VALUE.fullmatch(value.strip()) if "{" in value or "!" in value else None
            tags.append((number, tag, match[1] if match else value.strip()))
        if start and not header:
            raise BadData(f"{path} is not an OBO file: no 'format-version:' before its first stanza.")
    if not start:
        raise BadData(f"{path} holds no [Term] at all; an OBO file is expected.")
    if is_term:
        yield f"{path}, line {start}", tags


def _term(path: Path, head: str, tags: list[tuple[int, str, str]]) -> Term:
    single: dict[str, str] = {}
    synonyms: list[Synonym] = []
    parents: list[str] = []
    for number, tag, value in tags:
        place = f"{path}, line {number}"
        if tag in ("id", "name", "def", "is_obsolete"):
            if tag in single or not value:
                raise BadData(f"{place}: '{tag}' is empty or given twice in one term.")
            single[tag] = _quoted(value, place)[0] if tag == "def" else _unescaped(value)
        elif tag == "synonym":
            synonyms.append(_synonym(value, place))
        elif tag == "is_a":
            parents.append(value.split()[0] if value else "")
    if not single.get("id") or not single.get("name") or "" in parents:
        raise BadData(f"{head}: the term has no id, no name or an empty is_a.")
    obsolete = single.get("is_obsolete") == "true"
    return Term(single["id"], single["name"], single.get("def", ""), tuple(synonyms), tuple(parents), obsolete)


def _synonym(value: str, place: str) -> Synonym:
    text, rest = _quoted(value, place)
    words = rest.partition("[")[0].split()
    if not words or words[0] not in SCOPES or len(words) > 2:
        raise BadData(f"{place}: a synonym needs a scope ({', '.join(SCOPES)}) and at most one type before its sources.")
    return Synonym(text, words[0], words[1] if len(words) == 2 else "")


def _quoted(value: str, place: str) -> tuple[str, str]:
    """The text between the quotation marks, and what follows them."""
    match = _QUOTED.fullmatch(value)
    if match is None:
        raise BadData(f"{place}: a text in quotation marks is expected.")
    return _unescaped(match[1]), match[2]


def _unescaped(text: str) -> str:
    """OBO's escapes resolved, on one line."""
    return single_spaced(_ESCAPE.sub(lambda match: _SPACES.get(match[1], match[1]), text))


@dataclass(frozen=True)
class Ontology:
    """The current terms below a root, in the order of the file."""

    dataset: str
    """Opens the ids of its examples."""
    root: str
    """The id of a term that is too broad to ask for."""
    terms: dict[str, Term]
    """Terms by id, without the root."""

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """Ids of the parents that lie below the root, or are it; the first one is the term's own."""
        return {i: [p for p in term.is_a if p == self.root or p in self.terms] for i, term in self.terms.items()}

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
        found: dict[str, frozenset[str]] = {self.root: frozenset()}
        for term in TopologicalSorter(self.parents).static_order():
            if term != self.root:
                parents = self.parents[term]
                found[term] = frozenset(parents).union(*(found[p] for p in parents)) - {self.root}
        return found

    def branches(self, term: str) -> list[str]:
        """The children of the root that a term lies below or is, sorted by id."""
        return sorted(b for b in self.ancestors[term] | {term} if self.root in self.parents[b])

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
        uncles = self.siblings(own) if own != self.root else []
        return [c for uncle in uncles for c in self.children.get(uncle, []) if not self.related(c, term)]

    def group(self, term: str) -> str:
        """What the term and its siblings have in common."""
        return f"{self.dataset}/{self.parents[term][0]}"

    def origin(self, term: str, *dedup_keys: str) -> Origin:
        """The origin of an example of the term: its split is that of its siblings."""
        return drawn(self.group(term), *dedup_keys)


def below(path: Path, dataset: str, root: str, report: ReadReport) -> Ontology:
    """The current terms of an OBO file below `root`."""
    current: dict[str, Term] = {}
    children: dict[str, list[str]] = defaultdict(list)
    for term in terms(path, report):
        if not term.obsolete:
            current[term.id] = term
            for parent in term.is_a:
                children[parent].append(term.id)
    found, stack = set[str](), [root]
    while stack:
        fresh = [c for c in children[stack.pop()] if c not in found]
        found.update(fresh)
        stack.extend(fresh)
    if root not in current or not found:
        raise BadData(f"{path}: no current term {root} with terms below it; another ontology is expected.")
    known = Ontology(dataset, root, {i: term for i, term in current.items() if i in found and i != root})
    try:
        TopologicalSorter(known.parents | {root: current[root].is_a if root in found else ()}).prepare()
    except CycleError as error:
        raise BadData(f"{path}: {', '.join(error.args[1][:4])} are each other's ancestors.") from error
    return known
