"""What readers share: examples from records, drawn options, pieces of long texts, examples with options, mentions or spans.

Each draw depends only on the id of the example, so that an example is the same on every machine and adding one changes no
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from staf.data.answers import Entity, write_entities
from staf.data.dedup import minhash_keys
from staf.data.example import Example, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.sources import single_spaced
from staf.data.splits import SHARES, seeded_rng, split_of
from staf.data.templates import query
from staf.errors import BadData

WINDOW = 2_000
"""Characters of a long text that an example shows: some 500 tokens."""
MAX_DRAWS = 50
"""Draws from a pool before giving up."""

Record = TypeVar("Record")
Row = Mapping[str, Any]
"""A row of a table or an object of a JSON file."""
Make = Callable[[str, Record, str, ReadReport], Iterable[Example]]
Reader = Callable[[Files, ReadReport], Iterator[Example]]


@cache
def vocabulary(name: str) -> Any:
    """A section of `readers/vocabularies.yaml`: columns, labels or words of a corpus."""
    text = resources.files("staf.data").joinpath("readers", "vocabularies.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[name]


def each_record(records: Callable[[Path, ReadReport], Iterator[tuple[str, Record]]]) -> Callable[[Make[Record]], Reader]:
    """Decorator: a reader of files from the function that makes the examples of one record.

    Args:
        records: records of a file, each with its place.

    The function takes place, record, part of the corpus, and report; a record for which it raises BadData is rejected.
    """

    def decorated(make: Make[Record]) -> Reader:
        def read(files: Files, report: ReadReport) -> Iterator[Example]:
            for part, path in files:

                def of_part(place: str, record: Record, part: str = part) -> Iterable[Example]:
                    return make(place, record, part, report)

                yield from report.each(records(path, report), of_part)

        return read

    return decorated


def number_of(place: str) -> str:
    """The number of a record in its file, at the end of its place."""
    return place.rpartition(" ")[2]


def shuffled(example_id: str, options: Iterable[str]) -> tuple[str, ...]:
    """The options in a random order."""
    mixed = list(options)
    seeded_rng(f"order:{example_id}").shuffle(mixed)
    return tuple(mixed)


def draw(key: str, candidates: Iterable[str], count: int) -> list[str]:
    """Up to `count` different candidates, drawn by `key`; the candidates' order must be fixed."""
    distinct = list(dict.fromkeys(candidates))
    return seeded_rng(f"draw:{key}").sample(distinct, min(count, len(distinct)))


def draw_fitting(key: str, pool: Sequence[str], count: int, fits: Callable[[str], bool]) -> list[str]:
    """Up to `count` different members of a pool that fit, by `MAX_DRAWS` draws with replacement."""
    rng = seeded_rng(key)
    found: dict[str, None] = {}
    for _ in range(MAX_DRAWS if pool else 0):
        drawn = rng.choice(pool)
        if fits(drawn):
            found[drawn] = None
        if len(found) == count:
            break
    return list(found)


def between(first: str, second: str) -> str:
    """The context of a question about the relation of one concept to another."""
    return f"First concept: {first}. Second concept: {second}."


def says(text: str, answer: str) -> bool:
    """True where `text` contains the words of `answer` in order."""
    return f" {normalise(answer)} " in f" {normalise(text)} "


def window(key: str, text: str, start: int, end: int, size: int = WINDOW) -> str:
    """A piece of at most `size` characters around text[start:end], cut at spaces.

    The position of the answer in the piece is drawn by `key`; the answer is never cut.
    """
    spare = size - (end - start)
    if len(text) <= size:
        return text.strip()
    first = max(0, min(start - round(seeded_rng(f"window:{key}").random() * max(spare, 0)), len(text) - size))
    last = max(first + size, end)
    if first > 0:
        first = text.find(" ", first, start) + 1 or start
    if last < len(text):
        last = text.rfind(" ", end, last) if text.rfind(" ", end, last) >= 0 else end
    return text[first:last].strip()


@dataclass(frozen=True, slots=True)
class Origin:
    """Split, deduplication keys and group of what an example is made from."""

    split: str
    dedup_keys: tuple[str, ...]
    group: str = ""


def drawn(group: str, *dedup_keys: str, shares: tuple[int, int, int] = SHARES) -> Origin:
    """An origin whose split is drawn by its group."""
    return Origin(split_of(group, shares), dedup_keys, group)


def example(
    example_id: str,
    task_type: str,
    asked: str,
    context: str,
    answer: str,
    origin: Origin,
    labels: Sequence[str] = (),
    output_type: str = "",
) -> Example:
    """An example whose query is a phrasing of `asked`, drawn by the id; without labels its answer is free text."""
    wanted = query(task_type, asked, example_id, labels)
    output_type = output_type or ("multiple_choice" if labels else "generate_until")
    place = (origin.split, origin.dedup_keys, output_type, origin.group)
    return Example(example_id, task_type, wanted, context, answer, tuple(labels), *place)


def choice(
    example_id: str, task_type: str, asked: str, context: str, answer: str, wrong: Iterable[str], origin: Origin
) -> Example:
    """A choice of `answer` among the wrong options and itself, in a phrasing and an order drawn by the id."""
    return example(example_id, task_type, asked, context, answer, origin, shuffled(example_id, [answer, *wrong]))


def choice_of_four(
    report: ReadReport,
    example_id: str,
    task_type: str,
    asked: str,
    context: str,
    answer: str,
    wrong: Sequence[str],
    origin: Origin,
) -> Iterator[Example]:
    """A choice among four; none where the context says the answer or there are fewer than three wrong options."""
    if says(context, answer):
        report.skip("the question says its answer")
    elif len(wrong) < 3:
        report.skip("too few near terms for four options")
    else:
        yield choice(example_id, task_type, asked, context, answer, wrong[:3], origin)


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
