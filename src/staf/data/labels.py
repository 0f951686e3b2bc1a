"""Label sets of multi-label tasks: the most frequent labels, counted on what is not test, and examples narrowed to them.

An example of ICD coding carries every code of its stay. A task with the top 50 asks for these alone: the query lists them,
the answer keeps those of the stay, and a stay with none of them is left out, as in CAML (Mullenbach et al., 2018).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from staf.data.answers import read_several, write_several
from staf.data.example import Example
from staf.data.templates import TEMPLATES, query

ASKED = {
    "icd_coding": {"all": "codes", "icd10_all": "icd10_codes"},
    "medication_recommendation": {"all": "drugs", "all_classes": "classes"},
}
"""By kind: the query with listed labels for each query with open labels (`staf.data.templates`)."""


def frequent_labels(answers: Iterable[str], count: int) -> tuple[str, ...]:
    """The most frequent labels of answers, at most `count`, sorted by name; of equally frequent ones the first by name."""
    found = Counter(label for answer in answers for label in read_several(answer))
    ranked = sorted(found, key=lambda label: (-found[label], label))
    return tuple(sorted(ranked[:count]))


def narrowed(examples: Iterable[Example], labels: tuple[str, ...]) -> list[Example]:
    """Examples with these labels alone, listed in the query; those with none of them are left out."""
    valid = set(labels)
    kept = []
    for example in examples:
        chosen = valid.intersection(read_several(example.answer))
        if chosen:
            asked = query(example.task_type, _listed(example), example.id, labels)
            kept.append(replace(example, query=asked, labels=labels, answer=write_several(chosen, labels)))
    return kept


def _listed(example: Example) -> str:
    """The template with listed labels for the open query of an example; the first one where the query is another."""
    templates = ASKED[example.task_type]
    return next(
        (templates[asked] for asked in templates if example.query in TEMPLATES[example.task_type][asked]), templates["all"]
    )
