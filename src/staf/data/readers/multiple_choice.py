"""Examination questions with options: MedMCQA and MedQA, as packaged or as their authors distribute them, and MMLU.

    packaged   {"question", "options": "A. ..\\nB. ..", "answer": "B. .."}
    MedQA      {"question", "options": {"A": .., "B": ..}, "answer_idx": "B", "meta_info": "step1"}
    MedMCQA    {"question", "opa", "opb", "opc", "opd", "cop": 1 to 4}, one a line of train.json and dev.json
    MMLU       data/<split>/<subject>_<split>.csv, without header: question,A,B,C,D,letter of the answer

Letters are dropped and options are shuffled by hash, since in MedMCQA the first one is right in 32 percent of the questions;
where an option refers to others (all of the above, both A and C) the order is kept. MedMCQA's dev file is its test, since the
answers of its own test are not public; packaged files are split 80/10/10 by the hash of the question. MedQA is its test file,
with train and dev where they are in the same folder; of its authors' folder the questions with four options are preferred. Of
MMLU dev is train and val is adaptation; a question that occurs twice with the same options counts once, in test before val
before dev.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from staf.data.answers import safe_label
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.json_files import json_lines
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, Row, each_record, example, number_of, shuffled
from staf.data.sources import csv_rows, one_of, single_spaced, text_field
from staf.data.splits import SHARES, split_of
from staf.errors import BadData

MEDMCQA_SHARES = {"dev": (0, 0, 100), "train": (90, 10, 0)}
SPLITS = {"train": "train", "dev": "adaptation", "test": "test"}
MMLU_SPLITS = {"test": "test", "val": "adaptation", "dev": "train"}
LETTERS = ("A", "B", "C", "D")

_OPTION_LINE = re.compile(r"([A-Z])\. ?(.*)")
_LETTER = r"(?:options? )?\(?[A-E1-5]\)?"
_JOINED = r"\s*(?:,|&|\band\b|\bor\b)\s*(?:and |or )?"
_OF_OTHERS = re.compile(rf".*above.*|(?:both |only )?{_LETTER}(?:{_JOINED}{_LETTER})+(?: only)?", re.IGNORECASE)
"""An option that is understood only in its place."""


@each_record(json_lines)
def medmcqa(place: str, record: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """MedMCQA as task type multiple_choice."""
    question, options, answer = text_field(record, "question"), *_options(record)
    split = split_of(normalise(question), MEDMCQA_SHARES.get(part, SHARES))
    yield from question_example(f"medmcqa/{_named(place)}", question, options, answer, split, report)


@each_record(json_lines)
def medqa(place: str, record: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """MedQA (USMLE) as task type multiple_choice, in its authors' split; dev adapts."""
    question, options, answer = text_field(record, "question"), *_options(record)
    yield from question_example(f"medqa-usmle/{part}/{number_of(place)}", question, options, answer, SPLITS[part], report)


def mmlu(files: Files, report: ReadReport) -> Iterator[Example]:
    """MMLU as task type multiple_choice, in its authors' split."""
    seen: set[str] = set()

    @each_record(partial(csv_rows, columns=("question", *LETTERS, "answer"), header=False))
    def read(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
        question, letter = text_field(row, "question"), one_of(row, "answer", LETTERS)
        lettered = {one: option_text(text_field(row, one)) for one in LETTERS}
        key = dedup_key(" ".join([question, *lettered.values()]))
        if key in seen:
            report.skip("the same question with the same options is there already")
            return
        seen.add(key)
        name, options = f"mmlu-medical/{part}/{_named(place, f'_{part}')}", list(lettered.values())
        yield from question_example(name, question, options, lettered[letter], MMLU_SPLITS[part], report, str)

    return read(files, report)


def _named(place: str, ending: str = "") -> str:
    """The name of a file and the number of a line in it: 'FILE/N'."""
    path, _, number = place.rpartition(", line ")
    return f"{Path(path.removesuffix('.gz')).stem.removesuffix(ending)}/{number}"


def option_text(text: str) -> str:
    """An option as a label: no semicolon, no full stop at its end."""
    return safe_label(text).rstrip(".") or text


def question_example(
    example_id: str,
    question: str,
    options: list[str],
    answer: str,
    split: str,
    report: ReadReport,
    compared: Callable[[str], str] = str.casefold,
) -> Iterator[Example]:
    """A question with its options, in an order drawn by the id; none where the answer is no option, or one is repeated."""
    if answer not in options:
        report.skip("the answer is none of the options")
    elif len({compared(option) for option in options}) < len(options):
        report.skip("an option is listed twice")
    else:
        ordered = any(_OF_OTHERS.fullmatch(option) for option in options)
        labels = tuple(options) if ordered else shuffled(example_id, options)
        origin = Origin(split, minhash_keys(question), dedup_key(normalise(question)))
        yield example(example_id, "multiple_choice", "options", question, answer, origin, labels)


def _options(record: Row) -> tuple[list[str], str]:
    """Options without letters, in the order of the record, and the answer among them ('' where it fits none)."""
    options = record.get("options")
    if "opa" in record:
        lettered = {letter: text_field(record, f"op{letter}") for letter in "abcd"}
        if record.get("cop") not in (1, 2, 3, 4):
            raise BadData("field 'cop' must be 1, 2, 3 or 4, the number of the right option.")
        chosen = "abcd"[record["cop"] - 1]
    elif isinstance(options, dict):
        lettered = {letter: text_field(options, letter) for letter in sorted(options)}
        chosen = text_field(record, "answer_idx")
    elif isinstance(options, str):
        lettered = _lettered_lines(options)
        answer = text_field(record, "answer")
        chosen = next((letter for letter, text in lettered.items() if single_spaced(f"{letter}. {text}") == answer), "")
    else:
        raise BadData("field 'options' is missing, or neither text nor an object.")
    if len(lettered) < 2:
        raise BadData(f"at least two options are expected, found {len(lettered)}.")
    texts = {letter: option_text(text) for letter, text in lettered.items()}
    return list(texts.values()), texts.get(chosen, "")


def _lettered_lines(text: str) -> dict[str, str]:
    """The lines 'A. ..' of the packaged form by letter; a last line of one quotation mark is a known slip of it."""
    lines = [line.strip() for line in text.split("\n")]
    if lines[-1] in ('"', ""):
        lines.pop()
    lettered: dict[str, str] = {}
    for line, expected in zip(lines, "ABCDEFGHIJ", strict=False):
        match = _OPTION_LINE.fullmatch(line)
        if match is None or match[1] != expected or not match[2].strip():
            raise BadData(f"option {expected} is not a line '{expected}. ..' with a text.")
        lettered[expected] = single_spaced(match[2])
    return lettered
