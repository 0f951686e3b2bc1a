"""CodiEsp and PharmaCoNER: cases in a zip archive, tables of codes, brat annotations (both corpora's README and guidelines).

temu.bsc.es/codiesp: ID.txt with one sentence a line, trainD.tsv with `ID, tab, code in lower case`.
temu.bsc.es/pharmaconer: ID.ann with `T1, tab, TYPE START END, tab, words`. The cases and their words are our own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from corpora import COLOURS, PARTS

ROOT = "final_dataset_v4_to_publish"
CODES = ("r52", "i10", "e11.9", "z79.52")
DRUGS = ("prednisona", "Omeprazol", "amoxicilina-clavulánico", "ácido acetilsalicílico")

Case = tuple[str, str, Iterable[str]]
"""Id, text with one sentence a line, codes."""


def write_cases(path: Path, parts: dict[str, list[Case]]) -> None:
    """The archive of CodiEsp: texts and the table of diagnosis codes of each part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for part, cases in parts.items():
            for name, text, _ in cases:
                archive.writestr(f"{ROOT}/{part}/text_files_en/{name}.txt", text)
            table = "".join(f"{name}\t{code}\n" for name, _, codes in cases for code in codes)
            archive.writestr(f"{ROOT}/{part}/{part}D.tsv", table)
            archive.writestr(f"{ROOT}/{part}/{part}X.tsv", "not read")


def write_mentions(path: Path, mentions: dict[str, Iterable[tuple[str, str]]]) -> None:
    """An archive of PharmaCoNER: (type, words) of each case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in mentions.items():
            lines = [f"T{number}\t{kind} 0 {len(words)}\t{words}\n" for number, (kind, words) in enumerate(rows, start=1)]
            archive.writestr(f"train/subtrack1/{name}.ann", "".join(lines))
            archive.writestr(f"train/subtrack1/{name}.txt", "not read")


def all_cases() -> dict[str, list[Case]]:
    """Forty cases to train on, twenty each for dev and test; each with one or two codes."""
    parts: dict[str, list[Case]] = {"train": [], "dev": [], "test": []}
    pairs = [(colour, part) for colour in COLOURS for part in PARTS]
    for n, (colour, part) in enumerate(pairs):
        text = (
            f"A beast of {n + 2} years came with a {colour} {part}.\nThe {part} was {colour} since day {n}.\n"
            f"It was given omeprazole on day {n}.\nThe {colour} of the {part} went away.\n"
        )
        parts[("train", "train", "dev", "test")[n % 4]].append((f"S{n:04}-1", text, CODES[n % 4 : n % 4 + 2]))
    return parts


def write_codiesp(folder: Path) -> None:
    """All cases."""
    write_cases(folder / "codiesp.zip", all_cases())


def write_pharmaconer(folder: Path) -> None:
    """A drug and a laboratory substance in each case, and the cases themselves in the folder next to this one."""
    names = [name for cases in all_cases().values() for name, _, _ in cases]
    mentions = {name: [("NORMALIZABLES", DRUGS[n % 4]), ("PROTEINAS", "ferritina")] for n, name in enumerate(names)}
    write_mentions(folder / "train-set.zip", mentions)
    write_codiesp(folder.parent / "codiesp")


WRITERS = {"codiesp": write_codiesp, "pharmaconer": write_pharmaconer}
