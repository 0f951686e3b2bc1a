"""The papers' claims (experiments/claims.yaml), each evaluated on what was reproduced: held, not held, or open.

A rule compares what a claim is about and gives each comparison an outcome. Two rows are compared by the paired test on the same
items, over items and seeds: a win where p < 0.05 and the column's own mean lies on the same side. Where `staf reproduce` made
no paired test, the difference has to be larger than the 95 % intervals of both allow; without intervals it is a tie. From the
outcomes the strict rule says

    held            with as many wins as the claim needs,
    not held        where not even all ties and missing cells would make them,
    open            otherwise: differences within chance, or cells missing,
    not comparable  where what the papers count is not what is measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import resources
from itertools import pairwise, product
from math import ceil
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from staf.report.formatting import cell_text, count_text, number_text, p_text
from staf.report.results import Z95, Cell, Table

HELD, NOT_HELD, OPEN, NOT_COMPARABLE = "held", "not held", "open", "not comparable"
MOST_IN_SENTENCE = 9
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
    against: tuple[str, ...] = ()
    combine: bool = False
    need: str = "all"
    margin: float = 0.0
    start: int = 0
    experts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reason: str = ""


class Claims(BaseModel):
    """All of claims.yaml."""

    columns: dict[str, tuple[str, ...]]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One comparison that a claim rests on."""

    where: str
    outcome: str
    """win, tie, loss or missing"""
    short: str = ""
    """as the sentence has it"""
    numbers: str = ""
    runs: tuple[str, ...] = ()
    reason: str = ""
    """why it is missing"""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim with its outcome."""

    claim: Claim
    outcome: str
    sentence: str
    """with the numbers"""
    runs: tuple[str, ...] = ()
    """of the tables it rests on"""
    items: tuple[Item, ...] = ()


@cache
def load_claims() -> Claims:
    """The claims that come with the package."""
    import yaml

    text = (resources.files("staf") / "experiments" / "claims.yaml").read_text(encoding="utf-8")
    return Claims.model_validate(yaml.safe_load(text))


def evaluate_claims(tables: Tables) -> list[ClaimResult]:
    """Every claim in the papers' order."""
    return [evaluate_claim(claim, tables) for claim in load_claims().claims]


def evaluate_claim(claim: Claim, tables: Tables) -> ClaimResult:
    """The outcome of a claim on the tables that there are."""
    runs = tuple(tables[name].run for name in claim.tables if name in tables)
    if not runs:
        return ClaimResult(claim, OPEN, f"Not run: {', '.join(claim.tables)}.")
    if claim.rule == "not_comparable":
        return ClaimResult(claim, NOT_COMPARABLE, f"Not comparable: {claim.reason}.", runs)
    items = tuple(RULES[claim.rule](claim, tables))
    counted = _combined(claim, items) if claim.combine else [item.outcome for item in items]
    outcome = strict_outcome(counted, needed(claim.need, len(counted)))
    return ClaimResult(claim, outcome, _sentence(items, counted, outcome), runs, items)


