"""Tables as tasks: formats, constructors, output types, rows that are left out."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_own_task import rows, write

from staf.data.local import local_examples, read_rows
from staf.data.registry import Registry
from staf.data.row_templates import RowTemplates, rendered
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.table_files import table_format
from staf.data.task import Task, builtin_tasks, find_task, load_task
from staf.errors import BadData, ConfigError, StafError
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


def formulas(path: Path, values: bytes) -> Path:
    """A workbook of two rows whose outcome is a formula with `values` in the place of the values."""
    save(path, [{"note": f"wing {n}", "outcome": f"=IF({n},1,2)"} for n in range(2)])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"<v />", values))
    return path


@pytest.mark.parametrize("values", [b"<v />", b"<v></v>", b""])
def test_formulas_without_saved_values_are_refused(tmp_path: Path, values: bytes) -> None:
    with pytest.raises(
        BadData, match=r"notes.xlsx: cell B2 holds a formula without a saved value. Open .* and save it"
    ) as caught:
        list(read_rows(formulas(tmp_path / "notes.xlsx", values), "xlsx"))
    assert "IF" not in str(caught.value)


def test_formulas_are_read_as_their_saved_values(tmp_path: Path) -> None:
    assert [row["outcome"] for row in read_rows(formulas(tmp_path / "notes.xlsx", b"<v>7</v>"), "xlsx")] == [7, 7]


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


def examples_of(task: Task) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    return [(e.split, e.query, e.context, e.answer, e.labels) for e in local_examples(task)]


def test_a_file_a_frame_a_dataset_and_rows_give_the_same_task(tmp_path: Path) -> None:
    datasets, found = pytest.importorskip("datasets"), rows()
    common: dict[str, Any] = {"text": "note", "label": "outcome", "group": "patient", "name": "triage"}
    path = save(tmp_path / "notes.jsonl", found)
    tasks = [
        Task.from_csv(path, **common),
        Task.from_dataset(datasets.Dataset.from_list(found), **common),
        Task.from_table(found, **common),
    ]
    if pandas := pytest.importorskip("pandas"):
        tasks.append(Task.from_pandas(pandas.DataFrame(found), **common))
    assert len({str(examples_of(task)) for task in tasks}) == 1
    split, query, context, answer, labels = examples_of(tasks[0])[0]
    assert (split, query, labels) == ("test", "Which label fits the text: routine; urgent?", ("routine", "urgent"))
    assert (context, answer) == (found[0]["note"], "routine")
    assert [task.metric for task in tasks] == ["accuracy"] * len(tasks)
    assert tasks[0].folder == tmp_path
    assert Task.from_csv(path, text="note", label="outcome").name == "notes"


def test_the_splits_of_a_dataset_and_the_names_of_its_labels_are_kept() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(datasets.ClassLabel(names=["O", "B-drug"])),
         "kind": datasets.ClassLabel(names=["poem", "letter"])}
    )  # fmt: skip
    parts = {
        split: datasets.Dataset.from_dict(
            {"tokens": [[split, "dipyrol"], [split, "hay"]], "tags": [[0, 1], [0, 0]], "kind": [1, -1]}, features=features
        )
        for split in ("train", "validation", "test")
    }
    found = examples_of(Task.from_dataset(datasets.DatasetDict(parts), text="tokens", label="tags", output_type="ner"))
    assert [(split, context, answer) for split, _, context, answer, _ in found[-2:]] == [
        ("test", "test dipyrol", "drug: dipyrol"), ("test", "test hay", "none"),
    ]  # fmt: skip
    assert [split for split, *_ in found] == ["adaptation"] * 4 + ["test"] * 2
    assert found[0][1] == "List every mention in the text of these types, as type and words, or none: drug."
    del parts["test"]
    task = Task.from_dataset(parts, text="tokens", label="kind", labels=["poem", "letter"], name="kinds")
    assert [(row[0], row[3]) for row in examples_of(task)] == [("adaptation", "letter"), ("test", "letter")]


def test_a_task_of_rows_in_memory_is_known_by_their_contents_and_is_in_no_file(tmp_path: Path) -> None:
    one, other = (Task.from_table(rows(count), text="note", label="outcome") for count in (20, 21))
    assert one.model_dump_json() != other.model_dump_json()
    assert rows()[0]["note"] not in one.model_dump_json() + repr(one)
    store = DataStore(registry=Registry(tasks={}))
    assert len(store.local(one)) + 1 == len(store.local(other))
    with pytest.raises(ConfigError, match="the rows of task 'own_table' are in no file"):
        one.save(tmp_path / "task.yaml")
    with pytest.raises(ConfigError, match="were in memory and are gone"):
        local_examples(Task.model_validate(one.model_dump()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "nots"}, "the table has no column 'nots'; its columns are note, outcome, patient"),
        (
            {"text": "outcome", "label": "note"},
            "'note' has 120 different values in 120 rows.*multi_label.*generate_until",
        ),
        ({"label": "note"}, "text and label are names of different columns"),
        ({"text": 1}, "text and label are names of different columns"),
        ({"label_descriptions": {"urgnt": "now"}}, "describes 'urgnt', which is no label. The labels are routine, urgent"),
        ({"labels": ["urgent"], "output_type": "choice"}, "output_type = 'choice'"),
        ({"name": "my task"}, "task = 'my task'"),
        ({"source": 3}, "a int is no table: give a path, a data frame"),
    ],
)
def test_what_a_table_cannot_give_is_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"source": rows(120), "text": "note", "label": "outcome"}
    with pytest.raises(ConfigError, match=message):
        Task.from_table(**arguments | changes)


def test_every_output_type_is_made_of_a_table(tmp_path: Path) -> None:
    found = [{"note": f"Gave {w} for rot.", "drug": w, "at": [[5, 7, "drug"]], "all": f"{w}|rot"} for w in ("ab", "cd")]
    kinds = {"span": "drug", "ner": "at", "multi_label": "all", "generate_until": "drug"}
    common: dict[str, Any] = {"text": "note", "separator": "|", "test_size": None}
    made = {kind: Task.from_table(found, label=label, output_type=kind, **common) for kind, label in kinds.items()}
    answers = {kind: examples_of(task)[0] for kind, task in made.items()}
    assert {kind: row[3] for kind, row in answers.items()} == {
        "span": "ab", "ner": "drug: ab", "multi_label": "ab; rot", "generate_until": "ab"
    }  # fmt: skip
    assert {row[0] for row in answers.values()} == {"train"}
    assert answers["multi_label"][1] == "Which labels fit the text, if any: ab; cd; rot?"
    assert answers["span"][1] == "Which words of the text give the drug?"


def test_several_columns_are_labels_of_their_own() -> None:
    found = [{"note": f"wing {n}", "rot": n & 1, "colic": bool(n & 2), "hay": "x"} for n in range(8)]
    task = Task.from_table(found, text="note", label=["rot", "colic"], test_size=None)
    assert (task.output_type, task.doc_to_choice, task.fixed_labels) == ("multi_label", ("rot", "colic"), True)
    assert [row[3] for row in examples_of(task)[:4]] == ["none", "rot", "colic", "rot; colic"]
    assert examples_of(task)[0][1] == "Which labels fit the text, if any: rot; colic?"
    with pytest.raises(ConfigError, match="the table has no column 'fever'"):
        Task.from_table(found, text="note", label=["rot", "fever"])
    with pytest.raises(BadData, match="row 1: column 'hay' of doc_to_target is neither 1 nor 0"):
        local_examples(Task.from_table(found, text="note", label=["rot", "hay"]))
    with pytest.raises(ConfigError, match="doc_to_choice, if it is given, the same columns"):
        Task.from_table(found, text="note", label=["rot", "colic"], labels=["rot"])
    empty = [row | {"rot": None, "colic": float("nan")} for row in found]
    assert {row[3] for row in examples_of(Task.from_table(empty, text="note", label=["rot", "colic"]))} == {"none"}


def test_a_task_is_written_to_a_file_that_says_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "tables" / "My notes.xlsx", rows())
    task = Task.from_csv(path, text=["note", "patient"], label="outcome", label_descriptions={"urgent": "today"}, query="Now?")
    task.save(tmp_path / "tasks" / "own.yaml")
    text = (tmp_path / "tasks" / "own.yaml").read_text()
    assert text.startswith("task: My_notes\ndataset_path: xlsx\ndataset_kwargs:\n  data_files: ../tables/My notes.xlsx\n")
    assert not {"folder", "title", "fixed_labels", "task_type", "rows_digest"} & set(yaml.safe_load(text))
    again = load_task(tmp_path / "tasks" / "own.yaml")
    assert examples_of(again) == examples_of(task)
    assert (again.fixed_labels, again.metric, again.title) == (True, "accuracy", "My_notes")
    with pytest.raises(StafError, match=r"own.yaml exists already. Name another file, or give overwrite=True"):
        task.model_copy(update={"doc_to_text": "Later?"}).save(tmp_path / "tasks" / "own.yaml")
    assert (tmp_path / "tasks" / "own.yaml").read_text() == text
    task.model_copy(update={"doc_to_text": "Later?"}).save(tmp_path / "tasks" / "own.yaml", overwrite=True)
    assert "Later?" in (tmp_path / "tasks" / "own.yaml").read_text()
    assert load_task_of(builtin_tasks()["pubmedqa"], tmp_path) == builtin_tasks()["pubmedqa"]


def load_task_of(task: Task, folder: Path) -> Task:
    task.save(folder / "builtin.yaml")
    return load_task(folder / "builtin.yaml").model_copy(update={"folder": None})


def test_a_frame_with_empty_cells_has_the_labels_of_its_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "scores.csv"
    path.write_text("note,score\none,1\ntwo,\nthree,2\n,2\nfive,1\nsix,2\n")
    made = (
        Task.from_pandas(pandas.read_csv(path), text="note", label="score", name="scores"),
        Task.from_csv(path, text="note", label="score"),
    )
    assert made[0].doc_to_choice == made[1].doc_to_choice == ("1", "2")
    assert examples_of(made[0]) == examples_of(made[1])
