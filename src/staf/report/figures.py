"""Figures of finished runs as inline SVG: text stays text, colours follow the page, the same runs give the same bytes.

A figure is drawn narrow (about 290 points), so that it is readable at the width of a phone and may grow on a desktop.
Colours are drawn from `COLOURS` and then replaced by CSS variables, `var(--normal, #0b6e99)`, so that a page can
restyle them for dark mode. A figure with nothing to show is an empty string.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from staf.report.collect import Result
from staf.report.tables import (
    MISSING,
    Group,
    method_groups,
    number_text,
    primary_name,
    scale,
    score_text,
    task_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ink": "#1c2733",
    "muted": "#66727f",
    "grid": "#dde2e7",
    "few": "#bf5a0a",
    "normal": "#0b6e99",
    "scaled": "#7a4fb5",
}
"""Name of the CSS variable, and the colour where the page does not set it."""

METHOD_COLOURS = {"few_shot": "few", "normal": "normal", "normal_scaled": "scaled"}
"""Colour of a router; every other method is drawn in "muted"."""

WIDTH = 4.0
"""Width of a figure in inches."""


def weights_figure(results: Sequence[Result], task: str) -> str:
    """Mean expert weights of the routers of `task` as horizontal bars, one bar a router for each expert (Fig. 7)."""
    groups = [g for g in method_groups(results, task) if g.method in METHOD_COLOURS and _weights(g)]
    if not groups:
        return ""
    experts = sorted({expert for group in groups for expert in _weights(group)})
    means = [_mean_weights(group) for group in groups]
    bar = 0.8 / len(groups)
    with _style():
        figure, axes = _canvas(0.75 + len(experts) * (0.16 + 0.17 * len(groups)))
        for g, (group, mean) in enumerate(zip(groups, means, strict=True)):
            places = [i + (g - (len(groups) - 1) / 2) * bar for i in range(len(experts))]
            colour = COLOURS[METHOD_COLOURS[group.method]]
            values = [mean.get(expert, 0.0) for expert in experts]
            axes.barh(places, values, height=bar * 0.86, color=colour, label=group.title)
            for place, expert in zip(places, experts, strict=True):
                text = f"{mean[expert]:.2f}" if expert in mean else MISSING
                _note(axes, text, max(mean.get(expert, 0.0), 0.0), place, color=COLOURS["muted"], fontsize=7.5)
        even = 1 / len(experts)
        axes.axvline(even, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
        axes.text(even, -0.62, "equal shares", fontsize=7.5, ha="center", va="bottom", color=COLOURS["muted"])
        axes.set_yticks(range(len(experts)), [expert.replace("_", " ") for expert in experts])
        axes.set_ylim(len(experts) - 0.4, -0.6)
        low = min(0.0, *(value for mean in means for value in mean.values()))
        axes.set_xlim(low * 1.2, 1.2 * max(even, *(value for mean in means for value in mean.values())))
        _legend(figure, axes)
        label = "; ".join(
            f"{group.title}: " + ", ".join(f"{e.replace('_', ' ')} {mean[e]:.2f}" for e in experts if e in mean)
            for group, mean in zip(groups, means, strict=True)
        )
        return _svg(figure, f"Expert weights for {task_title(results, task)}. {label}.")


def scores_figure(results: Sequence[Result], task: str) -> str:
    """The primary score of each method on `task` as a dot with its 95 % interval; a bar for each seed."""
    groups = [g for g in method_groups(results, task) if _points(g)]
    if not groups:
        return ""
    metric = primary_name(groups[0].results)
    factor = scale(groups[0].results, metric)
    everything = [point for group in groups for points in _points(group) for point in points]
    with _style():
        figure, axes = _canvas(0.45 + 0.42 * len(groups))
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
            _note(axes, number_text(middle, factor), end, row + 0.2, color=colour, fontsize=8.5, fontweight="bold")
        axes.set_yticks([])
        axes.set_ylim(len(groups) - 0.45, -0.45)
        axes.set_xlim(min(0.0, *everything) * factor, max(everything) * factor * 1.14 or 1.0)
        title = task_title(results, task)
        label = "; ".join(f"{group.title} {score_text(group.results, metric)}" for group in groups)
        return _svg(figure, f"{metric.replace('_', ' ')} on {title}, with 95 % intervals. {label}.")


def rank_map(result: Result) -> str:
    """Ranks that an expert kept, layers down and matrices across; a fuller colour is a higher rank, grey is 0."""
    cells = _rank_cells(result.get("ranks") or {})
    if not cells:
        return ""
    layers = sorted({layer for layer, _ in cells})
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    most = max(max(cells.values()), 1)
    with _style():
        figure, axes = _canvas(0.55 + 0.145 * len(layers))
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
        _legend(figure, axes, columns=10)
        average = statistics.fmean(cells.values())
        return _svg(
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
    with _style():
        figure, axes = _canvas(1.9)
        axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
        axes.plot(steps, losses, color=COLOURS["normal"], linewidth=1.6)
        axes.plot(steps[-1:], losses[-1:], "o", color=COLOURS["normal"], markersize=4.5)
        axes.set_xlim(steps[0], steps[-1] + 0.04 * (steps[-1] - steps[0]))
        axes.set_ylim(min(0.0, *losses), max(losses) * 1.05 or 1.0)
        axes.set_xlabel("step", color=COLOURS["muted"])
        ends = [f"{loss:.2f} at step {step:g}" for step, loss in (curve[0], curve[-1])]
        return _svg(figure, f"Training loss of {result['task']}: {', '.join(ends)}.")


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


# ---- drawing ---------------------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    """Our settings for one figure, whatever the user's are; a "$" in a name does not make it a formula."""
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "staf",
        "text.parse_math": False,
        "font.size": 8.5,
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["ink"],
        "axes.edgecolor": COLOURS["grid"],
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def _canvas(height: float) -> tuple[Figure, Axes]:
    """An empty figure without frame or background, `height` inches tall, with a light vertical grid."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=COLOURS["grid"], linewidth=0.8)
    return figure, axes


def _note(axes: Axes, text: str, x: float, y: float, **look: Any) -> None:
    """A number a little to the right of the end of a bar."""
    axes.annotate(text, (x, y), (3, 0), textcoords="offset points", va="center", **look)


def _legend(figure: Figure, axes: Axes, columns: int = 1) -> None:
    handles, labels = axes.get_legend_handles_labels()
    look: dict[str, Any] = {"frameon": False, "handlelength": 1, "handleheight": 1, "fontsize": 8, "ncols": columns}
    figure.legend(handles, labels, loc="outside lower left", columnspacing=1, handletextpad=0.5, **look)


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


def _svg(figure: Figure, label: str) -> str:
    """The figure as an <svg> element with a label for screen readers, unique ids, and no address of another site."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    for unwanted in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<defs>\s*<style.*?</style>\s*</defs>"):
        body = re.sub(unwanted, "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    body = re.sub(r"^<svg[^>]*>", "", body)
    name = "f" + hashlib.sha256((label + body).encode()).hexdigest()[:8]
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body)
    for variable, colour in COLOURS.items():
        body = re.sub(rf"\b(fill|stroke): {colour}", rf"\1: var(--{variable}, {colour})", body)
    head = f'<svg class="plot" viewBox="{box[1] if box else ""}" role="img" aria-label="{html.escape(label)}">'
    return f"{head}{body.strip()}\n"
