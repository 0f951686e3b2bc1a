"""Generated documentation: docs/cli.md from the commands' help, docs/api.md and the file map of docs/architecture.md.

python -m staf.cli.reference prints the first; python -m staf.cli.reference docs writes all three into that folder.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import staf

MAP_HEADING = "## File map\n"


def reference() -> str:
    """The help of every command as one Markdown page."""
    import typer

    from staf.cli import app

    root: Any = typer.main.get_command(app)
    parts = ["# The command line\n\nGenerated from `--help` by `make docs`; do not edit.\n"]
    return "\n".join([*parts, *_sections(root, "staf")])


def with_file_map(page: str) -> str:
    """The architecture page, with the path and the first line of the docstring of each module in its last section."""
    source = Path(__file__).parents[1]
    rows = ["| file | content |", "|---|---|"]
    for path in sorted(source.rglob("*.py"), key=lambda path: (len(path.relative_to(source).parts) > 1, path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if docstring and path.name != "__main__.py":
            rows.append(f"| {path.relative_to(source).as_posix()} | {docstring.splitlines()[0].replace('|', '/')} |")
    head, heading, rest = page.partition(MAP_HEADING)
    introduction = rest.strip().split("\n\n")[0]
    return f"{head}{heading}\n{introduction}\n\n" + "\n".join(rows) + "\n"


def api_reference() -> str:
    """The public names of `staf` as one Markdown page, from signatures and docstrings."""
    parts = [f"# The Python interface\n\nGenerated from the docstrings by `make docs`; do not edit.\n\n{staf.__doc__}"]
    for name in staf.__all__:
        path = Path(__file__).parents[1] / f"{staf.module_of(name).replace('.', '/')}.py"
        body = ast.parse(path.read_text(encoding="utf-8")).body
        node = next(one for one in body if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name)
        parts.append(_documented(node, f"## staf.{name}", f"staf.{name}"))
        members = node.body if isinstance(node, ast.ClassDef) else []
        for inner in members:
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and ast.get_docstring(inner):
                same = [one.targets for one in members if isinstance(one, ast.Assign) and ast.unparse(one.value) == inner.name]
                names = ", ".join([inner.name, *(ast.unparse(target) for targets in same for target in targets)])
                parts.append(_documented(inner, f"### {name}.{names}", inner.name))
    return "\n".join(parts)


def _documented(node: ast.ClassDef | ast.FunctionDef, heading: str, called: str) -> str:
    """A section for a class or function: its call, its docstring, and the fields of a class that have docstrings."""
    text, lines, found = ast.get_docstring(node) or "", [heading, ""], node
    if isinstance(node, ast.ClassDef) and "\nArgs:\n" in text:  # the others are made by functions
        found = next(one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    if isinstance(found, ast.FunctionDef) and "property" not in map(ast.unparse, node.decorator_list):
        returns = "" if found.returns is None or found is not node else f" -> {ast.unparse(found.returns)}"
        arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(found.args))
        lines.append(f"```python\n{called}({arguments}){returns}\n```\n")
    text = re.sub(r"(?m)^(Args|Raises|Returns|Attributes):$", r"\1:\n", text)
    lines.append(re.sub(r"(?m)^    (?=\S)", "- ", text).replace("\n        ", "\n  "))
    fields = getattr(getattr(staf, node.name, None), "model_fields", {})
    listed = [
        f"- `{name}` (default {info.get_default(call_default_factory=True)!r}): {info.description}"
        for name, info in fields.items() if info.description
    ]  # fmt: skip
    return "\n".join([*lines, *([""] if listed else []), *listed]) + "\n"


def _sections(command: Any, path: str) -> list[str]:
    """A section for a command, or for each command of a group."""
    if hasattr(command, "commands"):
        return [text for name, inner in command.commands.items() for text in _sections(inner, f"{path} {name}")]
    lines = [f"## {path}\n"]
    for paragraph in (command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        lines.append(f"    {text.removeprefix('Try: ').strip()}\n" if text.startswith("Try:") else f"{text}\n")
    for parameter in (one for one in command.params if one.name != "help"):
        names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
        default = parameter.default
        unsaid = default in (None, False) or parameter.required or callable(default)
        said = "" if unsaid else f" Default: `{default}`."
        lines.append(f"- `{names}`{' (required)' if parameter.required else ''}: {parameter.help or ''}{said}")
    return ["\n".join(lines) + "\n"]


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(reference(), end="")
    else:
        folder = Path(sys.argv[1])
        (folder / "cli.md").write_text(reference(), encoding="utf-8")
        (folder / "api.md").write_text(api_reference(), encoding="utf-8")
        page = folder / "architecture.md"
        page.write_text(with_file_map(page.read_text(encoding="utf-8")), encoding="utf-8")
