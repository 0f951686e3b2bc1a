"""Examples about positions in a text: mentions, answer spans, and pairs of entities.

    mentions   Context: <sentence>                                   Answer: problem: chest pain; treatment: aspirin
    span       Context: <question> <piece of the text>               Answer: two weeks
    pair       Context: First: .. Second: .. Text: <text>            Answer: the first causes the second

Texts are single-spaced; a sentence without a mention has the answer 'none'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from staf.data.answers import Entity, write_entities
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.draws import Origin, example, window
from staf.data.sources import single_spaced
from staf.errors import BadData


def mentions(
    report: ReadReport, example_id: str, text: str, found: Iterable[Entity], types: Sequence[str], origin: Origin
) -> Iterator[Example]:
    """The example that asks for all mentions in a sentence; none where an answer could not be read back."""
    try:
        answer = write_entities(found)
    except BadData:
        report.skip("a mention holds a semicolon")
    else:
        yield example(example_id, "named_entity_recognition", "entities", text, answer, origin, types, "ner")


def span(example_id: str, asked: str, question: str, text: str, place: tuple[int, int], origin: Origin) -> Example:
    """The example whose answer is text[place]; of a long text it shows a piece around that, after the question."""
    context, answer = f"{question} {window(example_id, text, *place)}", text[slice(*place)]
    return example(example_id, "reading_comprehension", asked, context, answer, origin, output_type="span")


def pair(
    example_id: str, entities: tuple[str, str], text: str, answer: str, labels: tuple[str, ...], origin: Origin
) -> Example:
    """The example that asks for the relation between two entities, which are named before the text."""
    context = f"First: {entities[0]}. Second: {entities[1]}. Text: {text}"
    return example(example_id, "relation_extraction", "pair", context, answer, origin, labels)


def spaced(text: str, start: int, end: int) -> tuple[str, tuple[int, int]]:
    """A text made single-spaced, and where text[start:end] then lies in it, without white space around."""
    before, words = single_spaced(text[:start]), single_spaced(text[start:end])
    apart = bool(before) and (text[start - 1].isspace() or text[start : start + 1].isspace())
    first = len(before) + apart
    return single_spaced(text), (first, first + len(words))


def of_long(text: str) -> tuple[str, ...]:
    """Deduplication keys of a text long enough to have near-duplicates; none of a heading."""
    found = minhash_keys(text)
    return found if len(found) > 1 else ()
