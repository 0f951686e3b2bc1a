"""Reproduced tables as rows of text for the page: ours with deviation and interval, below it the papers' numbers.

A cell has one or more lines of text, parted by line breaks; the first one is the number. A place that is missing names a note,
and the notes say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from staf.report.collect import Result
from staf.report.names import metric_title
from staf.report.places import (
    Place,
    column_names,
    experiments,
    interval_of,
    line_title,
    mean_weights,
    papers_of,
    place_of,
    score_of,
    shown_of,
)
from staf.report.tables import Row
from staf.report.texts import MISSING, count_text, number_text

OURS = ("normal", "few_shot", "beyond")
"""The rows whose paired comparisons are told, by method."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One table or figure of the papers, as the page shows it."""

    name: str
    title: str
    differs: str
    """what is not as in the papers, besides base and data"""
    base: str
    profile: str
    run: str
    also: tuple[str, ...]
    """other runs of the same table, which rest on fewer answers"""
    sizes: str
    """test items, adaptation examples and seeds of its places"""
    caption: str
    """what the rows hold"""
    rows: list[Row]
    notes: list[str]
    """why places are missing"""
    comparisons: list[Row]
    """wins, ties and losses of our routers, those beyond the papers last"""


def reproduced(results: Iterable[Result]) -> list[Reproduced]:
    """All reproduced tables and figures, in the papers' order."""
    every = [result for result in results if result["stage"] == "reproduce"]
    shown = []
    for name, result in experiments(every).items():
        notes: list[str] = []
        rows, caption = _rows(result, notes)
        shown.append(
            Reproduced(
                name=name,
                title=result["title"],
                differs=result["differs"],
                base=str((result.get("base") or {}).get("name") or "not recorded"),
                profile=result["method"],
                run=result["run"],
                also=tuple(other["run"] for other in every if other["task"] == name and other["run"] != result["run"]),
                sizes=sizes_text(result),
                caption=caption,
                rows=rows,
                notes=notes,
                comparisons=comparison_rows(result),
            )
        )
    return shown


def _rows(result: Result, notes: list[str]) -> tuple[list[Row], str]:
    """What is shown of a result, and what that is."""
    if result.get("prompt_tokens"):
        return token_rows(result, notes), "tokens of a prompt, and how many examples are in it"
    if result["task"] == "fig7" and (rows := weight_rows(result, notes)):
        return rows, "mean weight of each expert ± standard deviation over seeds"
    return score_rows(result, notes), "ours, and below it the papers'"


def sizes_text(result: Result) -> str:
    """Such as "100 test items; 4 to 32 adaptation examples; 1 to 3 seeds", told apart by column and setting; "" for no places.

    One seed is that of a method without chance where others have more.
    """
    measured = [
        (column["name"], line["setting"], place)
        for line in result["lines"]
        for column, place in zip(result["columns"], line["places"], strict=True)
        if place["mean"] is not None
    ]
    if not measured:
        return ""
    items = _ranges((column, place.get("items")) for column, _, place in measured)
    examples = _ranges((_setting(setting), place.get("adaptation_examples")) for _, setting, place in measured)
    seeds = _ranges(("", place["seeds"]) for _, _, place in measured)
    return f"{_told(items, 'test item')}; {_told(examples, 'adaptation example')}; {_told(seeds, 'seed')}"


def _setting(setting: str) -> str:
    return "without a setting" if setting == MISSING else setting


def _ranges(numbers: Iterable[tuple[str, float | None]]) -> dict[str, str]:
    """Each name's numbers: "32", "4 to 32", or "-" where none is known."""
    by_name: dict[str, set[float]] = {}
    for name, number in numbers:
        by_name.setdefault(name, set()).update(() if number is None else (number,))
    return {
        name: " to ".join(count_text(end) for end in dict.fromkeys((min(found), max(found)))) if found else MISSING
        for name, found in by_name.items()
    }


def _told(ranges: dict[str, str], what: str) -> str:
    """One number for all where they agree: "100 test items", else "test items: emrqa 100, mednli 250"."""
    texts = list(dict.fromkeys(ranges.values()))
    if len(texts) == 1:
        return f"{texts[0]} {what}{'' if texts[0] == '1' else 's'}"
    return f"{what}s: {', '.join(f'{name} {text}' for name, text in ranges.items())}"


def weight_rows(result: Result, notes: list[str]) -> list[Row]:
    """One row per expert, one column per task: its weight in the normal router."""
    places = {column: place_of(result, "normal", column) for column in column_names(result)}
    weights = {column: mean_weights(place) for column, place in places.items()}
    rows = []
    for expert in sorted({name for means, _ in weights.values() for name in means}):
        cells, sources = {"Expert": expert}, {}
        for column, (means, deviations) in weights.items():
            header, spread, seeds = f"{column}, weight", deviations.get(expert), places[column]["seeds"]
            cells[header] = f"{means[expert]:.3f}" if expert in means else _missing(places[column], notes)
            cells[header] += "" if spread is None else f" ± {spread:.3f} ({seeds:.0f} seeds)"
            sources[header] = tuple(places[column]["runs"])
        rows.append(Row(cells, tuple(run for runs in sources.values() for run in runs), sources=sources))
    return rows


