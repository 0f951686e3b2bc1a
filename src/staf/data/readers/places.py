"""Examples about places in a text: its mentions of some types, the words that answer, two entities and how they relate.

    mentions   Context: <sentence>                                   Answer: problem: chest pain; treatment: aspirin
    span       Context: <question> <piece of the text>               Answer: two weeks
    pair       Context: First: .. Second: .. Text: <text>            Answer: the first causes the second

Texts are single-spaced. Sentences without a mention have the answer 'none'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from staf.data.answers import Entity, write_entities
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.draws import window
from staf.data.sources import single_spaced
from staf.data.templates import query
from staf.errors import BadData


def mentions(
    report: ReadReport,
    example_id: str,
    text: str,
    found: Iterable[Entity],
    types: Sequence[str],
    *,
    split: str,
    dedup_keys: tuple[str, ...],
    group: str = "",
) -> Iterator[Example]:
    """The example that asks for all mentions in a sentence; none where an answer could not be read back."""
    task_type = "named_entity_recognition"
    try:
        answer = write_entities(found)
    except BadData:
        report.skip("a mention holds a semicolon")
        return
    asked = query(task_type, "entities", example_id, types)
    yield Example(example_id, task_type, asked, text, answer, tuple(types), split, dedup_keys, output_type="ner", group=group)


def span(
    example_id: str,
    asked: str,
    question: str,
    text: str,
    place: tuple[int, int],
    *,
    split: str,
    dedup_keys: tuple[str, ...],
    group: str,
) -> Example:
    """The example whose answer is text[place]; of a long text it shows a piece around that, after the question."""
    task_type = "reading_comprehension"
    start, end = place
    context = f"{question} {window(example_id, text, start, end)}"
    answer, wanted = text[start:end], query(task_type, asked, example_id)
    return Example(example_id, task_type, wanted, context, answer, (), split, dedup_keys, output_type="span", group=group)


def pair(
    example_id: str,
    entities: tuple[str, str],
    text: str,
    answer: str,
    labels: tuple[str, ...],
    *,
    split: str,
    dedup_keys: tuple[str, ...],
    group: str,
) -> Example:
    """The example that asks for the relation between two entities, which are named before the text."""
    task_type = "relation_extraction"
    first, second = entities
    context = f"First: {first}. Second: {second}. Text: {text}"
    asked = query(task_type, "pair", example_id, labels)
    return Example(example_id, task_type, asked, context, answer, labels, split, dedup_keys, group=group)


def spaced(text: str, start: int, end: int) -> tuple[str, tuple[int, int]]:
    """A text made single-spaced, and where text[start:end] then lies in it, without white space around."""
    before, words = single_spaced(text[:start]), single_spaced(text[start:end])
    apart = bool(before) and (text[start - 1].isspace() or text[start : start + 1].isspace())
    first = len(before) + apart
    return single_spaced(text), (first, first + len(words))


def of_long(text: str) -> tuple[str, ...]:
    """The fingerprints of a text that is long enough to have near-duplicates; none of a heading or a fixed phrase."""
    found = minhash_keys(text)
    return found if len(found) > 1 else ()
