"""What an export says of itself: staf.json for programs, README.md for readers, a model card (card.md.jinja)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from staf import __version__
from staf.data.example import LABEL_TYPES
from staf.errors import StafError
from staf.evaluate.score import router_method
from staf.experts.store import Expert, ExpertSet
from staf.io import read_json, write_bytes, write_json
from staf.routing.store import Router
from staf.runs import Run


def export_record(router: Router, dtype: str | None = None, **more: Any) -> dict[str, Any]:
    """What an export is made of: task, router, experts with their weights, base, dtype of the weights, and `more`."""
    return {
        "task": router.task, "router": router.record.get("run"), "weights": router.mean_weights, "base": router.base,
        "experts": list(router.experts), "experts_fingerprint": router.experts_fingerprint, "dtype": dtype,
        "method": router.recipe.method, "version": __version__, **more,
    }  # fmt: skip


def is_to_write(out: Path, record: dict[str, Any], overwrite: bool = False) -> bool:
    """False where an export with this record is there already; raises StafError where something else is.

    Args:
        overwrite: remove another export that is there.
    """
    if (out / "staf.json").is_file():
        found = read_json(out / "staf.json")
        if isinstance(found, dict) and all(found.get(name) == value for name, value in record.items()):
            return False
    if out.exists():
        if not overwrite or not (out / "staf.json").is_file():
            raise StafError(f"{out} exists already. Delete it or name another folder; nothing was changed.")
        shutil.rmtree(out)
    return True


def scores_of(runs: Path, router: Router) -> dict[str, Any] | None:
    """Metrics of a router on its task's test set, of the finished run with the most items; None where there is none."""
    method, found = router_method(router).name, list[dict[str, Any]]()
    for path in sorted(runs.glob(f"evaluate/{router.task}/{method}/*/result.json")):
        result = Run(path.parent).result() or {}
        same = result.get("base", {}).get("fingerprint") == router.base["fingerprint"]
        if same and (result.get("experts_fingerprint"), result.get("weights")) == (
            router.experts_fingerprint, router.mean_weights,
        ):  # fmt: skip
            rows = {name: metric for name, metric in result["metrics"].items() if metric is not None}
            found.append({"metric": result["primary_metric"], "metrics": rows})
    return max(found, key=lambda one: max((row["examples"] for row in one["metrics"].values()), default=0), default=None)


def write_card(folder: Path, router: Router, experts: ExpertSet, record: dict[str, Any]) -> None:
    """Write README.md and staf.json."""
    from jinja2 import Environment, StrictUndefined

    text = (resources.files("staf.export") / "card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    tuned = experts.experts[0].record if router.has_own_adapter else {}
    weights = tuned.get("weights", router.mean_weights)
    rows = [row for expert in experts.experts for row in _rows(expert, weights)]
    base = {"source": None, "revision": None, **router.base}
    card = environment.from_string(text).render(
        record=record, prompt=router.prompt, learned=router.record, rows=rows, tuned=bool(tuned), base=base,
        generated=router.prompt.output_type not in LABEL_TYPES, version=__version__,
    )  # fmt: skip
    write_bytes(folder / "README.md", card.encode())
    write_json(folder / "staf.json", record)


def _rows(expert: Expert, weights: dict[str, float]) -> Iterator[tuple[str, float, str]]:
    """Name, weight and sources with their licences of an expert, or of those that a tuned adapter came from."""
    for name in weights if expert.name not in weights else [expert.name]:
        made_of = expert.record.get("made_of", {}).get(name, expert.record)
        listed = [f"{source} ({licence})" for source, licence in made_of.get("licences", {}).items()]
        if adapter := made_of.get("adapter"):
            listed.append(f"the adapter {adapter['source']}")
        yield name, weights[name], "; ".join(listed) or "not recorded"
