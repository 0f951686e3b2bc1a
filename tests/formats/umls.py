"""UMLS Metathesaurus in Rich Release Format: UMLS Reference Manual, chapter 3 (ncbi.nlm.nih.gov/books/NBK9685).

Tables "Concept Names and Sources", "Definitions", "Related Concepts" and "Semantic Types" give the columns and their order;
every cell, the last one too, is closed by '|'.
"""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

TYPES = {
    "ache": ("T047", "B2.2.1.2.1", "Disease or Syndrome"),
    "balm": ("T121", "A1.4.1.1.1", "Pharmacologic Substance"),
    "germ": ("T007", "A1.1.2", "Bacterium"),
    "spot": ("T023", "A1.2.3.1", "Body Part, Organ, or Organ Component"),
}
"""Kinds of made-up concepts, and the type, tree number and name of the real semantic type that each is given."""
WORDS = {"ache": "pain", "balm": "salve", "germ": "microbe", "spot": "patch"}


def row(*cells: str) -> str:
    """A line of a file."""
    return "".join(f"{cell}|" for cell in cells) + "\n"


def name(
    cui: str, number: int, text: str, rank: str = "P PF Y", language: str = "ENG", suppress: str = "N", source: str = "MADE"
) -> str:
    """A line of MRCONSO: rank is TS, STT and ISPREF."""
    ts, stt, preferred = rank.split()
    ids = (f"L{number:07}", stt, f"S{number:07}", preferred, f"A{number:07}", "", "", "")
    return row(cui, language, ts, *ids, source, "PT", str(number), text, "0", suppress, "256")


def definition(cui: str, number: int, text: str, suppress: str = "N") -> str:
    """A line of MRDEF, of the atom of that number."""
    return row(cui, f"A{number:07}", f"AT{number:08}", "", "MADE", text, suppress, "")


def relation(second: str, relation: str, first: str, suppress: str = "N") -> str:
    """A line of MRREL: CUI1 comes first, and CUI2 has the relation to it."""
    return row(second, "A1", "AUI", "RO", first, "A2", "AUI", relation, "R1", "", "MADE", "MADE", "", "", suppress, "")


def semantic_type(cui: str, kind: str) -> str:
    """A line of MRSTY."""
    return row(cui, *TYPES[kind], "AT00000001", "256")


def write(folder: Path) -> None:
    """Four kinds of eighty concepts each, in the layout of a release; names in two languages, some of them suppressed."""
    files: dict[str, list[str]] = {"MRCONSO": [], "MRDEF": [], "MRREL": [], "MRSTY": []}
    for place, kind in enumerate(TYPES):
        for index in range(80):
            number = 1000 * (place + 1) + 10 * index
            cui, colour, part = f"C{number:07}", COLOURS[index % 8], PARTS[index // 8]
            files["MRCONSO"] += [
                name(cui, number, f'{part} {WORDS[kind]} of "{colour}" hue', rank="S PF Y"),
                name(cui, number + 1, f"{colour} {part} {kind}"),
                name(cui, number + 2, f"{kind} de {part}", language="FRE"),
                name(cui, number + 3, f"old {colour} {part}", rank="P VC N", suppress="O"),
            ]
            files["MRDEF"] += [
                definition(cui, number + 1, f"What a {part} keeper calls a {WORDS[kind]} in {colour}, number {index}."),
                definition(cui, number + 2, f"Mot {index} pour {part}."),
            ]
            files["MRSTY"].append(semantic_type(cui, kind))
            if kind != "ache":
                ache = f"C{1000 + 10 * index:07}"
                told = {"balm": "may_treat", "germ": "causative_agent_of", "spot": "finding_site_of"}[kind]
                inverse = {"balm": "may_be_treated_by", "germ": "has_causative_agent", "spot": "has_finding_site"}[kind]
                files["MRREL"] += [relation(ache, told, cui), relation(cui, inverse, ache)]
    home = folder / "2026AA" / "META"
    home.mkdir(parents=True, exist_ok=True)
    for title, lines in files.items():
        (home / f"{title}.RRF").write_text("".join(lines), encoding="utf-8")


WRITERS = {"umls": write}
