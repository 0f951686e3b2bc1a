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
from typing import Any

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, between, choice, draw, draw_fitting, example, says
from staf.data.readers.term_choices import LONGEST_DEFINITION, NAMES_PER_TERM, wording
from staf.data.sources import find_one, single_spaced, vocabulary
from staf.data.splits import split_of
from staf.data.tables import Form, Tables, tables

FOLDERS = ("", "META/", "*/META/")
"""Where the files may lie: by themselves, or as in the release."""
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
        """Split and semantic type: wrong options come from the same pool."""
        return self.split, min(self.types)


def files(folder: Path) -> list[Path]:
    """MRCONSO, MRDEF, MRREL and MRSTY under `folder`, plain or gzipped; MissingData where one is not there."""
    return [
        find_one(folder, [f"{inner}{name}.RRF{suffix}" for inner in FOLDERS for suffix in ("", ".gz")], "umls")
        for name in LAYOUTS
    ]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """The Metathesaurus as task types entity_attribute, entity_synonymy and entity_relation, split 80/10/10 by concept."""
    paths = dict(zip(LAYOUTS, files(folder), strict=True))
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
    yield from _types(concepts, report)
    yield from _definitions(concepts, report)
    yield from _synonymy(concepts, report)
    yield from _relations(concepts, pairs)


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
        example_id = f"umls/type/{concept.cui}"
        (own,) = draw(example_id, concept.types, 1)
        wrong = draw_fitting(f"{example_id}/far", pool, 3, partial(_unlike, list(concept.types)))
        if len(wrong) < 3:
            report.skip("too few other semantic types for four options")
            continue
        origin = Origin(concept.split, (dedup_key(concept.name),), concept.group)
        yield choice(
            example_id,
            "entity_attribute",
            "semantic_type",
            concept.name,
            concept.types[own],
            [names[tree_number] for tree_number in wrong],
            origin,
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
            origin = Origin(concept.split, dedup_keys, concept.group)
            yield choice(example_id, "entity_attribute", "defined", concept.definition, concept.name, wrong, origin)
        origin = Origin(concept.split, dedup_keys, concept.group)
        define = (f"umls/define/{concept.cui}", "entity_attribute", "define", concept.name, concept.definition)
        yield example(*define, origin, output_type="generate_until")


def _synonymy(concepts: dict[str, Concept], report: ReadReport) -> Iterator[Example]:
    pools = _pools(concepts)
    for concept in concepts.values():
        for other in draw(f"umls/synonyms/{concept.cui}", _other_names(concept), NAMES_PER_TERM):
            example_id = f"umls/same/{concept.cui}/{dedup_key(other)}"
            wrong = _others(example_id, concept, pools)
            if len(wrong) < 3 or says(other, concept.name):
                report.skip("a synonym that says the name, or with too few concepts of its type")
                continue
            origin = Origin(concept.split, (dedup_key(concept.name), dedup_key(other)), concept.group)
            yield choice(example_id, "entity_synonymy", "synonym", other, concept.name, wrong, origin)


def _pools(concepts: dict[str, Concept]) -> dict[tuple[str, str], list[str]]:
    """Names of concepts by pool."""
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


def _relations(concepts: dict[str, Concept], pairs: list[dict[str, Any]]) -> Iterator[Example]:
    labels = tuple(RELATIONS.values())
    for pair in pairs:
        concept = concepts[pair["first"]]
        example_id = f"umls/relation/{pair['first']}/{pair['second']}"
        origin = Origin(concept.split, (dedup_key(concept.name),), concept.group)
        context = between(concept.name, safe_label(pair["name"]))
        answer = RELATIONS[pair["relation"]]
        yield example(example_id, "entity_relation", "between", context, answer, origin, labels)
