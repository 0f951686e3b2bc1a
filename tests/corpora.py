"""Corpora of made-up beasts in the distributed formats: every text here is our own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from staf.data.card import builtin_cards
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers import ontologies
from staf.data.splits import LEFT_OUT
from staf.data.splits import separate as separate_splits

COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink")
PARTS = ("hoof", "wing", "tail", "horn", "beak", "fin", "mane", "claw", "scale", "snout")


def read_corpus(name: str, folder: Path, report: ReadReport | None = None, **options: bool) -> Iterator[Example]:
    """Examples of a built-in corpus from a folder."""
    return builtin_cards()[name].read(folder, report or ReadReport(), **options)


def corpus_files(name: str, folder: Path) -> list[Path]:
    return builtin_cards()[name].files(folder)


def write_lines(path: Path, records: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def packaged(question: str, options: str, answer: str) -> dict[str, str]:
    return {"question": question, "options": options, "answer": answer}


def separate(examples: list[Example]) -> tuple[list[Example], int]:
    """What preparing keeps of examples whose splits stand, and how many it drops."""
    splits = separate_splits([e.dedup_keys for e in examples], [e.split for e in examples])
    kept = [e for e, split in zip(examples, splits, strict=True) if split != LEFT_OUT]
    return kept, len(examples) - len(kept)


def write_ontology(folder: Path) -> None:
    """Two organ systems of made-up beasts; in each ten parts with eight colours, all defined, all with a synonym."""
    lines = ["format-version: 1.2", "", "[Term]", f"id: {ontologies.PHENOTYPES}", "name: Phenotypic abnormality", ""]
    number = 1000

    def term(name: str, parent: str, *more: str) -> str:
        nonlocal number
        number += 1
        lines.extend(["[Term]", f"id: HP:{number}", f"name: {name}", *more, f"is_a: {parent} ! broader", ""])
        return f"HP:{number}"

    for system in ("upper beast", "lower beast"):
        top = term(f"Abnormality of the {system}", ontologies.PHENOTYPES)
        for part in PARTS:
            middle = term(f"Strange {system} {part}", top)
            for colour in COLOURS:
                term(
                    f"{colour.title()} {part} in {system.split()[0]} rows",
                    middle,
                    f'def: "Colour {colour} where a {part} of the beast\\: {system.split()[0]} is bare." [made:up]',
                    f'synonym: "{colour.title()}ish {part} {number}" EXACT layperson []',
                    f'synonym: "Rows {system.split()[0]}, {part} in {colour}" EXACT []',
                )
    lines += ["[Term]", "id: HP:9", "name: obsolete Purple hoof", "is_obsolete: true", "", "[Typedef]", "id: part_of"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hp.obo").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tabular(folder: Path) -> None:
    """Four made-up chapters of thirty categories; in each three codes with an inclusion term."""
    chapters = []
    for number, letter in ((1, "A"), (9, "I"), (10, "J"), (20, "V")):
        diags = []
        for category in range(30):
            code, name = f"{letter}{category:02}", f"{PARTS[category % 10]} {COLOURS[category % 8]} {letter}{category}"
            inner = "".join(
                f"<diag><name>{code}.{i}</name><desc>Sort {i} of ailing {name} thing</desc>"
                f"<inclusionTerm><note>Kind {i} {letter}{category} trouble</note></inclusionTerm></diag>"
                for i in range(3)
            )
            diags.append(f"<diag><name>{code}</name><desc>Illness, {name} group</desc>{inner}</diag>")
        sections = "".join(
            f"<section><desc>Troubles {place}; of {letter} ({letter}{15 * place:02}-{letter}{15 * place + 14})</desc>"
            + "".join(some)
            + "</section>"
            for place, some in enumerate((diags[:15], diags[15:]))
        )
        desc = f"Diseases of the made-up {letter} system ({letter}00-{letter}99)"
        chapters.append(f"<chapter><name>{number}</name><desc>{desc}</desc>{sections}</chapter>")
    text = f"<ICD10CM.tabular><version>1</version>{''.join(chapters)}</ICD10CM.tabular>"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "icd10c-tabular-made-up.xml.gz").write_bytes(gzip.compress(text.encode()))


def write_all(data: Path) -> Path:
    """A data folder of our own texts, one folder for each reader."""
    from formats import WRITERS

    for name, write in WRITERS.items():
        write(data / name)
    return data
