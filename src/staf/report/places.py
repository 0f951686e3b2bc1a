"""Reproduced tables as the page reads them: one result for each experiment, its places by row and column, and their text.

A place is where a row (a method) and a column (a task and a metric) meet: mean and deviation over seeds as shares of 1, the
runs that they come from, and what the papers print there in percent. A place without a mean says why in "missing".
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from staf.report.collect import Result
from staf.report.texts import MISSING, number_text

Place = dict[str, Any]
Experiments = Mapping[str, Result]
"""The result of each experiment, by the name that `staf reproduce` knows it by."""

ORDER = ("table3", "table4", "table5", "fig5", "fig6", "fig7", "fig8", "cross-domain", "tokens")
PAPERS = {"staf-llm": "STAF-LLM", "sa-mdkif": "SA-MDKIF"}
SURE = 1.96
"""Standard errors on either side of a mean that 95 % of a normal distribution lie within."""


def experiments(results: Iterable[Result]) -> dict[str, Result]:
    """The reproduced tables and figures in the papers' order; of several runs of one, that which rests on the most answers."""
    found: dict[str, Result] = {}
    for result in sorted((r for r in results if r["stage"] == "reproduce"), key=lambda r: r["run"]):
        name = result["task"]
        if name not in found or answers(result) > answers(found[name]):
            found[name] = result
    return dict(sorted(found.items(), key=lambda pair: (ORDER.index(pair[0]) if pair[0] in ORDER else len(ORDER), pair[0])))


def answers(result: Result) -> float:
    """How many answers of a model a table rests on: test items times seeds, over its places."""
    places = (place for line in result["lines"] for place in line["places"] if place["mean"] is not None)
    return sum((place.get("items") or 0) * (place.get("seeds") or 0) for place in places)


def column_names(result: Result) -> list[str]:
    """The columns of a table, as the papers name their tasks."""
    return [column["name"] for column in result["columns"]]


def line_of(result: Result, name: str) -> dict[str, Any] | None:
    """The row of a name, or None."""
    return next((line for line in result["lines"] if line["name"] == name), None)


def line_title(result: Result, name: str) -> str:
    """The printed name of a row, or its name where there is no such row."""
    line = line_of(result, name)
    return name if line is None else line["title"]


def place_of(result: Result, name: str, column: str) -> Place:
    """The place of a row and a column; where there is none, an empty place that says so."""
    line, columns = line_of(result, name), column_names(result)
    if line is None or column not in columns:
        what = f"row '{name}'" if line is None else f"column '{column}'"
        return {"mean": None, "missing": f"{result['task']} was run without a {what}", "runs": [], "papers": {}}
    place: Place = line["places"][columns.index(column)]
    return place


def interval_of(place: Place) -> tuple[float, float] | None:
    """95 % interval of a place within 0 and 1, over its test items and its seeds; None where none was kept."""
    ends = _ends(place.get("interval")) or _ends_by_parts(place)
    return None if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))


def _ends(pair: Sequence[float | None] | None) -> tuple[float, float] | None:
    low, high = pair or (None, None)
    return None if low is None or high is None else (low, high)


def _ends_by_parts(place: Place) -> tuple[float, float] | None:
    """The interval of a result from before it was kept: it holds that over seeds, and that of both errors together."""
    if place.get("deviation") is None:
        return _ends(place.get("interval_of_one_seed"))
    over_seeds, error = _ends((place.get("low"), place.get("high"))), squared_error(place)
    if over_seeds is None or error is None:
        return over_seeds
    reach = SURE * error**0.5
    return min(over_seeds[0], place["mean"] - reach), max(over_seeds[1], place["mean"] + reach)


def squared_error(place: Place) -> float | None:
    """Squared standard error of a place's mean, over its test items and its seeds; None where no interval was kept."""
    if kept := _ends(place.get("interval")):
        return ((kept[1] - kept[0]) / 2 / SURE) ** 2
    ends = _ends(place.get("interval_of_one_seed"))
    if ends is None:
        return None
    low, high = ends
    of_items = (high - low) / 2 / SURE
    return float(of_items**2 + (place.get("deviation") or 0.0) ** 2 / max(place.get("seeds") or 1, 1))


def score_of(place: Place) -> str:
    """31.0 ± 1.2 (3 seeds), or 31.0 for one run, in percent; "-" where there is none."""
    if place["mean"] is None:
        return MISSING
    mean = number_text(place["mean"], 100)
    if place.get("deviation") is None:
        return mean
    return f"{mean} ± {number_text(place['deviation'], 100)} ({place['seeds']:.0f} seeds)"


def papers_of(place: Place) -> str:
    """What the papers print there: "STAF-LLM 78.0, SA-MDKIF 78.4", "both papers 78.0", or nothing."""
    printed = place["papers"]
    if len(printed) == 2 and len(set(printed.values())) == 1:
        return f"both papers {next(iter(printed.values())):.1f}"
    order = sorted(printed, key=lambda paper: (list(PAPERS).index(paper) if paper in PAPERS else len(PAPERS), paper))
    return ", ".join(f"{PAPERS.get(paper, paper)} {printed[paper]:.1f}" for paper in order)


def shown_of(place: Place) -> str:
    """How many examples in-context learning shows of how many: "6.5 of 32 examples shown"; "" for any other row."""
    shown, given = place.get("shots_shown"), place.get("adaptation_examples")
    if shown is None:
        return ""
    return f"{shown:.1f}{'' if given is None else f' of {given:.0f}'} examples shown"


def mean_weights(place: Place) -> tuple[dict[str, float], dict[str, float]]:
    """Mean weight of each expert over seeds and its standard deviation, which is left out for one seed."""
    seeds = place.get("weights") or []
    names = dict.fromkeys(name for one in seeds for name in one)
    values = {name: [one[name] for one in seeds if name in one] for name in names}
    means = {name: statistics.fmean(found) for name, found in values.items()}
    return means, {name: statistics.stdev(found) for name, found in values.items() if len(found) > 1}
