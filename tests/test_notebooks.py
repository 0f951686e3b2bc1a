"""The notebooks of examples/ and the Python of the pages run to their last line, on a tiny base with tiny experts."""

from __future__ import annotations

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from conftest import three_experts

from staf.experts.sets import write_set
from staf.lm.base import Base

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = ("triage/triage.ipynb", "classifier.ipynb")


def code_cells(notebook: str) -> list[dict[str, object]]:
    found = json.loads((EXAMPLES / notebook).read_text(encoding="utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
    return [cell for cell in found["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_of_the_examples_is_run_here() -> None:
    assert {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(notebook: str) -> None:
    assert [cell for cell in code_cells(notebook) if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    notebook: str, base: Base, tiny_folder: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    write_set(tmp_path / "experts", list(three_experts(base).experts))
    monkeypatch.chdir((tmp_path / "examples" / notebook).parent)
    settings = {"EXPERTS": tmp_path / "experts", "BASE": tiny_folder, "ENCODER": tiny_encoder, "EVALUATIONS": 8, "MINUTES": 0.5}
    for name, value in settings.items():
        monkeypatch.setenv(f"STAF_NOTEBOOK_{name}", str(value))
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(notebook), 1):
        tree = ast.parse("".join(cell["source"]), f"{notebook}, code cell {number}")  # type: ignore[arg-type]
        shown = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
        exec(compile(tree, f"{notebook}, code cell {number}", "exec"), names)
        if shown is not None:  # a notebook shows the value of a cell's last line
            assert repr(eval(compile(shown, f"{notebook}, code cell {number}", "eval"), names))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_python_of_a_page_runs(
    page: str, base: Base, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    found = re.search(r"(?m)^## In Python\n\n((?: {4}.*\n)+)", text)
    assert found
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    write_set(tmp_path / "demo" / "experts", list(three_experts(base).experts))
    monkeypatch.chdir(tmp_path)
    code = textwrap.dedent(found[1]).replace("load_model(", f'load_model(base="{tiny_folder}", ')
    exec(compile(code, page, "exec"), {})
    assert (tmp_path / "triage-adapter" / "adapter_config.json").is_file()
