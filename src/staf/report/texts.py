"""Numbers as the page and the terminal print them.

one seed        31.0 (26.0 to 36.0)     value and its 95 % interval, in percent
several seeds   31.0 ± 1.2 (3 seeds)    mean and sample standard deviation
not measured    -                       never 0
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from staf.report.collect import Result

MISSING = "-"


def scale(results: Iterable[Result], metric: str) -> float:
    """100 for a metric where more is better (printed in percent), 1 for a loss."""
    found = ((r.get("metrics") or {}).get(metric) for r in results)
    return 100.0 if all(m.get("higher_is_better", True) for m in found if m) else 1.0


def score_text(results: Sequence[Result], metric: str) -> str:
    """Value with its interval for one run, mean with standard deviation for several, "-" for none."""
    found = [m for r in results if (m := (r.get("metrics") or {}).get(metric)) and m.get("value") is not None]
    factor = scale(results, metric)
    return _spread([m["value"] for m in found], [(m.get("low"), m.get("high")) for m in found], factor, "")


def difference_text(comparisons: Sequence[dict[str, Any]], factor: float) -> str:
    """A difference with its sign, as `score_text`."""
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


def plural_text(number: int, noun: str) -> str:
    """1 task, 1,234 tasks."""
    return f"{count_text(number)} {noun}{'' if number == 1 else 's'}"


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
