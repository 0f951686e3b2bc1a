"""How figures are drawn: our settings, an empty canvas, and the drawing as inline SVG that follows the page's colours.

Text stays text, colours follow the page, the same numbers give the same bytes. Colours are drawn from `COLOURS` and then
replaced by CSS variables, `var(--normal, #0b6e99)`, so that a page can restyle them for dark mode.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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

WIDTH = 4.0
"""Width of a figure in inches."""


@contextmanager
def style() -> Iterator[None]:
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


def canvas(height: float) -> tuple[Figure, Axes]:
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


def note(axes: Axes, text: str, x: float, y: float, **look: Any) -> None:
    """A number a little to the right of the end of a bar."""
    axes.annotate(text, (x, y), (3, 0), textcoords="offset points", va="center", **look)


def legend(figure: Figure, axes: Axes, columns: int = 1) -> None:
    """The key of the colours below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    look: dict[str, Any] = {"frameon": False, "handlelength": 1, "handleheight": 1, "fontsize": 8, "ncols": columns}
    figure.legend(handles, labels, loc="outside lower left", columnspacing=1, handletextpad=0.5, **look)


def as_svg(figure: Figure, label: str) -> str:
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


def standalone(svg: str) -> str:
    """An <svg> element as a file of its own, which needs the names of its languages."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {names} ", 1)
