"""UMLS Metathesaurus: semantic types, definitions, synonyms and relations of concepts.

    entity_attribute   the semantic type, of four; the concept that a definition describes, of four of its type; the
                       definition of a concept, as free text
    entity_synonymy    the concept that another name means, of four of its type
    entity_relation    which of `RELATIONS` one concept has to another

MRCONSO, MRDEF, MRREL and MRSTY are read in Rich Release Format (UTF-8, one row a line, each cell ends in '|') and selected by
`sql/umls_*.sql`: English names that are not suppressed, of `CONCEPTS` concepts with a definition and a semantic type, drawn
by the hash of their identifier (CUI). Split 80/10/10 by concept. Items whose context contains the answer are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.ontologies import LONGEST_DEFINITION, NAMES_PER_TERM, wording
from staf.data.readers.shapes import Origin, between, choice, choice_of_four, draw, draw_fitting, drawn, example, vocabulary
from staf.data.sources import single_spaced
from staf.data.tables import Form, Tables, tables

CONCEPTS = 15_479
"""The size of UMLS in Table 1 of STAF-LLM; each of these concepts gives two to eight examples."""
LONGEST_NAME = 100
"""Characters; the systematic names of chemicals run to thousands."""
RELATIONS: dict[str, str] = vocabulary("umls_relations")
RELATIONS_PER_CONCEPT = 3
PAIRS_PER_RELATION = 2_000

LAYOUTS: dict[str, str] = vocabulary("umls_layouts")
FORMS: dict[str, Form] = vocabulary("umls_forms")

_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass
class Concept:
    """A drawn concept, with the names of its semantic types by tree number and its other English names."""

    cui: str
    name: str
    definition: str
    types: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def origin(self, *dedup_keys: str) -> Origin:
        """The origin of an example of the concept."""
        return drawn(f"umls/{self.cui}", dedup_key(self.name), *dedup_keys)

    @property
    def pool(self) -> tuple[str, str]:
        """Split and semantic type: wrong options come from the same pool."""
        return self.origin().split, min(self.types)


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """The Metathesaurus as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10 by concept."""
    paths = dict(files)
    variables = {
        "concepts": CONCEPTS,
        "longest_name": LONGEST_NAME,
        "relations": list(RELATIONS),
        "per_concept": RELATIONS_PER_CONCEPT,
        "per_relation": PAIRS_PER_RELATION,
    }
    with tables(report, variables) as database:
        _load(database, paths, "MRDEF", "CUI AUI ATUI DEF", f"SUPPRESS = 'N' AND length(DEF) <= {LONGEST_DEFINITION}")
        wanted = "LAT = 'ENG' AND SUPPRESS = 'N' AND CUI IN (SELECT CUI FROM mrdef)"
        _load(database, paths, "MRCONSO", "CUI AUI STR TS STT ISPREF", wanted)
        _load(database, paths, "MRSTY", "CUI STN STY", "CUI IN (SELECT CUI FROM mrconso)")
        database.script("umls_concepts")
        wanted = (
            "SUPPRESS = 'N' AND list_contains(getvariable('relations'), RELA) AND CUI1 <> CUI2 "
            "AND CUI2 IN (SELECT cui FROM chosen) AND CUI1 IN (SELECT cui FROM concept)"
        )
        _load(database, paths, "MRREL", "CUI1 CUI2 RELA", wanted)
        database.script("umls_relations")
        concepts = _concepts(database)
        pairs = list(database.rows(
            "SELECT first, relation, second, name FROM relation JOIN concept ON cui = second ORDER BY first, second"
        ))  # fmt: skip
    pools: dict[tuple[str, str], list[str]] = defaultdict(list)
    for concept in concepts.values():
        pools[concept.pool].append(concept.name)
    yield from _types(concepts, report)
    yield from _definitions(concepts, pools, report)
    yield from _synonymy(concepts, pools, report)
    for pair in pairs:
        concept = concepts[pair["first"]]
        name, context = f"umls/relation/{pair['first']}/{pair['second']}", between(concept.name, safe_label(pair["name"]))
        answer, labels = RELATIONS[pair["relation"]], tuple(RELATIONS.values())
        yield example(name, "entity_relation", "between", context, answer, concept.origin(), labels)


def _load(database: Tables, paths: Mapping[str, Path], name: str, columns: str, where: str) -> None:
    layout = LAYOUTS[name].split()
    forms = {column: FORMS[column] for column in layout if column in FORMS}
    database.load(name.lower(), paths[name], columns.split(), forms, where, layout=layout)


def _concepts(database: Tables) -> dict[str, Concept]:
    """The drawn concepts by CUI, sorted, with their types and names."""
    concepts = {
        row["cui"]: Concept(row["cui"], safe_label(row["name"]), single_spaced(_MARKUP.sub(" ", row["definition"])))
        for row in database.rows("SELECT cui, name, definition FROM chosen ORDER BY cui")
    }
    chosen = "cui IN (SELECT cui FROM chosen)"
    for row in database.rows(f"SELECT cui, tree_number, name FROM semantic_type WHERE {chosen} ORDER BY ALL"):
        concepts[row["cui"]].types[row["tree_number"]] = safe_label(row["name"])
    for row in database.rows(f"SELECT DISTINCT cui, name FROM atom WHERE {chosen} ORDER BY cui, name"):
        concepts[row["cui"]].names.append(safe_label(row["name"]))
    return concepts


def _types(concepts: dict[str, Concept], report: ReadReport) -> Iterator[Example]:
    names = {tree_number: name for concept in concepts.values() for tree_number, name in concept.types.items()}
    pool = [tree_number for concept in concepts.values() for tree_number in concept.types]
    for concept in concepts.values():
        name = f"umls/type/{concept.cui}"
        (own,) = draw(name, concept.types, 1)
        wrong = [names[i] for i in draw_fitting(f"{name}/far", pool, 3, partial(_unlike, list(concept.types)))]
        if len(wrong) < 3:
            report.skip("too few near terms for four options")
        else:
            asked = (name, "entity_attribute", "semantic_type", concept.name, concept.types[own])
            yield choice(*asked, wrong, concept.origin())


def _unlike(own: list[str], other: str) -> bool:
    """True where a semantic type is none of a concept's own, nor broader or narrower than one."""
    return not any(_above(one, other) or _above(other, one) for one in own)


