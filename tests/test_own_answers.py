"""Every output type on tables: labels, several labels, spans, mentions in the shapes that circulate, free text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from staf.data.answers import check_answer
from staf.data.local import local_examples
from staf.data.task import load_task
from staf.errors import BadData, ConfigError, MissingData

TEXT = "Nurse gave dipyrol for hoof rot."
DRUG, ILLNESS = [11, 18, "drug"], [23, 31, "illness"]
MENTIONS = "drug: dipyrol; illness: hoof rot"
TOKENS = TEXT.split(" ")


def answers(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> list[str]:
    """Canonical answers of rows, each of which can be read back."""
    (folder / "rows.json").write_text(json.dumps(rows))
    keys = {"dataset_path": "json", "dataset_kwargs": {"data_files": "rows.json"}, "doc_to_context": "text"} | keys
    (folder / "task.yaml").write_text(yaml.safe_dump({"task": "own", "doc_to_text": "What fits?", **keys}))
    found = local_examples(load_task(folder / "task.yaml"))
    for example in found:
        check_answer(example)
    return [example.answer for example in found]


@pytest.mark.parametrize(
    "cell",
    [["wing", "claw"], ["claw", "wing", "claw"], '["claw", "wing"]', "['claw', 'wing']", "wing ; claw", "wing;claw"],
)
def test_several_labels_come_as_a_list_or_by_a_separator(tmp_path: Path, cell: Any) -> None:
    rows = [{"text": "One.", "labels": cell}, {"text": "Two.", "labels": ""}, {"text": "Three.", "labels": None}]
    keys = {"output_type": "multi_label", "doc_to_target": "labels"}
    assert answers(tmp_path, rows, **keys) == ["claw; wing", "none", "none"]
    assert answers(tmp_path, rows, **keys, doc_to_choice=["wing", "tail", "claw"]) == ["wing; claw", "none", "none"]
    task = load_task(tmp_path / "task.yaml")
    assert task.fixed_labels
    assert local_examples(task)[1].labels == ("wing", "tail", "claw")


def test_labels_that_could_not_be_read_back_are_named_by_row(tmp_path: Path) -> None:
    keys = {"output_type": "multi_label", "doc_to_target": "labels"}
    rows = [{"text": "One.", "labels": ["wing"]}, {"text": "Two.", "labels": ["secret; claw", "wing"]}]
    with pytest.raises(BadData, match=r"rows.json, row 2: a label .* holds a semicolon") as caught:
        answers(tmp_path, rows, **keys)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadData, match=r"row 2: 1 labels are not among the 1 that are valid"):
        answers(tmp_path, rows, **keys, doc_to_choice=["wing"])
    rows = [{"text": "One.", "labels": "wing|claw"}]
    assert answers(tmp_path, rows, **keys, label_separator="|") == ["claw; wing"]


def test_a_span_is_words_of_the_context_or_given_by_offsets(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": TEXT, "answer": " hoof rot ", "start": "23", "end": 31}]
    assert answers(tmp_path, rows, output_type="span", doc_to_target="answer") == ["hoof rot"]
    assert answers(tmp_path, rows, output_type="span", doc_to_target="{{text[start|int:end|int]}}") == ["hoof rot"]
    with pytest.raises(BadData, match="row 1: doc_to_target is not in the context"):
        answers(tmp_path, [rows[0] | {"answer": "Hoof rot"}], output_type="span", doc_to_target="answer")


@pytest.mark.parametrize(
    "entities",
    [
        [ILLNESS, DRUG],
        json.dumps([DRUG, ILLNESS]),
        {"entities": [DRUG, ILLNESS]},
        [{"start": s, "end": e, "label": kind} for s, e, kind in (DRUG, ILLNESS)],
        [{"start": s, "end": e, "type": kind, "text": "x"} for s, e, kind in (DRUG, ILLNESS)],
        [{"start": s, "end": e, "entity_group": kind, "score": 0.9} for s, e, kind in (DRUG, ILLNESS)],
        [{"id": 3, "start_offset": s, "end_offset": e, "label": kind} for s, e, kind in (DRUG, ILLNESS)],
        [{"start": s, "end": e, "labels": [kind]} for s, e, kind in (DRUG, ILLNESS)],
        [{"value": {"start": s, "end": e, "labels": [kind]}, "id": "q"} for s, e, kind in (DRUG, ILLNESS)],
    ],
)
def test_mentions_come_as_offsets_in_the_shapes_that_circulate(tmp_path: Path, entities: Any) -> None:
    rows = [{"text": TEXT, "entities": entities}, {"text": "Nothing at all.", "entities": []}]
    assert answers(tmp_path, rows, output_type="ner", doc_to_target="entities") == [MENTIONS, "none"]
    assert local_examples(load_task(tmp_path / "task.yaml"))[1].labels == ("drug", "illness")


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["O", "O", "B-drug", "O", "B-illness", "I-illness"], None),
        (["O", "O", "I-drug", "O", "I-illness", "I-illness"], None),
        (["O", "O", "S-drug", "O", "B-illness", "E-illness"], None),
        (["O", "O", "U-drug", "O", "B-illness", "L-illness"], None),
        ("O O B-drug O B-illness I-illness", None),
        ([0, 0, 1, 0, 2, 3], ["O", "B-drug", "B-illness", "I-illness"]),
    ],
)
def test_mentions_come_as_tags_of_tokens(tmp_path: Path, tags: Any, names: list[str] | None) -> None:
    keys: dict[str, Any] = {"tag_names": names} if names else {}
    tokens = ["Nurse", "gave", "dipyrol", "for", "hoof", "rot"]
    keys |= {"output_type": "ner", "doc_to_target": "tags"}
    assert answers(tmp_path, [{"text": tokens, "tags": tags}], **keys) == [MENTIONS]
    assert local_examples(load_task(tmp_path / "task.yaml"))[0].context == "Nurse gave dipyrol for hoof rot"
    assert answers(tmp_path, [{"text": str(tokens), "tags": str(tags)}], **keys) == [MENTIONS]


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([[11, 99, "drug"]], "the offsets of an entity are not within the text"),
        ([[11, 18]], "an entity in doc_to_target has no start, end and type"),
        ([{"begin": 1}], "an entity in doc_to_target has no start, end and type"),
        ([[11, 18, "a:b"]], "holds a semicolon before a space"),
        (["O"], "1 tags in doc_to_target for 6 tokens in doc_to_context"),
        ([1, 0, 0, 0, 0, 0], "list the names of the tags as tag_names"),
        (["drug", "O", "O", "O", "O", "O"], "a tag is neither O nor B- or I- and a type"),
        ("[broken", "doc_to_target gives no list"),
    ],
)
def test_mentions_that_do_not_fit_are_named_by_row(tmp_path: Path, entities: Any, message: str) -> None:
    rows = [{"text": TEXT, "entities": []}, {"text": TEXT, "entities": entities}]
    with pytest.raises(BadData, match=f"row 2: .*{message}"):
        answers(tmp_path, rows, output_type="ner", doc_to_target="entities")


def test_a_text_may_begin_with_a_bracket(tmp_path: Path) -> None:
    row = {"text": "[**Stable**] dipyrol", "entities": [[13, 20, "drug"]]}
    assert answers(tmp_path, [row], output_type="ner", doc_to_target="entities") == ["drug: dipyrol"]


def test_conll_columns_and_brat_pairs_are_formats(tmp_path: Path) -> None:
    lines = "Nurse N O\ngave V O\ndipyrol N B-drug\n\nhoof N B-illness\nrot N I-illness\n"
    (tmp_path / "a.conll").write_text(f"-DOCSTART- -X- O\n\n{lines}")
    iob: dict[str, Any] = {
        "task": "own",
        "dataset_path": "iob",
        "dataset_kwargs": {"data_files": "a.conll"},
        "doc_to_text": "Which?",
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(iob))
    found = local_examples(load_task(tmp_path / "task.yaml"))
    assert [(e.context, e.answer) for e in found] == [
        ("Nurse gave dipyrol", "drug: dipyrol"),
        ("hoof rot", "illness: hoof rot"),
    ]
    assert len({e.group for e in found}) == 1
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "n1.txt").write_text("Rot of\nthe hoof.\n\nGave dipyrol.\nWell.\n")
    ann = "T1\tillness 0 3;11 15\tRot hoof\nT2\tdrug 23 30\tdipyrol\nR1\ttreats Arg1:T2 Arg2:T1\n"
    (tmp_path / "notes" / "n1.ann").write_text(ann)
    for files in ("notes", "notes/*.txt"):
        brat = iob | {"dataset_path": "brat", "dataset_kwargs": {"data_files": files}}
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(brat))
        found = local_examples(load_task(tmp_path / "task.yaml"))
        assert [e.answer for e in found] == ["illness: Rot of the hoof", "drug: dipyrol", "none"]
    (tmp_path / "notes" / "n1.ann").write_text("T1\tdrug 20 30\tdipyrol\n")
    with pytest.raises(BadData, match=r"n1.ann, line 1: the words are not at their offsets"):
        local_examples(load_task(tmp_path / "task.yaml"))
    (tmp_path / "notes" / "n1.ann").unlink()
    with pytest.raises(MissingData, match=r"no annotations .*n1.ann"):
        local_examples(load_task(tmp_path / "task.yaml"))


def test_a_label_wins_over_an_index_unless_the_harness_would_read_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "score": 2, "options": ["3", "1", "2"]}]
    fixed: dict[str, Any] = {"doc_to_target": "score", "doc_to_choice": ["1", "2", "3"]}
    assert answers(tmp_path, rows, **fixed) == ["2"]
    assert answers(tmp_path, [rows[0] | {"score": "3"}], **fixed) == ["3"]
    for score in (0, "0"):
        with pytest.raises(BadData, match="neither one of the 3 labels nor the index of one"):
            answers(tmp_path, [rows[0] | {"score": score}], **fixed)
    with pytest.raises(BadData, match="may be a label or the index of one: give the name of a column"):
        answers(tmp_path, rows, **fixed | {"doc_to_target": "{{score}}"})
    own: dict[str, Any] = {"doc_to_choice": "options"}
    assert answers(tmp_path, [rows[0] | {"score": 1}], **own, doc_to_target="{{score}}") == ["1"]
    assert answers(tmp_path, [rows[0] | {"score": 1}], **own, doc_to_target="score") == ["1"]
    assert answers(tmp_path, [rows[0] | {"score": "3"}], **own, doc_to_target="score") == ["3"]
    assert answers(tmp_path, [rows[0] | {"options": "yes; no; maybe"}], **own, doc_to_target="score") == ["maybe"]


def test_words_that_are_neither_a_column_nor_a_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="doc_to_context 'notes' is no column and no template; the columns are text, y"):
        answers(tmp_path, [{"text": "a", "y": "b"}], output_type="generate_until", doc_to_target="y", doc_to_context="notes")
    with pytest.raises(ConfigError, match="dataset_path"):
        answers(tmp_path, [{"text": "a"}], dataset_path=["json", 3], doc_to_target="text")
