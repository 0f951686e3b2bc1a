"""Tables as tasks: formats, constructors, output types, rows that are left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_own_task import rows, write

from staf.data.local import read_rows, table_format
from staf.data.registry import Registry
from staf.data.row_templates import RowTemplates, rendered
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import find_task, load_task
from staf.errors import BadData, ConfigError
from staf.stages.context import Context


def save(path: Path, found: list[dict[str, Any]]) -> Path:
    """Rows in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, columns = path.name.partition(".")[2], list(found[0])
    if kind in ("json", "jsonl", "ndjson"):
        lines = "".join(json.dumps(row) + "\n" for row in found)
        path.write_text(json.dumps(found) if kind == "json" else lines, encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(found), path)
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for row in [columns, *([row[name] for name in columns] for row in found)]:
            book.active.append(row)
        book.save(path)
    else:
        mark = "\t" if kind == "tsv" else ";" if kind == "semicolon.csv" else ","
        text = "".join(mark.join(map(str, row)) + "\r\n" for row in [columns, *(row.values() for row in found)])
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode("utf-8-sig"))
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "semicolon.csv", "json", "jsonl", "ndjson", "parquet", "xlsx"])
def test_a_table_is_read_by_the_ending_of_its_name(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / f"notes.{kind}", rows(6))
    assert list(read_rows(path, table_format(path))) == rows(6)


def test_a_table_that_would_be_read_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"notes\.doc: the name of a table ends in \.csv, \.tsv"):
        table_format(tmp_path / "notes.doc")
    twice = save(tmp_path / "notes.xlsx", [{"note": "a", "b": 1}])
    book = openpyxl.load_workbook(twice)
    book.active["B1"] = "note"
    book.save(twice)
    with pytest.raises(BadData, match="column 'note' occurs twice"):
        list(read_rows(twice, "xlsx"))


def test_a_task_object_is_taken_wherever_a_name_or_a_file_is(tmp_path: Path, own: Path) -> None:
    task = load_task(write(tmp_path, rows()))
    assert find_task(task) is task
    assert Registry().with_task(task)[1].tasks["triage"] is task
    assert DataStore().with_task(task)[0] is task
    assert Context(None, own, tmp_path / "runs").find_task(task) is task
    with pytest.raises(ConfigError, match="another task named 'pubmedqa'"):
        find_task(task.model_copy(update={"task": "pubmedqa"}))


def test_the_templates_of_a_task_render_a_row_without_its_file(tmp_path: Path) -> None:
    task = load_task(
        write(tmp_path, rows(), description="Read the note.", label_descriptions={"urgent": "today", "routine": ""})
    )
    kept = RowTemplates.model_validate_json(task.templates.model_dump_json())
    assert kept == task.templates
    query, context, labels = rendered(kept, {"note": " A wing. "})
    assert query == "Read the note.\nurgent: today\nIs this note urgent or routine?"
    assert (context, labels) == ("A wing.", ("routine", "urgent"))
    for row in ({"note": " "}, {"note": float("nan")}):
        with pytest.raises(BadData, match="the text is empty"):
            rendered(kept, row)


def test_several_columns_are_one_text_and_empty_cells_are_left_out(tmp_path: Path) -> None:
    found = [{"chief complaint": f"wing {n}", "exam": "" if n % 2 else "normal", "outcome": "urgent"} for n in range(4)]
    path = write(tmp_path, found, doc_to_context=["chief complaint", "exam"], group_column=None, test_split=None)
    contexts = [e.context for e in task_examples(load_task(path), "train", DataStore())]
    assert contexts[:2] == ["chief complaint: wing 0\nexam: normal", "chief complaint: wing 1"]
