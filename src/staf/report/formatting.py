"""Names and numbers as tables and the page print them.

one seed        31.0 (26.0 to 36.0)     value and its 95 % interval, in percent
several seeds   31.0 ± 1.2 (3 seeds)    mean and sample standard deviation
not measured    -                       never 0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from statistics import fmean, stdev
from typing import Any

import yaml

from staf.metrics.methods import titles
from staf.report.results import Cell, Difference, Evaluation, PairedTest

MISSING = "-"
_NAMES: dict[str, dict[str, str]] = yaml.safe_load(resources.files("staf.report").joinpath("names.yaml").read_text("utf-8"))
METRICS, PAPERS, BASELINES = _NAMES["metrics"], _NAMES["papers"], titles("trained", "shown", "composed", "classifier")
METHODS = titles("fixed")
for _router, _title in titles("router").items():
    _variants = {_router + end: f"{_title.removesuffix(' (gradient)')} {words}" for end, words in _NAMES["variants"].items()}
    METHODS |= {_router: _title, **_variants}
METHODS |= BASELINES
SEARCHES = {"cma": "CMA-ES", "gradient": "gradient"}
"""How the weights of a router were searched for, as it is printed."""


def method_title(method: str, adaptation_examples: float | None = None) -> str:
    """The printed name of a method; a few-shot router's has the number of its examples."""
    title = METHODS.get(method, method)
    if method.startswith("few_shot") and adaptation_examples is not None:
        title = title.replace("32", f"{adaptation_examples:.0f}")
    return title


def method_label(result: Mapping[str, Any]) -> str:
    """A scored method and what it had: "Router (gradient), few-shot, 32 examples", "In-context learning (6.2 of 32 shown)"."""
    title, count, details = method_title(result["method"]), result["adaptation_examples"], result.get("details") or {}
    if "shots_shown_mean" in details:
        return f"{title} ({details['shots_shown_mean']:.1f} of {details['shots']} shown)"
    search = ((result.get("settings") or {}).get("router") or {}).get("method")
    if search not in SEARCHES:
        return f"{title}, {count} examples" if count else title
    _, beyond, words = title.partition(" with ")
    return f"Router ({SEARCHES[search]}){beyond}{words}, {result['setting']}, {count} examples"


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """A result as lines: the method, its metrics with their intervals, and which of them is the primary one."""
    chat = " in a chat" if result.get("prompt_format") == "chat" else ""
    lines = [f"{method_label(result)}{chat} on {result['task']}:"]
    for name, metric in result["metrics"].items():
        if metric is not None:
            between = f" ({metric['low']:.3f} to {metric['high']:.3f})" if "low" in metric else ""
            primary = "*" if name == result["primary_metric"] else " "
            lines.append(f"{primary} {name:<24} {metric['value']:.3f}{between}, {metric['examples']} examples")
    return [*lines, "* the primary metric of the task"]


def method_order(method: str) -> tuple[int, str]:
    """Sorts methods as `METHODS` lists them, unknown ones last."""
    return (list(METHODS).index(method) if method in METHODS else len(METHODS), method)


def metric_title(metric: str) -> str:
    """The printed name of a metric."""
    return METRICS.get(metric, metric.replace("_", " "))


def scale(results: Iterable[Evaluation], metric: str) -> float:
    """100 for a metric where more is better (printed in percent), 1 for a loss."""
    return 100.0 if all(score.higher_is_better for r in results if (score := r.metrics.get(metric))) else 1.0


def score_text(results: Sequence[Evaluation], metric: str) -> str:
    """Value with its interval for one run, mean with standard deviation for several, "-" for none."""
    found = [(s.value, s.low, s.high) for r in results if (s := r.metrics.get(metric)) and s.value is not None]
    return _spread_text(found, scale(results, metric))


def difference_text(differences: Sequence[Difference], factor: float) -> str:
    """A difference with its sign, as `score_text`."""
    return _spread_text([(d.difference, d.low, d.high) for d in differences if d.difference is not None], factor, "+")


def _spread_text(found: Sequence[tuple[float, float | None, float | None]], factor: float, sign: str = "") -> str:
    if not found:
        return MISSING
    mean = number_text(fmean(value for value, _, _ in found), factor, sign)
    if len(found) > 1:
        return f"{mean} ± {number_text(stdev(value for value, _, _ in found), factor)} ({len(found)} seeds)"
    ends = interval_text(*found[0][1:], factor)
    return mean if ends == MISSING else f"{mean} ({ends})"


def interval_text(low: float | None, high: float | None, factor: float = 100.0) -> str:
    """26.0 to 36.0, or "-" where an end is unknown."""
    return MISSING if low is None or high is None else f"{number_text(low, factor)} to {number_text(high, factor)}"


def cell_text(cell: Cell) -> str:
    """A table's cell in percent: 31.0 ± 1.2 (3 seeds), 31.0 for one run, "-" for none."""
    if cell.mean is None:
        return MISSING
    mean = number_text(cell.mean)
    return mean if cell.deviation is None else f"{mean} ± {number_text(cell.deviation)} ({cell.seeds} seeds)"


def papers_text(cell: Cell) -> str:
    """What the papers print there: "STAF-LLM 78.0, SA-MDKIF 78.4", "both papers 78.0", or ""."""
    if len(cell.papers) == 2 and len(set(cell.papers.values())) == 1:
        return f"both papers {next(iter(cell.papers.values())):.1f}"
    order = [*(paper for paper in PAPERS if paper in cell.papers), *sorted(cell.papers.keys() - PAPERS.keys())]
    return ", ".join(f"{PAPERS.get(paper, paper)} {cell.papers[paper]:.1f}" for paper in order)


def p_text(p_value: float) -> str:
    """A p-value: p < 0.001, or p = 0.013."""
    return "p\u00a0<\u00a00.001" if p_value < 0.001 else f"p\u00a0=\u00a0{p_value:.3f}"


def p_texts(test: PairedTest) -> list[str]:
    """The p-value of a test, and that after Holm's correction where it is a primary comparison."""
    return [p_text(test.p_value)] + ([] if test.adjusted is None else [f"Holm {p_text(test.adjusted)}"])


def number_text(value: float, factor: float = 100.0, sign: str = "") -> str:
    """A score or a difference: one decimal in percent, three for a loss; never "-0.0"."""
    return f"{value * factor:{sign}z.{1 if factor == 100 else 3}f}"


def count_text(number: float | None) -> str:
    """10, 1,234, 3.7M or 1.2B."""
    if number is None:
        return MISSING
    if number >= 1e6:
        return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.1f}M"
    return f"{number:,.0f}"


def range_text(numbers: Iterable[float | None], noun: str = "") -> str:
    """32, or 4 to 32, of the numbers that there are, with their noun; "-" for none."""
    found = {number for number in numbers if number is not None}
    text = " to ".join(dict.fromkeys(count_text(end) for end in (min(found), max(found)))) if found else MISSING
    return f"{text} {noun}{'' if text == '1' else 's'}" if noun else text


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
    rounded = round(seconds)
    if rounded < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))
