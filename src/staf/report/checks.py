"""What the result of a reproduced table or figure holds, checked once so that claims, tables and figures need not doubt it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

VERDICTS = ("win", "tie", "loss")
PLACE_NUMBERS = (
    "mean", "deviation", "low", "high", "seeds", "items", "tunable_parameters", "adaptation_examples", "seconds",
    "prompt_tokens", "shots_shown",
)  # fmt: skip


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_number_or_null(value: Any) -> bool:
    """Whether a value is a finite number or null."""
    return value is None or is_number(value)


def reproduce_problems(result: dict[str, Any]) -> list[str]:
    """What is wrong with a result of stage "reproduce"; [] where it is as `staf reproduce` writes it."""
    found = [f"'{key}' is not a text" for key in ("title", "differs") if not isinstance(result.get(key), str)]
    columns, lines = result.get("columns"), result.get("lines")
    if not _are_records(columns, ("name", "task", "title", "metric")):
        return [*found, "'columns' is not a list of objects, each with name, task, title and metric"]
    if not _are_records(lines, ("name", "method", "title", "setting")):
        return [*found, "'lines' is not a list of objects, each with name, method, title and setting"]
    for line in lines or ():
        found += _line_problems(line, len(columns or ()))
    if not all(_is_comparison(row) for row in _items(result.get("comparisons"))):
        found.append("'comparisons' is not a list of objects with column, ours, other, difference, low, high, p_value, verdict")
    if not all(_is_comparison(row, ("ours", "other", "verdict")) for row in _items(result.get("over_columns", []))):
        found.append("'over_columns' is not a list of objects with ours, other, difference, low, high, p_value, verdict")
    tokens = result.get("prompt_tokens")
    if tokens is not None and not _are_numbers(tokens, is_number_or_null):
        found.append("'prompt_tokens' does not hold a number for each column")
    return found


def _line_problems(line: dict[str, Any], columns: int) -> list[str]:
    name, places = line["name"], line.get("places")
    if not isinstance(places, list) or len(places) != columns:
        return [f"line '{name}' does not have a place for each of the {columns} columns"]
    problems = (_place_problem(place) for place in places)
    return [f"line '{name}', place {number}: {problem}" for number, problem in enumerate(problems, start=1) if problem]


def _place_problem(place: Any) -> str:
    if not isinstance(place, dict):
        return "it is not an object"
    for key in PLACE_NUMBERS:
        if not is_number_or_null(place.get(key)):
            return f"'{key}' is not a number"
    if "mean" not in place or (place["mean"] is not None and not is_number(place.get("seeds"))):
        return "it does not hold 'mean' and the number of seeds"
    if place["mean"] is None and not isinstance(place.get("missing"), str):
        return "'mean' is null and 'missing' does not say why"
    if not isinstance(place.get("runs"), list) or not all(isinstance(run, str) for run in place["runs"]):
        return "'runs' is not a list of folders"
    if not _are_numbers(place.get("papers"), is_number):
        return "'papers' does not hold a number for each paper"
    for key in ("interval", "interval_of_one_seed"):
        ends = place.get(key)
        if ends is not None and not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number_or_null, ends))):
            return f"'{key}' is not [low, high]"
    weights = place.get("weights")
    if weights is not None and not (isinstance(weights, list) and all(_are_numbers(one, is_number) for one in weights)):
        return "'weights' is not a list of {expert: weight}"
    return ""


def _is_comparison(row: Any, texts: tuple[str, ...] = ("column", "ours", "other", "verdict")) -> bool:
    return (
        _are_records([row], texts)
        and all(is_number(row.get(key)) for key in ("difference", "low", "high", "p_value"))
        and row["verdict"] in VERDICTS
    )


def _are_records(value: Any, texts: tuple[str, ...]) -> bool:
    """Whether a value is a list of objects in which each of the keys is a text."""
    if not isinstance(value, list):
        return False
    return all(isinstance(one, dict) and all(isinstance(one.get(key), str) for key in texts) for one in value)


def _are_numbers(value: Any, test: Any) -> bool:
    return isinstance(value, dict) and all(test(number) for number in value.values())


def _items(value: Any) -> Iterable[Any]:
    """The items of a list; anything else as one item, which is then no comparison."""
    return value if isinstance(value, list) else [value]
