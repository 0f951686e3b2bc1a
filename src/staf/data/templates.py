"""Queries of each task type (templates.yaml): one family for each thing asked, several phrasings in each family.

Figure 3 of STAF-LLM shows one query of each category; its families are not printed, so these are ours. A phrasing is drawn
by the example's id, so that it repeats. `{options}` is replaced by all labels, in their order, separated by '; '.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import yaml

from staf.data.splits import seeded_rng


@cache
def templates() -> dict[str, dict[str, tuple[str, ...]]]:
    """Phrasings by task type, then by what is asked."""
    text = (resources.files("staf.data") / "templates.yaml").read_text(encoding="utf-8")
    return {
        task_type: {asked: tuple(phrasings) for asked, phrasings in families.items()}
        for task_type, families in yaml.safe_load(text).items()
    }


def query(task_type: str, asked: str, example_id: str, options: Sequence[str] = ()) -> str:
    """One phrasing of a query, drawn by the example's id, with all options in it."""
    template = seeded_rng(f"phrasing:{example_id}").choice(templates()[task_type][asked])
    return template.replace("{options}", "; ".join(options))
