"""Annotations of the Human Phenotype Ontology: findings of diseases.

    database_id   disease_name   qualifier   hpo_id   reference .. frequency .. aspect   biocuration     (tabs)
    OMIM:619340   Developmental ..           HP:0011097    ..      1/2       ..   P      ..

    entity_relation   a finding of the disease, of four phenotypes

Only aspect P is a finding. A pair with the qualifier NOT is neither right nor wrong here. The frequency is a term (`SHARES`),
a fraction, a percentage or empty; findings of fewer than 5 percent of patients are no right answers. Rows with the same id or
the same name belong to one disease; numbered forms of a disease share a group. Wrong options are findings of other diseases,
frequent ones more often, never broader or narrower than an annotated term.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.ontology import Ontology
from staf.data.readers.shapes import Row, choice_of_four, draw, draw_fitting, drawn, says
from staf.data.sources import NULLS, csv_rows, single_spaced
from staf.errors import BadData

COLUMNS = ("database_id", "disease_name", "qualifier", "hpo_id", "frequency", "aspect")
ASPECTS = ("P", "I", "C", "H", "M")
SHARES = {"HP:0040280": 1.0, "HP:0040281": 0.8, "HP:0040282": 0.3, "HP:0040283": 0.05, "HP:0040284": 0.01, "HP:0040285": 0.0}
"""The least share of patients that a term of frequency means: obligate, very frequent, .., very rare, excluded."""
LEAST_SHARE = 0.05
"""Findings of fewer patients than this are not asked for."""
PER_DISEASE = 3
"""No more findings of one disease than this."""
MOST = 10_000
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


def findings(path: Path, known: Ontology, report: ReadReport) -> Iterator[Example]:
    """Findings of diseases as task type entity_relation, split 80/10/10 by disease."""
    diseases = {disease.id: disease for disease in _diseases(path, known, report)}
    right = {i: sorted(disease.findings - disease.negated) for i, disease in diseases.items()}
    pool = [finding for own in right.values() for finding in own]
    chosen = []
    for i, disease in diseases.items():
        unnamed = [f for f in right[i] if not any(says(name, known.terms[f].name) for name in disease.names.values())]
        report.skip("the question says its answer", len(right[i]) - len(unnamed))
        chosen += [(i, finding) for finding in draw(f"hpo/findings/{i}", unnamed, PER_DISEASE)]
    chosen.sort(key=lambda pair: hashlib.sha256(" ".join(pair).encode()).digest())
    report.skip(f"a finding beyond the {MOST:,} that are drawn", max(0, len(chosen) - MOST))
    for i, finding in sorted(chosen[:MOST]):
        yield from _example(diseases[i], finding, pool, known, report)


def _example(disease: _Disease, finding: str, pool: list[str], known: Ontology, report: ReadReport) -> Iterator[Example]:
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
    if frequency in SHARES:
        return SHARES[frequency]
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
    rows = csv_rows(path, report, COLUMNS, delimiter="\t", quoted=False, comment="#")
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
