"""i2b2/VA 2010: notes of one tokenised sentence a line, and a .con file of concepts for each.

Uzuner et al., 2011 (https://doi.org/10.1136/amiajnl-2011-000203), and the concept annotation guidelines of the challenge:
c="text in lower case" LINE:WORD LINE:WORD||t="problem|test|treatment", lines from 1, words from 0, ends included. Folders as
in the three archives of the portal, and as CliNER reads them (github.com/text-machine-lab/CliNER, README).
"""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

TRAINING = Path("concept_assertion_relation_training_data")
REFERENCE = Path("reference_standard_for_test_data/concepts")
TEST = Path("test_data")


def write_note(text: Path, concepts: Path, number: int) -> None:
    """A note of a heading, a rule, a sentence with three concepts and one without."""
    part, colour = PARTS[number % len(PARTS)], COLOURS[number % len(COLOURS)]
    lines = ["History :", "____", f"The Hoof scan {number} showed {colour} {part} , so Salve was put on .", f"Day {number} ."]
    rows = [
        f'c="hoof scan {number}" 3:1 3:3||t="test"',
        'c="salve" 3:9 3:9||t="treatment"',
        f'c="{colour} {part}" 3:5 3:6||t="problem"',
    ]
    for path, content in ((text, lines), (concepts, rows)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(content) + "\n", encoding="utf-8")


def write(folder: Path) -> None:
    """Thirty training notes of two hospitals and ten test notes."""
    for number in range(30):
        home, name = folder / TRAINING / ("beth", "partners")[number % 2], f"record-{number}"
        write_note(home / "txt" / f"{name}.txt", home / "concept" / f"{name}.con", number)
    for number in range(30, 40):
        name = f"{number:04}"
        write_note(folder / TEST / f"{name}.txt", folder / REFERENCE / f"{name}.con", number)


WRITERS = {"i2b2-2010": write}
