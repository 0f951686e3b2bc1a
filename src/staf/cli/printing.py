"""How commands print: tables and JSON to stdout; progress goes to stderr (`staf.log.Terminal`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from staf.log import CONTROL
from staf.log import Terminal as Terminal


def say(*lines: str) -> None:
    """Lines on stdout."""
    print("\n".join(lines).translate(CONTROL))


def emit(as_json: bool, value: Any, *lines: str) -> None:
    """A result on stdout: as JSON, else its lines."""
    say(*([json.dumps(value, indent=2, ensure_ascii=False, default=str)] if as_json else lines))


def emit_table(as_json: bool, rows: Sequence[dict[str, Any]], columns: Sequence[str] = (), title: str = "") -> None:
    """Rows on stdout: as JSON, else as a table of all columns or some."""
    if as_json:
        emit(True, rows)
        return
    from rich.console import Console
    from rich.table import Table

    columns = columns or list(rows[0])
    table = Table(title=title.translate(CONTROL) or None, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " ").translate(CONTROL), overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(_cell(row.get(column)).translate(CONTROL) for column in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table, markup=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return "-" if value is None else str(value)
