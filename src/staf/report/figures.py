"""Figures of finished runs and of the papers, drawn by matplotlib as SVG files with a text that says what they show.

A figure without anything to show is None. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from staf.report.formatting import MISSING, metric_title, scale, score_text
from staf.report.results import Cell, Finished, Table, Training
from staf.report.seed_groups import Group, method_groups, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6
"""More could not be distinguished."""
MARKERS = "osD^vPX*h"
ROUTERS = ("few_shot", "normal", "normal_scaled")
FIRST = ("original", *ROUTERS)
"""Methods whose coverage is drawn before that of others."""
QUALITY = {"multiple_choice": "Accuracy", "span": "Exact match", "generate_until": "ROUGE-L"}
"""What is averaged of the answers given; of labels and entities it is the F1 of each item."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Line = list[tuple[float, ...]]
"""Points (x, y), or (x, y, error below, error above)."""


class Figure(NamedTuple):
    """A drawing, and what it shows, with its numbers."""

    svg: str
    alt: str


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
    with matplotlib.rc_context(matplotlib.rcParamsDefault | look):
        yield Canvas(figsize=(4.6, height), layout="constrained").add_subplot()


def save(axes: Axes, alt: str, legend: bool = False) -> Figure:
    """The drawing of these axes, with its legend below."""
    figure: Any = axes.figure
    if legend:
        figure.legend(loc="outside lower left", fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Description": alt})
    return Figure(buffer.getvalue(), alt)


def line_plot(lines: Mapping[str, Line], varied: str, measured: str, title: str) -> Figure | None:
    """Lines by title, with error bars, over what is varied."""
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    with canvas(2.4 + 0.16 * len(lines)) as axes:
        for (name, points), marker in zip(lines.items(), MARKERS * len(lines), strict=False):
            x, y, *errors = zip(*points, strict=True)
            axes.errorbar(x, y, errors or None, marker=marker, markersize=4, linewidth=1.4, elinewidth=0.9, label=name)
        if len(next(iter(lines.values()))) < 9:
            axes.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
        axes.set_xlabel(varied)
        axes.set_ylabel(measured)
        texts = (f"{name}: " + ", ".join(f"{x:g} {y:.1f}" for x, y, *_ in points) for name, points in lines.items())
        return save(axes, f"{title}. {measured} by {varied}. {'; '.join(texts)}.", legend=True)


def weight_bars(named: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]], title: str) -> Figure | None:
    """Weights of experts as horizontal bars, one bar a name for each expert; the dashed line is an equal share (Fig. 7).

    Args:
        named: by name, the weight of each expert and its deviation over seeds, which may lack.
    """
    experts = sorted({expert for weights, _ in named.values() for expert in weights})
    if not experts:
        return None
    width, names = 0.8 / len(named), [expert.replace("_", " ") for expert in experts]
    with canvas(0.9 + len(experts) * (0.14 + 0.17 * len(named))) as axes:
        for b, (name, (weights, deviations)) in enumerate(named.items()):
            y = [i + (b - (len(named) - 1) / 2) * width for i in range(len(experts))]
            errors = [deviations.get(expert, 0.0) for expert in experts]
            values = [weights.get(expert, 0.0) for expert in experts]
            drawn = axes.barh(y, values, width * 0.86, xerr=errors if any(errors) else None, label=name)
            labels = [f"{weights[expert]:.2f}" if expert in weights else MISSING for expert in experts]
            axes.bar_label(drawn, labels, padding=3, fontsize=7.5)
        axes.axvline(1 / len(experts), color="#66727f", linewidth=0.8, linestyle="--", label="equal share")
        axes.set_yticks(range(len(experts)), names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        texts = [
            f"{name}: " + ", ".join(f"{e.replace('_', ' ')} {weights[e]:.2f}" for e in experts if e in weights)
            for name, (weights, _) in named.items()
        ]
        return save(axes, f"{title}. {'; '.join(texts)}.", legend=True)


# ---- of one task -----------------------------------------------------------------------------------------------------


def largest_variants(groups: Iterable[Group]) -> dict[str, Group]:
    """A group for each method: of several variants that with the most experts, then that with the most examples."""
    sized = sorted(groups, key=lambda g: (len(g.results[0].weights), g.results[0].adaptation_examples or 0))
    return {group.method: group for group in sized}


def weights_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """Mean expert weights of the routers of `task`, one variant of each."""
    groups = [g for g in method_groups(results, task) if g.method in ROUTERS and any(r.weights for r in g.results)]
    shown, bars = largest_variants(groups), {}
    for method in dict.fromkeys(group.method for group in groups):
        means, deviations = Cell(mean=0, weights=[r.weights for r in shown[method].results if r.weights]).mean_weights()
        bars[f"{shown[method].title}, sum {sum(means.values()):.2f}"] = (means, deviations)
    return weight_bars(bars, f"Expert weights for {task_title(results, task)}")


def scores_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """The primary score of each method on `task` as dots with 95 % intervals, one for each seed."""
    groups = [g for g in method_groups(results, task) if any(r.primary and r.primary.value is not None for r in g.results)]
    if not groups:
        return None
    metric = groups[0].metric
    factor = scale(groups[0].results, metric)
    with canvas(0.6 + 0.3 * len(groups)) as axes:
        for row, group in enumerate(groups):
            found = [(s.value, s.low, s.high) for r in group.results if (s := r.primary) and s.value is not None]
            ends = [(v, v if low is None else low, v if high is None else high) for v, low, high in found]
            y = [row + 0.16 * (seed - (len(ends) - 1) / 2) for seed in range(len(ends))]
            reach = [[factor * max(v - low, 0.0) for v, low, _ in ends], [factor * max(high - v, 0.0) for v, _, high in ends]]
            axes.errorbar([factor * v for v, _, _ in ends], y, xerr=reach, fmt="o", markersize=3.5, elinewidth=1)
        axes.set_yticks(range(len(groups)), [group.title for group in groups])
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric_title(metric)}{', %' if factor == 100 else ''}")
        alt = "; ".join(f"{group.title} {score_text(group.results, metric)}" for group in groups)
        return save(axes, f"{metric_title(metric)} on {task_title(results, task)}, with 95 % intervals. {alt}.")


