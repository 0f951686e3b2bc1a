"""The papers' claims (experiments/claims.yaml), each evaluated on what was reproduced.

A rule compares what a claim is about and gives each comparison an outcome. Two rows are compared by the paired test over items
and seeds: a win where p < 0.05, after Holm's correction for primary comparisons, and the column's own mean lies on the same
side. Where `staf reproduce` made no paired test, the difference has to be larger than the 95 % intervals of both allow; without
intervals it is a tie. A claim about all comparisons is lost by one loss, one about k of n by more than n - k. The verdict is
the first that applies, where P is the mean difference over the columns of one family of metrics:

    held                            as many wins as the claim needs
    held on average                 the interval of every P lies where the claim says, and no loss
    no gain                         every interval ends below +2 points
    refuted at the paper's size     every interval ends below half of what the papers print
    not held                        more losses than the claim allows
    open                            otherwise
    not comparable                  what the papers count is not what is measured here

The second to fourth need every run. The strict rule has held, not held and open only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from math import ceil
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from staf.metrics.stats import Comparison, metric_family, over_tasks
from staf.report.formatting import cell_text, count_text, interval_text, number_text, p_texts
from staf.report.results import Z95, Cell, Table, declared_claims

HELD, ON_AVERAGE, NO_GAIN, REFUTED = "held", "held on average", "no gain", "refuted at the paper's size"
NOT_HELD, OPEN, NOT_COMPARABLE = "not held", "open", "not comparable"
MARKS = {HELD: "✓", ON_AVERAGE: "✓", NO_GAIN: "✗", REFUTED: "✗", NOT_HELD: "✗", OPEN: "?", NOT_COMPARABLE: "–"}
"""Each verdict with its mark."""
GAIN = 0.02
"""A mean difference that is surely smaller is no gain."""
MOST_IN_SENTENCE, MOST_MEANS = 9, 3
Tables = Mapping[str, Table]


class Claim(BaseModel):
    """A statement of the papers, as claims.yaml holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    text: str
    source: str
    tables: tuple[str, ...]
    rule: str
    rows: tuple[str, ...] = ()
    against: tuple[str, ...] = ("",)
    combine: bool = False
    pooled: bool = True
    need: str = "all"
    margin: float = 0.0
    start: int = 0
    experts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reason: str = ""


class Claims(BaseModel):
    """All of claims.yaml."""

    primary: dict[str, tuple[str, ...]]
    columns: dict[str, tuple[str, ...]]
    claims: tuple[Claim, ...]


class Item(NamedTuple):
    """One comparison that a claim rests on."""

    where: str
    outcome: str  # win, tie, loss or missing
    short: str = ""  # as the sentence has it
    numbers: str = ""
    runs: tuple[str, ...] = ()
    reason: str = ""  # why it is missing


class ClaimResult(NamedTuple):
    """A claim with its outcome."""

    claim: Claim
    outcome: str
    sentence: str  # with the numbers
    strict: str  # by wins and losses only
    runs: tuple[str, ...] = ()  # of the tables it rests on
    items: tuple[Item, ...] = ()


class Pool(NamedTuple):
    """The mean difference of two rows over the columns of one family of metrics."""

    name: str
    mean: Compared
    printed: float | None = None  # that the papers print for these columns, the smaller one; None where neither does

    @property
    def text(self) -> str:
        """With its interval and what the papers print."""
        papers = "" if self.printed is None else f"; the papers {number_text(self.printed, sign='+')}"
        mean = self.mean
        return f"{self.name} {number_text(mean.difference, sign='+')} ({interval_text(mean.low, mean.high)}{papers})"


class _Missing(Exception):
    """Why a comparison cannot be made."""


@cache
def load_claims() -> Claims:
    """The claims that come with the package."""
    return Claims.model_validate(declared_claims())


def evaluate_claims(tables: Tables) -> list[ClaimResult]:
    """Every claim in the papers' order, then those on the unseen track."""
    return [evaluate_claim(claim, tables) for claim in load_claims().claims]


