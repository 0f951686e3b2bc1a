"""Which runs belong together: those of one method on one task that differ only in their seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from staf.report.formatting import BASELINES, MISSING, method_order, method_title
from staf.report.results import Evaluation, Finished, evaluations

HELD_OUT = "-held-out"
"""Ending of the name of an expert's own held-out task."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one method on one task that differ only in their seed."""

    method: str
    title: str
    results: tuple[Evaluation, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """The run folders, relative to `runs/`."""
        return tuple(result.run for result in self.results)

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.results[0].primary_metric


def tasks_of(results: Iterable[Finished]) -> tuple[list[str], list[str]]:
    """Tasks that no expert was trained on by the experts' records, and the others; held-out tasks of experts are in neither."""
    scored = [r for r in evaluations(results) if not r.task.endswith(HELD_OUT)]
    unseen = {r.task for r in scored if r.unseen} - {r.task for r in scored if r.unseen is False}
    return sorted(unseen), sorted({r.task for r in scored} - unseen)


def method_groups(results: Iterable[Finished], task: str) -> list[Group]:
    """The evaluations of `task` by method and settings, in the order of `METHODS`.

    Runs with other settings are never averaged; their groups are named by what differs.
    """
    found: dict[tuple[str, str], dict[str, list[Evaluation]]] = {}
    for result in evaluations(results, task):
        identity = json.dumps(_identity(result), sort_keys=True, default=str)
        found.setdefault((result.method, result.setting), {}).setdefault(identity, []).append(result)
    groups = []
    for method, setting in sorted(found, key=lambda key: (method_order(key[0]), key[1])):
        variants = [part for alike in found[method, setting].values() for part in _by_data(alike)]
        more = f", {setting}" if method in BASELINES and setting != MISSING else ""
        for own, label in zip(variants, _what_differs(variants), strict=True):
            groups.append(Group(method, method_title(method, own[0].adaptation_examples) + more + label, tuple(own)))
    return groups


def _by_data(results: list[Evaluation]) -> list[list[Evaluation]]:
    """Data may differ from seed to seed, as few-shot draws do, but not within one seed: then it splits the runs."""
    if len({result.seed for result in results}) == len(results):
        return [results]
    parts: dict[str, list[Evaluation]] = {}
    for result in results:
        parts.setdefault(str(result.data_fingerprint), []).append(result)
    return list(parts.values())


def _identity(result: Evaluation) -> dict[str, Any]:
    """What makes two runs comparable besides task, method and seed, flat."""
    flat = dict(flatten({**result.settings, "base": result.base, "experts": result.experts_fingerprint}))
    examples = result.adaptation_examples
    flat |= {
        "adaptation_examples": None if examples is None else f"{examples:g}",
        "number of experts": len(result.weights) or None,
        "prompt_format": result.prompt_format,
    }
    return {key: value for key, value in flat.items() if not key.rsplit(".", 1)[-1].endswith("seed")}


def _what_differs(variants: Sequence[list[Evaluation]]) -> list[str]:
    """A label for each variant of a method; the title of a few-shot router already has its number of examples."""
    identities = [{**_identity(own[0]), "data": own[0].data_fingerprint} for own in variants]
    keys = sorted({key for identity in identities for key in identity})
    values = {key: {json.dumps(identity.get(key), default=str) for identity in identities} for key in keys}
    shown = [key for key in keys if len(values[key]) > 1]
    if variants[0][0].method.startswith("few_shot") and "adaptation_examples" in shown:
        shown = [key for key in shown if key not in ("adaptation_examples", "router.shots")]
    if "experts" in shown and len(values["experts"]) == len(values["number of experts"]):
        shown.remove("experts")
    texts = [", ".join(f"{key.replace('_', ' ')} {one.get(key, MISSING)}" for key in shown[:3]) for one in identities]
    return [f": {text}" if text else "" for text in texts]


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings as (dotted name, value)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def task_title(results: Iterable[Finished], task: str) -> str:
    """The printed name of a task, or its identifier where no run has one."""
    return next((r.task_title for r in evaluations(results, task) if r.task_title), task)
