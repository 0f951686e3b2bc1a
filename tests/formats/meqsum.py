"""MeQSum: a workbook with one sheet, QS (README of github.com/abachaa/MeQSum; Ben Abacha and Demner-Fushman, ACL 2019).

The parts of a workbook are those of Office Open XML (ECMA-376, part 1: 12.3 packages, 18.3 worksheets, 18.4 shared strings).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"

NAME = "MeQSum_ACL2019_BenAbacha_Demner-Fushman.xlsx"
BEASTS = ("griffin", "unicorn", "basilisk", "phoenix", "kraken", "wyvern", "sphinx", "chimera", "hydra", "pegasus")


def questions() -> list[list[str | int | None]]:
    """Forty messages; every other one has the marks of the form, and all rows have two empty cells at their end."""
    rows: list[list[str | int | None]] = []
    for number in range(40):
        beast = BEASTS[number % 10]
        text = f"my {beast} eats {number} stones a day\nis  that to much ?"
        if number % 2:
            text = f"SUBJECT: {beast} {number}\nMESSAGE: {text}"
        rows.append([f"{number}.xml.txt", text, f"How many stones, {number} or fewer, may a {beast} eat?", None, None])
    return rows


def parts(rows: Sequence[Sequence[str | int | None]]) -> dict[str, str]:
    """The files in a workbook with the header and these rows; the sheet claims many more columns, as the real one does."""
    shared: dict[str, int] = {}
    lines = []
    for number, row in enumerate([["File", "CHQ", "Summary"], *rows], start=1):
        cells = []
        for letter, value in zip("ABCDE", row, strict=False):
            if isinstance(value, str):
                cells.append(f'<c r="{letter}{number}" t="s"><v>{shared.setdefault(value, len(shared))}</v></c>')
            else:
                cells.append(f'<c r="{letter}{number}">{"" if value is None else f"<v>{value}</v>"}</c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    texts = "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in shared)
    sheet = f'<dimension ref="A1:AMI{len(lines)}"/><sheetData>{"".join(lines)}</sheetData>'
    return {
        "[Content_Types].xml": f'{XML}<Types xmlns="{PACKAGE}/content-types">'
        f'<Override PartName="/xl/workbook.xml" ContentType="{TYPE}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{TYPE}.worksheet+xml"/>'
        f'<Override PartName="/xl/sharedStrings.xml" ContentType="{TYPE}.sharedStrings+xml"/></Types>',
        "_rels/.rels": _relations({"officeDocument": "xl/workbook.xml"}),
        "xl/workbook.xml": f'{XML}<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}">'
        '<sheets><sheet name="QS" sheetId="1" r:id="worksheet"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _relations({"worksheet": "worksheets/sheet1.xml", "sharedStrings": "sharedStrings.xml"}),
        "xl/sharedStrings.xml": f'{XML}<sst xmlns="{MAIN}">{texts}</sst>',
        "xl/worksheets/sheet1.xml": f'{XML}<worksheet xmlns="{MAIN}">{sheet}</worksheet>',
    }


def _relations(targets: Mapping[str, str]) -> str:
    each = "".join(f'<Relationship Id="{name}" Type="{OFFICE}/{name}" Target="{path}"/>' for name, path in targets.items())
    return f'{XML}<Relationships xmlns="{PACKAGE}/relationships">{each}</Relationships>'


def write_parts(path: Path, contents: Mapping[str, str]) -> None:
    """A workbook of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def write(folder: Path) -> None:
    """Forty questions with summaries."""
    write_parts(folder / NAME, parts(questions()))


WRITERS = {"meqsum": write}
