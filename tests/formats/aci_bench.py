"""ACI-BENCH: five CSV files of dialogue and note.

README of github.com/wyim/aci-bench; Yim and others, Scientific Data 2023, nature.com/articles/s41597-023-02487-3.
"""

from __future__ import annotations

import csv
from pathlib import Path

PARTS = {"train": 6, "valid": 3, "clinicalnlp_taskB_test1": 3, "clinicalnlp_taskC_test2": 3, "clef_taskC_test3": 3}


def visit(number: int) -> str:
    """A talk of many turns in a stable; the third line goes on without a mark, the fifth is empty, the sixth says nothing."""
    turns = [
        f"[doctor] hi , how is unicorn number {number} doing today ?",
        "[patient] it will not eat its clover .",
        "it only looks at the moon .",
        f"[doctor] okay . and since when has unicorn {number} looked at the moon ?",
        "",
        "[patient]",
        "[patient_guest] since the third full moon .",
    ]
    for turn in range(30):
        turns.append(f"[doctor] night {number}-{turn} : was lamp {number}-{turn} left burning at gate {number}-{turn} ?")
        turns.append(f"[patient] yes , and hour {number}-{turn} it slept by well {number}-{turn} .")
    return "\n".join(turns)


def write(folder: Path) -> None:
    """Eighteen visits, and the metadata beside each file."""
    home = folder / "challenge_data"
    home.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, count in PARTS.items():
        with (
            (home / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream,
            (home / f"{name}_metadata.csv").open("w", encoding="utf-8", newline="") as beside,
        ):
            table, metadata = csv.writer(stream), csv.writer(beside)
            table.writerow(["dataset", "encounter_id", "dialogue", "note"])
            metadata.writerow(["dataset", "encounter_id", "id", "patient_gender", "cc"])
            for _ in range(count):
                number += 1
                source = ("aci", "virtassist", "virtscribe")[number % 3]
                note = f"CHIEF COMPLAINT\n\nMoon gazing.\n\nPLAN\n\nClover for unicorn {number}."
                table.writerow([source, f"D2N{number:03}", visit(number), note])
                metadata.writerow([source, f"D2N{number:03}", number, "mare", "moon gazing"])


WRITERS = {"aci-bench": write}
