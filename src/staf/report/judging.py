"""How a claim is judged: two rows are compared place by place, the outcomes counted by one rule, and told in a sentence.

A place is won where the paired test on the same items says so (p < 0.05) and the column's own mean lies on the same side. The
test is by the column's metric, over items and seeds. Where `staf reproduce` made no paired test, the difference of the means
has to be larger than the 95 % intervals of both allow. All else is a tie. A claim about k of n places

    holds              with at least k wins,
    does not hold      where even all ties and missing places would not make k wins,
    cannot be judged   otherwise: the differences are within chance, or places are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from staf.report.collect import Result
from staf.report.places import (
    SURE,
    Experiments,
    Place,
    column_names,
    line_title,
    place_of,
    score_of,
    squared_error,
)
from staf.report.tables import Row
from staf.report.texts import MISSING, number_text, plural_text

HELD, NOT_HELD, OPEN = "held", "not held", "cannot be judged here"
NEAR = 0.05
"""Means are near each other within so much: 5 points."""
LISTED = 9
"""Up to so many places are told one by one."""

PAPER_COLUMNS = {
    "table3": ("emrqa", "medquad", "pubmedqa", "mednli", "cliner", "mimicause"),
    "table4": ("icd_coding", "medication", "readmission"),
    "table5": ("icd_coding", "icd_coding F1", "medication", "medication F1", "readmission", "readmission F1"),
    "fig6": ("pubmedqa", "cliner", "mednli"),
    "fig8": ("emrqa", "medication", "readmission"),
    "cross-domain": ("cliner",),
}
"""The tasks that a claim is about; one that was not run is a missing place."""

Words = dict[str, tuple[str, str]]
"""Each outcome as it is told of one place, and of several."""
WORDS: Words = {"win": ("win", "wins"), "tie": ("tie", "ties"), "loss": ("loss", "losses"), "missing": ("missing", "missing")}
NEAR_WORDS: Words = {
    "win": ("near", "near"), "tie": ("unclear", "unclear"), "loss": ("apart", "apart"), "missing": ("missing", "missing"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a claim stands here."""

    standing: str
    """held, not held, or cannot be judged here"""
    sentence: str
    """with the numbers"""
    runs: tuple[str, ...] = ()
    """the reproduced tables that it rests on"""
    rows: tuple[Row, ...] = ()
    """the numbers one by one, each with its runs"""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two rows in one column: the first minus the other."""

    experiment: str
    column: str
    outcome: str
    """win, tie, loss or missing"""
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    test: str = ""
    """how chance was judged"""
    reason: str = ""
    """why it is missing"""
    row: Row | None = None
    """as the page shows it"""

    @property
    def near(self) -> str:
        """A win where the first is surely no more than `NEAR` behind, a loss where it surely is more, a tie between.

        As for a win, the column's own means have to agree with the test.
        """
        if self.outcome == "missing":
            return "missing"
        if min(self.low, self.difference) > -NEAR:
            return "win"
        return "loss" if max(self.high, self.difference) < -NEAR else "tie"

    @property
    def alike(self) -> str:
        """A win where the two are surely within `NEAR` of each other, a loss where they surely are not, a tie between."""
        if self.outcome == "missing":
            return "missing"
        lowest, highest = min(self.low, self.difference), max(self.high, self.difference)
        if lowest > -NEAR and highest < NEAR:
            return "win"
        return "loss" if lowest > NEAR or highest < -NEAR else "tie"


Pairs = Sequence[tuple[str, str]]
"""Rows that are compared, each with the other one."""
Needed = Callable[[int], int]
"""From the number of places to the wins that a claim needs."""


def every(count: int) -> int:
    """All places."""
    return count


def most(count: int) -> int:
    """More than half of the places."""
    return count // 2 + 1


def duels(found: Experiments, names: Iterable[str], pairs: Pairs) -> list[Duel]:
    """All pairs in all columns of the experiments; those that the papers have and that were not run are missing."""
    fought = []
    for name in names:
        result = found.get(name)
        columns = dict.fromkeys([*(column_names(result) if result else ()), *PAPER_COLUMNS.get(name, ())])
        for column in columns:
            for ours, other in pairs:
                fought.append(_duel(result, name, column, ours, other))
    return fought


def _duel(result: Result | None, name: str, column: str, ours: str, other: str) -> Duel:
    if result is None:
        return Duel(name, column, "missing", reason=f"{name} was not run")
    own, against = place_of(result, ours, column), place_of(result, other, column)
    if own["mean"] is None or against["mean"] is None:
        duel = Duel(name, column, "missing", reason=str((own if own["mean"] is None else against)["missing"]))
    else:
        paired = _paired(result, name, column, ours, other, own["mean"] - against["mean"])
        duel = paired or _unpaired(name, column, own, against)
    return replace(duel, row=_row(duel, result, (ours, own), (other, against)))


def _paired(result: Result, name: str, column: str, ours: str, other: str, difference: float) -> Duel | None:
    """By the paired comparison of the two rows, made in either direction; None where there is none."""
    for row in result["comparisons"]:
        if row["column"] == column and (row["ours"], row["other"]) in ((ours, other), (other, ours)):
            sign = 1 if row["ours"] == ours else -1
            low, high = sorted((sign * row["low"], sign * row["high"]))
            verdict = row["verdict"] if sign > 0 else {"win": "loss", "loss": "win", "tie": "tie"}[row["verdict"]]
            agrees = (difference > 0) if verdict == "win" else (difference < 0)
            chance = "<\u00a00.001" if row["p_value"] < 0.001 else f"=\u00a0{row['p_value']:.3f}"
            return Duel(name, column, verdict if agrees else "tie", difference, low, high, f"paired, p\u00a0{chance}")
    return None


def _unpaired(name: str, column: str, own: Place, against: Place) -> Duel:
    """By the means, and the intervals of both where they were kept."""
    difference = own["mean"] - against["mean"]
    errors = [squared_error(own), squared_error(against)]
    known = [error for error in errors if error is not None]
    reach = SURE * sum(known) ** 0.5 if len(known) == 2 else 0.0
    low, high = difference - reach, difference + reach
    outcome = "win" if low > 0 else "loss" if high < 0 else "tie"
    return Duel(name, column, outcome, difference, low, high, "both intervals" if len(known) == 2 else "means alone")


def _row(duel: Duel, result: Result, ours: tuple[str, Place], other: tuple[str, Place]) -> Row:
    measured = duel.outcome != "missing"
    cells = {
        "Place": f"{duel.experiment}, {duel.column}",
        "Counts as": duel.outcome,
        "Row": line_title(result, ours[0]),
        "Score of row, %": score_of(ours[1]),
        "Against": line_title(result, other[0]),
        "Score against it, %": score_of(other[1]),
        "Difference": points(duel.difference) if measured else MISSING,
        "Test": f"{duel.test}\n{number_text(duel.low, 100)} to {number_text(duel.high, 100)}" if measured else MISSING,
    }
    own, against = tuple(ours[1]["runs"]), tuple(other[1]["runs"])
    sources = {"Score of row, %": own, "Score against it, %": against, "Difference": own + against}
    return Row(cells, own + against, sources={**dict.fromkeys(cells, ()), **sources})


# ---- counting and telling --------------------------------------------------------------------------------------------


def settle(outcomes: Sequence[str], needed: int) -> str:
    """Whether so many wins are there, may still be there, or cannot be."""
    count = Counter(outcomes)
    if count["win"] >= needed:
        return HELD
    return NOT_HELD if len(outcomes) - count["loss"] < needed else OPEN


def tally(outcomes: Sequence[str], words: Words = WORDS, unit: str = "task") -> str:
    """Such as "3 wins, 2 ties, 1 loss of 6 tasks"; missing places are told where there are any."""
    count = Counter(outcomes)
    kinds = [kind for kind in words if kind != "missing" or count[kind]]
    told = ", ".join(f"{count[kind]} {words[kind][count[kind] != 1]}" for kind in kinds)
    return f"{told} of {plural_text(len(outcomes), unit)}"


def judge(
    fought: Sequence[Duel], needed: Needed = every, outcomes: Sequence[str] | None = None, words: Words = WORDS
) -> Judgement:
    """A claim that needs wins in so many places.

    Args:
        outcomes: what is counted, where it is not each duel for itself. words: for its wins, ties and losses.
    """
    counted = [duel.outcome for duel in fought] if outcomes is None else outcomes
    standing = settle(counted, needed(len(counted)))
    tasks = len({duel.column for duel in fought})
    parts = [f"{tally(counted, words, 'task' if tasks == len(counted) else 'comparison')}."]
    shown = [duel for duel in fought if duel.outcome != "missing"]
    if shown and tasks == len(fought) <= LISTED:
        parts.append(f"In points: {', '.join(f'{duel.column} {points(duel.difference)}' for duel in shown)}.")
    if shown:
        parts.append(f"{_tests(shown)}.")
    if standing == OPEN:
        parts.append(why_open(counted, [duel.reason for duel in fought if duel.outcome == "missing"]))
    rows = tuple(duel.row for duel in fought if duel.row is not None)
    return Judgement(standing, " ".join(parts), (), rows)


def _tests(shown: Sequence[Duel]) -> str:
    paired = sum(duel.test.startswith("paired") for duel in shown)
    if paired == len(shown):
        return "Paired tests on the same items"
    others = "means and the intervals of both" if any(d.test == "both intervals" for d in shown) else "means alone"
    return f"No paired test: by {others}" if not paired else f"{paired} of {len(shown)} by paired tests, the others by {others}"


def why_open(outcomes: Sequence[str], reasons: Iterable[str]) -> str:
    """Why a claim is left open: ties, and the reasons of missing places."""
    ties, known = Counter(outcomes)["tie"], list(dict.fromkeys(reason.rstrip(".") for reason in reasons))
    parts = [f"{ties} within chance"] if ties else []
    if known:
        more = [f"and {plural_text(len(known) - 2, 'more reason')}"] if len(known) > 2 else []
        parts.append(f"places are missing ({'; '.join([*known[:2], *more])})")
    return f"Not decided: {', '.join(parts)}."


def points(difference: float) -> str:
    """A difference in points, with its sign."""
    return number_text(difference, 100, "+")
