"""What turns a row of a table into query, context and labels; a router keeps it, so that rows need no task file.

Jinja runs in a sandbox; no message holds a cell's text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from staf.config import Settings
from staf.errors import BadData

MISSING = {"", "nan", "null", "<na>", "#n/a"}
"""Spellings of an empty cell, in lower case, as other programs write it."""


LABEL_TYPES = ("multiple_choice", "multi_label", "ner")
"""Output types whose answers are made of labels, or of types."""


class RowTemplates(Settings):
    """The part of a task that a row without an answer needs."""

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]
    output_type: Literal["multiple_choice", "multi_label", "span", "ner", "generate_until"] = "multiple_choice"
    description: str = ""
    """Text before every query."""
    label_descriptions: dict[str, str] = Field(default_factory=dict)
    """What a label means, by label; listed before every query."""
    doc_to_text: str = ""
    """Query: a column or a Jinja template."""
    doc_to_context: str | tuple[str, ...] = ""
    """Context, the only part that is ever cut: a column or a Jinja template; several are joined as lines 'column: value'."""
    doc_to_choice: str | tuple[str, ...] = ()
    """Labels: a list, or a column or a Jinja template that gives one for each row; types of ner."""
    label_separator: str = ";"
    """Between the labels of one cell."""


class EmptyCell(BadData):
    """A row without a text, an answer or a group."""


def rendered(templates: RowTemplates, row: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Query, context and labels of a row; () where the templates give no labels.

    Raises:
        EmptyCell: the context, or without one the query, is empty. BadData: the templates do not fit the row.
    """
    meanings = "\n".join(f"{label}: {meaning}" for label, meaning in templates.label_descriptions.items() if meaning.strip())
    asked = text_of(value_of(templates.doc_to_text, row, "doc_to_text"))
    query = "\n".join(part for part in (templates.description.strip(), meanings, asked) if part)
    context = text_of(raw_context(templates, row))
    if not context and (templates.doc_to_context or not query):
        raise EmptyCell("the text is empty")
    return query, context, _labels(templates, row)


def raw_context(templates: RowTemplates, row: Mapping[str, Any]) -> Any:
    """The context of a row as it stands in its cell, to which offsets refer; tokens are joined by spaces."""
    wanted = templates.doc_to_context
    names = (wanted,) if isinstance(wanted, str) else wanted
    cells = {name: value_of(name, row, "doc_to_context") for name in names if is_known(name, row, "doc_to_context")}
    if len(names) > 1:
        return "\n".join(f"{name}: {text}" for name, text in zip(names, map(text_of, cells.values()), strict=True) if text)
    value = next(iter(cells.values()), "")
    if templates.output_type == "ner" and not (isinstance(value, str) and value.lstrip()[:1] not in ("[", "(")):
        with suppress(BadData):  # a text may begin with a bracket
            return " ".join(map(str, as_list(value, " ", "doc_to_context")))
    return value


def is_known(template: str, row: Mapping[str, Any], key: str) -> bool:
    """True of a column or a template; raises BadData where words are neither, False of none."""
    if template and template not in row and "{" not in template:
        raise BadData(f"{key} '{template}' is no column and no template; the columns are {', '.join(map(str, row))}")
    return bool(template)


def _labels(templates: RowTemplates, row: Mapping[str, Any]) -> tuple[str, ...]:
    given: str | Sequence[Any] = templates.doc_to_choice if templates.output_type in LABEL_TYPES else ()
    if isinstance(given, str) and given:
        given = as_list(value_of(given, row, "doc_to_choice"), templates.label_separator, "doc_to_choice")
    labels = tuple(str(label).strip() for label in given)
    fewest = 2 if templates.output_type == "multiple_choice" else 0
    if len(labels) < fewest or len(set(labels)) < len(labels) or not all(labels):
        raise BadData("doc_to_choice needs two or more labels, each once, none empty")
    return labels


def as_list(value: Any, separator: str, key: str) -> Sequence[Any]:
    """The items of a cell: a list, the text of one (JSON or Python), or text with separators; [] of an empty cell."""
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return list(value.tolist() if hasattr(value, "tolist") else value)
    text = text_of(value)
    if not text.startswith(("[", "(")):
        return [part.strip() for part in text.split(separator or None) if part.strip()]
    for read in (json.loads, ast.literal_eval):  # literals only: nothing is run
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple):
            return found
    raise BadData(f"{key} gives no list")


def text_of(value: Any) -> str:
    """A cell as text, '' where it is empty."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in MISSING else text


def value_of(template: str, row: Mapping[str, Any], key: str) -> Any:
    """The cell of a column, or the rendered template; raises BadData where neither fits."""
    from jinja2 import TemplateError

    if template in row:
        return row[template]
    try:
        return _compiled(template).render(row)
    except TemplateError as error:
        unknown = re.fullmatch(r"'(\w+)' is undefined", str(error))  # a name of the template, never a cell
        what = f"'{unknown[1]}' is no column" if unknown else type(error).__name__
        raise BadData(f"{key}: {what}; the columns are {', '.join(map(str, row))}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise BadData(f"{key} cannot be rendered ({type(error).__name__})") from error


def used_columns(templates: RowTemplates) -> frozenset[str]:
    """The columns that the templates may read."""
    given, choices = templates.doc_to_context, templates.doc_to_choice
    texts = [
        templates.doc_to_text,
        *((given,) if isinstance(given, str) else given),
        choices if isinstance(choices, str) else "",
    ]
    return frozenset().union(*map(_names, texts))


@cache
def _names(template: str) -> frozenset[str]:
    from jinja2 import meta

    return frozenset({template, *meta.find_undeclared_variables(_environment().parse(template))})


@cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
