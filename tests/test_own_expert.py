"""An expert of one's own: a file of texts, pairs or conversations becomes a corpus, is kept from tests, and says what it is."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from staf.cli import app
from staf.data.corpus_rows import CONTINUE, PIECE, REPLY, pairs_of
from staf.data.example import Example
from staf.data.local import local_examples
from staf.data.own_corpus import write_corpus
from staf.data.row_templates import EmptyCell
from staf.data.selection import expert_examples
from staf.data.store import DataStore
from staf.data.task import Task, load_task
from staf.errors import BadData, ConfigError, MissingData, StafError
from staf.experts.store import load_expert, load_experts

SENTENCES = [f"The beast number {i} has a sore left hoof and eats its hay slowly." for i in range(40)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def examples_of(tmp_path: Path, rows: list[dict[str, Any]], **columns: str) -> tuple[list[Example], str]:
    path, said = write_corpus(write(tmp_path / "hoof.jsonl", rows), tmp_path / "experts", "hoof", **columns)
    return local_examples(load_task(path)), said


def test_a_text_gives_its_pieces_after_the_words_before_them(tmp_path: Path) -> None:
    found, said = examples_of(tmp_path, [{"visit": 1, "note": " ".join(SENTENCES)}], group="visit")
    assert said == "hoof.jsonl is read as texts in 'note', grouped by 'visit'"
    assert {example.query for example in found} == {CONTINUE}
    assert found[0].context == SENTENCES[0]
    assert " ".join([found[0].context, *(example.answer for example in found)]) == " ".join(SENTENCES)
    for before, after in pairwise(found):
        assert after.context.endswith(before.answer[-50:])
    assert all(example.answer.endswith(".") for example in found)
    assert len({example.group for example in found}) == 1


@given(st.text(alphabet="ab .\n?", max_size=3000))
def test_every_word_after_the_opening_is_an_answer_once(text: str) -> None:
    if len(text.split()) < 2 or text.strip().casefold() in ("", "nan", "null"):
        with pytest.raises(EmptyCell):
            list(pairs_of("text", text))
        return
    pairs = list(pairs_of("text", text))
    assert (pairs[0]["before"] + " " + " ".join(pair["after"] for pair in pairs)).split() == text.split() or (
        "".join((pairs[0]["before"] + "".join(pair["after"] for pair in pairs)).split()) == "".join(text.split())
    )
    assert all(pair["before"].strip() and pair["after"].strip() for pair in pairs)
    assert max(len(pair[part].split()) for pair in pairs for part in ("before", "after")) <= PIECE


@pytest.mark.parametrize(("column", "role", "content", "user", "other"), [
    ("messages", "role", "content", "user", "assistant"), ("conversations", "from", "value", "human", "gpt"),
])  # fmt: skip
def test_each_reply_of_a_conversation_is_an_answer(
    tmp_path: Path, column: str, role: str, content: str, user: str, other: str
) -> None:
    turns = [
        ("system", "Be brief."),
        (user, "My hoof hurts."),
        (other, "Since when?"),
        ("tool", "x"),
        (user, "May."),
        (other, "I see."),
    ]
    messages = [{role: who, content: text} for who, text in turns]
    found, said = examples_of(tmp_path, [{column: messages}, {column: messages[1:3]}, {column: messages[:2]}])
    assert said == f"hoof.jsonl is read as chat messages in '{column}'"
    assert [(e.query, e.context, e.answer) for e in found] == [
        ("Be brief.", "My hoof hurts.", "Since when?"),
        ("Be brief.", "User: My hoof hurts.\nAssistant: Since when?\nUser: May.", "I see."),
        (REPLY, "My hoof hurts.", "Since when?"),
    ]


def test_a_long_conversation_keeps_its_last_messages_and_content_may_come_in_parts() -> None:
    messages = [
        {"role": "user" if n % 2 else "assistant", "content": [{"type": "text", "text": f"{n} " + "hay " * 50}]}
        for n in range(9)
    ]
    (*_, last) = pairs_of("chat", json.dumps(messages))
    assert [line.split()[1] for line in last["before"].splitlines()] == ["6", "7"]
    assert last["after"].startswith("8 hay")
    for value in ("[1]", [{"role": "user"}, {"content": "x"}], [{"role": 3, "content": "x"}]):
        with pytest.raises(BadData):
            list(pairs_of("chat", value))


@pytest.mark.parametrize(("row", "expected"), [
    ({"question": "Why?", "answer": "Hay."}, ("Answer the question.", "Why?", "Hay.")),
    ({"Prompt": "Why?", "completion": "Hay."}, ("Reply to the prompt.", "Why?", "Hay.")),
    ({"instruction": "Count.", "input": "a a", "output": "2", "text": "x"}, ("Count.", "a a", "2")),
    ({"instruction": "Count.", "input": "", "output": "2"}, ("Follow the instruction.", "Count.", "2")),
    ({"instruction": "Count.", "context": None, "response": "2"}, ("Follow the instruction.", "Count.", "2")),
    ({"question": "Why?", "context": "It rains.", "answer": "Rain."}, ("Why?", "It rains.", "Rain.")),
])  # fmt: skip
def test_pairs_of_questions_and_answers(tmp_path: Path, row: dict[str, Any], expected: tuple[str, str, str]) -> None:
    (example,), said = examples_of(tmp_path, [row])
    assert (example.query, example.context, example.answer) == expected
    assert "questions in" in said
    assert example.output_type == "generate_until"


def test_columns_are_given_where_their_names_say_nothing(tmp_path: Path) -> None:
    rows = [{"a": f"{SENTENCES[i]} It limps.", "b": ("lame", "sound")[i % 2]} for i in range(10)]
    file = write(tmp_path / "in.jsonl", rows)
    with pytest.raises(ConfigError, match=r"its columns are a, b\. Name the column of the texts with --text"):
        write_corpus(file, tmp_path, "hoof")
    path, said = write_corpus(file, tmp_path, "pieces", text="a")
    assert said == "in.jsonl is read as texts in 'a'"
    assert local_examples(load_task(path))[0].answer == "It limps."
    path, said = write_corpus(file, tmp_path, "labelled", text="a", label="b", licence="CC BY 4.0")
    assert said == "in.jsonl is read as texts in 'a' with labels in 'b'"
    first = local_examples(load_task(path))[0]
    assert (first.answer, first.labels, first.split) == ("lame", ("lame", "sound"), "train")
    assert load_task(path).metadata == {"licence": "CC BY 4.0"}
    again, said = write_corpus(path, tmp_path, "renamed")
    assert (load_task(again).name, load_task(again).metadata) == ("renamed", {"licence": "CC BY 4.0"})
    assert local_examples(load_task(again))[0].answer == "lame"


def test_what_cannot_be_a_corpus_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": "A beast. It limps."}])
    path, _ = write_corpus(file, tmp_path, "hoof")
    assert write_corpus(file, tmp_path, "hoof")[0] == path
    for columns, error, message in (
        ({"name": "hoof", "licence": "secret"}, ConfigError, "is there and says something else"),
        ({"name": "medquad"}, ConfigError, "comes with staf"), ({"name": "question_answering"}, ConfigError, "comes with staf"),
        ({"name": "x", "label": "text"}, ConfigError, "with --text"), ({"name": "../x"}, ConfigError, "staf train --name"),
        ({"name": "x", "group": "visit"}, ConfigError, "no column 'visit'"),
        ({"name": "x", "text": "note"}, ConfigError, "no column 'note'"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            write_corpus(file, tmp_path, **columns)
    with pytest.raises(MissingData, match="no file"):
        write_corpus(tmp_path / "none.csv", tmp_path, "x")
    with pytest.raises(BadData, match="has no rows"):
        write_corpus(write(tmp_path / "empty.jsonl", []), tmp_path, "x")
    assert not (tmp_path / "x.yaml").exists()


def test_texts_that_a_task_tests_are_kept_out_also_where_they_are_cut_into_pieces(tmp_path: Path) -> None:
    notes = [" ".join(f"{word} {i}" for word in sentence.split()) for i, sentence in enumerate(SENTENCES)]
    write(tmp_path / "task.jsonl", [{"note": note, "label": "ab"[i % 2]} for i, note in enumerate(notes)])
    task = Task.from_table(tmp_path / "task.jsonl", text="note", label="label", name="triage", test_size=0.5)
    tested = {e.context for e in local_examples(task) if e.split == "test"}
    for name, rows in (
        ("pieces", [{"text": note} for note in notes]),
        ("chats", [{"messages": [{"role": "user", "content": n}, {"role": "assistant", "content": "Well."}]} for n in notes]),
    ):
        path, _ = write_corpus(write(tmp_path / f"{name}.jsonl", rows), tmp_path, name)
        store = DataStore(tmp_path, fetch=False)
        everything, left_out = expert_examples(str(path), store)
        assert left_out == 0
        _, store = store.with_task(task)
        kept, left_out = expert_examples(str(path), store)
        assert left_out == len(everything) - len(kept) == len(tested)
        assert not any(text[:40] in e.context for e in kept for text in tested)


def command(*arguments: Any) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if isinstance(result.exception, StafError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_an_expert_of_a_file_has_its_provenance_and_enters_a_set(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    rows = [{"visit": i, "text": f"{sentence} {SENTENCES[-i]} It limps."} for i, sentence in enumerate(SENTENCES[:12])]
    file = write(tmp_path / "primock.jsonl", rows)
    train = [
        "train",
        "--name",
        "primock",
        "--from",
        file,
        "--group",
        "visit",
        "--out",
        tmp_path / "mine",
        "--base",
        tiny_folder,
    ]
    train += ["--data-dir", own, "--runs", tmp_path / "runs", "-o", "steps=2"]
    assert "primock.jsonl is read as texts in 'text', grouped by 'visit'" in command(*train)
    expert = load_expert(tmp_path / "mine" / "primock")
    assert expert.record["licences"] == {"primock": "own"}
    (source,) = expert.record["data_files"]
    assert source == {"file": "primock.jsonl", "sha256": source["sha256"], "rows": 12}
    assert len(source["sha256"]) == 64
    written = (tmp_path / "mine" / "primock.yaml").read_text() + (tmp_path / "mine" / "primock" / "staf.json").read_text()
    assert "limps" not in written
    group = {example.group for example in local_examples(load_task(tmp_path / "mine" / "primock.yaml"))}
    assert not group & expert.dedup_keys  # salted
    command("experts", "add", tmp_path / "set", tmp_path / "mine" / "primock")
    assert load_experts(tmp_path / "set").names == ("primock",)
    assert "trained before, reused" in command(*train)
    same = ["train", "--data", tmp_path / "mine" / "primock.yaml", *train[train.index("--out") :]]
    assert "trained before, reused" in command(*same)
    with pytest.raises(ConfigError, match="needs --data, or --name and --from"):
        command("train", "--from", file, "--out", tmp_path / "mine")
    with pytest.raises(ConfigError, match="--group is for a file of your own"):
        command("train", "--data", "medquad", "--group", "visit", "--out", tmp_path / "mine")
