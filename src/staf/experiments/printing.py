"""A reproduced table on a terminal: ours, and below each number the papers'."""

from __future__ import annotations

from typing import Any


def print_plan(result: dict[str, Any]) -> None:
    """The table, what differs from the papers, and wins, ties and losses of our routers."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    table = Table(title=result["title"])
    for header in ("Method", "Setting", *(f"{c['name']}\n{c['task']}\n{c['metric']}" for c in result["columns"])):
        table.add_column(header)
    text = counted_text if result["prompt_tokens"] else place_text
    for line in result["lines"]:
        table.add_row(line["title"], line["setting"], *map(text, line["places"]))
    console.print(table)
    unit = "tokens of a prompt" if result["prompt_tokens"] else "in percent, mean and deviation over seeds"
    console.print(f"Ours: base {result['base']['name']}, {unit}. Papers: Llama-2-7B. {result['differs']}")
    if result["comparisons"]:
        console.print(comparison_table(result))


def comparison_table(result: dict[str, Any]) -> Any:
    """The paired tests as a table of rich, a line for each pair of rows: difference in points on each task, and over all."""
    from rich.table import Table

    columns = list(dict.fromkeys(row["column"] for row in result["comparisons"]))
    table = Table(
        title="Differences in points, paired by item, chance of items and seeds counted; a win or a loss has p < 0.05"
    )
    for header in ("Row", "against", *columns, *(["mean, 95 % interval"] if result["over_columns"] else [])):
        table.add_column(header)
    compared = list(dict.fromkeys((row["ours"], row["other"]) for row in result["comparisons"]))
    for place, (ours, other) in enumerate(compared):
        own = [row for row in result["comparisons"] + result["over_columns"] if (row["ours"], row["other"]) == (ours, other)]
        places = [next((row for row in own if row.get("column") == column), None) for column in columns]
        means = [comparison_text(row) for row in own if "column" not in row] or [""] * bool(result["over_columns"])
        ends = place + 1 < len(compared) and compared[place + 1][0] != ours
        shown = (f"{points(row)} {row['verdict']} ({chance(row)})" if row else "-" for row in places)
        table.add_row(ours, other, *shown, *means, end_section=ends)
    return table


def points(row: dict[str, Any]) -> str:
    """A difference in points."""
    return f"{100 * row['difference']:+.1f}"


def comparison_text(row: dict[str, Any]) -> str:
    """A mean difference over columns, in points."""
    return f"{points(row)} ({100 * row['low']:.1f} to {100 * row['high']:.1f}) {row['verdict']} ({chance(row)})"


def chance(row: dict[str, Any]) -> str:
    """A comparison's p-value."""
    return "p < 0.001" if row["p_value"] < 0.001 else f"p {row['p_value']:.3f}"


def place_text(place: dict[str, Any]) -> str:
    """One place: mean and deviation in percent, then the papers' numbers."""
    if place["mean"] is None:
        ours = "-"
    elif place["deviation"] is None:
        ours = f"{100 * place['mean']:.1f}"
    else:
        ours = f"{100 * place['mean']:.1f} ± {100 * place['deviation']:.1f} ({place['seeds']})"
    if place.get("prompt_tokens"):
        ours += f"\n{counted_text(place)}"
    printed = [f"{paper} {value}" for paper, value in place["papers"].items()]
    return "\n".join([ours, *printed])


def counted_text(place: dict[str, Any]) -> str:
    """One place whose prompts were counted: tokens, and how many shots are in them."""
    if not place.get("prompt_tokens"):
        return "-"
    return f"{place['prompt_tokens']:.0f} tokens, {place['shots_shown'] or 0:.1f} shots"
