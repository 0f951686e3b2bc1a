"""Generated pages are current, and what the documents promise has a test."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from staf.cli import app
from staf.cli.reference import api_reference, with_file_map

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
PAGES = ("README.md", "docs/quickstart.md", "docs/data.md", "docs/training.md", "docs/classifiers.md")
"""Each of their sentences with "never" or "always" is in docs/promises.md."""


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def promises() -> list[tuple[str, str, list[str]]]:
    """(quotation, document, tests) of each row of docs/promises.md."""
    rows = [line.strip("| ").split(" | ") for line in (DOCS / "promises.md").read_text(encoding="utf-8").splitlines()]
    return [(row[0], row[1], re.findall(r"`([\w.]+::\w+)`", row[2])) for row in rows if len(row) == 3 and "::" in row[2]]


def test_the_file_map_is_made_from_the_docstrings_of_today() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert page == with_file_map(page), "run: make docs"


def test_the_python_interface_is_documented_from_the_docstrings_of_today() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == api_reference(), "run: make docs"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_promise_is_quoted_from_its_document_and_names_tests_that_are_there() -> None:
    found = promises()
    assert len(found) >= 40
    texts = {name: plain((ROOT / name).read_text(encoding="utf-8")) for _, name, _ in found}
    assert [promise for promise, name, _ in found if promise not in texts[name]] == []
    functions: dict[str, set[str]] = {}
    for file in {test.partition("::")[0] for _, _, tests in found for test in tests}:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8")) if (TESTS / file).is_file() else ast.Module([], [])
        functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = [test.split("::") for _, _, tests in found for test in tests]
    assert [f"{file}::{name}" for file, name in named if name not in functions[file]] == []
    assert all(tests for _, _, tests in found)


@pytest.mark.parametrize("page", PAGES)
def test_every_never_and_always_has_a_test(page: str) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"))
    quoted = [promise for promise, name, _ in promises() if name == page]
    sentences = re.split(r"(?<=[.:;]) (?=[A-Z`*])", plain(re.sub(r"\n\n|\n(?=[-|] )", ". ", text)))
    strong = [sentence for sentence in sentences if re.search(r"\b(never|always)\b", sentence, re.IGNORECASE)]
    assert [sentence for sentence in strong if not any(promise in sentence for promise in quoted)] == []


def commands() -> list[tuple[str, str]]:
    """(page, command) of each indented line that calls staf, without the comment that follows it."""
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/*.md")]
    found = []
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"(?m)^ {4}(staf .*)$", text)
        found += [(page.relative_to(ROOT).as_posix(), re.sub(r"\s{3,}[^-\s].*|\s+#.*", "", line)) for line in lines]
    return [(page, line) for page, line in found if "..." not in line]


def parse(words: list[str]) -> None:
    """Parse a command's words as the command line does, and run nothing."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    while hasattr(command, "resolve_command"):
        context = command.make_context(command.name, words, parent=context)
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_in_a_document_is_one_that_the_command_line_takes(page: str, line: str) -> None:
    with contextlib.suppress(typer.Exit):  # --list-options
        parse(shlex.split(line)[1:])


def test_the_commands_of_the_documents_are_found() -> None:
    assert len({page for page, _ in commands()}) >= 5
    assert len(commands()) >= 40
