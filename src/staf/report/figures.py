"""Figures of finished runs and of the papers, drawn by matplotlib as SVG files with a text that says what they show.

A figure without anything to show is None. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from staf.report.formatting import MISSING, scale, score_text
from staf.report.names import metric_title
from staf.report.results import Cell, Finished, Table, Training
from staf.report.seed_groups import Group, method_groups, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6
"""More could not be distinguished."""
MARKERS = "osD^vPX*h"
FIRST = ("original", "few_shot", "normal", "normal_scaled")
"""Methods whose coverage is drawn before that of others."""
ROUTERS = ("few_shot", "normal", "normal_scaled")
QUALITY = {"multiple_choice": "Accuracy", "span": "Exact match", "generate_until": "ROUGE-L"}
"""What is averaged of the answers given; of labels and entities it is the F1 of each item."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing."""

    svg: str
    """a file of its own"""
    alt: str
    """what it shows, with its numbers"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a figure."""

    title: str
    points: list[tuple[float, float]]
    errors: list[tuple[float, float]] = field(default_factory=list)
    """below and above each point"""


@dataclass(frozen=True, slots=True)
class Bars:
    """Weights of experts under one name."""

    title: str
    weights: Mapping[str, float]
    deviations: Mapping[str, float] = field(default_factory=dict)
    """over seeds"""


