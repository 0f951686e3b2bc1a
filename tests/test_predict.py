"""Predictions with only a router: no data of its task, any table, resumed, refused where they do not belong together."""

from __future__ import annotations

import csv
import gzip
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from conftest import Interrupted, make_examples, random_expert
from pydantic import TypeAdapter

from staf.data.example import Example
from staf.data.row_templates import RowTemplates
from staf.data.task import Task
from staf.errors import BadData, ConfigError, ExpertMismatch, MissingData, StafError
from staf.evaluate.answer import Answerer
from staf.evaluate.settings import EvaluationSettings
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet, load_experts, save_expert
from staf.lm.base import Base
from staf.predict import answer_of, answer_rows, example_of, predict_file
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import TaskPrompt, load_router, save_router
from staf.stages.adaptation import adapt_stage
from staf.stages.context import Context

CONTEXTS = [f"thing {i}" for i in range(5)]


@contextmanager
def written_elsewhere(target: Path) -> Iterator[None]:
    """Another process writes `target` within the block."""
    code = "import pathlib, sys; from staf.io import locked\nwith locked(pathlib.Path(sys.argv[1])): print(flush=True), input()"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate(b"\n")


TRIAGE = RowTemplates(
    task="colour", doc_to_text="Name the colour: blue, green or red.", doc_to_context="{{ thing }}",
    doc_to_choice=("blue", "green", "red"),
)  # fmt: skip


@pytest.fixture
def made(base: Base, experts: ExpertSet, tmp_path: Path) -> dict[str, Any]:
    """Folders of a router, whose task has a table with the column "thing", and its experts; a context without any data."""
    write_set(tmp_path / "experts", experts.experts)
    loaded = load_experts(tmp_path / "experts")
    router = adapt_router(Mixture(base, loaded), "colour", make_examples(8, "adaptation"), RouterRecipe(epochs=1))
    router = replace(router, record={**router.record, "run": "r1"}, prompt=replace(router.prompt, templates=TRIAGE))
    save_router(tmp_path / "router", router)
    context = Context(str(base.folder), tmp_path, tmp_path / "runs", dtype="float32")
    return {"context": context, "router": tmp_path / "router", "experts": tmp_path / "experts"}


