"""Merging as a step on folders: a merged model of the same router is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from staf.experts.store import ExpertSet
from staf.export import save_merged
from staf.io import read_json
from staf.routing.store import Router
from staf.stages.context import Context


def merge_stage(context: Context, router: Router, experts: ExpertSet, out: Path) -> None:
    """Save the merged model of a router in `out`; an existing one is kept if it is of this router, else replaced."""
    card = out / "staf.json"
    if card.is_file():
        if read_json(card).get("router") == router.record["run"]:
            return
        shutil.rmtree(out)
    save_merged(context.base_name, experts, router, out)
