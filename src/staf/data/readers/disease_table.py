"""ChatDoctor's table of diseases: symptoms and medications of each.

    format_dataset.csv   idx, disease, Symptom, reason, TestsAndProcedures, commonMedications; lists as Python literals

    entity_attribute   symptoms -> disease, of four
    entity_relation    disease -> a symptom, or a medication, of four

Wrong answers come from other diseases of the same split, as often as they are listed there. The table is not exhaustive: an
unlisted symptom may still occur. `reason` and tests are not used. Split 80/10/10 by disease. Items whose context contains the
answer, or the other way round, are left out.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, choice, draw, says
from staf.data.sources import csv_rows, text_field
from staf.data.splits import seeded_rng, split_of
from staf.errors import BadData

COLUMNS = ("idx", "disease", "Symptom", "reason", "TestsAndProcedures", "commonMedications")
PER_DISEASE = 2
"""Symptoms, and medications, that are asked for of each disease."""
LONGEST_LIST = 20_000
"""Characters of a cell; a longer one is not taken for a list."""


@dataclass(frozen=True, slots=True)
class Disease:
    """A row of the table."""

    idx: str
    name: str
    symptoms: tuple[str, ...]
    medications: tuple[str, ...]

    @property
    def group(self) -> str:
        """What everything about the disease has in common."""
        return f"chatdoctor/{normalise(self.name)}"


def read(path: Path, report: ReadReport) -> Iterator[Example]:
    """The table as task types entity_attribute and entity_relation."""

    def make(place: str, row: dict[str, str]) -> Iterator[Disease]:
        yield _disease(row, place)

    by_split: dict[str, list[Disease]] = {}
    diseases = list(report.each(csv_rows(path, COLUMNS, report), make))
    for disease in diseases:
        by_split.setdefault(split_of(disease.group), []).append(disease)
    for disease in diseases:
        near = [other for other in by_split[split_of(disease.group)] if other.group != disease.group]
        yield from _described(disease, near, report)
        yield from _related(disease, near, "finding", report)
        yield from _related(disease, near, "treatment", report)


def literal_list(text: str) -> tuple[str, ...] | None:
    """The texts of a Python list literal, single-spaced; None where it is no list of texts, or one of them is empty."""
    if len(text) > LONGEST_LIST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        return None
    return tuple(safe_label(item) for item in value)


def _disease(row: dict[str, str], place: str) -> Disease:
    lists = {}
    for column in ("Symptom", "TestsAndProcedures", "commonMedications"):
        found = literal_list(row[column])
        if found is None or (not found and column != "TestsAndProcedures"):
            raise BadData(f"{place}: column {column} holds no Python list of texts.")
        lists[column] = found
    name = safe_label(text_field(row, "disease", place))
    return Disease(text_field(row, "idx", place), name, lists["Symptom"], lists["commonMedications"])


def _described(disease: Disease, near: Sequence[Disease], report: ReadReport) -> Iterator[Example]:
    """The disease from its symptoms, where three others share less than half of them."""
    context, own = f"Symptoms: {', '.join(disease.symptoms)}", set(disease.symptoms)
    if says(context, disease.name):
        report.skip("the symptoms say the disease")
        return
    example_id = f"chatdoctor/symptoms/{disease.idx}"
    other = [o.name for o in near if 2 * len(own.intersection(o.symptoms)) < len(own)]
    wrong = draw(example_id, other, 3)
    if len(wrong) < 3:
        report.skip("too few other diseases for four options")
        return
    origin = Origin(split_of(disease.group), (dedup_key(disease.name), *minhash_keys(context)), disease.group)
    yield choice(example_id, "entity_attribute", "defined", context, disease.name, wrong, origin)


def _related(disease: Disease, near: Sequence[Disease], asked: str, report: ReadReport) -> Iterator[Example]:
    """Symptoms ('finding') or medications ('treatment') of the disease."""
    listed = _listed(disease, asked)
    unnamed = [name for name in listed if not says(disease.name, _bare(name)) and not says(name, disease.name)]
    report.skip(f"the disease says the {asked}, or the other way round", len(listed) - len(unnamed))
    for number, answer in enumerate(draw(f"{disease.group}/{asked}", unnamed, PER_DISEASE), start=1):
        example_id = f"chatdoctor/{asked}/{disease.idx}/{number}"
        wrong = _strangers(example_id, listed, [_listed(other, asked) for other in near])
        if len(wrong) < 3:
            report.skip("too few other diseases for four options")
            continue
        origin = Origin(split_of(disease.group), (dedup_key(disease.name),), disease.group)
        yield choice(example_id, "entity_relation", asked, disease.name, answer, wrong, origin)


def _listed(disease: Disease, asked: str) -> tuple[str, ...]:
    return disease.symptoms if asked == "finding" else disease.medications


def _strangers(example_id: str, own: Sequence[str], others: Sequence[Sequence[str]]) -> list[str]:
    """One name of each of three other diseases, none of them listed for this one; fewer where there are not enough."""
    rng = seeded_rng(f"strangers:{example_id}")
    taken = {normalise(_bare(name)) for name in own}
    found: list[str] = []
    for names in rng.sample(others, len(others)):
        if strange := [name for name in names if normalise(_bare(name)) not in taken]:
            found.append(rng.choice(strange))
            taken.add(normalise(_bare(found[-1])))
        if len(found) == 3:
            break
    return found


def _bare(name: str) -> str:
    """A name without its brand or abbreviation: 'Alprazolam (Xanax)' becomes 'Alprazolam'."""
    return name.partition(" (")[0]
