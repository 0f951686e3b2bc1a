"""staf init: from a table to a task file, and what it says of the table; staf tasks validate and show on that file."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections import Counter
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from test_command_inputs import mutations
from test_own_tables import save
from typer.testing import CliRunner

from staf.cli import app
from staf.data.example import OUTPUT_TYPES
from staf.data.local import local_examples
from staf.data.table_profile import constant_scores, label_counts, looks_headless, profile_columns, profile_table
from staf.data.task import Task, find_task, load_task
from staf.errors import ConfigError, StafError

WORDS = ("hoof", "wing", "tail", "horn", "beak", "mane", "claw", "swollen", "warm", "lame", "fed", "walks", "since", "barn")
PROBLEMS = ("broken horn", "colic", "lameness")


def note(number: int, length: int = 20) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(WORDS) for _ in range(length)) + f" beast {number}"


def two_labels(count: int = 60) -> list[dict[str, Any]]:
    return [{"note": note(n), "outcome": "urgent" if n % 3 == 0 else "routine"} for n in range(count)]


def five_labels(count: int = 90) -> list[dict[str, Any]]:
    return [
        {
            "patient_id": f"p{n // 3}",
            "age": str(n % 70),
            "seen": f"2024-01-{n % 28 + 1:02}",
            "history": note(n),
            "complaint": note(n, 8),
            "level": f"level {n % 5}",
        }
        for n in range(count)
    ]


def several_labels(count: int = 60) -> list[dict[str, Any]]:
    return [{"note": note(n), "problems": "; ".join(p for i, p in enumerate(PROBLEMS) if n >> i & 1)} for n in range(count)]


def entities(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"text": f"{note(n)} took oat bran", "entities": [[len(note(n)) + 6, len(note(n)) + 14, "feed"]]} for n in range(count)
    ]


@pytest.fixture
def init(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in a folder of its own and returns what it printed: JSON, or where it failed its message."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0, as_json: bool = True, command: tuple[str, ...] = ("init",)) -> Any:
        given = [*command, *map(str, arguments), "--base", str(tiny_folder), *(["--json"] if as_json else [])]
        result = CliRunner().invoke(app, given)
        assert (result.exit_code == 0) == (code == 0), result.output or result.exception
        return str(result.exception) if code else json.loads(result.stdout) if as_json else result.stdout

    return run


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon.csv", "json", "jsonl", "parquet", "xlsx"])
def test_a_table_with_two_labels_becomes_a_task(tmp_path: Path, init: Any, kind: str) -> None:
    found = init(save(tmp_path / f"notes.{kind}", two_labels()), "--text", "note", "--label", "outcome")
    task = load_task(tmp_path / "notes.yaml")
    assert (task.output_type, task.doc_to_choice, task.label_descriptions) == (
        "multiple_choice", ("routine", "urgent"), {"routine": "", "urgent": ""},
    )  # fmt: skip
    splits = Counter(example.split for example in local_examples(task))
    assert found["splits"] == splits == {"adaptation": 42, "test": 18}
    assert found["labels"] == {"routine": 40, "urgent": 20}
    assert found["constant"]["accuracy"] == pytest.approx(2 / 3)
    assert found["tokens"]["measured"] == 60
    assert found["left_out"] == {}


def test_five_labels_with_groups_and_two_texts(tmp_path: Path, init: Any) -> None:
    table = save(tmp_path / "visits.csv", five_labels())
    options = ["--text", "history", "--text", "complaint", "--label", "level"]
    found = init(table, *options)
    assert found["groups"] == ["patient_id"]
    text = (tmp_path / "visits.yaml").read_text()
    assert "# group_column: patient_id" in text
    assert load_task(tmp_path / "visits.yaml").group_column is None
    (tmp_path / "visits.yaml").write_text(text.replace("# group_column", "group_column"))
    assert load_task(tmp_path / "visits.yaml").group_column == "patient_id"

    found = init(table, *options, "--group", "patient_id", "--out", tmp_path / "tasks" / "triage.yaml")
    task = load_task(tmp_path / "tasks" / "triage.yaml")
    assert (task.name, task.group_column, task.doc_to_context) == ("triage", "patient_id", ("history", "complaint"))
    by_split = {split: {e.group for e in local_examples(task) if e.split == split} for split in ("test", "adaptation")}
    assert by_split["test"].isdisjoint(by_split["adaptation"])
    assert (found["groups"], found["shared"]) == ([], {"history": 0, "complaint": 0})


def test_several_labels_in_a_cell_or_a_list(tmp_path: Path, init: Any) -> None:
    table = save(tmp_path / "beasts.csv", several_labels())
    options = ["--text", "note", "--label", "problems"]
    assert "seem to hold several labels. If so, add --separator ';'" in init(table, *options, code=1)
    found = init(table, *options, "--separator", ";")
    assert found["labels"] == dict.fromkeys(PROBLEMS, 30) | {"lameness": 28}
    assert found["constant"]["micro_f1"] == pytest.approx(2 * 88 / (3 * 60 + 88))
    rows = [{**row, "problems": [p for p in row["problems"].split("; ") if p]} for row in several_labels()]
    lists = init(save(tmp_path / "lists.jsonl", rows), *options)
    assert lists["labels"] == found["labels"]
    tasks = [load_task(tmp_path / f"{name}.yaml") for name in ("beasts", "lists")]
    answers = [[example.answer for example in local_examples(task)] for task in tasks]
    assert answers[0] == answers[1]
    assert answers[0].count("none") == 8


def test_entities_as_offsets_words_of_the_text_and_free_text(tmp_path: Path, init: Any) -> None:
    found = init(save(tmp_path / "feeds.jsonl", entities()), "--text", "text", "--label", "entities", "--type", "ner")
    assert (found["labels"], found["constant"]) == ({"feed": 40}, {})
    assert {example.answer for example in local_examples(load_task(tmp_path / "feeds.yaml"))} == {"feed: oat bran"}
    rows = [{"note": note(n), "question": f"Which beast is {n}?", "answer": f"beast {n}"} for n in range(40)]
    for output_type in ("span", "generate_until"):
        out = tmp_path / f"{output_type}.yaml"
        options = ["--text", "note", "--label", "answer", "--query", "question", "--type", output_type, "--out", out]
        assert init(save(tmp_path / "asked.csv", rows), *options)["labels"] == {}
        first = local_examples(load_task(out))[0]
        assert (first.query, first.answer) == ("Which beast is 0?", "beast 0")
        validated = init(out, command=("tasks", "validate"))
        assert (validated["labels"], validated["constant"]) == ({}, {})
    assert init("feeds.yaml", command=("tasks", "validate"))["labels"] == {"feed": 28}


def test_without_columns_they_are_printed_with_a_command_and_nothing_is_guessed(tmp_path: Path, init: Any) -> None:
    table = save(tmp_path / "visits.csv", five_labels())
    command = f"staf init {table} --text history --label level --group patient_id"
    assert init(table)["command"] == command
    assert command in init(table, as_json=False)
    assert "a folder without .ann files. Give the file of one table" in init(".", code=1)
    assert ".conll, .iob, .iob2, .bio. Rename it, or write the task file yourself" in init(
        save(tmp_path / "a.txt", five_labels()), code=1
    )
    table = save(tmp_path / "beasts.csv", several_labels())
    assert f"staf init {table} --text note --label problems --separator ';'" in init(table, "--text", "note", code=1)
    assert not list(tmp_path.glob("*.yaml"))
    shown = {column.name: column.role for column in profile_columns(five_labels())}
    assert shown == {"patient_id": "group", "age": "", "seen": "", "history": "text", "complaint": "text", "level": "label"}


@pytest.mark.parametrize(
    ("cells", "output_type"),
    [
        ([[0, 4, "feed"]], "ner"), ({"entities": [[0, 4, "feed"]]}, "ner"), ([{"start": 0, "end": 4, "label": "feed"}], "ner"),
        ('[[0, 4, "feed"]]', "ner"), (["colic", "lameness"], "multi_label"), ('["colic", "lameness"]', "multi_label"),
    ],
)  # fmt: skip
def test_the_command_that_is_proposed_for_lists_works(tmp_path: Path, init: Any, cells: Any, output_type: str) -> None:
    empty: Any = "[]" if isinstance(cells, str) else []
    rows = [{"text": note(n), "found": cells if n % 4 else empty, "doc": f"d{n // 3}"} for n in range(40)]
    table = save(tmp_path / "lists.jsonl", rows)
    command = shlex.split(init(table)["command"])
    assert command[3:] == ["--text", "text", "--label", "found", "--type", output_type, "--group", "doc"]
    init(*command[2:])
    assert load_task(tmp_path / "lists.yaml").output_type == output_type
    (tmp_path / "lists.yaml").unlink()
    assert f"--type {output_type}" in init(table, "--text", "text", "--label", "found", "--type", "multiple_choice", code=1)
    if output_type == "ner":
        assert "--type ner" in init(table, "--text", "text", "--label", "found", code=1)


def test_columns_of_0_and_1_are_proposed_as_labels_of_one_task(tmp_path: Path, init: Any) -> None:
    spellings = (("0", "1"), ("0.0", "1.0"), ("False", "True"))
    rows = [
        {"age_over_60": n % 2, "note": note(n)} | {p: spellings[i][n >> i & 1] for i, p in enumerate(PROBLEMS)}
        for n in range(64)
    ]
    table = save(tmp_path / "beasts.csv", rows)
    names = [part for name in PROBLEMS for part in ("--label", name)]
    assert shlex.split(init(table)["command"])[3:] == ["--text", "note", "--label", "age_over_60", *names]
    printed = init(table, "--text", "note", *names, as_json=False)
    assert "labels, a column each:" in printed
    assert "rows without a label: 8" in printed
    task = load_task(tmp_path / "beasts.yaml")
    assert (task.output_type, task.doc_to_target, task.doc_to_choice) == ("multi_label", PROBLEMS, PROBLEMS)
    answers = {e.context: e.answer for e in local_examples(task)}
    assert [answers[note(n)] for n in range(8)] == [
        "; ".join(p for i, p in enumerate(PROBLEMS) if n >> i & 1) or "none" for n in range(8)
    ]
    validated = init("beasts.yaml", command=("tasks", "validate"))
    assert set(validated["labels"]) == set(PROBLEMS)
    assert "lists columns, each of which is a label" in init(
        table, "--text", "note", *names, "--type", "multiple_choice", "--out", "b.yaml", code=1
    )
    rows[0]["colic"] = "swollen"
    save(table, rows)
    refused = init("beasts.yaml", command=("tasks", "validate"), code=1)
    assert "row 1: column 'colic' of doc_to_target is neither 1 nor 0" in refused
    assert "swollen" not in refused


CONLL = "-DOCSTART- -X- O\n\n" + "".join(
    f"beast{n} NN O\ntook VB O\noat NN B-feed\nbran NN I-feed\n\nhoof{n} NN B-part\n\n-DOCSTART- -X- O\n\n" for n in range(10)
)


def test_a_file_in_conll_columns_becomes_a_task_of_mentions(tmp_path: Path, init: Any) -> None:
    for ending in (".conll", ".iob", ".iob2", ".bio"):
        (tmp_path / f"feeds{ending}").write_text(CONLL)
        made = init(f"feeds{ending}", "--out", f"own{ending}.yaml")
        assert (made["labels"], made["rows"]) == ({"feed": 10, "part": 10}, 20)
    task = load_task(tmp_path / "own.conll.yaml")
    assert (task.output_type, task.metric, task.group_column) == ("ner", "entity_f1", "document")
    found = local_examples(task)
    assert {e.answer for e in found} == {"feed: oat bran"} | {f"part: hoof{n}" for n in range(10)}
    groups = {split: {e.group for e in found if e.split == split} for split in ("test", "adaptation")}
    assert (len(groups["test"]), groups["test"] & groups["adaptation"]) == (3, set())
    made = Task.from_csv(tmp_path / "feeds.bio", text="tokens", label="tags", output_type="ner", name="feeds")
    assert made.doc_to_choice == ("feed", "part")
    (tmp_path / "feeds.tsv").write_text("oat\tB-feed\nbran\tI-feed\nhay\tB-feed\n")
    assert "the name of a file in CoNLL columns ends in .conll" in init("feeds.tsv", code=1)
    (tmp_path / "untagged.conll").write_text(CONLL.replace("B-", "").replace("I-", ""))
    assert "column 'tags' has no mention: offsets such as [0, 5, \"drug\"] or tags such as B-drug" in init(
        "untagged.conll", code=1
    )
    with pytest.raises(ConfigError, match=r"feeds\.conll is a table.*staf init"):
        find_task(str(tmp_path / "feeds.conll"))


def test_a_folder_of_brat_becomes_a_task_of_mentions(tmp_path: Path, init: Any) -> None:
    (tmp_path / "feeds").mkdir()
    for n in range(10):
        (tmp_path / "feeds" / f"n{n}.txt").write_text(f"Beast {n} took oat bran.\nNothing else {n}.\n")
        (tmp_path / "feeds" / f"n{n}.ann").write_text("T1\tfeed 13 21\toat bran\n")
    made = init("feeds/")
    assert (made["out"], made["labels"], made["rows"], made["splits"]) == (
        "feeds.yaml",
        {"feed": 10},
        20,
        {"test": 6, "adaptation": 14},
    )
    found = local_examples(load_task(tmp_path / "feeds.yaml"))
    assert sorted({e.answer for e in found}) == ["feed: oat bran", "none"]
    assert len({e.group for e in found}) == 10


def test_none_in_a_cell_of_labels_is_named_as_no_label(tmp_path: Path, init: Any) -> None:
    rows = [row | {"problems": row["problems"] or "none"} for row in several_labels()]
    options = ["--text", "note", "--label", "problems", "--separator", ";"]
    printed = init(save(tmp_path / "beasts.csv", rows), *options, as_json=False)
    assert "cells without a label ('none' or an empty list count as no label): 8" in printed


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_differ_only_in_case_are_one(tmp_path: Path, init: Any, several: bool) -> None:
    spellings = ("yes", "Yes", " YES ", "no", "NO", "No")
    rows = [{"note": note(n), "lame": spellings[n % 6] + (";Fed" if several and n % 4 else "")} for n in range(48)]
    rows.append({"note": note(99), "lame": "Yes"})
    table = save(tmp_path / "beasts.csv", rows)
    options = ["--separator", ";"] if several else []
    printed = init(table, "--text", "note", "--label", "lame", *options, as_json=False)
    assert "count as one (ignore_case: true): No, no as NO; YES, yes as Yes" in printed
    task = load_task(tmp_path / "beasts.yaml")
    assert (task.ignore_case, task.doc_to_choice) == (True, ("Fed", "NO", "Yes") if several else ("NO", "Yes"))
    assert {label for e in local_examples(task) for label in e.answer.split("; ")} == set(task.doc_to_choice)
    kind = "multi_label" if several else "multiple_choice"
    made = Task.from_csv(table, text="note", label="lame", output_type=kind, name="beasts")
    assert {e.answer for e in local_examples(made)} == {e.answer for e in local_examples(task)}
    apart = Task.from_csv(table, text="note", label="lame", output_type=kind, ignore_case=False)
    assert len(apart.doc_to_choice) == 6 + several
    assert not Task.from_csv(save(tmp_path / "two.csv", two_labels()), text="note", label="outcome").ignore_case


def test_no_text_of_a_cell_is_printed(tmp_path: Path, init: Any) -> None:
    table = save(tmp_path / "visits.csv", five_labels())
    options = ["--text", "history", "--text", "complaint", "--label", "level"]
    printed = init(table, *options, as_json=False) + init("visits.yaml", command=("tasks", "validate"), as_json=False)
    printed += CliRunner().invoke(app, ["init", str(table)]).output + init(table, "--text", "history", "--label", "age", code=1)
    assert "level 3" in printed
    assert not any(word in printed for word in ("hoof", "barn", "beast", "p17"))
    assert "hoof" in init("visits.yaml", "--count", 20, command=("tasks", "show"), as_json=False)


def test_empty_repeated_and_contradictory_rows_are_counted(tmp_path: Path, init: Any) -> None:
    rows = two_labels()
    rows[3]["note"], rows[4]["outcome"] = "", ""
    rows += [dict(rows[0]), {**rows[1], "outcome": "urgent"}, {"note": note(99), "outcome": "Urgent"}]
    found = init(save(tmp_path / "notes.csv", rows), "--text", "note", "--label", "outcome")
    assert found["missing"] == {"note": 1, "outcome": 1}
    assert (found["repeated"], found["contradictory"]) == (2, 1)
    assert sum(found["splits"].values()) + sum(found["left_out"].values()) == len(rows) == found["rows"]
    (tmp_path / "notes.yaml").unlink()
    printed = init("notes.csv", "--text", "note", "--label", "outcome", as_json=False)
    for line in (
        "1 left out: the text is empty: data row 4", "texts with two or more answers: 1",
        "labels that differ only in case count as one (ignore_case: true): Urgent as urgent", "empty cells in column note: 1",
    ):  # fmt: skip
        assert line in printed


def test_texts_on_both_sides_of_the_split_are_found_by_column() -> None:
    rows = [{"premise": note(n // 2, 30), "claim": note(n + 100, 30), "label": "yes" if n % 2 else "no"} for n in range(20)]
    rows[3]["claim"] = rows[0]["claim"].replace("beast", "animal")
    task = Task(
        task="nli", dataset_path=("csv",), dataset_kwargs={"data_files": "a.csv"}, doc_to_context=("premise", "claim"),
        doc_to_target="label", doc_to_choice=("no", "yes"), test_split={"size": 0.3},
    )  # fmt: skip
    assert profile_table(rows, task, {0, 1}).shared == {"premise": 0, "claim": 1}
    assert profile_table(rows, task, {0}).shared == {"premise": 1, "claim": 1}
    assert profile_table(rows, task, set(range(20))).shared == {"premise": 0, "claim": 0}
    assert profile_table(rows, task, set()).shared == {"premise": 0, "claim": 0}


def test_rows_that_share_a_text_are_kept_where_it_is_asked_for(tmp_path: Path, init: Any) -> None:
    rows = [{"note": note(n // 20), "outcome": "urgent" if n % 3 else "routine"} for n in range(60)]
    table = save(tmp_path / "notes.csv", rows)
    options = ["--text", "note", "--label", "outcome", "--keep-overlap", "--out", "kept.yaml"]
    kept = init(table, *options)
    assert load_task(tmp_path / "kept.yaml").keep_overlap
    assert (kept["left_out"], kept["splits"]) == ({}, {"test": 18, "adaptation": 42})
    assert kept["shared"]["note"] > 0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_a_constant_scores_as_scikit_learn_says(answers: list[str]) -> None:
    labels = label_counts([(answer,) for answer in answers])
    constant = [next(iter(labels))] * len(answers)
    scores = constant_scores("multiple_choice", labels, len(answers))
    assert scores["accuracy"] == pytest.approx(accuracy_score(answers, constant))
    assert scores["macro_f1"] == pytest.approx(f1_score(answers, constant, average="macro", zero_division=0))


@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20).filter(lambda rows: any(map(any, rows)))
)
def test_a_constant_set_of_labels_scores_the_best_micro_f1(rows: list[list[bool]]) -> None:
    labels = label_counts([[name for name, has in zip("abc", row, strict=True) if has] for row in rows])
    sets = [[bool(n >> i & 1) for i in range(3)] for n in range(1, 8)]
    best = max(f1_score(rows, [one] * len(rows), average="micro", zero_division=0) for one in sets)
    assert constant_scores("multi_label", labels, len(rows))["micro_f1"] == pytest.approx(best)


BROKEN = {
    "no header": (b"the hoof is warm since two days and swollen,urgent\nthe wing,routine\n", "does not hold names of columns"),
    "no header, short": (b"warm hoof,urgent\nwing,urgent\nfin,routine\n", "does not hold names of columns"),
    "empty": (b"", "holds no rows"),
    "only a header": (b"note,outcome\n", "holds no rows"),
    "one label": (b"note,outcome\na,urgent\nb,urgent\n", "column 'outcome' has 1 value in 2 rows"),
    "no such column": (b"note,outcom\na,urgent\nb,routine\n", "no column 'outcome'. Did you mean 'outcom'"),
    "Windows-1252": (b"note,outcome\n\xfcber,urgent\nb,routine\n", "UTF-8"),
    "cells": (b"note,outcome\na,urgent,b\n", "line 2: 2 cells are expected, found 3"),
    "no labels": (b"note,outcome\n" + b"".join(b"a %d,o %d\n" % (n, n) for n in range(60)), "60 different values in 60 rows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_is_none_is_refused_by_name_and_leaves_nothing(tmp_path: Path, init: Any, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / "notes.csv").write_bytes(content)
    found = init("notes.csv", "--text", "note", "--label", "outcome", code=1)
    assert message in found
    assert "hoof" not in found
    assert [path.name for path in tmp_path.iterdir()] == ["notes.csv"]


def test_a_byte_order_mark_and_a_note_of_three_megabytes_are_read(tmp_path: Path, init: Any) -> None:
    rows = two_labels(20)
    rows[2]["note"] = "warm hoof " * 300_000
    save(tmp_path / "notes.semicolon.csv", rows)
    assert (tmp_path / "notes.semicolon.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    found = init("notes.semicolon.csv", "--text", "note", "--label", "outcome")
    assert (found["tokens"]["longest"] > 3_000_000, found["tokens"]["truncated"]) == (True, 1)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx"])
def test_a_table_of_any_content_is_answered_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table = save(tmp_path / f"notes.{kind}", two_labels(20))
    options = ["--text", "note", "--label", "outcome", "--base", str(tiny_folder)]
    for what, content in mutations(table.read_bytes(), 1):
        table.write_bytes(content)
        for arguments in ([], options):
            result = CliRunner().invoke(app, ["init", table.name, *arguments])
            assert result.exception is None or isinstance(result.exception, StafError), f"{what}: {result.exception!r}"
            made = [path for path in tmp_path.iterdir() if path != table]
            assert made == ([tmp_path / "notes.yaml"] if arguments and result.exception is None else []), what
            for path in made:
                path.unlink()


def test_the_examples_of_the_page_work_as_printed(tmp_path: Path, init: Any) -> None:
    page = (Path(__file__).parent.parent / "docs" / "own-task.md").read_text(encoding="utf-8")
    blocks = [dedent(block) for block in re.findall(r"(?m)(?:^    .*\n)+", page)]
    pairs = [
        (table, command) for table, command in pairwise(blocks) if command.startswith("staf init") > table.startswith("staf")
    ]
    found = []
    for table, command in pairs:
        _, _, name, *options = shlex.split(command)
        (tmp_path / name).write_text(table, encoding="utf-8")
        (tmp_path / "notes.yaml").unlink(missing_ok=True)
        assert init(name, *options)["rows"] == 2
        found.append(load_task(tmp_path / "notes.yaml").output_type)
    assert found == [kind for kind in OUTPUT_TYPES for _ in range(1 + (kind == "multi_label"))]


def test_a_task_file_that_is_there_is_kept(tmp_path: Path, init: Any) -> None:
    table = save(tmp_path / "notes.csv", two_labels())
    (tmp_path / "notes.yaml").write_text("task: mine\n")
    message = init(table, "--text", "note", "--label", "outcome", code=1)
    assert message == "notes.yaml is there and was left as it is. Delete it, or name another file with --out."
    assert (tmp_path / "notes.yaml").read_text() == "task: mine\n"
    assert "another task named 'pubmedqa'" in init(
        table, "--text", "note", "--label", "outcome", "--out", "pubmedqa.yaml", code=1
    )


def test_a_first_row_is_taken_for_names_unless_it_looks_like_a_row() -> None:
    assert not looks_headless(two_labels(4))
    assert not looks_headless([{"": 1, "note": "a"}, {"": 2, "note": "b"}])  # an index that pandas wrote
    assert looks_headless([{"warm": "b", "urgent": "routine"}, {"warm": "c", "urgent": "urgent"}])
    assert looks_headless([{" ".join(WORDS[:8]): "a"}])


def test_validate_counts_what_evaluate_will_use(tmp_path: Path, init: Any) -> None:
    rows = (
        two_labels()
        + [{"note": note(n, 700), "outcome": "routine"} for n in range(200, 220)]
        + [{"note": "", "outcome": "urgent"}]
    )
    made = init(save(tmp_path / "notes.csv", rows), "--text", "note", "--label", "outcome")
    found = init("notes.yaml", command=("tasks", "validate"))
    assert found["left_out"] == made["left_out"] == {"the text is empty": 1}
    assert {split: found[split] for split in ("test", "adaptation")} == made["splits"]
    assert (found["output_type"], found["metric"]) == ("multiple_choice", "accuracy")
    assert sum(found["labels"].values()) == found["adaptation"]
    assert found["constant"]["accuracy"] == pytest.approx(found["labels"]["routine"] / found["adaptation"])
    assert found["tokens"] == made["tokens"]
    shown = init("notes.yaml", "--split", "test", "--count", 99, command=("tasks", "show"))
    shown += init("notes.yaml", "--count", 99, command=("tasks", "show"))
    assert found["tokens"]["truncated"] == sum(row["truncated"] for row in shown) == 20
    assert found["tokens"]["longest"] == max(row["full_prompt_tokens"] for row in shown)


def test_few_test_rows_are_said_to_say_little(tmp_path: Path) -> None:
    file = tmp_path / "few.csv"
    file.write_text("note,outcome\n" + "".join(f"a note number {i} of {i * 7},{'ab'[i % 2]}\n" for i in range(10)))
    result = CliRunner().invoke(
        app, ["init", str(file), "--text", "note", "--label", "outcome", "--out", str(tmp_path / "t.yaml")]
    )
    assert result.exit_code == 0, result.output
    assert "test rows a score is uncertain by about" in result.stdout


def test_rows_without_a_group_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    rows = [f"the text of visit {i},{'ab'[i % 2]},{'' if i in (4, 9) else i // 2}" for i in range(40)]
    file.write_text("\n".join(["note,outcome,patient", *rows]))
    options = ["--text", "note", "--label", "outcome", "--group", "patient", "--out", str(tmp_path / "g.yaml")]
    result = CliRunner().invoke(app, ["init", str(file), *options])
    assert result.exit_code == 0, result.output
    assert "2 left out: column 'patient', the group, is empty: data rows 5, 10" in result.stdout
