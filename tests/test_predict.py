"""Predictions with only a router: no data of its task, three formats, resumed, refused where they do not belong together."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Interrupted, make_examples
from pydantic import TypeAdapter

from staf.data.task import Task
from staf.errors import BadData, ConfigError, MissingData, StafError
from staf.evaluate.settings import EvaluationSettings
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.predict import predict_file
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import TaskPrompt, save_router
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


@pytest.fixture
def made(base: Base, experts: ExpertSet, tmp_path: Path) -> dict[str, Any]:
    """Folders of a router and its experts, and a context without any data."""
    write_set(tmp_path / "experts", experts.experts)
    router = adapt_router(Mixture(base, experts), "colour", make_examples(8, "adaptation"), RouterRecipe(epochs=1))
    save_router(tmp_path / "router", replace(router, record={**router.record, "run": "r1"}))
    context = Context(str(base.folder), tmp_path, tmp_path / "runs", dtype="float32")
    return {"context": context, "router": tmp_path / "router", "experts": tmp_path / "experts"}


def answers(made: dict[str, Any], file: Path, out: Path, **more: Any) -> int:
    return predict_file(made["context"], file, out, router=made["router"], experts=made["experts"], **more)


def test_the_three_formats_hold_the_same_answers(made: dict[str, Any], tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"id": f"n{i}", "context": context} for i, context in enumerate(CONTEXTS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "in.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["context", "id"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        assert answers(made, tmp_path / f"in.{kind}", tmp_path / f"out.{kind}") == 5
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=0.01) for row in found)
    with (tmp_path / "out.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["answer"] for row in table] == [row["answer"] for row in found]
    assert float(table[0]["probability of blue"]) == found[0]["probabilities"]["blue"]
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["answer"].to_pylist() == [row["answer"] for row in found]
    assert answers(made, tmp_path / "in.csv", tmp_path / "out.csv") == 5  # finished: nothing is loaded or written again
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_it_resumes_and_refuses_another_input_router_or_settings(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"context": context}) + "\n" for context in CONTEXTS))
    answers(made, file, tmp_path / "complete.jsonl")
    batches = Interrupted(monkeypatch, size=2, at=2).batches
    with pytest.raises(KeyboardInterrupt):
        answers(made, file, out)
    assert not out.exists()
    partial = tmp_path / "out.jsonl.partial.jsonl"
    assert partial.stat().st_mode & 0o077 == 0
    partial.write_bytes(partial.read_bytes() + b'{"id": "in.js')  # stopped in the middle of a line
    answers(made, file, out)
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]  # the first two are not answered again
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
        ("", "no lines to answer"), ("\n\n", "no lines to answer"), ('{"context": 3}\n', 'line 1: "context"'),
        ('{"context": "owl \\ud83d pox"}\n', "line 1: a text holds half of a surrogate pair"), ("{\n", "line 1"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(BadData, match=message):
            answers(made, file, out)
        file.unlink()
    file.write_text('{"context": "a"}\n\n')  # a blank last line
    with pytest.raises(ConfigError, match=r"must end in \.jsonl, \.csv, \.parquet"):
        answers(made, file, tmp_path / "out.tsv")
    with written_elsewhere(out), pytest.raises(StafError, match="is being written by process"):
        answers(made, file, out)
    with pytest.raises(ConfigError, match="its query takes"):
        answers(made, file, out, settings=EvaluationSettings(max_length=16))
    assert set(tmp_path.iterdir()) == before | {file}
    assert answers(made, file, out) == 1


def test_no_cell_is_a_formula_for_a_spreadsheet(made: dict[str, Any], tmp_path: Path) -> None:
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text('\ufeffid,context\n"=HYPERLINK(""x"")",a\n-2+3,b\n7,c\n')
    answers(made, file, out)
    with out.open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ['\'=HYPERLINK("x")', "'-2+3", "7"]
