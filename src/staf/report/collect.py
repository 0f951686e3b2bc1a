"""The finished runs of a `runs/` folder, as plain dictionaries.

    runs/<stage>/<task>/<method>/seed<k>-<hash>/result.json

`result.json` is written last, so its presence means finished; a folder without it is unfinished and left out. Stages:
train, evaluate, reproduce (a table of the papers, whose places name the evaluations they come from); of any other one only
the folder is listed.
Each result is checked once here, so that the tables, figures and sentences need not doubt what they read. All runs of a task
are told by one metric: where a run was finished before the task's metric became another one, it is read as if by the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf.errors import DamagedFile, MissingData
from staf.io import read_json
from staf.report.checks import is_number, is_number_or_null, reproduce_problems

Result = dict[str, Any]
"""The content of one result.json, and under "run" its folder relative to `runs`, with forward slashes."""
Metrics = Mapping[str, str]
"""The metric of each task."""

TEXTS = ("stage", "task", "method")
MAYBE_TEXTS = ("task_title", "setting", "primary_metric", "stop_reason", "data_fingerprint", "experts_fingerprint")
NUMBERS = (
    "tunable_parameters",
    "adaptation_examples",
    "seconds",
    "peak_memory_bytes",
    "weight_total",
    "steps",
    "examples",
    "loss_first",
    "loss_last",
    "tokens",
    "tokens_per_second",
    "trainable_parameters",
    "final_rank_average",
)
TABLES = ("weights", "ranks", "settings", "versions", "base", "details")


def load_results(runs: Path, metrics: Metrics | None = None) -> list[Result]:
    """All finished runs below `runs`, ordered by stage, task, method, seed and folder name.

    Args:
        metrics: by which the tasks are told; of one that is not named, the metric of its newest run.

    Raises:
        MissingData: there is no finished run.
        DamagedFile: a result.json is not JSON, or does not hold what a result holds.
    """
    oldest_first = sorted(runs.glob("*/*/*/seed*/result.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    results = [_load(path, runs) for path in oldest_first]
    if not results:
        unfinished = sum(1 for path in runs.glob("*/*/*/seed*") if path.is_dir())
        found = f"{unfinished} unfinished" if unfinished else "none" if runs.is_dir() else "no such folder"
        raise MissingData(
            f"no finished run in {runs}: found {found}, expected <stage>/<task>/<method>/seed<k>-<hash>/result.json. "
            "Run `staf evaluate --task T` first (`make demo` does everything), or give the folder that holds the runs."
        )
    chosen = {r["task"]: r["primary_metric"] for r in results if r["stage"] == "evaluate"} | dict(metrics or {})
    told = [told_by(r, chosen[r["task"]]) if r["stage"] == "evaluate" else r for r in results]
    return sorted(told, key=lambda r: (r["stage"], r["task"], r["method"], r["seed"], r["run"]))


def told_by(result: Result, metric: str) -> Result:
    """An evaluation with this as its primary metric; its comparisons are left out where they were made by another one."""
    if result["primary_metric"] == metric:
        return result
    return {**result, "primary_metric": metric, "comparisons": {}}


def _load(path: Path, runs: Path) -> Result:
    result = read_json(path)
    problems = _problems(result) if isinstance(result, dict) else ["it is not an object"]
    if problems:
        raise DamagedFile(
            f"{path} is not a result of a run: {'; '.join(problems)}. "
            f"Delete the folder {path.parent} and run the command that made it, or restore the file from a copy."
        )
    return {**result, "run": path.parent.relative_to(runs).as_posix()}


def _problems(result: Result) -> list[str]:
    found = [f"'{key}' is not a text" for key in TEXTS if not isinstance(result.get(key), str)]
    found += [f"'{key}' is not a text" for key in MAYBE_TEXTS if not isinstance(result.get(key) or "", str)]
    if not isinstance(result.get("seed"), int):
        found.append("'seed' is not a whole number")
    found += [f"'{key}' is not a number" for key in NUMBERS if not is_number_or_null(result.get(key))]
    found += [f"'{key}' is not an object" for key in TABLES if not isinstance(result.get(key) or {}, dict)]
    if result.get("stage") == "reproduce":
        return found + reproduce_problems(result)
    if not isinstance(result.get("comparisons") or {}, dict):
        found.append("'comparisons' is not an object")
    found += _metric_problems(result)
    if not found:
        found += _nested_problems(result)
    return found


def _metric_problems(result: Result) -> list[str]:
    metrics = result.get("metrics")
    if not isinstance(metrics, dict):
        return ["'metrics' is not an object"] if metrics is not None or result.get("stage") == "evaluate" else []
    found = []
    for name, metric in metrics.items():
        if metric is None:
            continue
        fields = ("value", "low", "high", "examples")
        if not isinstance(metric, dict) or not all(is_number_or_null(metric.get(field)) for field in fields):
            found.append(f"metric '{name}' does not hold value, low, high and examples")
    if result.get("stage") == "evaluate" and result.get("primary_metric") not in metrics:
        found.append("'primary_metric' does not name one of the metrics")
    return found


def _nested_problems(result: Result) -> list[str]:
    found = []
    for name, comparison in (result.get("comparisons") or {}).items():
        fields = ("difference", "low", "high", "p_value")
        if not isinstance(comparison, dict) or not all(is_number_or_null(comparison.get(field)) for field in fields):
            found.append(f"the comparison with '{name}' does not hold difference, low, high and p_value")
    for key in ("weights", "ranks"):
        if not all(is_number_or_null(value) and value is not None for value in (result.get(key) or {}).values()):
            found.append(f"'{key}' holds something that is not a number")
    if not _is_curve(result.get("curve") or []):
        found.append("'curve' is not a list of [step, loss]")
    if not _is_selective(result.get("selective") or []):
        found.append("'selective' is not a list of objects with coverage and value")
    return found


def _is_selective(points: Any) -> bool:
    if not isinstance(points, list):
        return False
    return all(
        isinstance(point, dict) and is_number(point.get("coverage")) and is_number(point.get("value")) for point in points
    )


def _is_curve(curve: Any) -> bool:
    if not isinstance(curve, list):
        return False
    return all(isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in curve)
