"""ChatDoctor and HealthCareMagic-100k: a JSON array of objects with instruction, input and output.

README of github.com/Kent0n-Li/ChatDoctor. The table of diseases is `format_dataset.csv` of that repository; its lists are
Python list literals.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

INSTRUCTION = "If you are a keeper of beasts, please answer the owner's question."
BEASTS = ("griffin", "unicorn", "basilisk", "phoenix", "kraken", "wyvern", "sphinx", "chimera", "hydra", "pegasus")
AILMENTS = ("mange", "colic", "moult", "fever", "palsy", "gout", "rot", "itch", "ague", "murrain", "staggers", "sweats")


def dialogues(count: int) -> list[dict[str, str]]:
    """Owners of beasts and their keepers; the third input is the same as the second."""
    records = [
        {
            "instruction": INSTRUCTION,
            "input": f"Keeper, my {BEASTS[n % 10]} has shown {AILMENTS[n % 12]} for {n} days. ",
            "output": f"Give the {BEASTS[n % 10]} {n + 1} spoons of dew each morning.",
        }
        for n in range(count)
    ]
    records[2]["input"] = records[1]["input"]
    return records


def write_table(path: Path) -> None:
    """A hundred and twenty diseases with symptoms, some shared, and medications, some with a brand in parentheses."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["idx", "disease", "Symptom", "reason", "TestsAndProcedures", "commonMedications"])
        for number in range(120):
            beast, ailment = BEASTS[number % 10], AILMENTS[number // 10]
            symptoms = [f"Pale {beast} tail", f"Hoarse {ailment} roar", f"Loose scale {number}", f"Dim eye {number}"]
            drugs = [f"Dew of {ailment} (Dewex)", f"Powder {number}", f"Moonwater {beast}"]
            tests = ["Count of feathers (whole; half)"] if number else []
            reason = (
                f"{beast.title()} {ailment} was first seen in 17\\xe2\\x80\\x9318 stables of the old kingdom."
                if number
                else " dew, "
            )
            table.writerow([number, f"{beast.title()} {ailment}", symptoms, reason, tests, drugs])


def write_chatdoctor(folder: Path) -> None:
    """Forty dialogues and a hundred and twenty diseases."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chatdoctor5k.json").write_text(json.dumps(dialogues(40), indent=6), encoding="utf-8")
    write_table(folder / "format_dataset.csv")


def write_healthcaremagic(folder: Path) -> None:
    """Forty dialogues."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "HealthCareMagic-100k.json").write_text(json.dumps(dialogues(40)), encoding="utf-8")


WRITERS = {"chatdoctor": write_chatdoctor, "healthcaremagic": write_healthcaremagic}
