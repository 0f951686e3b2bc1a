"""One HTML page of all finished runs: a single file, without scripts, that fetches nothing.

`page.html` is the template. Every number names the run folder that it comes from; it is a link where that folder lies below the
page's, so that no path of the machine is in the page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from staf.io import write_bytes
from staf.report import figures, tables
from staf.report.claims import MARKS, ClaimResult, evaluate_claims
from staf.report.confusion import confusion_table
from staf.report.formatting import MISSING, method_title
from staf.report.reproduced import comparison_rows, sizes_text, table_rows
from staf.report.results import Evaluation, Finished, Table, Training, evaluations, load_results, tables_of
from staf.report.seed_groups import flatten, task_title, tasks_of

if TYPE_CHECKING:
    from jinja2 import Template


def write_page(runs: Path, out: Path, metrics: Mapping[str, str] | None = None) -> Path:
    """Write the page of all finished runs below `runs` to the file `out`, complete or not at all; returns `out`.

    Args:
        metrics: primary metric by task; for a task that is not named, that of its newest run.

    Raises:
        MissingData: no run is finished. DamagedFile: a result.json cannot be read.
    """
    folder, page_folder = runs.resolve(), out.resolve().parent
    prefix = None
    if folder.is_relative_to(page_folder):
        inside = folder.relative_to(page_folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
    write_bytes(out, page_text(load_results(runs, metrics), prefix, runs).encode())
    return out


def page_text(results: Sequence[Finished], link_prefix: str | None = None, runs: Path | None = None) -> str:
    """The page as HTML.

    Args:
        link_prefix: leads from the page to the run folders, which then become links.
        runs: folder of the runs, whose predictions are counted in confusion matrices.
    """
    unseen, other = tasks_of(results)
    reproduced = tables_of(results)
    return template("page.html").render(
        href=lambda run: None if link_prefix is None else quote(f"{link_prefix}{run}/"),
        results=results, runs_folder=runs, missing=MISSING, outcomes=MARKS, figures=figures, tables=tables, unseen=unseen,
        other=other, reproduced=reproduced, trained=[r for r in results if isinstance(r, Training)],
        same_tables={name: [r.run for r in results if isinstance(r, Table) and r.task == name] for name in reproduced},
        claims=[(i, one, claim_rows(one)) for i, one in enumerate(evaluate_claims(reproduced), 1) if reproduced],
        head_line=head_line(results), table_rows=table_rows, comparison_rows=comparison_rows, sizes_text=sizes_text,
        task_title=task_title, confusion_table=confusion_table, settings=_settings(results), versions=_versions(results),
        stopped=[(r.run, _title(r), r.stop_reason) for r in evaluations(results) if r.stop_reason],
    )  # fmt: skip


@cache
def template(name: str) -> Template:
    """A template of this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("staf.report", "."),
    )
    environment.filters["data_uri"] = lambda svg: f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    environment.filters["seed"] = lambda run: run.rsplit("/", 1)[-1].split("-")[0].removeprefix("seed")
    return environment.get_template(name)


def claim_rows(found: ClaimResult) -> list[tables.Row]:
    """What a claim rests on, one comparison a row."""
    parts = [(item, item.numbers or item.short or item.reason) for item in found.items]
    return [tables.Row({"Where": i.where, "Outcome": i.outcome, "Numbers": numbers}, i.runs) for i, numbers in parts]


def head_line(results: Sequence[Finished]) -> str:
    """Base models, experts, tasks, seeds and runs; reproduced tables are only put together from runs."""
    measured = [r for r in results if isinstance(r, (Evaluation, Training))]
    bases = sorted({str(r.base["name"]) for r in measured or results if r.base.get("name")})
    experts = {r.task for r in measured if isinstance(r, Training)}
    experts = experts or {name for r in measured if isinstance(r, Evaluation) for name in r.weights}
    unseen, other = tasks_of(measured)
    counts = {
        "expert": len(experts), "unseen task": len(unseen), "other task": len(other),
        "reproduced table": sum(isinstance(r, Table) for r in results), "seed": len({r.seed for r in measured}),
    }  # fmt: skip
    shown = {noun: number for noun, number in counts.items() if number} | {"finished run": len(measured)}
    parts = [f"{number:,} {noun}{'' if number == 1 else 's'}" for noun, number in shown.items()]
    return " · ".join([" and ".join(bases) or "base model not recorded", *parts])


def _title(result: Finished) -> str:
    return method_title(result.method, result.adaptation_examples if isinstance(result, Evaluation) else None)


def _settings(results: Iterable[Finished]) -> list[tuple[str, list[tuple[str, str]], list[str]]]:
    """(stage and method, settings, runs that had exactly these), each distinct set of settings once."""
    found: dict[tuple[str, str], tuple[list[tuple[str, str]], list[str]]] = {}
    for result in (r for r in results if isinstance(r, (Evaluation, Training, Table))):
        leaves = sorted(flatten(result.settings))
        pairs = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in leaves if k.rsplit(".", 1)[-1] != "seed"]
        title = f"{result.stage}, {_title(result)}"
        found.setdefault((title, json.dumps(pairs)), (pairs, []))[1].append(result.run)
    return [(title, pairs, runs) for (title, _), (pairs, runs) in found.items() if pairs]


def _versions(results: Iterable[Finished]) -> list[tuple[str, str]]:
    """Versions, base models and fingerprints, all that occur."""
    found: dict[str, set[str]] = {}
    for result in results:
        pairs = [(f"version of {name}", value) for name, value in result.versions.items()]
        pairs += [(f"base model, {name}", value) for name, value in result.base.items()]
        for name, value in [*pairs, ("experts, fingerprint", result.experts_fingerprint)]:
            if value is not None:
                found.setdefault(name, set()).add(str(value))
    return sorted((name, ", ".join(sorted(values))) for name, values in found.items())
