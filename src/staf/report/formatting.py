"""Numbers as tables and the page print them.

one seed        31.0 (26.0 to 36.0)     value and its 95 % interval, in percent
several seeds   31.0 ± 1.2 (3 seeds)    mean and sample standard deviation
not measured    -                       never 0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from staf.report.results import Cell, Difference, Evaluation

MISSING = "-"
PAPERS = {"staf-llm": "STAF-LLM", "sa-mdkif": "SA-MDKIF"}


def scale(results: Iterable[Evaluation], metric: str) -> float:
    """100 for a metric where more is better (printed in percent), 1 for a loss."""
    return 100.0 if all(score.higher_is_better for r in results if (score := r.metrics.get(metric))) else 1.0


def score_text(results: Sequence[Evaluation], metric: str) -> str:
    """Value with its interval for one run, mean with standard deviation for several, "-" for none."""
    found = [score for r in results if (score := r.metrics.get(metric)) and score.value is not None]
    factor = scale(results, metric)
    return _spread([(score.value or 0.0, score.low, score.high) for score in found], factor, "")


def difference_text(differences: Sequence[Difference], factor: float) -> str:
    """A difference with its sign, as `score_text`."""
    return _spread([(d.difference, d.low, d.high) for d in differences if d.difference is not None], factor, "+")


def _spread(found: list[tuple[float, float | None, float | None]], factor: float, sign: str) -> str:
    if not found:
        return MISSING
    mean = number_text(fmean(value for value, _, _ in found), factor, sign)
    if len(found) > 1:
        return f"{mean} ± {number_text(stdev(value for value, _, _ in found), factor)} ({len(found)} seeds)"
    _, low, high = found[0]
    return mean if low is None or high is None else f"{mean} ({number_text(low, factor)} to {number_text(high, factor)})"


def cell_text(cell: Cell) -> str:
    """A table's cell in percent: 31.0 ± 1.2 (3 seeds), 31.0 for one run, "-" for none."""
    if cell.mean is None:
        return MISSING
    mean = number_text(cell.mean, 100)
    return mean if cell.deviation is None else f"{mean} ± {number_text(cell.deviation, 100)} ({cell.seeds} seeds)"


def papers_text(cell: Cell) -> str:
    """What the papers print there: "STAF-LLM 78.0, SA-MDKIF 78.4", "both papers 78.0", or ""."""
    if len(cell.papers) == 2 and len(set(cell.papers.values())) == 1:
        return f"both papers {next(iter(cell.papers.values())):.1f}"
    order = [*(paper for paper in PAPERS if paper in cell.papers), *sorted(cell.papers.keys() - PAPERS.keys())]
    return ", ".join(f"{PAPERS.get(paper, paper)} {cell.papers[paper]:.1f}" for paper in order)


def p_text(p_value: float) -> str:
    """A p-value: p < 0.001, or p = 0.013."""
    return "p\u00a0<\u00a00.001" if p_value < 0.001 else f"p\u00a0=\u00a0{p_value:.3f}"


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
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 120:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
