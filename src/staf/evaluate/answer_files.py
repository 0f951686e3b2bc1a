"""Files of answers: JSON lines, CSV, Parquet or a workbook, by the ending of the name; readable by the owner only."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from staf.io import write_bytes

FORMATS = (".jsonl", ".csv", ".parquet", ".xlsx")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula; such a cell of a CSV file starts with an apostrophe."""
Answers = list[dict[str, Any]]


def write_answers(out: Path, answers: Answers) -> None:
    """Answers in the format of the name, with a column for each label's probability if all have the same labels."""
    for row in answers:
        if "probabilities" in row:
            row["probabilities"] = {label: round(prob, 4) for label, prob in row["probabilities"].items()}
    data = io.BytesIO()
    if out.suffix == ".jsonl":
        data.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers).encode())
    else:
        same = len({tuple(sorted(row.get("probabilities", ()))) for row in answers}) == 1
        rows = [_columns(row, same) for row in answers]
        _WRITERS[out.suffix](rows, data)
    write_bytes(out, data.getvalue(), private=True)


def _columns(row: dict[str, Any], same: bool) -> dict[str, Any]:
    answer, probs = row["answer"], row.get("probabilities")
    text = answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    found = {**row, "id": str(row["id"]), "answer": text}
    if probs is None:
        return found
    del found["probabilities"]
    if not same:
        return found | {"probabilities": json.dumps(probs, ensure_ascii=False)}
    return found | {f"probability of {label}": probs[label] for label in sorted(probs)}


def _write_csv(rows: Answers, data: io.BytesIO) -> None:
    import pyarrow.csv

    texts = ({n: f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for n, v in row.items()} for row in rows)
    pyarrow.csv.write_csv(pyarrow.Table.from_pylist(list(texts)), data)


def _write_parquet(rows: Answers, data: io.BytesIO) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data)


def _write_xlsx(rows: Answers, data: io.BytesIO) -> None:
    """A workbook of one sheet; text is text, also where it looks like a formula."""
    import openpyxl
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("answers")
    for row in (dict(zip(rows[0], rows[0], strict=True)), *rows):
        cells = []
        for value in row.values():
            cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value)
            if isinstance(value, str):
                cell.data_type = "s"
            cells.append(cell)
        sheet.append(cells)
    book.save(data)


_WRITERS: dict[str, Callable[[Answers, io.BytesIO], None]] = {
    ".csv": _write_csv, ".parquet": _write_parquet, ".xlsx": _write_xlsx
}  # fmt: skip
