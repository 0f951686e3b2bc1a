"""Tasks with open labels, such as the codes of a stay, restricted to the most frequent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from staf.data.answers import read_several, write_several
from staf.data.example import Example
from staf.data.templates import query, templates

LISTED = {
    "icd_coding": {"all": "codes", "icd10_all": "icd10_codes"},
    "medication_recommendation": {"all": "drugs", "all_classes": "classes"},
    "icd10_section": {"all": "sections"},
}
"""By task type: the query with listed labels for each query with open labels (templates.yaml)."""


def frequent_labels(answers: Iterable[str], count: int) -> tuple[str, ...]:
    """The most frequent labels of answers, at most `count`, sorted by name; of equally frequent ones the first by name."""
    found = Counter(label for answer in answers for label in read_several(answer))
    ranked = sorted(found, key=lambda label: (-found[label], label))
    return tuple(sorted(ranked[:count]))


def narrowed(examples: Iterable[Example], labels: tuple[str, ...]) -> list[Example]:
    """Examples restricted to these labels, which the query lists; those with none of them are left out.

    An example of ICD coding carries every code of its stay. A task with the top 50 asks for these only, as in CAML
    (Mullenbach et al., 2018).
    """
    valid = set(labels)
    kept = []
    for example in examples:
        if chosen := valid.intersection(read_several(example.answer)):
            asked = query(example.task_type, _listed(example), example.id, labels)
            kept.append(replace(example, query=asked, labels=labels, answer=write_several(chosen, labels)))
    return kept


def _listed(example: Example) -> str:
    """The family with listed labels for the open query of an example; the first one where the query is another."""
    families, known = LISTED[example.task_type], templates()[example.task_type]
    return next((families[asked] for asked in families if example.query in known[asked]), families["all"])
