"""An ontology as a graph: the current terms below a root, their ancestors, siblings and cousins.

A term is in the split of its first parent, so that siblings, which are each other's wrong answers, are in one split.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from staf.data.read_report import ReadReport
from staf.data.readers.obo import Term, terms
from staf.data.splits import split_of
from staf.errors import BadData


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

    def split(self, term: str) -> str:
        """The split of the term and of its siblings."""
        return split_of(self.group(term))


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
