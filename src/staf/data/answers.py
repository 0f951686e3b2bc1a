"""The canonical text of each output type, and the way back from text to value.

    multiple_choice    one label                          yes
    multi_label        labels in their order, or none     heart failure; sepsis
    span               words of the context               two weeks
    ner                typed mentions, in text order      problem: chest pain; treatment: aspirin
    generate_until     free text                          as it stands

What a writer wrote its reader reads back unchanged; a reader also takes what a model wrote, and drops what is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from staf.data.example import OUTPUT_TYPES, Example
from staf.errors import BadData

NONE = "none"
"""The answer where no label fits, or no entity is mentioned."""
SEPARATOR = "; "

_SEPARATORS = re.compile(r"\s*;\s+|\s*;$")


@dataclass(frozen=True, slots=True)
class Entity:
    """A mention: its type, such as 'problem', and its words as they stand in the context."""

    type: str
    text: str


def safe_label(text: str) -> str:
    """Text that can stand in a list of labels: on one line, semicolons made commas."""
    return " ".join(text.replace(";", ",").split())


def write_several(chosen: Collection[str], order: Sequence[str]) -> str:
    """Labels as one text, in the order given; 'none' where none is chosen; BadData where it could not be read back."""
    if unknown := set(chosen) - set(order):
        raise BadData(f"{len(unknown)} labels are not among the {len(order)} that are valid.")
    if any(";" in label or label == NONE or not label.strip() for label in chosen):
        raise BadData(f"a label is empty, is '{NONE}', or holds a semicolon: it could not be read back.")
    return SEPARATOR.join(label for label in order if label in chosen) or NONE


def read_several(text: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels in a text, each once, in the text's order; with `labels` given, only those, in whatever case."""
    parts = answer_parts(text)
    if labels:
        known = {label.casefold(): label for label in labels}
        parts = [known[part.casefold()] for part in parts if part.casefold() in known]
    return tuple(dict.fromkeys(parts))


def write_entities(entities: Iterable[Entity]) -> str:
    """Mentions as one text, in the order given; 'none' where there is none; BadData where it could not be read back."""
    written = []
    for entity in entities:
        if not entity.text.strip() or _SEPARATORS.search(entity.text) or ":" in entity.type or ";" in entity.type:
            raise BadData("an entity is empty or holds a semicolon before a space: it could not be read back.")
        written.append(f"{entity.type}: {entity.text}")
    return SEPARATOR.join(written) or NONE


def read_entities(text: str, types: Sequence[str] = ()) -> tuple[Entity, ...]:
    """The mentions in a text, in its order; with `types` given, only those of these types."""
    found = []
    for part in answer_parts(text):
        kind, colon, mention = part.partition(": ")
        if colon and mention.strip() and (not types or kind in types):
            found.append(Entity(kind, mention.strip()))
    return tuple(found)


def labels_in(example: Example) -> tuple[str, ...]:
    """The labels, or types of mentions, in an example's answer, each once."""
    if example.output_type == "ner":
        return tuple(dict.fromkeys(entity.type for entity in read_entities(example.answer)))
    return (example.answer,) if example.output_type == "multiple_choice" else read_several(example.answer)


def check_answer(example: Example) -> None:
    """Raise BadData, naming the example, unless its answer is in its canonical text and can be read back."""
    kind, answer, labels = example.output_type, example.answer, example.labels
    if kind == "multiple_choice":
        canonical = answer in (labels or (answer,))  # without labels they are open, as a task takes the most frequent
    elif kind == "multi_label":
        chosen = read_several(answer, labels)
        canonical = write_several(chosen, labels or chosen) == answer
    elif kind == "span":
        canonical = answer in example.context
    elif kind == "ner":
        entities = read_entities(answer, labels)
        canonical = write_entities(entities) == answer and all(entity.text in example.context for entity in entities)
    else:
        canonical = kind in OUTPUT_TYPES and answer == answer.strip()
    if not canonical or not answer.strip():
        raise BadData(f"{example.id}: the answer is not a {kind} answer in its canonical text, or not a valid one.")


def answer_parts(text: str) -> list[str]:
    """The parts of a list of labels or mentions; [] for 'none'."""
    text = text.strip()
    return [] if text.casefold() == NONE else [part for part in _SEPARATORS.split(text) if part.strip()]
