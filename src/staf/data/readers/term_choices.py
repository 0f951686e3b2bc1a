"""Questions that any ontology can give: the defined term, the term of another name, the broader term.

Each is a choice of four: the right term and three near ones that are neither broader nor narrower. Items whose context
contains the answer are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.ontology import Ontology, Term
from staf.data.readers.shapes import Origin, choice, draw, draw_fitting, says
from staf.data.splits import seeded_rng

LONGEST_DEFINITION = 500
"""Characters; longer definitions (1 in 40) are left out, so that prompts stay short."""
NAMES_PER_TERM = 2
"""No more synonyms of one term than this."""

_VARIANT_TYPES = ("plural_form", "uk_spelling", "obsolete_synonym")


def definitions(known: Ontology, asked: str, report: ReadReport) -> Iterator[Example]:
    """entity_attribute: the term that a definition describes, among siblings, or cousins where these are too few."""
    for term_id, term in known.terms.items():
        if not 1 <= len(term.definition) <= LONGEST_DEFINITION or says(term.definition, term.name):
            report.skip("no definition, a long one, or one that says the name")
            continue
        example_id = f"{known.dataset}/definition/{term_id}"
        wrong = draw(example_id, (known.terms[i].name for i in known.siblings(term_id)), 3)
        further = [known.terms[i].name for i in known.cousins(term_id)]
        wrong += draw(f"{example_id}/far", (name for name in further if name not in wrong), 3 - len(wrong))
        yield from _choice(example_id, "entity_attribute", asked, (known, term_id), wrong, report)


def relations(known: Ontology, asked: str, report: ReadReport) -> Iterator[Example]:
    """entity_relation: a parent of the term, among broad terms of the same branch."""
    inner: dict[str, list[str]] = defaultdict(list)
    for term_id in known.children:
        if term_id != known.root:
            for branch in known.branches(term_id):
                inner[branch].append(term_id)
    for term_id, term in known.terms.items():
        example_id = f"{known.dataset}/broader/{term_id}"
        unnamed = [p for p in known.parents[term_id] if p != known.root and not says(term.name, known.terms[p].name)]
        if not unnamed:
            report.skip("the name says the broader term")
            continue
        answer = known.terms[seeded_rng(example_id).choice(unnamed)].name
        wrong = _strangers(known, term_id, inner[known.branches(term_id)[0]], term_id)
        yield from _choice(example_id, "entity_relation", asked, (known, term_id), wrong, report, answer)


def synonymy(known: Ontology, report: ReadReport) -> Iterator[Example]:
    """entity_synonymy: the term that another name belongs to, among four of its branch; one of the others is a sibling."""
    members: dict[str, list[str]] = defaultdict(list)
    for term_id in known.terms:
        members[known.branches(term_id)[0]].append(term_id)
    for term_id, term in known.terms.items():
        own = {normalise(name) for name in (term.name, *(s.text for s in term.synonyms))}
        near = [known.terms[i].name for i in known.siblings(term_id) if normalise(known.terms[i].name) not in own]
        for other in draw(f"{known.dataset}/synonyms/{term_id}", other_names(term), NAMES_PER_TERM):
            example_id = f"{known.dataset}/same/{term_id}/{dedup_key(other)}"
            wrong = draw(example_id, near, 1)
            far = _strangers(known, term_id, members[known.branches(term_id)[0]], example_id)
            wrong += [name for name in far if name not in wrong][: 3 - len(wrong)]
            if len(wrong) < 3 or says(other, term.name):
                report.skip("a synonym that says the name, or with too few near terms")
                continue
            origin = Origin(known.split(term_id), (dedup_key(term.name), dedup_key(other)), known.group(term_id))
            yield choice(example_id, "entity_synonymy", "synonym", other, term.name, wrong, origin)


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


def _choice(
    example_id: str,
    task_type: str,
    asked: str,
    item: tuple[Ontology, str],
    wrong: list[str],
    report: ReadReport,
    answer: str = "",
) -> Iterator[Example]:
    """A choice among four: of the term by its definition, or of `answer` by the term's name."""
    known, term = item[0], item[0].terms[item[1]]
    if len(wrong) < 3:
        report.skip("too few near terms for four options")
        return
    origin = Origin(
        known.split(term.id),
        (dedup_key(term.name),) if answer else (dedup_key(term.name), *minhash_keys(term.definition)),
        known.group(term.id),
    )
    yield choice(example_id, task_type, asked, term.name if answer else term.definition, answer or term.name, wrong, origin)