@contextmanager
def canvas(height: float) -> Iterator[Axes]:
    """Axes of a figure 4.6 inches wide, whatever the user's settings are; a "$" in a name does not make it a formula."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    look: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "staf", "text.parse_math": False, "font.size": 8.5, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dde2e7", "legend.frameon": False,
        "errorbar.capsize": 2,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(look)
        yield Canvas(figsize=(4.6, height), layout="constrained").add_subplot()


def save(axes: Axes, alt: str, legend: bool = False) -> Figure:
    """The drawing of these axes, with its legend below."""
    figure: Any = axes.figure
    if legend:
        figure.legend(loc="outside lower left", fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Description": alt})
    return Figure(buffer.getvalue(), alt)


def line_plot(series: Sequence[Series], varied: str, measured: str, title: str) -> Figure | None:
    """Lines with error bars over what is varied."""
    series = [one for one in series if one.points]
    if not series:
        return None
    with canvas(2.4 + 0.16 * len(series)) as axes:
        for one, marker in zip(series, MARKERS * len(series), strict=False):
            x, y = zip(*one.points, strict=True)
            errors = list(zip(*one.errors, strict=True)) or None
            axes.errorbar(x, y, errors, marker=marker, markersize=4, linewidth=1.4, elinewidth=0.9, label=one.title)
        if len(series[0].points) < 9:
            axes.set_xticks(sorted({x for one in series for x, _ in one.points}))
        axes.set_xlabel(varied)
        axes.set_ylabel(measured)
        texts = (f"{one.title}: " + ", ".join(f"{x:g} {y:.1f}" for x, y in one.points) for one in series)
        return save(axes, f"{title}. {measured} by {varied}. {'; '.join(texts)}.", legend=True)


def weight_bars(bars: Sequence[Bars], title: str) -> Figure | None:
    """Weights of experts as horizontal bars, one bar a name for each expert; the dashed line is an equal share (Fig. 7)."""
    experts = sorted({expert for one in bars for expert in one.weights})
    if not experts:
        return None
    width, names = 0.8 / len(bars), [expert.replace("_", " ") for expert in experts]
    with canvas(0.9 + len(experts) * (0.14 + 0.17 * len(bars))) as axes:
        for b, one in enumerate(bars):
            y = [i + (b - (len(bars) - 1) / 2) * width for i in range(len(experts))]
            values = [one.weights.get(expert, 0.0) for expert in experts]
            errors = [one.deviations.get(expert, 0.0) for expert in experts]
            drawn = axes.barh(y, values, width * 0.86, xerr=errors if any(errors) else None, label=one.title)
            labels = [f"{one.weights[expert]:.2f}" if expert in one.weights else MISSING for expert in experts]
            axes.bar_label(drawn, labels, padding=3, fontsize=7.5)
        axes.axvline(1 / len(experts), color="#66727f", linewidth=0.8, linestyle="--", label="equal share")
        axes.set_yticks(range(len(experts)), names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        texts = [", ".join(f"{e.replace('_', ' ')} {one.weights[e]:.2f}" for e in experts if e in one.weights) for one in bars]
        alt = "; ".join(f"{one.title}: {text}" for one, text in zip(bars, texts, strict=True))
        return save(axes, f"{title}. {alt}.", legend=True)


# ---- of one task -----------------------------------------------------------------------------------------------------


def weights_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """Mean expert weights of the routers of `task`.

    Of a router that was run in several variants, that with the most experts is drawn, then that with the most examples.
    """
    groups = [g for g in method_groups(results, task) if g.method in ROUTERS and any(r.weights for r in g.results)]
    sized = sorted(groups, key=lambda g: (len(g.results[0].weights), g.results[0].adaptation_examples or 0))
    shown = {group.method: group for group in sized}
    bars = []
    for method in dict.fromkeys(group.method for group in groups):
        cell = Cell(mean=0, weights=[r.weights for r in shown[method].results if r.weights])
        means, deviations = cell.mean_weights()
        bars.append(Bars(f"{shown[method].title}, sum {sum(means.values()):.2f}", means, deviations))
    return weight_bars(bars, f"Expert weights for {task_title(results, task)}")


def scores_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """The primary score of each method on `task` as dots with 95 % intervals, one for each seed."""
    groups = [group for group in method_groups(results, task) if _scores(group)]
    if not groups:
        return None
    metric = groups[0].metric
    factor = scale(groups[0].results, metric)
    with canvas(0.6 + 0.3 * len(groups)) as axes:
        for row, group in enumerate(groups):
            lows, values, highs = zip(*_scores(group), strict=True)
            y = [row + 0.16 * (seed - (len(values) - 1) / 2) for seed in range(len(values))]
            below = [factor * max(value - low, 0.0) for value, low in zip(values, lows, strict=True)]
            above = [factor * max(high - value, 0.0) for value, high in zip(values, highs, strict=True)]
            axes.errorbar([factor * value for value in values], y, xerr=[below, above], fmt="o", markersize=3.5, elinewidth=1)
        axes.set_yticks(range(len(groups)), [group.title for group in groups])
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric_title(metric)}{', %' if factor == 100 else ''}")
        alt = "; ".join(f"{group.title} {score_text(group.results, metric)}" for group in groups)
        return save(axes, f"{metric_title(metric)} on {task_title(results, task)}, with 95 % intervals. {alt}.")


def selective_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """Quality of the answers given against coverage, most confident first, for at most six methods.

    They are the base model, our routers, then the methods that are best on all items; of several variants of a method that with
    the most examples.
    """
    groups = [(group, points) for group in method_groups(results, task) if (points := _coverage(group))]
    if not groups:
        return None
    largest = {g.method: (g, p) for g, p in sorted(groups, key=lambda pair: pair[0].results[0].adaptation_examples or 0)}
    ranked = sorted(largest, key=lambda method: (method not in FIRST, -largest[method][1][-1][1]))[:MOST_LINES]
    shown = [largest[method] for method in dict.fromkeys(group.method for group, _ in groups) if method in ranked]
    quality = f"{QUALITY.get(shown[0][0].results[0].output_type, 'F1')} of the answers given, %"
    series = [Series(group.title, points) for group, points in shown]
    return line_plot(series, "coverage, % of items, most confident first", quality, task_title(results, task))


def _scores(group: Group) -> list[tuple[float, float, float]]:
    """(low, value, high) of each seed; an unknown end is the value itself."""
    found = [score for r in group.results if (score := r.primary) and score.value is not None]
    ends = [(s.value or 0.0, s.low, s.high) for s in found]
    return [(value if low is None else low, value, value if high is None else high) for value, low, high in ends]


def _coverage(group: Group) -> list[tuple[float, float]]:
    """(coverage, quality) in percent, averaged over seeds, at the coverages that all of them have."""
    curves = [{point.coverage: point.value for point in result.selective} for result in group.results]
    shared = sorted(set.intersection(*map(set, curves)))
    return [(100 * coverage, 100 * fmean(curve[coverage] for curve in curves)) for coverage in shared]


# ---- of an expert ----------------------------------------------------------------------------------------------------


def rank_map(result: Training) -> Figure | None:
    """Ranks that an expert kept, layers down and matrices across."""
    ranks: dict[tuple[int, str], float] = {}
    for name, rank in result.ranks.items():
        if match := re.search(r"(?:^|\.)(\d+)\.(?:.*\.)?([^.]+)$", name):  # such as layers.0.self_attn.q_proj
            ranks[int(match[1]), match[2]] = rank
    if not ranks:
        return None
    layers = sorted({layer for layer, _ in ranks})
    found = dict.fromkeys(matrix for _, matrix in ranks)
    matrices = [*(m for m in MATRICES if m in found), *(m for m in found if m not in MATRICES)]
    with canvas(0.9 + 0.12 * len(layers)) as axes:
        values = [[ranks.get((layer, matrix), float("nan")) for matrix in matrices] for layer in layers]
        drawn = axes.pcolormesh(values, cmap="Blues", vmin=0, edgecolors="white", linewidth=0.5)
        axes.grid(False)
        axes.invert_yaxis()
        axes.set_xticks([i + 0.5 for i in range(len(matrices))], [matrix.removesuffix("_proj") for matrix in matrices])
        step = max(1, len(layers) // 8)
        axes.set_yticks([i + 0.5 for i in range(0, len(layers), step)], [f"layer {layer}" for layer in layers[::step]])
        axes.figure.colorbar(drawn, label="rank")
        lowest, highest, average = min(ranks.values()), max(ranks.values()), fmean(ranks.values())
        size = f"{len(layers)} layers by {len(matrices)} matrices"
        return save(axes, f"Ranks kept by {result.task}: {size}, average {average:.1f}, from {lowest:g} to {highest:g}.")


def learning_curve(result: Training) -> Figure | None:
    """Training loss by step, where the run kept its curve."""
    if len(result.curve) < 2:
        return None
    with canvas(1.9) as axes:
        axes.plot(*zip(*result.curve, strict=True), linewidth=1.4)
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        ends = ", ".join(f"{loss:.2f} at step {step:g}" for step, loss in (result.curve[0], result.curve[-1]))
        return save(axes, f"Training loss of {result.task}: {ends}.")


# ---- of the papers ---------------------------------------------------------------------------------------------------


def paper_figure(table: Table) -> Figure | None:
    """The figure of a reproduced result; None for a table, or where there is nothing to draw."""
    if table.task == "fig7":  # a bar for each task; its line is the deviation over seeds
        cells = {column.name: table.cell("normal", column.name) for column in table.columns}
        return weight_bars([Bars(name, *cell.mean_weights()) for name, cell in cells.items() if cell.weights], table.title)
    if table.task == "fig5":
        counts = [_number(column.name.split()[0]) for column in table.columns]
        series = [_series(row.title, list(zip(counts, row.cells, strict=True))) for row in table.rows]
        return line_plot(series, "number of labels", _measured(table), table.title)
    if table.task in ("fig6", "fig8"):
        counts = [0.0 if row.name == "original" else _number(row.name) for row in table.rows]
        columns = [[row.cells[i] for row in table.rows] for i in range(len(table.columns))]
        named = zip(table.columns, columns, strict=True)
        series = [_series(column.name, list(zip(counts, cells, strict=True))) for column, cells in named]
        varied = "number of examples" if table.task == "fig6" else "number of experts (0: base model)"
        return line_plot(series, varied, _measured(table), table.title)
    return None


def _series(title: str, cells: list[tuple[float | None, Cell]]) -> Series:
    """Means in percent; their bars are the deviation over seeds, or the interval of a single run."""
    found = sorted(((x, cell) for x, cell in cells if x is not None and cell.mean is not None), key=lambda pair: pair[0])
    points, errors = [], []
    for x, cell in found:
        mean = 100 * (cell.mean or 0.0)
        low, high = (100 * end for end in cell.ends) if cell.ends else (mean, mean)
        reach = None if cell.deviation is None else 100 * cell.deviation
        points.append((x, mean))
        errors.append((max(mean - low, 0.0), max(high - mean, 0.0)) if reach is None else (reach, reach))
    return Series(title, points, errors)


def _measured(table: Table) -> str:
    metrics = {column.metric for column in table.columns}
    return f"{metric_title(metrics.pop())}, %" if len(metrics) == 1 else "each task's own score, %"


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None
