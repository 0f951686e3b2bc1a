"""The table of methods (methods.yaml), from which commands, experiments and reports take names and titles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

METHODS: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "methods.yaml").read_text(encoding="utf-8"))


def titles(*kinds: str) -> dict[str, str]:
    """Titles by name of the methods of some kinds, in order."""
    return {name: row["title"] for name, row in METHODS.items() if row["kind"] in kinds}
