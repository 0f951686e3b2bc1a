"""Generated documentation: docs/cli.md from the commands' help, the file map of docs/architecture.md from docstrings.

python -m staf.cli.reference prints the first; python -m staf.cli.reference docs writes both into that folder.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

MAP_HEADING = "## File map\n"


def reference() -> str:
    """The help of every command as one Markdown page."""
    import typer

    from staf.cli import app

    root: Any = typer.main.get_command(app)
    parts = ["# The command line\n\nGenerated from `--help` by `make docs`; do not edit.\n"]
    parts += [_section(command, path) for path, command in _commands(root, ("staf",))]
    return "\n".join(parts)


def file_map() -> str:
    """One table row per module: its path below src/staf and the first line of its docstring."""
    source = Path(__file__).parents[1]
    rows = ["| file | content |", "|---|---|"]
    for path in sorted(source.rglob("*.py"), key=lambda path: (len(path.relative_to(source).parts) > 1, path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if docstring and path.name != "__main__.py":
            rows.append(f"| {path.relative_to(source).as_posix()} | {docstring.splitlines()[0].replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def with_file_map(page: str) -> str:
    """The architecture page with the file map in its last section."""
    head, heading, rest = page.partition(MAP_HEADING)
    introduction = rest.strip().split("\n\n")[0]
    return f"{head}{heading}\n{introduction}\n\n{file_map()}"


def write_pages(folder: Path) -> None:
    """Write docs/cli.md and the file map of docs/architecture.md."""
    (folder / "cli.md").write_text(reference(), encoding="utf-8")
    page = folder / "architecture.md"
    page.write_text(with_file_map(page.read_text(encoding="utf-8")), encoding="utf-8")


def _commands(group: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = (*path, name)
        found += _commands(command, here) if hasattr(command, "commands") else [(here, command)]
    return found


def _section(command: Any, path: tuple[str, ...]) -> str:
    lines = [f"## {' '.join(path)}\n"]
    for paragraph in (command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        lines.append(f"    {text.removeprefix('Try: ').strip()}\n" if text.startswith("Try:") else f"{text}\n")
    for parameter in command.params:
        if parameter.name == "help":
            continue
        option = parameter.param_type_name == "option"
        names = ", ".join(parameter.opts) if option else parameter.name.upper()
        default = parameter.default
        unsaid = default in (None, False) or parameter.required or callable(default)
        said = "" if unsaid else f" Default: `{default}`."
        lines.append(f"- `{names}`{' (required)' if parameter.required else ''}: {parameter.help or ''}{said}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_pages(Path(sys.argv[1]))
    else:
        print(reference(), end="")
