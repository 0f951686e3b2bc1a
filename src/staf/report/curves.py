"""The papers' figures from reproduced results: curves with deviation over seeds (Fig. 5, 6, 8), bars of weights (Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from staf.report.collect import Result
from staf.report.drawing import COLOURS, as_svg, canvas, legend, style
from staf.report.figures import Bars, weight_bars
from staf.report.names import metric_title
from staf.report.places import Place, line_of, mean_weights
from staf.report.texts import number_text

LOOKS = (("normal", "o", "-"), ("few", "s", "--"), ("scaled", "^", ":"), ("muted", "D", "-."))
"""Colour, marker and line of each curve, so that they are told apart without colour too."""
OWN_LOOK = {"original": LOOKS[3], "few_shot": LOOKS[1], "in_context": LOOKS[2]}
"""Looks of rows that are drawn as curves."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a figure."""

    title: str
    look: tuple[str, str, str]
    points: list[tuple[float, Place]]
    """what is varied, and the place with its mean"""


def reproduced_figure(result: Result) -> str:
    """The figure of a reproduced result as SVG; empty for a table, or where there is nothing to draw."""
    draw = FIGURES.get(result["task"])
    return "" if draw is None else draw(result)


def labels_figure(result: Result) -> str:
    """Fig. 5: one curve a method over the number of labels."""
    counts = [_number(column["name"].split()[0]) for column in result["columns"]]
    curves = []
    for i, line in enumerate(result["lines"]):
        points = [(count, place) for count, place in zip(counts, line["places"], strict=True) if count is not None]
        curves.append(Curve(line["title"], OWN_LOOK.get(line["name"], LOOKS[i % len(LOOKS)]), points))
    return _curves(curves, "labels", _metric(result), result["title"])


def shots_figure(result: Result) -> str:
    """Fig. 6: one curve a task over the number of examples."""
    return _curves(_by_column(result), "examples", _metric(result), result["title"])


def experts_figure(result: Result) -> str:
    """Fig. 8: one curve a task over the number of experts; none is the original model."""
    return _curves(_by_column(result), "experts (0: original model)", _metric(result), result["title"])


def task_weights_figure(result: Result) -> str:
    """Fig. 7: weights of the experts, one bar a task; the thin line is the deviation over seeds."""
    line = line_of(result, "normal")
    if line is None:
        return ""
    named = zip(result["columns"], line["places"], ("normal", "few", "scaled") * len(result["columns"]), strict=False)
    bars = [Bars(column["name"], colour, *mean_weights(place)) for column, place, colour in named if place.get("weights")]
    return weight_bars(bars, result["title"]) if bars else ""


def _by_column(result: Result) -> list[Curve]:
    counts = [0.0 if line["name"] == "original" else _number(line["name"]) for line in result["lines"]]
    curves = []
    for i, column in enumerate(result["columns"]):
        points = [(count, line["places"][i]) for count, line in zip(counts, result["lines"], strict=True) if count is not None]
        curves.append(Curve(column["name"], LOOKS[i % len(LOOKS)], sorted(points, key=lambda point: point[0])))
    return curves


def _curves(curves: Sequence[Curve], varied: str, metric: str, title: str) -> str:
    """Means as curves in percent, the deviation over seeds as a band; the interval of the test items as a bar for one seed."""
    drawn = [Curve(c.title, c.look, [p for p in c.points if p[1]["mean"] is not None]) for c in curves]
    drawn = [curve for curve in drawn if curve.points]
    if not drawn:
        return ""
    with style():
        figure, axes = canvas(2.6)
        axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
        for curve in drawn:
            colour, (_, marker, line) = COLOURS[curve.look[0]], curve.look
            counts = [count for count, _ in curve.points]
            means = [100 * place["mean"] for _, place in curve.points]
            axes.plot(counts, means, line, marker=marker, color=colour, markersize=4.5, linewidth=1.6, label=curve.title)
            reach = [100 * (place.get("deviation") or 0.0) for _, place in curve.points]
            lows, highs = ([m + sign * r for m, r in zip(means, reach, strict=True)] for sign in (-1, 1))
            axes.fill_between(counts, lows, highs, color=colour, alpha=0.15, linewidth=0)
            for count, place in curve.points:
                if place.get("deviation") is None and None not in (ends := place.get("interval_of_one_seed") or [None]):
                    axes.plot([count, count], [100 * end for end in ends], color=colour, linewidth=1, alpha=0.6)
        axes.set_xticks(sorted({count for curve in drawn for count, _ in curve.points}))
        axes.set_xlabel(varied, color=COLOURS["muted"])
        axes.set_ylabel(f"{metric}, %", color=COLOURS["muted"])
        legend(figure, axes)
        told = "; ".join(f"{c.title}: " + ", ".join(f"{x:g} {number_text(p['mean'], 100)}" for x, p in c.points) for c in drawn)
        return as_svg(figure, f"{title}. {metric} in percent by the number of {varied}. {told}.")


def _metric(result: Result) -> str:
    metrics = list(dict.fromkeys(column["metric"] for column in result["columns"]))
    return metric_title(metrics[0]) if len(metrics) == 1 else "each task's own score"


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None


FIGURES: dict[str, Callable[[Result], str]] = {
    "fig5": labels_figure, "fig6": shots_figure, "fig7": task_weights_figure, "fig8": experts_figure,
}  # fmt: skip
