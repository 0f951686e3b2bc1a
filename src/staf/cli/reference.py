"""docs/cli.md, made from the commands' own help: python -m staf.cli.reference > docs/cli.md."""

from __future__ import annotations

from typing import Any


def reference() -> str:
    """The help of every command as one Markdown page."""
    import typer

    from staf.cli import app

    root: Any = typer.main.get_command(app)
    parts = ["# The command line\n\nMade from `--help` by `make docs`; do not edit.\n"]
    parts += [_section(command, path) for path, command in _commands(root, ("staf",))]
    return "\n".join(parts)


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
    print(reference(), end="")