def answers(made: dict[str, Any], file: Path, out: Path, **more: Any) -> int:
    return predict_file(made["context"], file, out, router=made["router"], **more).rows


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The same rows in every format that is read."""
    files = {suffix: folder / f"in.{suffix}" for suffix in ("jsonl", "json", "csv", "tsv", "parquet", "xlsx", "csv.gz")}
    files["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    files["json"].write_text(json.dumps(rows, indent=1))
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        with files[suffix].open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    files["csv.gz"].write_bytes(gzip.compress(files["csv"].read_bytes()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), files["parquet"])
    book = openpyxl.Workbook()
    assert book.active is not None
    for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        book.active.append(cells)
    book.save(files["xlsx"])
    return list(files.values())


def read_written(path: Path) -> list[dict[str, Any]]:
    """The rows of an output, as a spreadsheet or a table reader gives them."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))
    sheet = openpyxl.load_workbook(path).active
    assert sheet is not None
    names, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def test_every_format_that_is_read_or_written_holds_the_same_answers(made: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "thing": context, "a, b": 1} for i, context in enumerate(CONTEXTS)]
    for file in write_rows(tmp_path, rows):
        assert answers(made, file, tmp_path / f"{file.name}.jsonl") == 5
        found = written(tmp_path / f"{file.name}.jsonl")
        assert found == written(tmp_path / "in.jsonl.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=0.01) for row in found)
    for kind in ("csv", "parquet", "xlsx"):
        out = tmp_path / f"out.{kind}"
        assert answers(made, tmp_path / "in.csv", out) == 5
        assert out.stat().st_mode & 0o077 == 0
        table = read_written(out)
        assert [row["answer"] for row in table] == [row["answer"] for row in found]
        assert float(table[0]["probability of blue"]) == found[0]["probabilities"]["blue"]
    assert answers(made, tmp_path / "in.csv", tmp_path / "out.csv") == 5  # finished: nothing is loaded or written again
    assert not list(tmp_path.glob("*.partial.jsonl"))
    (tmp_path / "in.doc").write_text("owl")
    with pytest.raises(ConfigError, match=r"in\.doc: the name of a table ends in \.csv"):
        answers(made, tmp_path / "in.doc", tmp_path / "other.csv")


def test_the_router_knows_where_its_experts_are_and_they_can_be_moved_together(
    made: dict[str, Any], base: Base, tmp_path: Path
) -> None:
    file, experts = tmp_path / "in.csv", tmp_path / "moved" / "experts"
    file.write_text("thing,id\nowl,=1+1\n")
    answers(made, file, tmp_path / "first.jsonl")
    assert "experts_folder" in (made["router"] / "router.json").read_text()
    assert str(tmp_path) not in (made["router"] / "router.json").read_text()
    (tmp_path / "moved").mkdir()
    for name in ("router", "experts"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    made["router"] = tmp_path / "moved" / "router"
    save_expert(experts / "another", random_expert(base, "another", 7))  # the router keeps to the experts it knows
    answers(made, file, tmp_path / "second.jsonl")
    assert written(tmp_path / "first.jsonl") == written(tmp_path / "second.jsonl")
    experts.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingData, match=r"no experts in .*moved/experts, where those of the router for 'colour' were"):
        answers(made, file, tmp_path / "third.jsonl")
    answers(made, file, tmp_path / "third.jsonl", experts=tmp_path / "elsewhere")
    save_expert(tmp_path / "elsewhere" / "relation", random_expert(base, "relation", 9))
    with pytest.raises(ExpertMismatch, match="'relation' is another expert of that name"):
        answers(made, file, tmp_path / "fourth.jsonl", experts=tmp_path / "elsewhere")
    router = load_router(made["router"])
    save_router(made["router"], replace(router, experts_folder=None, prompt=replace(router.prompt, templates=None)))
    with pytest.raises(MissingData, match="does not say where its experts are: add --experts"):
        answers(made, file, tmp_path / "fourth.jsonl")


def test_a_router_of_an_earlier_version_takes_the_task_for_rows_of_its_table(made: dict[str, Any], tmp_path: Path) -> None:
    router, file = load_router(made["router"]), tmp_path / "in.jsonl"
    file.write_text('{"thing": "owl"}\n')
    answers(made, file, tmp_path / "first.jsonl")
    save_router(made["router"], replace(router, prompt=replace(router.prompt, templates=None)))
    task = Task.model_validate(
        {**TRIAGE.model_dump(), "dataset_path": "json", "dataset_kwargs": {"data_files": "x.json"}, "doc_to_target": "answer"}
    )
    with pytest.raises(BadData, match=r'row 1: "context" .text. is missing'):
        answers(made, file, tmp_path / "second.jsonl")
    answers(made, file, tmp_path / "second.jsonl", task=task)
    assert written(tmp_path / "first.jsonl") == written(tmp_path / "second.jsonl")


def test_below_the_threshold_nothing_is_answered(made: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("thing\n" + "\n".join(CONTEXTS))
    answers(made, file, tmp_path / "all.jsonl")
    plain = written(tmp_path / "all.jsonl")
    middle = sorted(max(row["probabilities"].values()) for row in plain)[2]
    answers(made, file, tmp_path / "some.jsonl", threshold=middle - 0.0001)
    found = written(tmp_path / "some.jsonl")
    assert {row["abstained"] for row in found} == {True, False}
    for row, before in zip(found, plain, strict=True):
        assert row["abstained"] == (max(before["probabilities"].values()) < middle)
        assert row["answer"] == (None if row["abstained"] else before["answer"])
        assert row["probabilities"] == before["probabilities"]
    again = predict_file(made["context"], file, tmp_path / "some.jsonl", router=made["router"], threshold=middle - 0.0001)
    assert again == (5, sum(row["abstained"] for row in found))  # it is complete, and nothing is computed again
    for kind in ("csv", "parquet", "xlsx"):
        answers(made, file, tmp_path / f"none.{kind}", threshold=1.0)
        assert [row["answer"] or "" for row in read_written(tmp_path / f"none.{kind}")] == [""] * 5
        assert {str(row["abstained"]).lower() for row in read_written(tmp_path / f"none.{kind}")} == {"true"}
    with pytest.raises(ConfigError, match=r"threshold 1.0 there, None now"):
        answers(made, file, tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="an answer would depend on the other rows"):
        answers(made, file, tmp_path / "y.csv", settings=EvaluationSettings(scoring="calibrated"))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        answers(made, file, tmp_path / "y.csv", threshold=2)


def test_several_labels_are_as_probable_as_the_least_probable_one() -> None:
    example = replace(make_examples(1)[0], output_type="multi_label", labels=("a", "b", "c"))
    logits = [math.log(p / (1 - p)) for p in (0.9, 0.7, 0.2)]
    for answer, threshold, expected in (
        ([0, 1], 0.69, ["a", "b"]), ([0, 1], 0.71, None), ([0], 0.89, ["a"]), ([], 0.09, []), ([], 0.11, None),
    ):  # fmt: skip
        found = answer_of(example, {"answer": answer, "scores": logits}, threshold)
        assert found["answer"] == expected
        assert found["abstained"] == (expected is None)


def test_bad_rows_are_named_and_refused_or_skipped_and_listed(made: dict[str, Any], tmp_path: Path) -> None:
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text("id,thing\n1,owl\n2\n3,\n4,fox\n5,a,b\n6,\n7,\n8,\n")
    with pytest.raises(BadData) as caught:
        answers(made, file, out)
    assert str(caught.value) == (
        f"{file}: 6 of 8 rows do not fit.\n  {file}, row 2: 2 cells are expected, found 1.\n  {file}, row 3: the text is "
        f"empty\n  {file}, row 5: 2 cells are expected, found 3.\n  {file}, row 6: the text is empty\n  {file}, row 7: the "
        "text is empty\n  and 1 more\nFix them, or leave them out with --skip-invalid."
    )
    assert not list(tmp_path.glob("out.csv*"))
    assert answers(made, file, out, skip_invalid=True) == 2
    assert [(row["row"], row["id"]) for row in read_written(out)] == [("1", "1"), ("4", "4")]
    skipped = json.loads((tmp_path / "out.csv.made-by.json").read_text())["skipped"]
    assert len(skipped) == 6
    assert skipped[1] == f"{file}, row 3: the text is empty"
    (tmp_path / "in.jsonl").write_text('{"thing": "owl"}\n\n{"thing": 3\n{"thing": ""}\n')  # a blank line is no row
    with pytest.raises(BadData, match=r"row 2: not valid JSON(.|\n)*row 3: the text is empty"):
        answers(made, tmp_path / "in.jsonl", tmp_path / "third.csv")
    file.write_text("id,note\n1,owl\n2,fox\n")
    with pytest.raises(BadData, match=r"2 of 2 rows(.|\n)*the columns are id, note(.|\n)*Is it a table of this task"):
        answers(made, file, tmp_path / "none.csv", skip_invalid=True)


def test_rows_bring_their_own_query_and_labels_unless_the_table_has_such_columns(made: dict[str, Any], tmp_path: Path) -> None:
    own = {"query": "Is it red?", "labels": ["yes", "no"]}
    prompt = load_router(made["router"]).prompt
    for row in ({"thing": "owl"}, {"context": "owl"}):
        found = example_of(prompt, "row 1", {**row, **own})
        assert (found.context, found.query, found.labels) == ("owl", "Is it red?", ("yes", "no"))
        assert example_of(prompt, "row 1", row) == example_of(prompt, "row 1", "owl")
    assert example_of(prompt, "row 1", {"thing": "owl", "query": "Which?", "labels": "a; b"}).labels == ("a", "b")
    table = replace(prompt, templates=TRIAGE.model_copy(update={"doc_to_text": "query", "doc_to_choice": "labels"}))
    found = example_of(table, "row 1", {"thing": "owl", "query": "Which?", "labels": "['a', 'b; c']"})
    assert (found.query, found.labels) == ("Which?", ("a", "b; c"))
    with pytest.raises(BadData, match='row 2: "query" must be text'):
        example_of(prompt, "row 2", {"context": "owl", "query": 3})


def test_answers_in_memory_are_those_of_a_file(made: dict[str, Any], tmp_path: Path) -> None:
    router = load_router(made["router"])
    experts = router.load_experts()
    found = answer_rows(made["context"], router, experts, [CONTEXTS[0], {"thing": CONTEXTS[1]}, {"context": CONTEXTS[2]}])
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"context": context}) + "\n" for context in CONTEXTS[:3]))
    answers(made, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    for row, other in zip(found, written(tmp_path / "out.jsonl"), strict=True):
        assert row["answer"] == other["answer"] == next(iter(row["probabilities"]))
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)
    assert answer_rows(made["context"], router, experts, []) == []
    assert answer_rows(made["context"], router, experts, ["owl"], threshold=1.0)[0]["answer"] is None
    with pytest.raises(BadData, match=r"row 2: .*the columns are note; the task reads thing"):
        answer_rows(made["context"], router, experts, ["owl", {"note": "fox"}])
    with pytest.raises(ExpertMismatch):
        answer_rows(made["context"], router, ExpertSet(experts.experts[:1]), ["owl"])


