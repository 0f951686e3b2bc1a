"""What all readers share on the side of wording: the phrasing of a query, its options and their order.

Each draw depends on the id of the example alone, so that an example reads the same on every machine, and adding one
changes no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from staf.data.example import Example, normalise
from staf.data.splits import dice

SYNONYMY_QUERIES = (
    "Which of the options means the same as the term: {options}?",
    "Choose the synonym of the term from the options: {options}.",
    "Name the same concept by its other name: {options}.",
)


def phrasing(example_id: str, templates: Sequence[str], options: Sequence[str] = ()) -> str:
    """One of the templates, with the options in its place `{options}`, parted by '; '."""
    return dice(f"phrasing:{example_id}").choice(templates).replace("{options}", "; ".join(options))


def shuffled(example_id: str, options: Iterable[str]) -> tuple[str, ...]:
    """The options in an order that tells nothing of the answer."""
    mixed = list(options)
    dice(f"order:{example_id}").shuffle(mixed)
    return tuple(mixed)


def draw(key: str, candidates: Iterable[str], count: int) -> list[str]:
    """Up to `count` different candidates, drawn by `key`; the candidates' order must be fixed."""
    distinct = list(dict.fromkeys(candidates))
    return dice(f"draw:{key}").sample(distinct, min(count, len(distinct)))


def says(text: str, answer: str) -> bool:
    """True where `text` holds the words of `answer` one after another, so that copying would be enough."""
    return f" {normalise(answer)} " in f" {normalise(text)} "


def choice(
    example_id: str,
    kind: str,
    templates: Sequence[str],
    *,
    context: str,
    answer: str,
    wrong: Iterable[str],
    split: str,
    subjects: tuple[str, ...],
) -> Example:
    """A choice of `answer` among the wrong options and itself, in a phrasing and an order drawn by the id."""
    options = shuffled(example_id, [answer, *wrong])
    query = phrasing(example_id, templates, options)
    return Example(example_id, kind, query, context, answer, options, split, subjects)
