"""MedNLI: JSON lines in the form of SNLI (https://physionet.org/content/mednli/1.0.0/; Romanov and Shivade, 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpora import COLOURS, write_lines

LABELS = ("entailment", "neutral", "contradiction")


def record(pair_id: str, label: str, premise: str, hypothesis: str) -> dict[str, Any]:
    """One pair with its parses."""
    parses = {
        f"sentence{n}{kind}": f"( {text} )"
        for n, text in ((1, premise), (2, hypothesis))
        for kind in ("_parse", "_binary_parse")
    }
    return {"gold_label": label, "pairID": pair_id, "sentence1": premise, "sentence2": hypothesis} | parses


def write(folder: Path) -> None:
    """Four premises in each part, each in three pairs."""
    for part in ("train", "dev", "test"):
        records: list[object] = [
            record(f"{part}-{colour}-{n}", label, f"The {colour} {part} beast limps since spring.", f"It walks {n} steps.")
            for colour in COLOURS[:4]
            for n, label in enumerate(LABELS)
        ]
        write_lines(folder / f"mli_{part}_v1.jsonl", records)


WRITERS = {"mednli": write}
