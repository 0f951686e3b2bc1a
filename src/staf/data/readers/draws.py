"""Shapes that readers share: drawn options, pieces of long texts, examples.

Each draw depends only on the id of the example, so that an example is the same on every machine and adding one changes no
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from staf.data.example import Example, normalise
from staf.data.splits import seeded_rng
from staf.data.templates import query

WINDOW = 2_000
"""Characters of a long text that an example shows: some 500 tokens."""
MAX_DRAWS = 50
"""Draws from a pool before giving up."""


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


def example(
    example_id: str,
    task_type: str,
    asked: str,
    context: str,
    answer: str,
    origin: Origin,
    labels: Sequence[str] = (),
    output_type: str = "multiple_choice",
) -> Example:
    """An example whose query is a phrasing of `asked`, drawn by the id."""
    wanted = query(task_type, asked, example_id, labels)
    place = (origin.split, origin.dedup_keys, output_type, origin.group)
    return Example(example_id, task_type, wanted, context, answer, tuple(labels), *place)


def choice(
    example_id: str, task_type: str, asked: str, context: str, answer: str, wrong: Iterable[str], origin: Origin
) -> Example:
    """A choice of `answer` among the wrong options and itself, in a phrasing and an order drawn by the id."""
    return example(example_id, task_type, asked, context, answer, origin, shuffled(example_id, [answer, *wrong]))