def test_it_resumes_and_refuses_another_input_router_or_settings(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"context": context}) + "\n" for context in CONTEXTS))
    answers(made, file, tmp_path / "complete.jsonl")
    monkeypatch.setattr("staf.predict.BLOCK", 3)
    batches = Interrupted(monkeypatch, size=2, at=2).batches
    with pytest.raises(KeyboardInterrupt):
        answers(made, file, out)
    assert not out.exists()
    partial = tmp_path / "out.jsonl.partial.jsonl"
    assert partial.stat().st_mode & 0o077 == 0
    partial.write_bytes(partial.read_bytes() + b'{"id": "in.js')  # stopped in the middle of a line
    answers(made, file, out)
    assert [len(batch) for batch in batches] == [2, 1, 1, 2]  # the first two are not answered again
    assert out.read_text() == (tmp_path / "complete.jsonl").read_text()
    monkeypatch.setattr(Context, "mixture", None)  # what is refused loads no base
    note = tmp_path / "out.jsonl.made-by.json"
    note.write_text(note.read_text().replace("in.jsonl", "first.jsonl"))
    file.write_text(json.dumps({"context": "another"}) + "\n")
    with pytest.raises(
        ConfigError, match=r"other answers: input first.jsonl \(sha256 \w+\) there, in.jsonl \(sha256 \w+\) now"
    ):
        answers(made, file, out)
    with pytest.raises(ConfigError, match="is of the task 'colour', not of 'other'"):
        answers(made, file, out, task=Task(task="other", task_type="colour"))
    with pytest.raises(MissingData, match="--router, or --task"):
        predict_file(made["context"], file, out)


