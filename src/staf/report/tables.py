"""Tables of finished runs: one row per method or expert, every cell a text that a person reads.

    one seed        31.0 (26.0 to 36.0)     value and its 95 % interval, in percent
    several seeds   31.0 ± 1.2 (3 seeds)    mean and sample standard deviation
    not measured    -                       never 0

Runs are averaged over seeds only when nothing but the seed differs. Where a method was run with several settings, each
gets its own row, named by what differs. Knows nothing of models, files or HTML.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from staf.report.collect import Result
from staf.report.names import METHODS, METRICS, MORE_METRICS, method_title, metric_title

if TYPE_CHECKING:
    from rich.console import Console

HELD_OUT = "-held-out"
"""What the name of an expert's own held-out task ends with."""

MISSING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the run folders that its numbers come from."""

    cells: dict[str, str]
    """Text by column, in printed order; all rows of a table have the same columns."""
    runs: tuple[str, ...]
    """Run folders relative to `runs/`."""
    method: str = ""
    """Identifier of the method, where the row is one."""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Run folders of a column, where they are not those of the whole row."""

    def runs_of(self, column: str) -> tuple[str, ...]:
        """The run folders that one cell comes from."""
        return self.sources.get(column, self.runs)


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


# ---- which runs belong together --------------------------------------------------------------------------------------


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


# ---- tables ----------------------------------------------------------------------------------------------------------


def task_table(results: Sequence[Result], task: str) -> list[Row]:
    """One row per method on `task`: scores, and what they cost; tokens of a prompt where any run counted them."""
    groups = method_groups(results, task)
    titles = _metric_titles(groups, [*(primary_name(g.results) for g in groups[:1]), *METRICS])
    tokens = [_numbers((r.get("details") or {}).get("prompt_tokens_mean") for r in group.results) for group in groups]
    rows = [Row(_task_cells(group, titles), group.runs, group.method) for group in groups]
    if any(tokens):
        for row, own in zip(rows, tokens, strict=True):
            row.cells["Prompt tokens"] = count_text(round(statistics.fmean(own))) if own else MISSING
    return rows


def details_table(results: Sequence[Result], task: str) -> list[Row]:
    """One row per method on `task`: the metrics that its table leaves out; [] where there are none."""
    groups = method_groups(results, task)
    titles = _metric_titles(groups, [name for name in MORE_METRICS if name != primary_name(groups[0].results)])
    rows = [(g, {title: score_text(g.results, metric) for metric, title in titles.items()}) for g in groups]
    return [Row({"Method": g.title, **cells}, g.runs, g.method) for g, cells in rows if cells]


def _task_cells(group: Group, titles: dict[str, str]) -> dict[str, str]:
    results = group.results
    tested = _numbers((primary(r) or {}).get("examples") for r in results)
    settings = sorted({r.get("setting") or MISSING for r in results})
    memory = _numbers(r.get("peak_memory_bytes") for r in results)
    return {
        "Method": group.title,
        "Setting": ", ".join(settings),
        **{title: score_text(results, metric) for metric, title in titles.items()},
        "Test examples": _same(tested),
        "Adapted on": _same(_numbers(r.get("adaptation_examples") for r in results)),
        "Tunable parameters": _same(_numbers(r.get("tunable_parameters") for r in results)),
        "Time": _mean_time(results),
        "Peak memory": memory_text(max(memory, default=None)),
    }


def overview_table(results: Sequence[Result], tasks: Sequence[str]) -> list[Row]:
    """One row per method and one column per task, holding the primary score; "-" where a method was not run."""
    rows: dict[str, Row] = {}
    order = list(METHODS)
    titles = [task_title(results, task) for task in tasks]
    columns = {t: t if titles.count(title) > 1 else title for t, title in zip(tasks, titles, strict=True)}
    for task in tasks:
        for group in method_groups(results, task):
            empty = {"Method": group.title, **dict.fromkeys(columns.values(), MISSING)}
            row = rows.setdefault(group.title, Row(empty, (), group.method))
            cells = {**row.cells, columns[task]: score_text(group.results, primary_name(group.results))}
            sources = {**row.sources, columns[task]: group.runs}
            rows[group.title] = Row(cells, row.runs + group.runs, group.method, sources)
    return sorted(rows.values(), key=lambda r: order.index(r.method) if r.method in METHODS else len(order))


def held_out_table(results: Sequence[Result]) -> list[Row]:
    """One row per expert: its own held-out task with the original model and with the expert."""
    tasks = sorted({r["task"] for r in results if r["stage"] == "evaluate" and r["task"].endswith(HELD_OUT)})
    rows = []
    for task in tasks:
        groups = method_groups(results, task)
        originals = [group for group in groups if group.method == "original"]
        experts = [group for group in groups if group.method == "single"]
        name = task.removesuffix(HELD_OUT)
        for expert in experts:
            original = next((group for group in originals if _same_ground(group, expert)), None)
            rows.append(_held_out_row(name, original, expert, len(experts) > 1))
        if originals and not experts:
            rows.append(_held_out_row(name, originals[0], None, False))
    return rows


def _same_ground(one: Group, other: Group) -> bool:
    grounds = [
        {json.dumps([r.get("base"), r.get("data_fingerprint")], sort_keys=True) for r in g.results} for g in (one, other)
    ]
    return bool(grounds[0] & grounds[1])