def evaluate_claim(claim: Claim, tables: Tables) -> ClaimResult:
    """The outcome of a claim on the tables that there are."""
    runs = tuple(tables[name].run for name in claim.tables if name in tables)
    if not runs:
        return ClaimResult(claim, OPEN, f"Not run: {', '.join(claim.tables)}.", OPEN)
    if claim.rule == "not_comparable":
        return ClaimResult(claim, NOT_COMPARABLE, f"Not comparable: {claim.reason}.", NOT_COMPARABLE, runs)
    items = tuple(item for name in claim.tables for item in _items(claim, name, tables.get(name)))
    counted = [item.outcome for item in items]
    if claim.combine:  # one outcome for each column: the worst of its comparisons
        columns = [{item.outcome for item in items if item.where == where} for where in dict.fromkeys(i.where for i in items)]
        counted = [next(kind for kind in ("loss", "missing", "tie", "win") if kind in own) for own in columns]
    strict = strict_outcome(counted, needed(claim.need, len(counted)))
    pools = [] if any(item.outcome == "missing" for item in items) else pools_of(claim, tables)
    outcome = verdict(claim, strict, "loss" in counted, pools)
    sentence = [f"{tally(counted)}."]
    if (short := [item.short for item in items if item.short]) and len(items) <= MOST_IN_SENTENCE:
        sentence.append(f"{'; '.join(short)}.")
    if pools and (len(pools) <= MOST_MEANS or outcome != strict):
        sentence.append(f"On average {'; '.join(pool.text for pool in pools)}.")
    if outcome == OPEN:
        sentence.append(why_open(counted, items))
    return ClaimResult(claim, outcome, " ".join(sentence), strict, runs, items)


def _compared(claim: Claim, name: str, table: Table | None) -> Iterator[tuple[str, str, str]]:
    """Column and both rows of each comparison of a claim in one table: pairs of rows in every column."""
    columns: Iterable[str] = claim.experts or [f"{claim.start} labels"]
    if not (claim.experts or claim.start):
        columns = dict.fromkeys(
            [*(column.name for column in (table.columns if table else ())), *load_claims().columns.get(name, ())]
        )
    pairs = list(product(claim.rows, claim.against))
    if claim.rows == ("steps",):
        counts = sorted(int(row.name) for row in (table.rows if table else ()) if row.name.isdecimal())
        pairs = [(str(more), str(fewer)) for fewer, more in pairwise(counts)] or [("a larger number", "a smaller number")]
    for column, (ours, other) in product(columns, pairs):
        yield column, ours, other


def _items(claim: Claim, name: str, table: Table | None) -> Iterator[Item]:
    """The outcomes of a claim's comparisons in one table; columns that were not run are missing."""
    for column, ours, other in _compared(claim, name, table):
        where = f"{name}, {column}"
        try:
            if table is None:
                raise _Missing(f"{name} was not run")
            outcome, short, numbers, cells = RULES[claim.rule](claim, table, column, ours, other)
            yield Item(where, outcome, short, numbers, tuple(run for cell in cells for run in cell.runs))
        except _Missing as missing:
            yield Item(where, "missing", reason=str(missing))


def pools_of(claim: Claim, tables: Tables) -> list[Pool]:
    """The mean difference of each pair of rows over the columns of each family of metrics, where a claim is about means."""
    found: dict[tuple[str, str, str], list[tuple[Compared, dict[str, float]]]] = {}
    for table in (tables[name] for name in claim.tables if claim.pooled and RULES.get(claim.rule) is by_column):
        families = {column.name: metric_family(column.metric) for column in table.columns}
        for column, ours, other in _compared(claim, table.task, table):
            if (compared := compare_rows(table, column, ours, other)) is not None:
                own, against = table.cell(ours, column).papers, table.cell(other, column).papers
                printed = {paper: (own[paper] - against[paper]) / 100 for paper in own.keys() & against.keys()}
                found.setdefault((ours, other, families[column]), []).append((compared, printed))
    several, pools = len({(ours, other) for ours, other, _ in found}) > 1, []
    for (ours, other, family), parts in found.items():
        mean = over_tasks([Comparison(one.difference, one.low, one.high, 1.0, one.freedom) for one, _ in parts])
        papers = set.intersection(*(set(printed) for _, printed in parts))
        gain = min((fmean(printed[paper] for _, printed in parts) for paper in papers), default=None)
        compared = Compared("win" if mean.low > 0 else "tie", mean.difference, mean.low, mean.high, "")
        pools.append(Pool(f"{ours} against {other}, {family}" if several else family, compared, gain))
    return pools


def verdict(claim: Claim, strict: str, lost: bool, pools: Sequence[Pool]) -> str:
    """The first verdict that applies.

    Args:
        strict: by wins and losses only. lost: any comparison is. pools: none where a run is missing.
    """
    if strict == HELD or not pools:
        return strict
    if not lost and all(rule_outcome(claim.rule, pool.mean, claim.margin) == "win" for pool in pools):
        return ON_AVERAGE
    if claim.rule != "better":
        return strict
    if all(pool.mean.high < GAIN for pool in pools):
        return NO_GAIN
    return REFUTED if all(pool.printed and pool.mean.high < pool.printed / 2 for pool in pools) else strict