def _above(one: str, other: str) -> bool:
    """True where a tree number ('B2.2.1') is another one or lies above it ('B2.2.1.2'); 'B' lies above 'B2'."""
    return one == other or other.startswith(one if len(one) <= 1 else f"{one}.")


_Pools = dict[tuple[str, str], list[str]]
"""Names of concepts by split and semantic type."""


def _definitions(concepts: dict[str, Concept], pools: _Pools, report: ReadReport) -> Iterator[Example]:
    for concept in concepts.values():
        if not concept.definition:
            report.skip("a definition without words")
            continue
        name, definition, origin = concept.name, concept.definition, concept.origin(*minhash_keys(concept.definition))
        example_id = f"umls/definition/{concept.cui}"
        wrong = _others(example_id, concept, pools)
        yield from choice_of_four(report, example_id, "entity_attribute", "defined", definition, name, wrong, origin)
        yield example(f"umls/define/{concept.cui}", "entity_attribute", "define", name, definition, origin)


def _synonymy(concepts: dict[str, Concept], pools: _Pools, report: ReadReport) -> Iterator[Example]:
    for concept in concepts.values():
        for other in draw(f"umls/synonyms/{concept.cui}", _other_names(concept), NAMES_PER_TERM):
            name = f"umls/same/{concept.cui}/{dedup_key(other)}"
            wrong, origin = _others(name, concept, pools), concept.origin(dedup_key(other))
            yield from choice_of_four(report, name, "entity_synonymy", "synonym", other, concept.name, wrong, origin)


def _others(example_id: str, concept: Concept, pools: _Pools) -> list[str]:
    """Up to three names of concepts of the same type and split, none of which is also a name of this concept."""
    own = {normalise(name) for name in (concept.name, *concept.names)}
    return draw_fitting(f"{example_id}/far", pools[concept.pool], 3, lambda name: normalise(name) not in own)


def _other_names(concept: Concept) -> list[str]:
    """Names that are more than another spelling or word order of the preferred one, each wording once."""
    by_wording = {wording(name): name for name in reversed(concept.names) if len(name) <= LONGEST_NAME}
    return sorted(name for words, name in by_wording.items() if words and words != wording(concept.name))
