"""COVID-QA in the SQuAD form of its release (README of github.com/deepset-ai/COVID-QA, data/question-answering)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpora import COLOURS, PARTS

FILE = "200423_covidQA.json"


def question(number: int, asked: str, text: str, start: int) -> dict[str, Any]:
    """A question with its one answer."""
    return {"question": asked, "id": number, "answers": [{"text": text, "answer_start": start}], "is_impossible": False}


def write_articles(folder: Path, articles: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """Articles as (context, questions), one entry each."""
    data = [
        {"paragraphs": [{"context": context, "document_id": number, "qas": questions}]}
        for number, (context, questions) in enumerate(articles, 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"data": data}), encoding="utf-8")


def write(folder: Path) -> None:
    """Forty articles with two questions each; the second answer begins with a space, so that its offset is one too high."""
    articles = []
    for number in range(40):
        colour, part = COLOURS[number % 8], PARTS[number % 10]
        context = f"Beast {number}\n\nIts {part} is {colour} {number}.\nIt sleeps by day {number}."
        first, second = f"{colour} {number}", f" by day {number}"
        questions = [
            question(2 * number, f"Which colour has the {part}?", first, context.index(first)),
            question(2 * number + 1, "When does it sleep?", second, context.index(second) + 1),
        ]
        articles.append((context, questions))
    write_articles(folder, articles)


WRITERS = {"covid-qa": write}