def needed(need: str, count: int) -> int:
    """Wins that a claim needs of `count` comparisons: all, most (more than half), or a share such as 4/9."""
    return {"all": count, "most": count // 2 + 1}.get(need) or ceil(Fraction(need) * count)


def strict_outcome(outcomes: Sequence[str], wins: int) -> str:
    """Whether `wins` wins are there, may still be there, or cannot be."""
    count = Counter(outcomes)
    if count["win"] >= wins:
        return HELD
    return NOT_HELD if len(outcomes) - count["loss"] < wins else OPEN


def tally(outcomes: Sequence[str]) -> str:
    """Such as "3 wins, 2 ties, 1 loss of 6"; missing cells are counted where there are any."""
    count = Counter(outcomes)
    words = {"win": "wins", "tie": "ties", "loss": "losses", "missing": "missing"}
    kinds = [kind for kind in words if kind != "missing" or count[kind]]
    return f"{', '.join(f'{count[kind]} {kind if count[kind] == 1 else words[kind]}' for kind in kinds)} of {len(outcomes)}"


def why_open(outcomes: Sequence[str], items: Iterable[Item]) -> str:
    """Why a claim is left open: ties, and the columns of missing runs by reason."""
    ties, columns = Counter(outcomes)["tie"], dict[str, dict[str, None]]()
    for item in (item for item in items if item.reason):
        columns.setdefault(item.reason.rstrip("."), {})[item.where.partition(", ")[2]] = None
    missing = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in columns.items())
    parts = [f"{ties} within chance" if ties else "", f"missing ({missing})" if missing else ""]
    return f"Not decided: {', '.join(filter(None, parts))}."


# ---- rules: what two rows of a table are in one column, in short, in numbers, and from which cells ---------------------

Judged = tuple[str, str, str, Sequence[Cell]]


class Compared(NamedTuple):
    """Two rows in one column: the first minus the second."""

    outcome: str
    difference: float
    low: float
    high: float
    test: str
    freedom: float | None = None


def compare_rows(table: Table, column: str, ours: str, other: str) -> Compared | None:
    """Two rows in one column by their paired test, made in either direction, else by the intervals of both; None if empty."""
    own, against = table.cell(ours, column), table.cell(other, column)
    if own.mean is None or against.mean is None:
        return None
    difference = own.mean - against.mean
    for test in table.comparisons:
        if test.column == column and {test.ours, test.other} == {ours, other}:
            sign = 1 if test.ours == ours else -1
            low, high = sorted((sign * test.low, sign * test.high))
            outcome = test.outcome if sign > 0 else {"win": "loss", "loss": "win", "tie": "tie"}[test.outcome]
            agrees = difference > 0 if outcome == "win" else difference < 0
            how = ", ".join(["paired", *p_texts(test)])
            return Compared(outcome if agrees else "tie", difference, low, high, how, test.freedom)
    errors = [own.squared_error, against.squared_error]
    if None in errors:
        return Compared("tie", difference, -1.0, 1.0, "no paired test and no intervals")
    reach = Z95 * sum(error or 0.0 for error in errors) ** 0.5
    low, high = difference - reach, difference + reach
    return Compared("win" if low > 0 else "loss" if high < 0 else "tie", difference, low, high, "by both intervals")


def rule_outcome(rule: str, found: Compared, margin: float) -> str:
    """Outcome of two rows: better as the test says, not_worse and within where interval and mean are inside the margin."""
    if rule == "better":
        return found.outcome
    low, high = min(found.low, found.difference), max(found.high, found.difference)
    if low > -margin and (rule == "not_worse" or high < margin):
        return "win"
    return "loss" if high < -margin or (rule == "within" and low > margin) else "tie"


def by_column(claim: Claim, table: Table, column: str, ours: str, other: str) -> Judged:
    """A row against another: better, not_worse or within."""
    own, against = table.cell(ours, column), table.cell(other, column)
    found = compare_rows(table, column, ours, other)
    if found is None:
        raise _Missing(own.missing or against.missing)
    difference = number_text(found.difference, sign="+")
    numbers = (
        f"{ours} {cell_text(own)} against {other} {cell_text(against)}: {difference} points, "
        f"{number_text(found.low)} to {number_text(found.high)}, {found.test}"
    )
    return rule_outcome(claim.rule, found, claim.margin), f"{column} {difference}", numbers, (own, against)


