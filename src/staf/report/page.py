"""One HTML page over all finished runs: a single file, without scripts, that fetches nothing.

`page.html` is the template; this module gathers what it shows and words the sentences. Every number carries the run
folder that it comes from; it is a link where that folder lies beside or below the page, so that no path of the
machine leaves it with the page.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from staf.io import write_bytes
from staf.report import figures
from staf.report.claims import judged
from staf.report.collect import Metrics, Result, load_results
from staf.report.confusion import confusion_of
from staf.report.curves import reproduced_figure
from staf.report.groups import Group, flatten, method_groups, primary_name, task_title, unseen_and_other_tasks
from staf.report.judging import HELD, NOT_HELD, OPEN
from staf.report.names import METHODS, method_title, mid_sentence
from staf.report.places import experiments
from staf.report.reproduced import reproduced
from staf.report.tables import details_table, held_out_table, overview_table, task_table, training_table
from staf.report.texts import MISSING, number_text, plural_text, scale

MEASURED = ("train", "evaluate")
"""Stages that measure something themselves."""

STANDINGS = {HELD: ("✓", "held"), NOT_HELD: ("✗", "not-held"), OPEN: ("?", "open")}
"""Mark and style of how a claim stands."""

HEADLINE_METHODS = ("normal", "few_shot", "normal_scaled")
"""The summary of a task tells of the first of these that was run."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement, the run folders it rests on, and its sign: "above", "below" or "unclear" ("" for none)."""

    text: str
    runs: tuple[str, ...]
    sign: str = ""


def write_page(runs: Path, out: Path, metrics: Metrics | None = None) -> Path:
    """Write the page of all finished runs below `runs` to the file `out`, whole or not at all.

    Args:
        metrics: by which the tasks are told; of one that is not named, the metric of its newest run.

    Returns:
        `out`.

    Raises:
        MissingData: no run is finished.
        DamagedFile: a result.json cannot be read.
    """
    write_bytes(out, page_text(load_results(runs, metrics), _link_prefix(runs, out), runs).encode())
    return out


