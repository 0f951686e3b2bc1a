"""emrQA's data.json, as its scripts write it.

README of github.com/panushri25/emrQA ('Question-Answer (JSON) Format') and generation/: i2b2_medications, i2b2_relations (lines
with their ends, evidence by line from 1), i2b2_heart_disease_risk (title risk-dataset; lines without ends, evidence by
character), i2b2_smoking and i2b2_obesity (one text, no evidence). The answers of these two, and 'yes', stand nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpora import COLOURS, PARTS


def answer(text: str, evidence: str, start: int | str, kind: str = "single", token: int | str = 0) -> dict[str, Any]:
    """An answer of the first three parts."""
    return {
        "answer_start": [start, token],
        "text": text,
        "evidence": evidence,
        "evidence_start": start,
        "answer_entity_type": kind,
    }


def judgement(text: str) -> dict[str, Any]:
    """An answer of the last two parts."""
    return {"answer_start": "", "text": text, "evidence": "", "evidence_start": ""}


def asked(paraphrases: list[str], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """A question with its answers; the id pairs paraphrases with templates, and a logical form."""
    return {"answers": answers, "id": [[[p, p] for p in paraphrases], "Event (|x|)"], "question": paraphrases}


def write_parts(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    """The file of the parts given, by title."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"data": [{"paragraphs": paragraphs, "title": title} for title, paragraphs in parts.items()]}
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")


def note(number: int) -> list[str]:
    """Lines of a note about a beast."""
    part, colour = PARTS[number % 10], COLOURS[number % 8]
    return [f"Note {number}", f"Salve  {number} mg on the {part}", f"for {colour} itch .", "Next day the same ."]


def medication(number: int) -> dict[str, Any]:
    """A note with a dose, a yes and a dose put together with its drug."""
    lines = [f"{line}\n" for line in note(number)]
    dose = f"{number} mg"
    questions = [
        asked([f"What is the dose {number}?", f"How much salve {number}?"], [answer(dose.upper(), lines[1], 2)]),
        asked(["Has it had salve?"], [answer("yes", lines[1], 2, "empty")]),
        asked(["What was given for itch?"], [answer(f"( salve, {dose})", lines[1], 2, "complex")]),
    ]
    return {"note_id": str(number), "context": lines, "qas": questions}


def risk(number: int) -> dict[str, Any]:
    """A note whose evidence is found by character."""
    lines = note(number)
    start = len(lines[0]) + len(lines[1]) + 2
    return {"note_id": str(number), "context": lines, "qas": [asked(["Is there itch?"], [answer("itch", lines[2], start)])]}


def judged(number: int, text: str) -> dict[str, Any]:
    """A note with one judgement."""
    return {"note_id": str(number), "context": "\n".join(note(number)), "qas": [asked(["Does it?"], [judgement(text)])]}


def write(folder: Path) -> None:
    """Forty notes with answers, and two of the parts that have none."""
    parts = {
        "medication": [medication(number) for number in range(20)],
        "relations": [medication(number) for number in range(20, 30)],
        "risk-dataset": [risk(number) for number in range(30, 40)],
        "smoking": [judged(40, "CURRENT SMOKER")],
        "obesity": [judged(41, "yes")],
    }
    write_parts(folder, parts)


WRITERS = {"emrqa": write}