def needed(need: str, count: int) -> int:
    """Wins that a claim needs of `count` comparisons: all, most (more than half), or a share such as 4/9."""
    return {"all": count, "most": count // 2 + 1}.get(need) or ceil(Fraction(need) * count)


def strict_outcome(outcomes: Sequence[str], wins: int) -> str:
    """Whether `wins` wins are there, may still be there, or cannot be."""
    count = Counter(outcomes)
    if count["win"] >= wins:
        return HELD
    return NOT_HELD if len(outcomes) - count["loss"] < wins else OPEN


def _sentence(items: Sequence[Item], counted: Sequence[str], outcome: str) -> str:
    parts = [f"{tally(counted)}."]
    short = [item.short for item in items if item.short]
    if short and len(items) <= MOST_IN_SENTENCE:
        parts.append(f"{'; '.join(short)}.")
    if outcome == OPEN:
        parts.append(why_open(counted, [item.reason for item in items if item.reason]))
    return " ".join(parts)


def tally(outcomes: Sequence[str]) -> str:
    """Such as "3 wins, 2 ties, 1 loss of 6"; missing cells are counted where there are any."""
    count = Counter(outcomes)
    words = {"win": "wins", "tie": "ties", "loss": "losses", "missing": "missing"}
    kinds = [kind for kind in words if kind != "missing" or count[kind]]
    return f"{', '.join(f'{count[kind]} {kind if count[kind] == 1 else words[kind]}' for kind in kinds)} of {len(outcomes)}"


def why_open(outcomes: Sequence[str], reasons: Sequence[str]) -> str:
    """Why a claim is left open: ties, and the reasons of missing cells."""
    ties, known = Counter(outcomes)["tie"], list(dict.fromkeys(reason.rstrip(".") for reason in reasons))
    parts = [f"{ties} within chance"] if ties else []
    if known:
        more = [f"and {len(known) - 2} more reason{'s' if len(known) > 3 else ''}"] if len(known) > 2 else []
        parts.append(f"cells are missing ({'; '.join([*known[:2], *more])})")
    return f"Not decided: {', '.join(parts)}."


# ---- a row against another, column by column -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """Two rows in one column: the first minus the second."""

    outcome: str
    difference: float
    low: float
    high: float
    test: str


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
            return Compared(outcome if agrees else "tie", difference, low, high, f"paired, {p_text(test.p_value)}")
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


def by_column(claim: Claim, tables: Tables) -> Iterator[Item]:
    """Rows compared in every column; columns of the papers that were not run are missing."""
    for name in claim.tables:
        table = tables.get(name)
        there = [column.name for column in table.columns] if table else []
        for column in dict.fromkeys([*there, *load_claims().columns.get(name, ())]):
            for ours, other in _pairs(claim, table):
                yield _item(claim, table, name, column, ours, other)


def _pairs(claim: Claim, table: Table | None) -> Sequence[tuple[str, str]]:
    if claim.rows != ("steps",):
        return list(product(claim.rows, claim.against))
    counts = sorted(int(row.name) for row in (table.rows if table else ()) if row.name.isdigit())
    return [(str(more), str(fewer)) for fewer, more in pairwise(counts)] or [("a larger number", "a smaller number")]


def _item(claim: Claim, table: Table | None, name: str, column: str, ours: str, other: str) -> Item:
    where = f"{name}, {column}"
    if table is None:
        return Item(where, "missing", reason=f"{name} was not run")
    own, against = table.cell(ours, column), table.cell(other, column)
    found, runs = compare_rows(table, column, ours, other), own.runs + against.runs
    if found is None:
        return Item(where, "missing", runs=runs, reason=own.missing or against.missing)
    numbers = (
        f"{ours} {cell_text(own)} against {other} {cell_text(against)}: {number_text(found.difference, 100, '+')} points, "
        f"{number_text(found.low, 100)} to {number_text(found.high, 100)}, {found.test}"
    )
    short = f"{column} {number_text(found.difference, 100, '+')}"
    return Item(where, rule_outcome(claim.rule, found, claim.margin), short, numbers, runs)


def _combined(claim: Claim, items: Sequence[Item]) -> list[str]:
    """One outcome for each column: the worst of its comparisons."""
    outcomes: dict[str, set[str]] = {}
    for item in items:
        outcomes.setdefault(item.where, set()).add(item.outcome)
    return [next(kind for kind in ("loss", "missing", "tie", "win") if kind in own) for own in outcomes.values()]


# ---- curves, tokens, weights -----------------------------------------------------------------------------------------


def drops(claim: Claim, tables: Tables) -> Iterator[Item]:
    """From `start` labels to the most, a row loses more than chance allows, and more than another row."""
    table = tables[claim.tables[0]]
    by_count = {int(c.name.split()[0]): c.name for c in table.columns if c.name.split()[0].isdigit()}
    if claim.start not in by_count or max(by_count) <= claim.start:
        yield Item(table.task, "missing", reason=f"it needs {claim.start} labels and more")
        return
    ends = (by_count[claim.start], by_count[max(by_count)])
    cells = [[table.cell(row, column) for column in ends] for row in (claim.rows[0], claim.against[0])]
    flat = [cell for own in cells for cell in own]
    if empty := [cell.missing for cell in flat if cell.mean is None]:
        yield Item(table.task, "missing", reason=empty[0])
        return
    falls = [(own[0].mean or 0.0) - (own[1].mean or 0.0) for own in cells]
    errors = [sum(cell.squared_error or 0.0 for cell in own) for own in cells]
    reach, extra, extra_reach = Z95 * errors[0] ** 0.5, falls[0] - falls[1], Z95 * sum(errors) ** 0.5
    win = falls[0] > reach and extra > extra_reach
    loss = falls[0] + reach < claim.margin or extra + extra_reach <= 0
    texts = [f"{number_text(-fall, 100, '+')} ± {Z95 * 100 * e**0.5:.1f}" for fall, e in zip(falls, errors, strict=True)]
    short = f"From {ends[0]} to {ends[1]} {claim.rows[0]} changes by {texts[0]} points, {claim.against[0]} by {texts[1]}"
    runs = tuple(run for cell in flat for run in cell.runs)
    yield Item(table.task, "win" if win else "loss" if loss else "tie", short, short, runs)


def fewer_tokens(claim: Claim, tables: Tables) -> Iterator[Item]:
    """A prompt of the task only has at most `margin` of the tokens of a prompt with examples."""
    table = tables[claim.tables[0]]
    for column in table.columns:
        cell, own = table.cell(claim.rows[0], column.name), table.prompt_tokens.get(column.name)
        if not own or not cell.prompt_tokens:
            reason = cell.missing or f"the prompts of {column.name} were not counted"
            yield Item(column.name, "missing", reason=reason)
            continue
        short = f"{column.name} {count_text(round(own))} against {count_text(round(cell.prompt_tokens))} tokens"
        yield Item(column.name, "win" if own / cell.prompt_tokens <= claim.margin else "loss", short, short, cell.runs)


Seeds = tuple[list[bool], str]
"""whether each seed agrees, and what was found"""


def small_weight(claim: Claim, table: Table, column: str, cell: Cell) -> Seeds | str:
    """The expert that only the first row has weighs at least `margin` of an equal share, and less than an equal share."""
    other = table.cell(claim.rows[1], column)
    foreign = sorted(set(cell.weights[0]) - set(other.weights[0])) if other.weights else []
    if len(foreign) != 1:
        return other.missing or f"it needs one expert that {claim.rows[1]} does not have, found {len(foreign)}"
    even = 1 / len(cell.weights[0])
    shares = [one[foreign[0]] / (sum(map(abs, one.values())) or 1.0) for one in cell.weights]
    text = f"{foreign[0]} weighs {fmean(shares):.3f} of 1 (an equal share is {even:.3f}); small, yet not none,"
    return [claim.margin * even <= share < even for share in shares], text


def largest_weight(claim: Claim, table: Table, column: str, cell: Cell) -> Seeds | str:
    """The expert named has the largest weight."""
    wanted, (means, _) = claim.experts[column][0], cell.mean_weights()
    if any(wanted not in one for one in cell.weights):
        return f"there is no expert {wanted}"
    first = max(means, key=lambda name: means[name])
    text = f"{wanted} weighs {means[wanted]:.3f}, the largest on average is {first} with {means[first]:.3f}; the largest"
    return [max(one, key=lambda name: one[name]) == wanted for one in cell.weights], text


def larger_mean_weight(claim: Claim, table: Table, column: str, cell: Cell) -> Seeds | str:
    """The experts named weigh more on average than the others."""
    near = claim.experts[column]
    sides = [[[w for name, w in one.items() if (name in near) == side] for one in cell.weights] for side in (True, False)]
    if not all(all(side) for side in sides):
        return f"{column} needs experts near to it and others"
    close, far = ([fmean(one) for one in side] for side in sides)
    text = f"{column}: a near expert weighs {fmean(close):.3f}, another {fmean(far):.3f}; more"
    return [a > b for a, b in zip(close, far, strict=True)], text


def _by_weights(judge: Callable[[Claim, Table, str, Cell], Seeds | str]) -> Callable[[Claim, Tables], Iterator[Item]]:
    """A rule on the weights of experts: a win where every seed agrees, a loss where none does, else a tie."""

    def rule(claim: Claim, tables: Tables) -> Iterator[Item]:
        table = tables[claim.tables[0]]
        for column in claim.experts:
            cell, where = table.cell(claim.rows[0], column), f"{table.task}, {column}"
            found = judge(claim, table, column, cell) if cell.weights else cell.missing or "no weights were kept"
            if isinstance(found, str):
                yield Item(where, "missing", reason=found)
                continue
            (seeds, text), (means, deviations) = found, cell.mean_weights()
            spread = {name: f" ± {deviation:.3f}" for name, deviation in deviations.items()}
            ranked = sorted(means, key=lambda name: -means[name])
            numbers = ", ".join(f"{name} {means[name]:.3f}{spread.get(name, '')}" for name in ranked)
            outcome = "win" if all(seeds) else "tie" if any(seeds) else "loss"
            yield Item(where, outcome, f"{text} in {sum(seeds)} of {len(seeds)} seeds", numbers, cell.runs)

    return rule


RULES: dict[str, Callable[[Claim, Tables], Iterator[Item]]] = {
    "better": by_column, "not_worse": by_column, "within": by_column, "drops": drops,
    "fewer_tokens": fewer_tokens, "small_weight": _by_weights(small_weight), "largest_weight": _by_weights(largest_weight),
    "larger_mean_weight": _by_weights(larger_mean_weight),
}  # fmt: skip