def _held_out_row(name: str, original: Group | None, expert: Group | None, several: bool) -> Row:
    shown = [group for group in (original, expert) if group is not None]
    metric = primary_name(shown[-1].results)
    label = f"{name}{expert.title.removeprefix(method_title('single'))}" if several and expert else name
    comparisons = [(r.get("comparisons") or {}).get("original") for r in (expert.results if expert else ())]
    cells = {
        "Expert": label,
        "Original model": score_text(original.results, metric) if original else MISSING,
        "With its expert": score_text(expert.results, metric) if expert else MISSING,
        "Difference": _difference_text([c for c in comparisons if c], scale(shown[-1].results, metric)),
        "Metric": _metric_title(metric, shown[-1].results),
        "Test examples": _same(_numbers((primary(r) or {}).get("examples") for r in shown[-1].results)),
    }
    return Row(cells, shown[-1].runs, sources={"Original model": original.runs if original else ()})


def training_table(results: Sequence[Result]) -> list[Row]:
    """One row per trained expert: how much it read, how fast, and what is left of its ranks."""
    trained = [r for r in results if r["stage"] == "train"]
    names = [r["task"] for r in trained]
    return [Row(_training_cells(r, names.count(r["task"]) > 1), (r.get("run", ""),)) for r in trained]


def _training_cells(result: Result, repeated: bool) -> dict[str, str]:
    first, last = result.get("loss_first"), result.get("loss_last")
    speed, rank = result.get("tokens_per_second"), result.get("final_rank_average")
    return {
        "Expert": result["task"] + (f" ({result.get('run', '').rsplit('/', 1)[-1]})" if repeated else ""),
        "Steps": count_text(result.get("steps")),
        "Examples": count_text(result.get("examples")),
        "Tokens": count_text(result.get("tokens")),
        "Tokens/s": count_text(None if speed is None else round(speed)),
        "Loss, first to last": MISSING if first is None or last is None else f"{first:.2f} to {last:.2f}",
        "Trainable parameters": count_text(result.get("trainable_parameters")),
        "Average rank": MISSING if rank is None else f"{rank:.1f}",
        "Time": time_text(result.get("seconds")),
        "Peak memory": memory_text(result.get("peak_memory_bytes")),
    }


def print_table(console: Console, rows: Sequence[Row], title: str = "", without: Sequence[str] = ()) -> None:
    """Print rows to a terminal, some columns left out; the first one is left-aligned, the others to the right."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(title=Text(title) if title else None, title_justify="left")
    columns = [column for column in rows[0].cells if column not in without]
    for position, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if position else "left")
    for row in rows:
        table.add_row(*(Text(row.cells[column]) for column in columns))  # as Text: a name in [brackets] is no markup
    console.print(table)


# ---- cells -----------------------------------------------------------------------------------------------------------


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


def _metric_titles(groups: Sequence[Group], wanted: Iterable[str]) -> dict[str, str]:
    """Column headings of those of the wanted metrics that any of these groups has, the same for all of them."""
    results = [result for group in groups for result in group.results]
    found = {name for result in results for name in result.get("metrics") or {}}
    return {name: _metric_title(name, results) for name in wanted if name in found}


def scale(results: Iterable[Result], metric: str) -> float:
    """100 for a metric where more is better (printed in percent), 1 for a loss."""
    found = ((r.get("metrics") or {}).get(metric) for r in results)
    return 100.0 if all(m.get("higher_is_better", True) for m in found if m) else 1.0


def _metric_title(metric: str, results: Iterable[Result]) -> str:
    title = metric_title(metric)
    return f"{title}, %" if scale(results, metric) == 100 else f"{title} (lower is better)"


def score_text(results: Sequence[Result], metric: str) -> str:
    """Value with its interval for one run, mean with standard deviation for several, "-" for none."""
    found = [m for r in results if (m := (r.get("metrics") or {}).get(metric)) and m.get("value") is not None]
    factor = scale(results, metric)
    return _spread([m["value"] for m in found], [(m.get("low"), m.get("high")) for m in found], factor, "")


def _difference_text(comparisons: Sequence[dict[str, Any]], factor: float) -> str:
    found = [c for c in comparisons if c.get("difference") is not None]
    return _spread([c["difference"] for c in found], [(c.get("low"), c.get("high")) for c in found], factor, "+")


def _spread(values: list[float], intervals: list[tuple[Any, Any]], factor: float, sign: str) -> str:
    if not values:
        return MISSING
    mean = number_text(statistics.fmean(values), factor, sign)
    if len(values) > 1:
        return f"{mean} ± {number_text(statistics.stdev(values), factor)} ({len(values)} seeds)"
    low, high = intervals[0]
    if low is None or high is None:
        return mean
    return f"{mean} ({number_text(low, factor)} to {number_text(high, factor)})"


def number_text(value: float, factor: float, sign: str = "") -> str:
    """A score or a difference: one decimal in percent, three for a loss; never "-0.0"."""
    return f"{value * factor:{sign}z.1f}" if factor == 100 else f"{value:{sign}z.3f}"


def count_text(number: float | None) -> str:
    """10, 1,234, 3.7M or 1.2B."""
    if number is None:
        return MISSING
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:,.0f}"


def memory_text(memory_bytes: float | None) -> str:
    """1.2 GB, 850 MB or 12 kB, in powers of ten."""
    if memory_bytes is None:
        return MISSING
    if memory_bytes >= 1e9:
        return f"{memory_bytes / 1e9:.1f} GB"
    return f"{memory_bytes / 1e6:,.0f} MB" if memory_bytes >= 1e6 else f"{memory_bytes / 1e3:,.0f} kB"


def time_text(seconds: float | None) -> str:
    """0.4 s, 74 s, 2 min 3 s or 1 h 5 min."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _same(values: list[float]) -> str:
    """A count that should be the same for all seeds; its range where it is not."""
    if not values:
        return MISSING
    low, high = min(values), max(values)
    return count_text(low) if low == high else f"{count_text(low)} to {count_text(high)}"


def _mean_time(results: Sequence[Result]) -> str:
    seconds = _numbers(r.get("seconds") for r in results)
    return time_text(statistics.fmean(seconds) if seconds else None)