def page_text(results: Sequence[Result], link_prefix: str | None = None, runs: Path | None = None) -> str:
    """The page as HTML.

    Args:
        link_prefix: leads from the page to the run folders, which then become links.
        runs: folder of the runs, whose predictions are counted in confusion matrices.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup  # only for our own figures, whose texts matplotlib has escaped
    environment.filters["href"] = lambda run: None if link_prefix is None else quote(f"{link_prefix}{run}/")
    environment.tests["of_one_method"] = lambda runs: len({run.rpartition("/")[0] for run in runs}) == 1
    environment.filters["seed"] = lambda run: run.rsplit("/", 1)[-1].split("-")[0].removeprefix("seed")
    template = environment.from_string(files("staf.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(_content(results, runs))


def _link_prefix(runs: Path, out: Path) -> str | None:
    folder, page_folder = runs.resolve(), out.resolve().parent
    if not folder.is_relative_to(page_folder):
        return None
    inside = folder.relative_to(page_folder).as_posix()
    return "" if inside == "." else f"{inside}/"


def _content(results: Sequence[Result], runs: Path | None) -> dict[str, Any]:
    unseen, other = unseen_and_other_tasks(results)
    found = experiments(results)
    return {
        "missing": MISSING,
        "tones": figures.METHOD_COLOURS,
        "head_line": head_line(results),
        "summaries": [(task, task_title(results, task), summary(results, task)) for task in unseen],
        "overview": overview_table(results, unseen) if len(unseen) > 1 else [],
        "claims": [(number, *each) for number, each in enumerate(judged(found), start=1)] if found else [],
        "standings": STANDINGS,
        "reproduced": [(table, reproduced_figure(found[table.name])) for table in reproduced(results)],
        "tasks": [_task(results, task, task in unseen, runs) for task in unseen + other],
        "held_out": held_out_table(results),
        "training": training_table(results),
        "experts": _experts(results),
        "settings": _settings(results),
        "versions": _versions(results),
        "stopped": _reasons(results),
        "runs": [result["run"] for result in results],
    }


def _task(results: Sequence[Result], task: str, unseen: bool, runs: Path | None) -> dict[str, Any]:
    return {
        "name": task,
        "title": task_title(results, task),
        "unseen": unseen,
        "rows": task_table(results, task),
        "details": details_table(results, task),
        "scores": figures.scores_figure(results, task),
        "selective": figures.selective_figure(results, task),
        "weights": figures.weights_figure(results, task),
        "weight_totals": weight_totals(results, task),
        "comparisons": comparisons(results, task),
        "confusion": None if runs is None else confusion_of(runs, results, task),
    }


def _experts(results: Sequence[Result]) -> list[dict[str, Any]]:
    trained = [r for r in results if r["stage"] == "train"]
    shown = [(r, figures.rank_map(r), figures.learning_curve(r)) for r in trained]
    return [{"name": r["task"], "run": r["run"], "ranks": ranks, "curve": curve} for r, ranks, curve in shown if ranks or curve]


# ---- sentences -------------------------------------------------------------------------------------------------------


def head_line(results: Sequence[Result]) -> str:
    """What was run: base models, number of experts, tasks and seeds; reproduced tables only put together what was run."""
    measured = [r for r in results if r["stage"] in MEASURED]
    bases = sorted({str(r["base"]["name"]) for r in measured or results if (r.get("base") or {}).get("name")})
    if not measured:
        made = plural_text(sum(r["stage"] == "reproduce" for r in results), "reproduced table")
        return f"{' and '.join(bases) or 'base model not recorded'} · {made} · {plural_text(0, 'finished run')}"
    experts = {r["task"] for r in measured if r["stage"] == "train"}
    experts = experts or {name for r in measured for name in r.get("weights") or {}}
    unseen, other = unseen_and_other_tasks(measured)
    seeds = sorted({r["seed"] for r in measured})
    parts = [
        " and ".join(bases) or "base model not recorded",
        plural_text(len(experts), "expert"),
        plural_text(len(unseen), "unseen task") + (f" and {plural_text(len(other), 'other task')}" if other else ""),
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds)) or MISSING}",
        f"{plural_text(len(measured), 'finished run')}",
    ]
    return " · ".join(parts)


def summary(results: Sequence[Result], task: str) -> Sentence:
    """One sentence on the result of `task`, and a second one where another method scores higher than the router."""
    groups = [group for group in method_groups(results, task) if _mean_score(group) is not None]
    routers = [next((g for g in groups if g.method == method), None) for method in HEADLINE_METHODS]
    headline = next((group for group in routers if group), None)
    if headline is None:
        return Sentence("No router has a score on this task yet.", ())
    factor = scale(headline.results, primary_name(headline.results))
    text = f"{_capital(mid_sentence(headline.title))} scores {number_text(_mean_score(headline) or 0.0, factor)}"
    found = _differences(headline, "original")
    sign = ""
    if found:
        text += f", {_difference(found, factor)} the original model {_interval(found, factor)}"
        sign = _sign(found)
    best = max(groups, key=lambda g: (_mean_score(g) or 0.0) * (1 if factor == 100 else -1))
    text += "."
    if best.title != headline.title and _mean_score(best) != _mean_score(headline):
        text += f" The best score is that of {mid_sentence(best.title)}: {number_text(_mean_score(best) or 0.0, factor)}."
    return Sentence(text, headline.runs, sign)


def comparisons(results: Sequence[Result], task: str) -> list[Sentence]:
    """One sentence for each comparison that the runs of `task` hold."""
    sentences = []
    for group in method_groups(results, task):
        factor = scale(group.results, primary_name(group.results))
        others = dict.fromkeys(other for r in group.results for other in r.get("comparisons") or {})
        for other in sorted(others, key=lambda o: (list(METHODS).index(o) if o in METHODS else len(METHODS), o)):
            if found := _differences(group, other):
                text = (
                    f"{_capital(mid_sentence(group.title))}: {_difference(found, factor)} {mid_sentence(method_title(other))} "
                    f"{_interval(found, factor, with_chance=True)}"
                )
                sentences.append(Sentence(text, group.runs, _sign(found)))
    return sentences


def weight_totals(results: Sequence[Result], task: str) -> str:
    """What the weights of each router sum to, such as "Normal router (gradient) 0.93"."""
    parts = []
    for group in method_groups(results, task):
        totals = [r["weight_total"] for r in group.results if r.get("weight_total") is not None]
        if totals and group.method in figures.METHOD_COLOURS:
            parts.append(f"{group.title} {statistics.fmean(totals):.2f}")
    return "; ".join(parts)


def _mean_score(group: Group) -> float | None:
    name = primary_name(group.results)
    found = [(r.get("metrics") or {}).get(name) for r in group.results]
    values = [metric["value"] for metric in found if metric and metric.get("value") is not None]
    return statistics.fmean(values) if values else None


def _differences(group: Group, other: str) -> list[dict[str, Any]]:
    found = [(r.get("comparisons") or {}).get(other) for r in group.results]
    return [c for c in found if c and c.get("difference") is not None]


def _difference(found: list[dict[str, Any]], factor: float) -> str:
    """Such as "23.0 points above"; says so where the interval of any seed holds 0."""
    mean = statistics.fmean(c["difference"] for c in found)
    unit = " points" if factor == 100 else ""
    words = f"{number_text(abs(mean), factor)}{unit} {'above' if mean >= 0 else 'below'}"
    return f"not clearly apart, {words}" if _sign(found) == "unclear" else words


def _interval(found: list[dict[str, Any]], factor: float, with_chance: bool = False) -> str:
    ends = [(c["low"], c["high"]) for c in found if c.get("low") is not None and c.get("high") is not None]
    chances = [c["p_value"] for c in found if c.get("p_value") is not None]
    parts = [f"mean of {len(found)} seeds"] if len(found) > 1 else []
    if ends:
        low, high = number_text(min(e[0] for e in ends), factor), number_text(max(e[1] for e in ends), factor)
        several = f"95 % intervals of the seeds lie within {low} to {high}"
        parts.append(several if len(found) > 1 else f"95 % interval of the difference {low} to {high}")
    if with_chance and chances:
        chance = max(chances)
        largest = "largest " if len(found) > 1 else ""
        value = "<\u00a00.001" if chance < 0.001 else f"=\u00a0{chance:.3f}"
        parts.append(f"{largest}p\u00a0{value}")
    return f"({', '.join(parts)})" if parts else ""


def _sign(found: list[dict[str, Any]]) -> str:
    if all(c.get("low") is not None and c["low"] > 0 for c in found):
        return "above"
    return "below" if all(c.get("high") is not None and c["high"] < 0 for c in found) else "unclear"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---- settings, versions, reasons -------------------------------------------------------------------------------------


def _settings(results: Iterable[Result]) -> list[tuple[str, list[tuple[str, str]], list[str]]]:
    """(stage and method, the settings, the runs that had exactly these), each distinct set of settings once."""
    found: dict[tuple[str, str], tuple[list[tuple[str, str]], list[str]]] = {}
    for result in (r for r in results if r["stage"] in (*MEASURED, "reproduce")):
        leaves = dict(flatten(result.get("settings") or {}))
        pairs = [(key, _plain(value)) for key, value in sorted(leaves.items()) if key.rsplit(".", 1)[-1] != "seed"]
        title = f"{result['stage']}, {method_title(result['method'], result.get('adaptation_examples'))}"
        key = (title, json.dumps(pairs))
        found.setdefault(key, (pairs, []))[1].append(result["run"])
    return [(title, pairs, runs) for (title, _), (pairs, runs) in found.items() if pairs]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _versions(results: Iterable[Result]) -> list[tuple[str, str]]:
    """Versions, bases and fingerprints, all that occur."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        base = result.get("base") or {}
        pairs = [(f"version of {name}", value) for name, value in sorted((result.get("versions") or {}).items())]
        pairs += [("base model", base.get("name")), ("base model, fingerprint", base.get("fingerprint"))]
        pairs += [("experts, fingerprint", result.get("experts_fingerprint"))]
        for name, value in pairs:
            if value is not None:
                found.setdefault(name, {})[str(value)] = None
    return sorted((name, ", ".join(sorted(values))) for name, values in found.items())


def _reasons(results: Iterable[Result]) -> list[tuple[str, str, str]]:
    """(run, method, why its search stopped), where a run tells."""
    return [
        (r["run"], method_title(r["method"], r.get("adaptation_examples")), str(r["stop_reason"]))
        for r in results
        if r.get("stop_reason")
    ]
