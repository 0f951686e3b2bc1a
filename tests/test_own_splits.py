"""Splits of own tables: rows that are left out are counted by reason, groups stay together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_own_task import command, rows, write
from typer.testing import CliRunner

from staf.cli import app
from staf.data.local import SHARED, local_examples
from staf.data.read_report import ReadReport
from staf.data.store import DataStore
from staf.data.task import Task, load_task
from staf.errors import BadData, ConfigError

LONG = " ".join(f"word{n}" for n in range(200)) + " {}"


def counted(task: Task) -> tuple[Counter[str], dict[str, int]]:
    report = ReadReport()
    found = local_examples(task, report)
    return Counter(e.split for e in found), dict(report.skipped)


def table(notes: list[str], **columns: list[str]) -> list[dict[str, str]]:
    return [
        {"note": note, "outcome": ("urgent", "routine")[n % 2], **{name: values[n] for name, values in columns.items()}}
        for n, note in enumerate(notes)
    ]


def test_rows_that_share_a_text_stay_in_one_split_so_that_none_is_left_out() -> None:
    notes = ["fever", "limping", "cough"] * 10 + [LONG.format(day) for day in ("Monday", "Tuesday", "Wednesday")]
    notes += [f"beast {n}" for n in range(67)]
    task = Task.from_table(table(notes), text="note", label="outcome")
    assert counted(task) == ({"test": 30, "adaptation": 70}, {})
    splits: dict[str, set[str]] = {}
    for example in local_examples(task):
        splits.setdefault(example.context[:12], set()).add(example.split)
    assert all(len(splits[note[:12]]) == 1 for note in ("fever", "limping", "cough", LONG))


def test_where_a_text_is_everywhere_its_rows_outside_the_test_are_left_out_and_counted_or_kept() -> None:
    notes, patients = ["fever"] * 90 + ["cough"] * 10, [f"p{n % 20}" for n in range(100)]
    common: dict[str, Any] = {"text": "note", "label": "outcome", "group": "patient"}
    splits, left_out = counted(Task.from_table(table(notes, patient=patients), **common))
    reason = "its group or text, or one almost the same, is in another split"
    assert (splits["test"], left_out) == (30, {reason: 70 - splits["adaptation"]})
    kept = Task.from_table(table(notes, patient=patients), **common, keep_overlap=True)
    assert counted(kept) == ({"test": 30, "adaptation": 70}, {})
    groups = {split: {e.group for e in local_examples(kept) if e.split == split} for split in ("test", "adaptation")}
    assert groups["test"].isdisjoint(groups["adaptation"])


def test_named_splits_keep_their_test_and_a_group_is_never_torn(tmp_path: Path) -> None:
    parts = {"train": [("fever", "a"), ("cough", "b"), ("colic", "c")], "test": [("fever", "d"), ("rot", "c"), ("", "e")]}
    for split, found in parts.items():
        lines = [json.dumps({"note": note, "outcome": "urgent", "patient": patient}) for note, patient in found]
        (tmp_path / f"{split}.json").write_text("\n".join(lines))
    files = {split: f"{split}.json" for split in parts}
    keys: dict[str, Any] = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    shared = "its group or text, or one almost the same, is in another split"
    task = load_task(write(tmp_path, rows(), **keys))
    assert counted(task) == ({"test": 2, "adaptation": 1}, {"the text is empty": 1, shared: 2})
    kept = load_task(write(tmp_path, rows(), **keys, keep_overlap=True))
    assert counted(kept) == ({"test": 2, "adaptation": 2}, {"the text is empty": 1, shared: 1})


def test_a_test_split_that_cannot_be_drawn_is_refused() -> None:
    found = table([f"beast {n}" for n in range(10)], patient=["p1"] * 10)
    with pytest.raises(BadData, match="no test split of 3 of 10 rows can be drawn: each group has more"):
        local_examples(Task.from_table(found, text="note", label="outcome", group="patient"))


@pytest.mark.parametrize("size", [30, 0, 1, -0.5, "30%", True])
def test_a_share_that_is_none_is_answered_with_what_is_expected(tmp_path: Path, size: Any) -> None:
    expected = (
        r"test_split = .*: the name of a split, or \{size: 0.3\} is expected: a share of the rows, a number between 0 and 1"
    )
    for given in (size, {"size": size}) if not isinstance(size, str) else ({"size": size},):
        with pytest.raises(ConfigError, match=f"1 problem.*\n.*{expected}"):
            load_task(write(tmp_path, rows(), test_split=given))
    with pytest.raises(ConfigError, match=expected):
        Task.from_table(rows(), text="note", label="outcome", test_size=size)


def test_the_rows_to_test_on_follow_from_the_name_of_the_task_and_its_groups() -> None:
    def tested(found: list[dict[str, str]], **keys: Any) -> set[str]:
        task = Task.from_table(found, text="note", label="outcome", **keys)
        return {e.context for e in local_examples(task) if e.split == "test"}

    found, by_patient = rows(60), {"group": "patient", "name": "a"}
    assert tested(found, **by_patient) == tested(found[::-1], **by_patient) != tested(found, group="patient", name="b")
    assert tested(found, name="a") != tested(found[::-1], name="a")  # without a group column rows count by number


def test_what_is_left_out_is_said_by_the_command_and_once_by_a_store(tmp_path: Path, own: Path, tiny_folder: Path) -> None:
    found = rows(30)
    found[3]["outcome"] = found[4]["note"] = ""
    path = write(tmp_path, found)
    expected = {"it has no answer": 1, "the text is empty": 1}
    said: list[str] = []
    store = DataStore(own, log=said.append)
    assert store.left_out(load_task(path)) == expected
    assert len(store.local(load_task(path))) == 28
    assert said == ["triage: rows left out: 1 (it has no answer); 1 (the text is empty)"]
    validated = command("tasks", "validate", path, "--base", tiny_folder, "--data-dir", own)
    assert validated["left_out"] == expected
    assert validated["left_out_rows"] == {"it has no answer": ["4"], "the text is empty": ["5"]}


def test_rows_that_are_left_out_are_listed_by_number_and_file_and_never_by_their_text(
    tmp_path: Path, own: Path, tiny_folder: Path
) -> None:
    parts = {"train": ["fever", "", *["hoof rot"] * 14], "test": ["hoof rot", "fever", "cough"]}
    for split, notes in parts.items():
        lines = [json.dumps({"note": note, "outcome": "urgent", "patient": f"{split}{n}"}) for n, note in enumerate(notes)]
        (tmp_path / f"{split}.json").write_text("\n".join(lines))
    files = {split: f"{split}.json" for split in parts}
    path = write(tmp_path, rows(), dataset_path="json", dataset_kwargs={"data_files": files}, test_split="test")
    report = ReadReport()
    local_examples(load_task(path), report)
    assert report.rows["the text is empty"] == ["train.json 2"]
    assert report.rows[SHARED] == ["train.json 1", *[f"train.json {n}" for n in range(3, 17)]]
    extra = {"note": "cow", "outcome": "urgent", "patient": "p"}
    (tmp_path / "train.json").write_text((tmp_path / "train.json").read_text() + "\n" + json.dumps(extra))
    arguments = ["tasks", "validate", str(path), "--base", str(tiny_folder), "--data-dir", str(own)]
    printed = CliRunner().invoke(app, arguments).stdout
    assert "1 left out: the text is empty: data row train.json 2\n" in printed
    assert f"15 left out: {SHARED}: data rows train.json 1, train.json 3, " in printed
    assert "train.json 11 and 5 more\n" in printed
    assert not any(word in printed for word in ("fever", "hoof"))
