"""Figures of finished runs as inline SVG.

A figure is drawn narrow (about 290 points), so that it is readable at the width of a phone and may grow on a desktop.
A figure with nothing to show is an empty string.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from staf.report.collect import Result
from staf.report.drawing import COLOURS, as_svg, canvas, legend, note, style
from staf.report.groups import Group, method_groups, primary_name, task_title
from staf.report.texts import MISSING, number_text, scale, score_text

METHOD_COLOURS = {"few_shot": "few", "normal": "normal", "normal_scaled": "scaled"}
"""Colour of a router; every other method is drawn in "muted"."""

LINES = {"few_shot": ("few", "s", "-"), "normal": ("normal", "o", "-"), "original": ("muted", "D", "-.")}
"""Colour, marker and dashes of a line; every other method takes the next of `OTHER_LINES`."""
OTHER_LINES = (
    ("scaled", "^", "--"), ("muted", "v", ":"), ("few", "P", "--"), ("normal", "X", ":"), ("scaled", "*", "-"),
    ("muted", "h", "--"),
)  # fmt: skip
MOST_LINES = 6
"""More would not be told apart."""
LETTERS = 48
"""that a line of a key holds"""
QUALITY = {"choice": "Accuracy", "span": "Exact match", "text": "ROUGE-L"}
"""What is averaged of the answers that are given, by form; of labels and entities it is the F1 of each item."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Weights of experts under one name."""

    title: str
    colour: str
    """a name of `COLOURS`"""
    weights: Mapping[str, float]
    deviations: Mapping[str, float] = field(default_factory=dict)
    """over seeds; drawn as a line about the end of the bar"""


def weights_figure(results: Sequence[Result], task: str) -> str:
    """Mean expert weights of the routers of `task` as horizontal bars, one bar a router for each expert (Fig. 7).

    Of a router that was run in several variants, the one with the most experts is drawn, then the one with the most examples.
    """
    groups = [g for g in method_groups(results, task) if g.method in METHOD_COLOURS and _weights(g)]
    size = {g.title: (len(_weights(g)), g.results[0].get("adaptation_examples") or 0) for g in groups}
    shown = {g.method: max((o for o in groups if o.method == g.method), key=lambda o: size[o.title]) for g in groups}
    bars = [Bars(group.title, METHOD_COLOURS[method], _mean_weights(group)) for method, group in shown.items()]
    return weight_bars(bars, f"Expert weights for {task_title(results, task)}")


