"""Plain technical English: expressions that were replaced do not return to src, README and docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REPLACED = {
    r"gone on with|goes? on where": "resume",
    r"told|tells apart": "reported, given, distinguished",
    r"at most so many|only so many|so many": "maximum number of",
    r"parted by": "separated by",
    r"beside": "next to, compared with, in addition to",
    r"mend(s|ed|ing)?": "fix",
    r"luck|throws": "random draw",
    r"chances": "probabilities",
    r"beginnings?": "prefix, start",
    r"places": "tokens, positions",
    r"whole": "complete, entire",
    r"alone": "only",
}
EXEMPT = ("data/templates.yaml", "report/results.py")
"""Prompts that are fixed by fingerprints, and the reader of former result keys."""


def texts() -> list[Path]:
    source = [p for p in (ROOT / "src" / "staf").rglob("*") if p.suffix in (".py", ".yaml", ".html", ".sql")]
    source = [p for p in source if p.name != "templates.yaml"]  # prompts are kept as they are
    documents = list((ROOT / "docs").glob("*.md"))
    return sorted([*source, *documents, ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("src/staf/")


@pytest.mark.parametrize("path", texts(), ids=shown)
def test_replaced_expressions_do_not_return(path: Path) -> None:
    if shown(path) in EXEMPT:
        pytest.skip("exempt")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for pattern, better in REPLACED.items():
            if match := re.search(rf"\b({pattern})\b", line, re.IGNORECASE):
                found.append(f"{shown(path)}:{number}: '{match.group()}': {better}")
    assert not found, "\n".join(found)
