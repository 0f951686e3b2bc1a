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
from functools import partial
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.json_files import json_lines, json_members, json_object
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, Row, each_record, example, number_of
from staf.data.sources import one_of, single_spaced, text_field
from staf.data.splits import split_of
from staf.errors import BadData

LABELS = ("yes", "no", "maybe")

_SECTION_MARK = re.compile(r"Context \(\d+\): ")


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """PubMedQA as task type question_answering."""
    paths = dict(files)
    if "labelled" not in paths:
        yield from _packaged(files, report)
        return
    yield from _labelled(paths["labelled"], paths["truth"], "artificial" in paths, report)
    for part in ("artificial", "unlabelled"):
        if part in paths:
            yield from report.each(json_members(paths[part]), partial(_added, part, report))


@each_record(json_lines)
def _packaged(place: str, record: Row, part: str, report: ReadReport) -> Iterator[Example]:
    passage = _SECTION_MARK.sub("", text_field(record, "passage"))
    question = text_field(record, "question")
    split = "test" if part == "pqal" else _drawn(question)
    yield _choice(f"{part}/{number_of(place)}", question, passage, one_of(record, "answer", LABELS), split)


def _labelled(path: Path, truth_path: Path, has_artificial: bool, report: ReadReport) -> Iterator[Example]:
    records, truth = json_object(path), json_object(truth_path)
    if unknown := truth.keys() - records.keys():
        raise BadData(f"{truth_path} names {len(unknown)} ids that {path.name} does not hold. Get both files again.")

    def make(place: str, item: tuple[str, Row]) -> Iterator[Example]:
        pubmed_id, record = item
        question, passage = _asked(record)
        answer = one_of(record, "final_decision", LABELS)
        if truth.get(pubmed_id, answer) != answer:
            raise BadData(f"its answer differs from the one in {truth_path.name}. Get both files again.")
        split = "test" if pubmed_id in truth else "adaptation" if has_artificial else _drawn(question)
        yield _choice(pubmed_id, question, passage, answer, split)
        if split == "train":
            yield from _conclusion(pubmed_id, question, passage, record, report)

    heads = (f"{path}, record {number}" for number in range(1, len(records) + 1))
    yield from report.each(zip(heads, records.items(), strict=True), make)


def _added(part: str, report: ReadReport, place: str, item: tuple[str, Row]) -> Iterator[Example]:
    """Examples of the artificial or the unlabelled part, all of them in the train split."""
    name, record = f"{part}/{item[0]}", item[1]
    question, passage = _asked(record)
    if part == "artificial":
        yield _choice(name, question, passage, one_of(record, "final_decision", LABELS), "train")
    yield from _conclusion(name, question, passage, record, report)


def _drawn(question: str) -> str:
    return split_of(normalise(question), (90, 10, 0))


def _asked(record: Row) -> tuple[str, str]:
    """The question of an original record, and its abstract without the conclusion."""
    sections = record.get("CONTEXTS") if isinstance(record, dict) else None
    if not isinstance(sections, list) or not all(isinstance(section, str) for section in sections):
        raise BadData("field 'CONTEXTS' is missing or not a list of texts.")
    return text_field(record, "QUESTION"), single_spaced(" ".join(sections))


def _choice(name: str, question: str, passage: str, answer: str, split: str) -> Example:
    """The example that is answered with yes, no or maybe."""
    origin = Origin(split, minhash_keys(question), dedup_key(question))
    return example(f"pubmedqa/{name}", "question_answering", "abstract", f"{question} {passage}", answer, origin, LABELS)


def _conclusion(name: str, question: str, passage: str, record: Row, report: ReadReport) -> Iterator[Example]:
    """The example that is answered with the conclusion, in the train split; none where the abstract has no conclusion."""
    answer = record.get("LONG_ANSWER")
    if not isinstance(answer, str):
        raise BadData("field 'LONG_ANSWER' is missing or not text.")
    if not answer.strip():
        report.skip("the conclusion is empty")
        return
    origin, text = Origin("train", minhash_keys(question), dedup_key(question)), f"{question} {passage}"
    name = f"pubmedqa/{name}/conclusion"
    yield example(name, "question_answering", "conclusion", text, single_spaced(answer), origin)
