"""UMLS Metathesaurus: of which type a concept is, how it is defined, what else it is called, what it does to others.

    entity_attribute   the semantic type, among four; the concept that a definition describes, among four of its type;
                       the definition of a concept, as free text
    entity_synonymy    the concept that another name belongs to, among four of its type
    entity_relation    which of the relations of `RELATIONS` one concept has to another

Read are MRCONSO, MRDEF, MRREL and MRSTY in Rich Release Format (`staf.data.formats.rrf`), by the script `umls.sql`: English
names that are not suppressed, of `CONCEPTS` concepts that have a definition and a semantic type, drawn by the hash of their
identifier (CUI). A concept lies in one split with all that is asked of it. Items whose context already says the answer are
left out.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.formats import rrf
from staf.data.formats.sources import find_one, single_spaced
from staf.data.read_report import ReadReport
from staf.data.readers.draws import between, choice, draw, draw_fitting, says
from staf.data.readers.term_choices import LONGEST_DEFINITION, NAMES_PER_TERM, wording
from staf.data.splits import split_of
from staf.data.templates import query

FOLDERS = ("", "META/", "*/META/")
"""Where the files may lie: by themselves, or as in the release."""
CONCEPTS = 15_479
"""The size of UMLS in Table 1 of STAF-LLM; each of these concepts gives two to eight examples."""
LONGEST_NAME = 100
"""Characters; the systematic names of chemicals run to thousands."""
RELATIONS = {
    "isa": "is a kind of",
    "part_of": "is a part of",
    "may_treat": "may treat",
    "may_prevent": "may prevent",
    "may_diagnose": "may diagnose",
    "contraindicated_with_disease": "is contraindicated with",
    "causative_agent_of": "is the causative agent of",
    "cause_of": "causes",
    "finding_site_of": "is the site of",
    "associated_morphology_of": "is the abnormal structure seen in",
    "has_ingredient": "has the ingredient",
    "has_mechanism_of_action": "has the mechanism of action",
}
"""RELA of MRREL, and the words for it; the inverse ones (has_causative_agent) say nothing new."""
RELATIONS_PER_CONCEPT = 3
PAIRS_PER_RELATION = 2_000

_SCRIPT = Path(__file__).with_suffix(".sql")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass
class Concept:
    """A concept that was drawn."""

    cui: str
    """Its identifier, 'C' and seven digits."""
    name: str
    """The preferred English name."""
    definition: str
    """One of its English definitions, without markup."""
    types: dict[str, str] = field(default_factory=dict)
    """Names of its semantic types by tree number."""
    names: list[str] = field(default_factory=list)
    """Other English names, in a fixed order."""

    @property
    def group(self) -> str:
        """What all its examples have in common."""
        return f"umls/{self.cui}"

    @property
    def split(self) -> str:
        """The split of all its examples."""
        return split_of(self.group)

    @property
    def pool(self) -> tuple[str, str]:
        """The concepts that it is to be told apart from: of one split and one semantic type."""
        return self.split, min(self.types)


def files(folder: Path) -> list[Path]:
    """MRCONSO, MRDEF, MRREL and MRSTY under `folder`, plain or gzipped; MissingData where one is not there."""
    return [
        find_one(folder, [f"{inner}{name}.RRF{suffix}" for inner in FOLDERS for suffix in ("", ".gz")], "umls")
        for name in rrf.LAYOUTS
    ]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """The Metathesaurus as kinds entity_attribute, entity_synonymy and entity_relation, split 80/10/10 by concept.

    Raises:
        MissingData: a file is not under `folder`.
        BadData: a row does not fit the format, or a file cannot be read.
        StafError: there is too little room for temporary files.
    """
    paths = dict(zip(rrf.LAYOUTS, files(folder), strict=True))
    variables = {
        "concepts": CONCEPTS,
        "longest_definition": LONGEST_DEFINITION,
        "longest_name": LONGEST_NAME,
        "relations": list(RELATIONS),
        "per_concept": RELATIONS_PER_CONCEPT,
        "per_relation": PAIRS_PER_RELATION,
    }
    with tempfile.TemporaryDirectory(prefix="staf-umls-") as scratch, rrf.connect(Path(scratch), variables) as tables:
        rrf.run(tables, _SCRIPT.read_text(encoding="utf-8"), paths, report)
        for table in ("definition", "atom", "concept"):
            report.count(f"{table}s that could be used", _rows(tables, f"SELECT count(*) FROM {table}")[0][0])
        concepts = _concepts(tables)
        pairs = _rows(
            tables,
            "SELECT first, relation, second, concept.name FROM relation JOIN concept ON cui = second ORDER BY first, second",
        )
    report.count("concepts that were drawn", len(concepts))
    yield from _types(concepts, report)
    yield from _definitions(concepts, report)
    yield from _synonymy(concepts, report)
    yield from _relations(concepts, pairs)


def _rows(tables: Any, statement: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = tables.execute(statement).fetchall()
    return rows


def _concepts(tables: Any) -> dict[str, Concept]:
    """The drawn concepts by CUI, sorted, with their types and names."""
    concepts = {
        cui: Concept(cui, safe_label(name), single_spaced(_MARKUP.sub(" ", definition)))
        for cui, name, definition in _rows(tables, "SELECT cui, name, definition FROM chosen ORDER BY cui")
    }
    for cui, tree_number, name in _rows(
        tables, "SELECT cui, tree_number, name FROM semantic_type WHERE cui IN (SELECT cui FROM chosen) ORDER BY ALL"
    ):
        concepts[cui].types[tree_number or ""] = safe_label(name)
    for cui, name in _rows(
        tables, "SELECT DISTINCT cui, name FROM atom WHERE cui IN (SELECT cui FROM chosen) ORDER BY cui, name"
    ):
        concepts[cui].names.append(safe_label(name))
    return concepts


def _types(concepts: dict[str, Concept], report: ReadReport) -> Iterator[Example]:
    names = {tree_number: name for concept in concepts.values() for tree_number, name in concept.types.items()}
    pool = [tree_number for concept in concepts.values() for tree_number in concept.types]
    for concept in concepts.values():
        example_id = f"umls/type/{concept.cui}"
        (own,) = draw(example_id, concept.types, 1)
        wrong = draw_fitting(f"{example_id}/far", pool, 3, partial(_unlike, list(concept.types)))
        if len(wrong) < 3:
            report.skip("too few other semantic types for four options")
            continue
        yield choice(
            example_id,
            "entity_attribute",
            "semantic_type",
            context=concept.name,
            answer=concept.types[own],
            wrong=[names[tree_number] for tree_number in wrong],
            split=concept.split,
            dedup_keys=(dedup_key(concept.name),),
            group=concept.group,
        )


def _unlike(own: list[str], other: str) -> bool:
    """True where a semantic type is none of a concept's own, nor broader or narrower than one."""
    return not any(_above(one, other) or _above(other, one) for one in own)