def test_own_labels_get_their_own_query_and_none_that_fit_are_refused() -> None:
    examples = [replace(e, query="Choose: blue; green; red.") for e in make_examples(3)]
    prompt = TaskPrompt.of(examples, 128)
    assert TypeAdapter(TaskPrompt).validate_json(TypeAdapter(TaskPrompt).dump_json(prompt)) == prompt
    assert prompt.example("a", "sky").query == "Choose: blue; green; red."
    assert prompt.example("a", "sky", labels=["blue", "grey"]).query == "Choose: blue; grey."
    with pytest.raises(BadData, match='none of its "labels" is one of the router'):
        prompt.example("line 3", "sky", labels=["yes", "no"])
    assert prompt.example("a", "sky", "Is it blue?", ["yes", "no"]).labels == ("yes", "no")
    differing = TaskPrompt.of([examples[0], replace(examples[1], labels=("a", "b"), query="Choose: a; b.")], 128)
    assert differing.example("a", "sky", labels=["x", "y"]).query == "Choose: x; y."
    with pytest.raises(BadData, match="labels differ by example"):
        differing.example("line 2", "sky")
    fixed = TaskPrompt.of(make_examples(3), 128)  # its query lists labels in other words
    with pytest.raises(BadData, match="does not list labels"):
        fixed.example("line 1", "sky", labels=["blue", "grey"])


