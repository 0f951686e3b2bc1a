"""Which runs belong together: those of one method on one task that differ only in their seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from staf.report.collect import Result
from staf.report.names import METHODS, method_title
from staf.report.texts import MISSING

HELD_OUT = "-held-out"
"""What the name of an expert's own held-out task ends with."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one method on one task that differ only in their seed."""

    method: str
    title: str
    results: tuple[Result, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """The run folders, relative to `runs/`."""
        return tuple(result.get("run", "") for result in self.results)


def unseen_and_other_tasks(results: Iterable[Result]) -> tuple[list[str], list[str]]:
    """Tasks that no expert was trained on, and the others; the experts' own held-out tasks are in neither."""
    unseen: dict[str, None] = {}
    other: dict[str, None] = {}
    for result in results:
        if result["stage"] == "evaluate" and not result["task"].endswith(HELD_OUT):
            (unseen if result.get("unseen") else other)[result["task"]] = None
    return sorted(unseen), sorted(other.keys() - unseen.keys())


def method_groups(results: Iterable[Result], task: str) -> list[Group]:
    """The evaluations of `task` by method and settings, in the order of `METHODS`.

    A method that was run in the normal and the few-shot setting, on whatever task, has its setting in its title.
    """
    by_method: dict[str, list[Result]] = {}
    settings: dict[str, set[str]] = {}
    for result in results:
        if result["stage"] == "evaluate":
            settings.setdefault(result["method"], set()).add(result.get("setting") or MISSING)
            if result["task"] == task:
                by_method.setdefault(result["method"], []).append(result)
    order = list(METHODS)
    groups = []
    for method in sorted(by_method, key=lambda m: (order.index(m) if m in METHODS else len(order), m)):
        for setting in sorted(settings[method]):
            part = [r for r in by_method[method] if (r.get("setting") or MISSING) == setting]
            told = setting != MISSING and len(settings[method] - {MISSING}) > 1
            groups += _variants(method, part, f", {setting}" if told else "")
    return groups


def _variants(method: str, results: list[Result], setting: str) -> list[Group]:
    """Split by everything but the seed. Data may differ from seed to seed, as few-shot draws do, but not within one."""
    parts: dict[str, list[Result]] = {}
    for result in results:
        parts.setdefault(json.dumps(_identity(result), sort_keys=True, default=str), []).append(result)
    split: list[list[Result]] = []
    for part in parts.values():
        by_data: dict[str, list[Result]] = {}
        for result in part:
            by_data.setdefault(str(result.get("data_fingerprint")), []).append(result)
        repeated = len({result["seed"] for result in part}) < len(part)
        split += by_data.values() if repeated else [part]
    identities = [{**_identity(part[0]), "data": part[0].get("data_fingerprint")} for part in split]
    labels = _what_differs(identities, counted=method.startswith("few_shot"))
    return [
        Group(method, method_title(method, part[0].get("adaptation_examples")) + setting + label, tuple(part))
        for part, label in zip(split, labels, strict=True)
    ]


def _identity(result: Result) -> dict[str, Any]:
    """What makes two runs comparable beyond task, method and seed, as one flat dictionary."""
    flat = dict(flatten(result.get("settings") or {}))
    flat |= dict(flatten({"base": result.get("base"), "experts": result.get("experts_fingerprint")}))
    flat["adaptation_examples"] = result.get("adaptation_examples")
    flat["number of experts"] = len(result.get("weights") or {}) or None
    return {key: value for key, value in flat.items() if not key.rsplit(".", 1)[-1].endswith("seed")}


def _what_differs(identities: list[dict[str, Any]], counted: bool) -> list[str]:
    """A label for each; `counted` titles tell the number of examples themselves."""
    keys = sorted({key for identity in identities for key in identity})
    values = {key: {json.dumps(identity.get(key), default=str) for identity in identities} for key in keys}
    apart = [key for key in keys if len(values[key]) > 1]
    if counted and "adaptation_examples" in apart:
        apart = [key for key in apart if key not in ("adaptation_examples", "router.shots")]
    if "experts" in apart and len(values["experts"]) == len(values["number of experts"]):
        apart.remove("experts")
    shown = apart[:3]
    told = [", ".join(f"{key.replace('_', ' ')} {one.get(key, MISSING)}" for key in shown) for one in identities]
    return [f": {text}" if text else "" for text in told]


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings as (dotted name, value)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def task_title(results: Iterable[Result], task: str) -> str:
    """The printed name of a task, or its identifier where no run gives one."""
    titles = (r.get("task_title") for r in results if r["stage"] == "evaluate" and r["task"] == task)
    return next((str(title) for title in titles if title), task)


def primary(result: Result) -> dict[str, Any] | None:
    """The primary metric of a result, or None where it is undefined."""
    return (result.get("metrics") or {}).get(result.get("primary_metric"))


def primary_name(results: Sequence[Result]) -> str:
    """The name of the primary metric of these runs."""
    return str(results[0].get("primary_metric"))
