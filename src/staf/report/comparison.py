"""A task's comparison as a table, notes, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf.io import write_bytes
from staf.report.figures import Figure, Line, line_plot
from staf.report.formatting import MISSING, interval_text, memory_text, metric_title, number_text, time_text
from staf.report.page import template

Found = Mapping[str, Any]


def row_cells(found: Found) -> list[dict[str, str]]:
    """The rows as text by column; a score or difference has its 95 % interval below it. No majority, no column of it."""
    score, compared = f"{metric_title(found['metric'])}, %", {"to_majority": "to the majority"}
    if all(row["to_majority"] is None for row in found["rows"]):
        compared = {}
    compared["to_simple"] = f"to {compared_with(found)}"
    return [
        {
            "": row["title"], score: score_lines(row, row["value"]),
            **{title: difference_lines(row[key]) for key, title in compared.items()},
            "time": time_text(row["seconds"]), "memory": memory_text(row["memory_bytes"]),
        }
        for row in found["rows"]
    ]  # fmt: skip


def compared_with(found: Found) -> str:
    """What rows are compared with besides the majority."""
    return "the base model" if found["reference"] == "original" else "the best simple row"


def score_lines(found: Found, value: float, sign: str = "") -> str:
    """A number in percent, and its interval on a second line."""
    return f"{number_text(value, 100.0, sign)}\n{interval_text(found['low'], found['high'])}"


def difference_lines(found: Found | None) -> str:
    """A difference in points, and its interval."""
    return MISSING if found is None else score_lines(found, found["difference"], "+")


def curve_cells(found: Found) -> list[dict[str, str]]:
    """Scores of the classifiers by the number of labelled examples."""
    lines = {line["title"]: {p["shots"]: score_lines(p, p["value"]) for p in line["points"]} for line in found["curve"]}
    counts = sorted({count for points in lines.values() for count in points})
    return [{"": title, **{f"{n}": points.get(n, MISSING) for n in counts}} for title, points in lines.items() if points]


def notes(found: Found) -> list[str]:
    """What was lowered, cut or left out, and how long it took."""
    lines, reasons = [f"Lowered: {text}" for text in found["reduced"]], dict[str, list[str]]()
    for row in found["left_out"]:
        reasons.setdefault(row["reason"], []).append(row["title"])
    lines += [f"Left out: {', '.join(titles)}: {reason}" for reason, titles in reasons.items()]
    cut = [f"{row['title']} {100 * row['truncated']:.0f} %" for row in found["rows"] if row["truncated"]]
    lines += [f"Texts that lost their end: {', '.join(cut)}"] if cut else []
    return [*lines, f"{time_text(found['seconds'])} of {found['minutes']:g} min"]


def curve_figure(found: Found) -> Figure | None:
    """The learning curves of the classifiers."""
    lines: dict[str, Line] = {
        line["title"]: [
            (float(p["shots"]), 100 * p["value"], 100 * (p["value"] - p["low"]), 100 * (p["high"] - p["value"]))
            for p in line["points"]
        ]
        for line in found["curve"]
    }  # fmt: skip
    return line_plot(lines, "labelled examples", f"{metric_title(found['metric'])}, %", found["task_title"])


def write_comparison(found: Found, out: Path) -> Path:
    """Write the page of a comparison: one file that loads nothing; returns `out`."""
    write_bytes(out, comparison_page(found).encode())
    return out


def comparison_page(found: Found) -> str:
    """The page as HTML."""
    best = next((row["title"] for row in found["rows"] if row["name"] == found["reference"]), None)
    return template("comparison.html").render(
        found=found, rows=row_cells(found), curve=curve_cells(found), notes=notes(found), figure=curve_figure(found),
        metric=metric_title(found["metric"]), best=best,
    )  # fmt: skip