def selective_figure(results: Sequence[Finished], task: str) -> Figure | None:
    """Quality of the answers given against coverage, most confident first, for at most six methods.

    They are the base model, our routers, then the methods that are best on all items, one variant of each.
    """
    groups = [group for group in method_groups(results, task) if _coverage(group)]
    if not groups:
        return None
    shown = largest_variants(groups)
    curves = {method: _coverage(group) for method, group in shown.items()}
    drawn = sorted(curves, key=lambda method: (method not in FIRST, -curves[method][-1][1]))[:MOST_LINES]
    lines = {shown[m].title: curves[m] for m in dict.fromkeys(group.method for group in groups) if m in drawn}
    quality = f"{QUALITY.get(groups[0].results[0].output_type, 'F1')} of the answers given, %"
    return line_plot(lines, "coverage, % of items, most confident first", quality, task_title(results, task))


def _coverage(group: Group) -> Line:
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

VARIED = {
    "fig5": "number of labels", "fig6": "number of examples", "fig8": "number of experts (0: base model)",
}  # fmt: skip


def paper_figure(table: Table) -> Figure | None:
    """The figure of a reproduced result; None for a table, or where there is nothing to draw."""
    if table.task == "fig7":  # a bar for each task; its line is the deviation over seeds
        routers = {column.name: table.cell("normal", column.name) for column in table.columns}
        return weight_bars({name: cell.mean_weights() for name, cell in routers.items() if cell.weights}, table.title)
    if table.task not in VARIED:
        return None
    if table.task == "fig5":  # a line for each row, over columns such as "10 labels"
        counts, named = [column.name.split()[0] for column in table.columns], {row.title: row.cells for row in table.rows}
    else:  # a line for each column, over rows such as "16"
        counts = ["0" if row.name == "original" else row.name for row in table.rows]
        named = {column.name: [row.cells[i] for row in table.rows] for i, column in enumerate(table.columns)}
    lines = {}
    for title, cells in named.items():
        found = zip(counts, cells, strict=True)
        lines[title] = sorted(_point(float(x), cell) for x, cell in found if x.isdecimal() and cell.mean is not None)
    metrics = {column.metric for column in table.columns}
    measured = f"{metric_title(metrics.pop())}, %" if len(metrics) == 1 else "each task's own score, %"
    return line_plot(lines, VARIED[table.task], measured, table.title)


def _point(x: float, cell: Cell) -> tuple[float, ...]:
    """Mean in percent; its bars are the deviation over seeds, or the interval of a single run."""
    mean = 100 * (cell.mean or 0.0)
    if cell.deviation is not None:
        return x, mean, 100 * cell.deviation, 100 * cell.deviation
    low, high = (100 * end for end in cell.ends) if cell.ends else (mean, mean)
    return x, mean, max(mean - low, 0.0), max(high - mean, 0.0)