def _above(one: str, other: str) -> bool:
    """True where a tree number ('B2.2.1') is another one or lies above it ('B2.2.1.2'); 'B' lies above 'B2'."""
    return one == other or other.startswith(one if len(one) <= 1 else f"{one}.")


def _definitions(concepts: dict[str, Concept], report: ReadReport) -> Iterator[Example]:
    pools = _pools(concepts)
    for concept in concepts.values():
        if not concept.definition:
            report.skip("a definition without words")
            continue
        dedup_keys = (dedup_key(concept.name), *minhash_keys(concept.definition))
        example_id = f"umls/definition/{concept.cui}"
        wrong = _others(example_id, concept, pools)
        if len(wrong) < 3 or says(concept.definition, concept.name):
            report.skip("a definition that says the name, or with too few concepts of its type")
        else:
            yield choice(
                example_id,
                "entity_attribute",
                "defined",
                context=concept.definition,
                answer=concept.name,
                wrong=wrong,
                split=concept.split,
                dedup_keys=dedup_keys,
                group=concept.group,
            )
        example_id = f"umls/define/{concept.cui}"
        asked = query("entity_attribute", "define", example_id)
        answer, split = concept.definition, concept.split
        yield Example(
            example_id,
            "entity_attribute",
            asked,
            concept.name,
            answer,
            (),
            split,
            dedup_keys,
            output_type="generate_until",
            group=concept.group,
        )


def _synonymy(concepts: dict[str, Concept], report: ReadReport) -> Iterator[Example]:
    pools = _pools(concepts)
    for concept in concepts.values():
        for other in draw(f"umls/synonyms/{concept.cui}", _other_names(concept), NAMES_PER_TERM):
            example_id = f"umls/same/{concept.cui}/{dedup_key(other)}"
            wrong = _others(example_id, concept, pools)
            if len(wrong) < 3 or says(other, concept.name):
                report.skip("a synonym that says the name, or with too few concepts of its type")
                continue
            yield choice(
                example_id,
                "entity_synonymy",
                "synonym",
                context=other,
                answer=concept.name,
                wrong=wrong,
                split=concept.split,
                dedup_keys=(dedup_key(concept.name), dedup_key(other)),
                group=concept.group,
            )


def _pools(concepts: dict[str, Concept]) -> dict[tuple[str, str], list[str]]:
    """Names of concepts by what they are to be told apart from."""
    pools: dict[tuple[str, str], list[str]] = defaultdict(list)
    for concept in concepts.values():
        pools[concept.pool].append(concept.name)
    return pools


def _others(example_id: str, concept: Concept, pools: dict[tuple[str, str], list[str]]) -> list[str]:
    """Up to three names of concepts of the same type and split, none of which is also a name of this concept."""
    own = {normalise(name) for name in (concept.name, *concept.names)}
    return draw_fitting(f"{example_id}/far", pools[concept.pool], 3, lambda name: normalise(name) not in own)


def _other_names(concept: Concept) -> list[str]:
    """Names that are more than another spelling or word order of the preferred one, each wording once."""
    by_wording = {wording(name): name for name in reversed(concept.names) if len(name) <= LONGEST_NAME}
    return sorted(name for words, name in by_wording.items() if words and words != wording(concept.name))


def _relations(concepts: dict[str, Concept], pairs: list[tuple[Any, ...]]) -> Iterator[Example]:
    labels = tuple(RELATIONS.values())
    for first, relation, second, second_name in pairs:
        concept = concepts[first]
        example_id = f"umls/relation/{first}/{second}"
        yield Example(
            id=example_id,
            task_type="entity_relation",
            query=query("entity_relation", "between", example_id, labels),
            context=between(concept.name, safe_label(second_name)),
            answer=RELATIONS[relation],
            labels=labels,
            split=concept.split,
            dedup_keys=(dedup_key(concept.name),),
            group=concept.group,
        )
