"""RQE: pairs of questions in XML (Readme.txt of github.com/abachaa/RQE_Data_AMIA2016; Ben Abacha and Demner-Fushman, 2016)."""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

TRAIN, TEST = "RQE_Train_8588_AMIA2016.xml", "RQE_Test_302_pairs_AMIA2016.xml"


def pair(pid: int, value: str, chq: str, faq: str) -> str:
    """One pair, its questions between line ends as in the training file."""
    questions = f"<chq>\n   {chq}\n</chq>\n<faq>\n   {faq}\n</faq>"
    return f'<pair pid="{pid}" type="originalQ-shortQ" value="{value}">\n{questions}\n</pair>\n'


def write_files(folder: Path, train: list[str], test: list[str]) -> None:
    """The two files of the given pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, root, pairs in ((TRAIN, "RQE-med-train", train), (TEST, "RQE-med-test", test)):
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>\n{"".join(pairs)}</{root}>\n'
        (folder / name).write_text(text, encoding="utf-8")


def write(folder: Path) -> None:
    """Eighty pairs to train on, every other one true, and six of the test, one repeated."""
    train = []
    for number, (colour, part) in enumerate((c, p) for c in COLOURS for p in PARTS):
        asked = f"My beast has a {colour} {part} since day {number}, is that bad?"
        short = f"Is a {colour} {part} bad?" if number % 2 else "How long is a day of a beast?"
        train.append(pair(number + 1, "true" if number % 2 else "false", asked, short))
    test = [
        pair(n, "true" if n % 2 else "false", f"Hello, what feeds {n % 5} wild beasts?", "What do beasts eat?")
        for n in range(5)
    ]
    write_files(folder, train, [*test, pair(5, "false", "Hello, what feeds 0 wild beasts?", "What do beasts eat?")])


WRITERS = {"rqe-amia2016": write}