def drops(claim: Claim, table: Table, column: str, ours: str, other: str) -> Judged:
    """From `start` labels to the most, a row loses more than chance allows, and more than another row."""
    by_count = {int(c.name.split()[0]): c.name for c in table.columns if c.name.split()[0].isdecimal()}
    last = by_count[max(by_count, default=0)] if claim.start in by_count else column
    if last == column:
        raise _Missing(f"it needs {claim.start} labels and more")
    cells = [table.cell(row, end) for row in (ours, other) for end in (column, last)]
    means = [cell.mean for cell in cells if cell.mean is not None]
    if len(means) < len(cells):
        raise _Missing(next(cell.missing for cell in cells if cell.mean is None))
    falls = [means[0] - means[1], means[2] - means[3]]
    errors = [sum(cell.squared_error or 0.0 for cell in own) for own in (cells[:2], cells[2:])]
    reach, extra, extra_reach = Z95 * errors[0] ** 0.5, falls[0] - falls[1], Z95 * sum(errors) ** 0.5
    win = falls[0] > reach and extra > extra_reach
    loss = falls[0] + reach < claim.margin or extra + extra_reach <= 0
    texts = [f"{number_text(-fall, sign='+')} ± {Z95 * 100 * e**0.5:.1f}" for fall, e in zip(falls, errors, strict=True)]
    short = f"From {column} to {last} {ours} changes by {texts[0]} points, {other} by {texts[1]}"
    return "win" if win else "loss" if loss else "tie", short, short, cells


def fewer_tokens(claim: Claim, table: Table, column: str, ours: str, other: str) -> Judged:
    """A prompt of the task only has at most `margin` of the tokens of a prompt with examples."""
    cell, own = table.cell(ours, column), table.prompt_tokens.get(column)
    if not own or not cell.prompt_tokens:
        raise _Missing(cell.missing or f"the prompts of {column} were not counted")
    short = f"{column} {count_text(round(own))} against {count_text(round(cell.prompt_tokens))} tokens"
    return "win" if own / cell.prompt_tokens <= claim.margin else "loss", short, short, (cell,)


def by_weights(claim: Claim, table: Table, column: str, ours: str, other: str) -> Judged:
    """Weights of experts: a win where every seed agrees, a loss where none does, else a tie.

    small_weight: the expert that the other row lacks weighs at least `margin` of an equal share, and less than an equal share.
    largest_weight: the expert named has the largest weight.
    larger_mean_weight: the experts named weigh more on average than the others.
    """
    cell, (means, deviations) = table.cell(ours, column), table.cell(ours, column).mean_weights()
    if not cell.weights:
        raise _Missing(cell.missing or "no weights were kept")
    if claim.rule == "small_weight":
        lacking = table.cell(other, column)
        foreign = sorted(set(cell.weights[0]) - set(lacking.weights[0])) if lacking.weights else []
        if len(foreign) != 1:
            raise _Missing(lacking.missing or f"it needs one expert that {other} does not have, found {len(foreign)}")
        even = 1 / len(cell.weights[0])
        shares = [one[foreign[0]] / (sum(map(abs, one.values())) or 1.0) for one in cell.weights]
        seeds = [claim.margin * even <= share < even for share in shares]
        text = f"{foreign[0]} weighs {fmean(shares):.3f} of 1 (an equal share is {even:.3f}); small, yet not none,"
    elif claim.rule == "largest_weight":
        wanted, first = claim.experts[column][0], max(means, key=lambda name: means[name])
        if any(wanted not in one for one in cell.weights):
            raise _Missing(f"there is no expert {wanted}")
        seeds = [max(one, key=lambda name: one[name]) == wanted for one in cell.weights]
        text = f"{wanted} weighs {means[wanted]:.3f}, the largest on average is {first} with {means[first]:.3f}; the largest"
    else:
        near = claim.experts[column]
        sides = [[[w for name, w in one.items() if (name in near) == side] for one in cell.weights] for side in (True, False)]
        if not all(all(side) for side in sides):
            raise _Missing(f"{column} needs experts near to it and others")
        close, far = ([fmean(one) for one in side] for side in sides)
        seeds = [a > b for a, b in zip(close, far, strict=True)]
        text = f"{column}: a near expert weighs {fmean(close):.3f}, another {fmean(far):.3f}; more"
    spread = {name: f" ± {deviation:.3f}" for name, deviation in deviations.items()}
    numbers = ", ".join(f"{name} {means[name]:.3f}{spread.get(name, '')}" for name in sorted(means, key=lambda n: -means[n]))
    outcome = "win" if all(seeds) else "tie" if any(seeds) else "loss"
    return outcome, f"{text} in {sum(seeds)} of {len(seeds)} seeds", numbers, (cell,)


RULES: dict[str, Callable[[Claim, Table, str, str, str], Judged]] = {
    "better": by_column, "not_worse": by_column, "within": by_column, "drops": drops, "fewer_tokens": fewer_tokens,
    "small_weight": by_weights, "largest_weight": by_weights, "larger_mean_weight": by_weights,
}  # fmt: skip
