"""CliCR's JSON (print_data_format in dataset-code/describe_data.py of github.com/clips/clicr), entities marked BEG__..__END."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpora import COLOURS, PARTS

FILES = ("train1.0.json", "dev1.0.json", "test1.0.json")


def answer(text: str, origin: str = "dataset") -> dict[str, str]:
    """An answer of the data set, or a synonym of it from the UMLS."""
    return {"text": text, "cui": "C0000001", "sem_type": "problem", "origin": origin}


def report(source: str, title: str, context: str, queries: list[tuple[str, list[dict[str, str]]]]) -> dict[str, Any]:
    """A case report with its queries, which are numbered from 1."""
    qas = [{"query": q, "answers": a, "id": f"{source}.{number}"} for number, (q, a) in enumerate(queries, 1)]
    return {"document": {"context": context, "title": title, "qas": qas}, "source": source}


def write_reports(path: Path, reports: list[dict[str, Any]]) -> None:
    """A file of reports."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.0", "data": reports}), encoding="utf-8")


def write(folder: Path) -> None:
    """Eight reports a file, one query each."""
    for number, file in enumerate(FILES):
        reports = []
        for colour, part in zip(COLOURS, PARTS, strict=False):
            context = f"The {part} of beast {number} was BEG__{colour}  {part} rot__END .\nIt healed ."
            queries = [(f"Salve heals BEG__beasts__END with @placeholder , file {number} .", [answer(f"{colour} {part} rot")])]
            reports.append(report(f"bcr.{number}.{colour}", f"BEG__{colour.title()} {part}__END {number}", context, queries))
        write_reports(folder / file, reports)


WRITERS = {"clicr": write}