def test_a_file_that_is_not_answered_leaves_nothing_and_one_that_is_written_is_not_written_twice(
    made: dict[str, Any], tmp_path: Path
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    before = set(tmp_path.iterdir())
    for content, message in (
        ("", "no rows to answer"), ("\n\n", "no rows to answer"), ('{"context": 3}\n', 'row 1: "context"'),
        ('{"context": "owl \\ud83d pox"}\n', "row 1: a text holds half of a surrogate pair"), ("{\n", "row 1"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(BadData, match=message):
            answers(made, file, out)
        file.unlink()
    file.write_text('{"context": "a"}\n\n')  # a blank last line
    with pytest.raises(ConfigError, match=r"must end in \.jsonl, \.csv, \.parquet, \.xlsx"):
        answers(made, file, tmp_path / "out.tsv")
    with written_elsewhere(out), pytest.raises(StafError, match="is being written by process"):
        answers(made, file, out)
    with pytest.raises(ConfigError, match="its query takes"):
        answers(made, file, out, settings=EvaluationSettings(max_length=16))
    assert set(tmp_path.iterdir()) == before | {file}
    assert answers(made, file, out) == 1


@pytest.mark.parametrize(("columns", "found"), [
    (["patient_id", "id"], "b"), (["Note_ID", "patient_id"], "a"), (["covid", "group"], 1), (["note_id", "x"], "a"),
])  # fmt: skip
def test_a_row_is_named_by_its_id_column(made: dict[str, Any], tmp_path: Path, columns: list[str], found: str | int) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"thing": "owl", columns[0]: "a", columns[1]: "b"}))
    answers(made, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert written(tmp_path / "out.jsonl")[0]["id"] == found


def test_no_cell_is_a_formula_for_a_spreadsheet(made: dict[str, Any], tmp_path: Path) -> None:
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text('\ufeffid,context\n"=HYPERLINK(""x"")",a\n-2+3,b\n7,c\n')
    answers(made, file, out)
    assert [row["id"] for row in read_written(out)] == ['\'=HYPERLINK("x")', "'-2+3", "7"]
    for kind in ("xlsx", "parquet"):
        answers(made, file, tmp_path / f"out.{kind}")
        assert [row["id"] for row in read_written(tmp_path / f"out.{kind}")] == ['=HYPERLINK("x")', "-2+3", "7"]
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert sheet is not None
    assert {cell.data_type for row in sheet.iter_rows() for cell in row[1:3]} == {"s"}


def test_a_router_adapted_to_a_table_answers_another_one_with_nothing_else(
    base: Base, experts: ExpertSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "experts", experts.experts)
    rows = [f"{example.context},{example.answer}" for example in make_examples(18)]
    (tmp_path / "table.csv").write_text("\n".join(["thing,colour", *rows]))
    (tmp_path / "colour.yaml").write_text(
        "task: colour\ndataset_path: csv\ndataset_kwargs: {data_files: table.csv}\ntest_split: {size: 0.3}\n"
        "doc_to_text: Which colour?\ndoc_to_context: '{{thing}}!'\ndoc_to_target: colour\ndoc_to_choice: [blue, green, red]\n"
    )
    context = Context(str(base.folder), None, tmp_path / "runs", dtype="float32")
    loaded = load_experts(tmp_path / "experts")
    task = context.find_task(str(tmp_path / "colour.yaml"))
    adapt_stage(context, task, loaded, RouterRecipe(epochs=1), tmp_path / "router")
    for name in ("table.csv", "colour.yaml"):
        (tmp_path / name).unlink()
    (tmp_path / "new.tsv").write_text("id\tthing\n7\towl\n")
    asked = list[Example]()
    real = Answerer.scores

    def noted(self: Answerer, examples: list[Example], *more: Any) -> list[np.ndarray]:
        asked.extend(examples)
        return real(self, examples, *more)

    monkeypatch.setattr(Answerer, "scores", noted)
    elsewhere = Context(None, None, tmp_path / "other", dtype="float32")
    assert predict_file(elsewhere, tmp_path / "new.tsv", tmp_path / "out.csv", router=tmp_path / "router").rows == 1
    assert [(e.query, e.context, e.labels) for e in asked] == [("Which colour?", "owl!", ("blue", "green", "red"))]
    (row,) = read_written(tmp_path / "out.csv")
    assert row["id"] == "7"
    assert row["answer"] in {"blue", "green", "red"}
