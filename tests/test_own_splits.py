"""Splits of own tables: rows that are left out are counted by reason, groups stay together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_own_task import command, rows, write

from staf.data.local import local_examples
from staf.data.read_report import ReadReport
from staf.data.store import DataStore
from staf.data.task import Task, load_task
from staf.errors import BadData

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
    assert command("tasks", "validate", path, "--base", tiny_folder, "--data-dir", own)["left_out"] == expected
