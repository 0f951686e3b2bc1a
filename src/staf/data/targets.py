"""The answer of a row in its canonical text: a label, labels, words of the context, mentions, or free text.

Mentions come as offsets into the context, end excluded, or as tags of its tokens (IOB1, IOB2, BIOES, BILOU):

    [[0, 7, "drug"]]  {"entities": [...]}          spaCy, Doccano
    [{"start": 0, "end": 7, "label": "drug"}]      also start_offset and end_offset; type, entity_group or labels: ["drug"]
    ["B-drug", "O"]   "B-drug O"   [1, 0]          by token; numbers need `tag_names`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from staf.data.answers import NONE, Entity, write_entities, write_several
from staf.data.readers.mentions import chunks
from staf.data.row_templates import EmptyCell, as_list, is_known, raw_context, text_of, value_of
from staf.data.task import Task
from staf.errors import BadData

MARKS = {"B": "B", "S": "B", "U": "B", "I": "I", "M": "I", "E": "I", "L": "I"}
"""Of BIOES and BILOU, as IOB2 has them."""
FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
"""Cells of a column that stands for one label."""
_NAMES = (("start", "start_offset"), ("end", "end_offset"), ("label", "type", "entity_group", "labels", "entity"))

Row = Mapping[str, Any]


def answer_of(task: Task, row: Row, context: str, labels: Sequence[str]) -> str:
    """The canonical answer of a row whose context and labels are known.

    Raises:
        EmptyCell: there is none. BadData: it is not an answer of the task's output type, or could not be read back.
    """
    if task.output_type == "multiple_choice":
        return _choice(task, row, labels)
    if task.output_type == "multi_label":
        return write_several(chosen_of(task, row, labels), labels)
    if task.output_type == "ner":
        entities = entities_of(task, row)
        if not all(entity.type in labels and entity.text in context for entity in entities):
            raise BadData(f"a mention's type is not among the {len(labels)} of doc_to_choice, or its words not in the context")
        return write_entities(entities)
    text = text_of(_value(task, row))
    if not text:
        raise EmptyCell("it has no answer")
    if task.output_type == "span" and text not in context:
        raise BadData("doc_to_target is not in the context: a span is words of doc_to_context as they stand there")
    return text


def labels_of(task: Task, row: Row) -> Sequence[str]:
    """The labels, or types of mentions, in the answer of a row."""
    if task.output_type == "ner":
        return [entity.type for entity in entities_of(task, row)]
    if task.output_type == "multi_label":
        return chosen_of(task, row, _choices(task))
    return [spelt(task, text, _choices(task))] if (text := text_of(_value(task, row))) else []


def spelt(task: Task, text: str, labels: Sequence[str]) -> str:
    """The label that differs from a text only in case, where the task ignores it; else the text."""
    if not task.ignore_case or text in labels or task.output_type not in ("multiple_choice", "multi_label"):
        return text
    return next((label for label in labels if label.casefold() == text.casefold()), text)


def _choices(task: Task) -> Sequence[str]:
    return () if isinstance(task.doc_to_choice, str) else task.doc_to_choice


def _value(task: Task, row: Row) -> Any:
    if not isinstance(task.doc_to_target, str):
        return task.doc_to_target
    return value_of(task.doc_to_target, row, "doc_to_target")


def _choice(task: Task, row: Row, labels: Sequence[str]) -> str:
    """The right label: a column names it, a number in a column or a template is its index, as in lm-evaluation-harness."""
    value, fixed = _value(task, row), not isinstance(task.doc_to_choice, str)
    text, in_column = spelt(task, str(value).strip(), labels), task.doc_to_target in row
    named = labels[int(text)] if text.isdigit() and int(text) < len(labels) else None
    if named is not None and fixed and text in labels and not in_column and named != text:
        raise BadData("doc_to_target may be a label or the index of one: give the name of a column in place of a template")
    if named is not None and (not in_column or (isinstance(value, int) and not fixed)):
        return named
    if text in labels:  # 'null' may be one
        return text
    if named is not None and not (fixed and any(label.isdigit() for label in labels)):
        return named
    if isinstance(task.doc_to_target, str):
        is_known(task.doc_to_target, row, "doc_to_target")
    if not text_of(value):
        raise EmptyCell("it has no answer")
    raise BadData(f"doc_to_target is neither one of the {len(labels)} labels nor the index of one")


def chosen_of(task: Task, row: Row, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of a row that may have several: a list, the text of one, or text with separators; () of an empty cell.

    Where doc_to_target lists columns, those that are 1.
    """
    if isinstance(task.doc_to_target, tuple):
        return tuple(column for column in task.doc_to_target if _is_set(row, column))
    items = as_list(_value(task, row), task.label_separator, "doc_to_target")
    texts = [text for item in items if (text := text_of(item)) and text.casefold() != NONE]
    return tuple(dict.fromkeys(spelt(task, text, labels) for text in texts))


def _is_set(row: Row, column: str) -> bool:
    if column not in row:
        raise BadData(f"doc_to_target '{column}' is no column; the columns are {', '.join(map(str, row))}")
    if (text := text_of(row[column]).casefold().removesuffix(".0")) not in FLAGS:
        raise BadData(f"column '{column}' of doc_to_target is neither 1 nor 0 (nor true, false, yes, no or empty)")
    return FLAGS[text]


def entities_of(task: Task, row: Row) -> list[Entity]:
    """The mentions of a row, in text order."""
    value = _value(task, row)
    items = as_list(value.get("entities") if isinstance(value, dict) else value, " ", "doc_to_target")
    if not all(isinstance(item, str | int) for item in items):
        text = str(raw_context(task, row))
        return [entity for _, entity in sorted((_mention(item, text) for item in items), key=lambda found: found[0])]
    tokens = str(raw_context(task, row)).split(" ")
    if items and len(items) != len(tokens):
        raise BadData(f"{len(items)} tags in doc_to_target for {len(tokens)} tokens in doc_to_context")
    tags = [_tag(task, item) for item in items]
    kinds = {kind: kind for _, _, kind in (tag.partition("-") for tag in tags) if kind}
    return list(chunks(list(zip(tokens, tags, strict=False)), kinds))


def _tag(task: Task, item: str | int) -> str:
    """A tag as IOB2 has it."""
    text = str(item).strip()
    if text.isdigit():
        if int(text) >= len(task.tag_names):
            raise BadData(f"a tag is a number: list the names of the tags as tag_names ({len(task.tag_names)} are given)")
        text = task.tag_names[int(text)]
    mark, _, kind = text.partition("-")
    if not kind and mark in MARKS and len(task.doc_to_choice) == 1:
        kind = task.doc_to_choice[0]
    if text != "O" and not (mark in MARKS and kind):
        raise BadData("a tag is neither O nor B- or I- and a type")
    return text if text == "O" else f"{MARKS[mark]}-{kind}"


def _mention(item: Any, text: str) -> tuple[tuple[int, int], Entity]:
    """Offsets and mention of one entity in any of the shapes."""
    if isinstance(item, Mapping):
        item = item.get("value", item)
        item = [next((item[name] for name in names if item.get(name) is not None), None) for names in _NAMES]
    try:
        start, end, kind = item[:3]
        start, end, kind = int(start), int(end), kind if isinstance(kind, str) else kind[0]
    except (TypeError, ValueError, LookupError):
        raise BadData("an entity in doc_to_target has no start, end and type") from None
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise BadData("the offsets of an entity are not within the text")
    return (start, end), Entity(str(kind).strip(), text[start:end].strip())