def score_rows(result: Result, notes: list[str]) -> list[Row]:
    """One row per method, one column per task; reasons for missing places are added to `notes`."""
    headers = _headers(result)
    with_setting = len({line["setting"] for line in result["lines"]}) > 1
    rows = []
    for line in result["lines"]:
        cells = {"Method": line["title"], **({"Setting": line["setting"]} if with_setting else {})}
        sources = {}
        for header, place in zip(headers, line["places"], strict=True):
            cells[header] = place_text(place, notes)
            sources[header] = tuple(place["runs"])
        runs = tuple(dict.fromkeys(run for place in line["places"] for run in place["runs"]))
        rows.append(Row(cells, runs, line["method"], sources))
    return rows


def token_rows(result: Result, notes: list[str]) -> list[Row]:
    """Tokens of a prompt and its examples, for in-context learning; and of the task alone, which is what a router reads."""
    alone = result["prompt_tokens"]
    rows = []
    for line in result["lines"]:
        cells, sources = {"Method": line["title"]}, {}
        for column, place in zip(column_names(result), line["places"], strict=True):
            tokens = place.get("prompt_tokens") or (alone.get(column) if place["mean"] is not None else None)
            header = f"{column}, tokens"
            if tokens is None:
                cells[header] = _missing(place, notes)
            else:
                cells[header] = f"{count_text(round(tokens))}\n{shown_of(place) or '0 examples shown'}"
            sources[header] = tuple(place["runs"])
        rows.append(Row(cells, tuple(run for runs in sources.values() for run in runs), line["method"], sources))
    return rows


def place_text(place: Place, notes: list[str]) -> str:
    """Score, interval, examples that in-context learning shows, and the papers' numbers, a line each."""
    if place["mean"] is None:
        return _missing(place, notes)
    lines = [score_of(place)]
    if ends := interval_of(place):
        lines.append(f"{number_text(ends[0], 100)} to {number_text(ends[1], 100)}")
    return "\n".join([*lines, *filter(None, [shown_of(place), papers_of(place)])])


def _missing(place: Place, notes: list[str]) -> str:
    reason = str(place.get("missing") or "it was not counted")
    if reason not in notes:
        notes.append(reason)
    lines = [MISSING, f"note {notes.index(reason) + 1}", papers_of(place)]
    return "\n".join(filter(None, lines))


def _headers(result: Result) -> list[str]:
    """Column headings in three lines: the papers' name, our task, the metric."""
    return [f"{c['name']}\n{c['title']}\n{metric_title(c['metric'])}, %" for c in result["columns"]]


# ---- paired comparisons ----------------------------------------------------------------------------------------------


def comparison_rows(result: Result) -> list[Row]:
    """One row for each router of ours and each other row: outcome and p-value per task, how many of each, and the mean.

    Two variants of the same router (Figures 6 and 8) are shown once, the later one against the earlier one.
    """
    methods = {line["name"]: line["method"] for line in result["lines"]}
    order = list(methods)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in result["comparisons"]:
        found.setdefault((row["ours"], row["other"]), {})[row["column"]] = row
    pairs = [pair for pair in found if pair[0] in methods and pair[1] in methods and methods[pair[0]] in OURS]
    turned = [(a, b) for a, b in pairs if (b, a) in found and order.index(a) < order.index(b)]
    means = {(row["ours"], row["other"]): row for row in result.get("over_columns", ())}
    return [
        _comparison_row(result, pair, found[pair], means.get(pair), methods[pair[0]]) for pair in pairs if pair not in turned
    ]


def _comparison_row(
    result: Result, pair: tuple[str, str], compared: dict[str, Any], mean: dict[str, Any] | None, method: str
) -> Row:
    count = Counter(row["verdict"] for row in compared.values())
    totals = " / ".join(str(count[kind]) for kind in ("win", "tie", "loss"))
    ours, other = pair
    cells = {
        "Row": line_title(result, ours),
        "Against": line_title(result, other),
        "Wins / ties / losses": totals,
        "Mean difference": MISSING if mean is None else _comparison_text(mean),
    }
    sources = {}
    for column in column_names(result):
        row, header = compared.get(column), f"{column}, better by"
        cells[header] = MISSING if row is None else _comparison_text(row)
        sources[header] = tuple(run for name in pair for run in place_of(result, name, column)["runs"])
    return Row(cells, tuple(run for runs in sources.values() for run in runs), method, sources)


def _comparison_text(row: dict[str, Any]) -> str:
    chance = "p\u00a0<\u00a00.001" if row["p_value"] < 0.001 else f"p\u00a0=\u00a0{row['p_value']:.3f}"
    ends = f"{number_text(row['low'], 100)} to {number_text(row['high'], 100)}"
    return f"{number_text(row['difference'], 100, '+')} {row['verdict']}\n{ends}\n{chance}"
