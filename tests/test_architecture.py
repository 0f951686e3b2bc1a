"""Import order, sizes of files and functions, and that the documents agree with the code."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "staf"
PACKAGES = (
    "errors", "io", "log", "config", "compute", "checkpoint_io", "runs", "data", "lm", "experts", "routing", "metrics",
    "evaluate", "baselines", "export", "stages", "predict", "serve", "env", "report",
    "experiments", "model", "cli",
)  # fmt: skip
"""From the bottom up: a module imports only from its own package and from packages before it."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def package_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("staf"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "staf" else [node.module]
            found += [name for name in names if not name.endswith("__version__")]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("staf.")]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_only_from_packages_before_its_own(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        assert PACKAGES.index(package_of(name)) <= PACKAGES.index(own), f"{own} imports {name}"


def test_report_reads_only_runs() -> None:
    allowed = {"errors", "io", "metrics", "report"}
    for path in (SOURCE / "report").glob("*.py"):
        assert {package_of(name) for name in imports(path)} <= allowed


def test_every_package_is_listed() -> None:
    found = {p.relative_to(SOURCE).parts[0].removesuffix(".py") for p in modules()} - {"__init__"}
    assert found == set(PACKAGES)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, f"{node.name} is too long"


def test_functions_that_the_paper_page_lists_exist() -> None:
    named = re.findall(r"`(staf\.[a-z_.]+\.[A-Za-z_]+)`", (ROOT / "docs" / "paper.md").read_text())
    assert len(named) > 20
    for dotted in named:
        module, _, name = dotted.rpartition(".")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, owner = module.rpartition(".")
            found = getattr(importlib.import_module(module), owner)
        assert hasattr(found, name), dotted


def test_every_equation_of_the_paper_has_a_line_that_computes_it() -> None:
    text = "\n".join(path.read_text() for path in modules())
    for equation in ("1", "2", "3", "4", "5", "6", "7", "10", "A.1", "A.2", "A.3", "A.4", "A.5", "A.6"):
        assert re.search(rf"# Eqs?\. {re.escape(equation)}(?![\d.])", text), f"Eq. {equation}"


def test_the_version_is_the_same_everywhere() -> None:
    from staf import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_wheel_holds_every_file_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["staf"]
    packaged = {path for pattern in settings for path in SOURCE.glob(pattern)}
    files = {path for path in SOURCE.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == packaged | {SOURCE / "py.typed"}
    assert all((path.parent / "__init__.py").is_file() for path in modules())  # setuptools finds packages by it


def test_no_secret_of_the_machine_is_in_a_tracked_file() -> None:
    for path in [*modules(), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]:
        assert not re.search(r"(?<![\w.])/(home|root|work|farm)/", path.read_text()), path


def test_the_command_line_page_is_made_from_the_help_of_today() -> None:
    from staf.cli.reference import reference

    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run: make docs"


def test_every_data_set_has_its_source_and_licence_documented() -> None:
    from staf.data.card import builtin_cards

    page = (ROOT / "docs" / "data.md").read_text()
    for row in builtin_cards().values():
        assert f"| `{row.name}` |" in page
        assert row.licence.split()[0] in page
