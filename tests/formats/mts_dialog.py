"""MTS-Dialog: four CSV files of section and dialogue.

README of github.com/abachaa/MTS-Dialog; Ben Abacha and others, EACL 2023, aclanthology.org/2023.eacl-main.168.
"""

from __future__ import annotations

import csv
from pathlib import Path

PARTS = {
    "MTS-Dialog-TrainingSet.csv": 14,
    "MTS-Dialog-ValidationSet.csv": 6,
    "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv": 6,
    "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv": 6,
}
COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink")
BEASTS = ("griffin", "unicorn", "basilisk", "phoenix", "kraken", "wyvern", "sphinx", "chimera")
PLACES = ("mill", "fair", "forge", "market", "bridge", "tavern", "harbour")


def dialogue(start: int, number: int) -> str:
    """A talk about a beast's tooth, with lines ended by CRLF as in the training file."""
    place = start + number
    colour, beast, where = COLOURS[place % 8], BEASTS[place // 8 % 8], PLACES[place % 7]
    return (
        f"Doctor: Which tooth of {beast} {place} hurts? \r\n"
        f"Patient: {colour.title()}, {where} side {place}.\r\n"
        f"Doctor: Does {colour} {beast} breath hurt near {where} {place}?\r\n"
        f"Guest_family: Roars, {beast} {place}, {where}."
    )


def odd_dialogue() -> str:
    """Every quirk of the marks: numbers, slips of the pen, a quotation mark, a stop, a line without a mark."""
    return (
        "Docotr_2: Good morning to the whole cave.\n"
        "Patient: Morning.\n"
        "Gest_family: It limps.\n"
        '"Doctor: Since when does the beast limp on that side? \n'
        "Ever since the fair?\n"
        "Guest_family2: Since May.\n"
        "Guest_clinican: I saw it.\n"
        "Guest_family. And I."
    )


def write(folder: Path) -> None:
    """Thirty-two pairs; in training one dialogue has every quirk of the marks, and another occurs twice and in validation."""
    (folder / "Main-Dataset").mkdir(parents=True, exist_ok=True)
    start = 0
    for name, count in PARTS.items():
        rows = [
            [
                number,
                ("GENHX", "fam/sochx", "CC")[number % 3],
                f"The {COLOURS[number % 8]} tooth hurts.",
                dialogue(start, number),
            ]
            for number in range(count)
        ]
        start += count
        if name == "MTS-Dialog-TrainingSet.csv":
            rows[5][3] = odd_dialogue()
            rows[7][3] = rows[6][3]
        if name == "MTS-Dialog-ValidationSet.csv":
            rows[3][3] = dialogue(0, 6)
        with (folder / "Main-Dataset" / name).open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["ID", "section_header", "section_text", "dialogue"])
            table.writerows(rows)


WRITERS = {"mts-dialog": write}