def weight_bars(bars: Sequence[Bars], title: str) -> str:
    """Weights of experts as horizontal bars, one bar a name for each expert; the dashed line is an equal share."""
    experts = sorted({expert for one in bars for expert in one.weights})
    if not experts:
        return ""
    everything = [value for one in bars for value in one.weights.values()]
    width = 0.8 / len(bars)
    with style():
        figure, axes = canvas(0.75 + len(experts) * (0.16 + 0.17 * len(bars)))
        for b, one in enumerate(bars):
            places = [i + (b - (len(bars) - 1) / 2) * width for i in range(len(experts))]
            values = [one.weights.get(expert, 0.0) for expert in experts]
            axes.barh(places, values, height=width * 0.86, color=COLOURS[one.colour], label=one.title)
            for place, expert in zip(places, experts, strict=True):
                value, reach = one.weights.get(expert), one.deviations.get(expert, 0.0)
                if reach:
                    ends = [(value or 0.0) - reach, (value or 0.0) + reach]
                    axes.plot(ends, [place, place], color=COLOURS["ink"], linewidth=0.9)
                text = MISSING if value is None else f"{value:.2f}"
                note(axes, text, max(value or 0.0, 0.0) + reach, place, color=COLOURS["muted"], fontsize=7.5)
        even = 1 / len(experts)
        axes.axvline(even, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
        axes.text(even, -0.62, "equal shares", fontsize=7.5, ha="center", va="bottom", color=COLOURS["muted"])
        axes.set_yticks(range(len(experts)), [expert.replace("_", " ") for expert in experts])
        axes.set_ylim(len(experts) - 0.4, -0.6)
        most = max(even, *(one.weights[e] + one.deviations.get(e, 0.0) for one in bars for e in one.weights))
        axes.set_xlim(min(0.0, *everything) * 1.2, 1.2 * most)
        legend(figure, axes)
        told = [", ".join(f"{e.replace('_', ' ')} {one.weights[e]:.2f}" for e in experts if e in one.weights) for one in bars]
        label = "; ".join(f"{one.title}: {text}" for one, text in zip(bars, told, strict=True))
        return as_svg(figure, f"{title}. {label}.")


def scores_figure(results: Sequence[Result], task: str) -> str:
    """The primary score of each method on `task` as a dot with its 95 % interval; a bar for each seed."""
    groups = [g for g in method_groups(results, task) if _points(g)]
    if not groups:
        return ""
    metric = primary_name(groups[0].results)
    factor = scale(groups[0].results, metric)
    everything = [point for group in groups for points in _points(group) for point in points]
    with style():
        figure, axes = canvas(0.45 + 0.42 * len(groups))
        for row, group in enumerate(groups):
            colour = COLOURS[METHOD_COLOURS.get(group.method, "muted")]
            points = _points(group)
            middle = statistics.fmean(value for _, value, _ in points)
            for s, (low, value, high) in enumerate(points):
                place = row + 0.2 + 0.13 * (s - (len(points) - 1) / 2)
                axes.plot([low * factor, high * factor], [place, place], color=colour, linewidth=1.6, alpha=0.55)
                if len(points) > 1:
                    axes.plot([value * factor], [place], "o", color=colour, markersize=2.4)
            axes.plot([middle * factor], [row + 0.2], "o", color=colour, markersize=6.5)
            axes.text(0.0, row - 0.16, group.title, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
            end = max(high for _, _, high in points) * factor
            note(axes, number_text(middle, factor), end, row + 0.2, color=colour, fontsize=8.5, fontweight="bold")
        axes.set_yticks([])
        axes.set_ylim(len(groups) - 0.45, -0.45)
        axes.set_xlim(min(0.0, *everything) * factor, max(everything) * factor * 1.14 or 1.0)
        title = task_title(results, task)
        label = "; ".join(f"{group.title} {score_text(group.results, metric)}" for group in groups)
        return as_svg(figure, f"{metric.replace('_', ' ')} on {title}, with 95 % intervals. {label}.")


def selective_figure(results: Sequence[Result], task: str) -> str:
    """Quality of the answers that are given against coverage, surest items first: a line for each of at most six methods.

    They are the original model, our routers, then the methods that are best on all items; of several variants of a method the
    one with the most examples.
    """
    shown = _told_first([(group, points) for group in method_groups(results, task) if (points := _selective(group))])
    if not shown:
        return ""
    others = iter(OTHER_LINES)
    quality = f"{QUALITY.get(str(shown[0][0].results[0].get('form')), 'F1')} of the answers given"
    titles = [textwrap.fill(group.title, LETTERS) for group, _ in shown]
    with style():
        figure, axes = canvas(2.2 + 0.16 * sum(1 + title.count("\n") for title in titles))
        axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
        for number, (group, points) in enumerate(shown):
            name, marker, dashes = LINES.get(group.method) or next(others)
            coverages, values = ([100 * point[axis] for point in points] for axis in (0, 1))
            look: dict[str, Any] = {"color": COLOURS[name], "linewidth": 1.5, "marker": marker, "markersize": 4}
            axes.plot(coverages, values, dashes, markevery=(number % 3, 3), label=titles[number], **look)
        axes.set_xlim(0, 102)
        axes.set_xlabel("coverage: share of the items answered, %", color=COLOURS["muted"])
        axes.set_ylabel(f"{quality}, %", color=COLOURS["muted"])
        legend(figure, axes)
        told = "; ".join(f"{group.title} {_ends_text(points)}" for group, points in shown)
        return as_svg(figure, f"{quality} by coverage, surest first, on {task_title(results, task)}. {told}.")


def rank_map(result: Result) -> str:
    """Ranks that an expert kept, layers down and matrices across; a fuller colour is a higher rank, grey is 0."""
    cells = _rank_cells(result.get("ranks") or {})
    if not cells:
        return ""
    layers = sorted({layer for layer, _ in cells})
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    most = max(max(cells.values()), 1)
    with style():
        figure, axes = canvas(0.55 + 0.145 * len(layers))
        levels = sorted(set(cells.values()))
        for i, rank in enumerate(levels):
            places = [(kinds.index(k), layers.index(layer)) for (layer, k), r in cells.items() if r == rank]
            named = (len(levels) - 1 - i) % (1 + (len(levels) - 1) // 10) == 0  # at most ten fit below the map
            axes.add_patch(_squares(places, rank, most, f"{rank:g}" if named else ""))
        axes.set_xlim(-0.5, len(kinds) - 0.5)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.grid(False)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(kinds)), [kind.replace("_proj", "") for kind in kinds])
        step = max(1, len(layers) // 8)
        axes.set_yticks(range(0, len(layers), step), [f"layer {layer}" for layer in layers[::step]])
        legend(figure, axes, columns=10)
        average = statistics.fmean(cells.values())
        return as_svg(
            figure,
            f"Ranks kept by {result['task']}: {len(layers)} layers by {len(kinds)} matrices, "
            f"average {average:.1f}, from {min(cells.values()):g} to {max(cells.values()):g}.",
        )


def learning_curve(result: Result) -> str:
    """Training loss by step, where the run kept its curve."""
    curve = result.get("curve") or []
    if len(curve) < 2:
        return ""
    steps, losses = [point[0] for point in curve], [point[1] for point in curve]
    with style():
        figure, axes = canvas(1.9)
        axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
        axes.plot(steps, losses, color=COLOURS["normal"], linewidth=1.6)
        axes.plot(steps[-1:], losses[-1:], "o", color=COLOURS["normal"], markersize=4.5)
        axes.set_xlim(steps[0], steps[-1] + 0.04 * (steps[-1] - steps[0]))
        axes.set_ylim(min(0.0, *losses), max(losses) * 1.05 or 1.0)
        axes.set_xlabel("step", color=COLOURS["muted"])
        ends = [f"{loss:.2f} at step {step:g}" for step, loss in (curve[0], curve[-1])]
        return as_svg(figure, f"Training loss of {result['task']}: {', '.join(ends)}.")


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _weights(group: Group) -> dict[str, float]:
    found: dict[str, float] = {}
    for result in group.results:
        found |= result.get("weights") or {}
    return found


def _mean_weights(group: Group) -> dict[str, float]:
    tables = [result["weights"] for result in group.results if result.get("weights")]
    return {expert: statistics.fmean(t[expert] for t in tables if expert in t) for expert in _weights(group)}


def _points(group: Group) -> list[tuple[float, float, float]]:
    """(low, value, high) of each seed; an unknown end is the value itself."""
    metric = primary_name(group.results)
    found = [m for r in group.results if (m := (r.get("metrics") or {}).get(metric)) and m.get("value") is not None]
    return [tuple(m["value"] if m.get(k) is None else m[k] for k in ("low", "value", "high")) for m in found]


Points = list[tuple[float, float]]


def _selective(group: Group) -> Points:
    """(coverage, quality) averaged over seeds, at the coverages that all of them have; [] where one has no curve."""
    curves = [{point["coverage"]: point["value"] for point in result.get("selective") or []} for result in group.results]
    shared = sorted(set.intersection(*map(set, curves)))
    return [(coverage, statistics.fmean(curve[coverage] for curve in curves)) for coverage in shared]


def _told_first(curves: Sequence[tuple[Group, Points]]) -> list[tuple[Group, Points]]:
    """The methods whose curves are drawn, in the order in which they come."""
    fewest_first = sorted(curves, key=lambda curve: curve[0].results[0].get("adaptation_examples") or 0)
    largest = {group.method: (group, points) for group, points in fewest_first}
    ours = ("original", *METHOD_COLOURS)
    ranked = sorted(largest, key=lambda method: (method not in ours, -largest[method][1][-1][1]))[:MOST_LINES]
    return [largest[method] for method in dict.fromkeys(group.method for group, _ in curves) if method in ranked]


def _ends_text(points: Points) -> str:
    """Such as "90.0 at 5 %, 62.0 at 100 %"."""
    return ", ".join(f"{number_text(value, 100)} at {100 * coverage:.0f}\u00a0%" for coverage, value in (points[0], points[-1]))


def _rank_cells(ranks: dict[str, float]) -> dict[tuple[int, str], float]:
    """Rank by (layer, matrix kind), in the order of the result, from names like "layers.0.self_attn.q_proj"."""
    cells = {}
    for name, rank in ranks.items():
        if match := re.search(r"(?:^|\.)(\d+)\.(?:.*\.)?([^.]+)$", name):
            cells[int(match[1]), match[2]] = rank
    order = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return dict(
        sorted(cells.items(), key=lambda c: (order.index(c[0][1]) if c[0][1] in order else len(order), c[0][1], c[0][0]))
    )


def _squares(places: list[tuple[int, int]], rank: float, most: float, label: str) -> Any:
    """All cells of one rank as a single path, which keeps a page of twelve maps small."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = ((-0.46, -0.42), (0.46, -0.42), (0.46, 0.42), (-0.46, 0.42), (-0.46, -0.42))
    points = [(x + dx, y + dy) for x, y in places for dx, dy in corners]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(places)
    colour = COLOURS["normal"] if rank else COLOURS["grid"]
    alpha = 0.15 + 0.85 * rank / most if rank else 0.5
    return PathPatch(Path(points, codes), facecolor=colour, alpha=alpha, linewidth=0, label=label)
