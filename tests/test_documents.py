"""Generated pages are current."""

from __future__ import annotations

from pathlib import Path

from staf.cli.reference import with_file_map

DOCS = Path(__file__).parent.parent / "docs"


def test_the_file_map_is_made_from_the_docstrings_of_today() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert page == with_file_map(page), "run: make docs"


def test_the_readme_is_short() -> None:
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
