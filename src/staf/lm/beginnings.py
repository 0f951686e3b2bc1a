"""What prompts begin with in common, each beginning computed once and gone on from, by prompts and by longer beginnings.

    instruction -- shot 1 -- shot 2 -- shot 3 -- query a        prompts of in-context learning: those whose own example is a
         |            |                   |----- query b        shot leave it out, and share what comes before it
         |            |------ shot 3 ----------- shot 2's query
         |----------- shot 2 -- shot 3 --------- shot 1's query

A beginning costs its tokens and `A_BEGINNING`; a prompt that goes on from one costs its other tokens and `GOING_ON` of these,
or all of its tokens where that is less. Which beginnings are computed is found from the longest to the shortest, for each one
that may be open above it: no other choice costs less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from staf.lm.base import Base
from staf.lm.prompts import FORWARD_COST, Beginning, Tokens, batches, begin, one_copy

A_BEGINNING = 2 * FORWARD_COST
"""Places that a beginning costs beside its own: a pass, and perhaps one batch more."""
GOING_ON = 0.1
"""What going on from kept keys and values costs, as a share of the tokens that do (measured: 0.06 to 0.12 on a processor)."""


@dataclass
class Branch:
    """A beginning, and what goes on from it."""

    length: int
    """tokens of it"""
    prompts: list[int] = field(default_factory=list)
    """indices of the prompts that go on from here"""
    branches: list[Branch] = field(default_factory=list)
    """longer beginnings that go on from here"""

    @property
    def first(self) -> int:
        """One of its prompts, which all begin with its tokens."""
        branch = self
        while not branch.prompts:
            branch = branch.branches[0]
        return branch.prompts[0]


@dataclass
class _Span:
    """Neighbours among sorted prompts that share their first tokens, and no further prompt does."""

    shared: int
    above: tuple[int, ...]
    """tokens of the spans around it, none of them as many as `shared`"""
    prompts: list[int] = field(default_factory=list)
    """those in no span within"""
    within: list[_Span] = field(default_factory=list)
    opens: dict[int, bool] = field(default_factory=dict)
    """whether its beginning is computed where the last one before it has so many tokens"""
    costs: dict[int, float] = field(default_factory=dict)
    """what the span then costs"""


def branches_of(prompts: Sequence[Tokens]) -> Branch:
    """The beginnings that are computed, as a tree from the empty one; each prompt is in it once.

    No beginning is a whole prompt, as something has to be read of each.
    """
    lengths = [len(prompt) - 1 for prompt in prompts]
    spans = _spans([tuple(prompt[:-1]) for prompt in prompts])
    for span in reversed(spans[1:]):
        within = {at: sum(part.costs[at] for part in span.within) for at in (*span.above, span.shared)}
        alone = {at: sum(_cost(lengths[i], at) for i in span.prompts) for at in within}
        opened = A_BEGINNING + span.shared + within[span.shared] + alone[span.shared]
        for at in span.above:
            span.opens[at] = opened - at < within[at] + alone[at]
            span.costs[at] = min(opened - at, within[at] + alone[at])
    root = Branch(0)
    left = [(spans[0], root)]
    while left:
        span, branch = left.pop()
        if span.opens.get(branch.length):
            branch.branches.append(Branch(span.shared))
            branch = branch.branches[-1]
        for index in span.prompts:
            worth = _cost(lengths[index], branch.length) < lengths[index]
            (branch if worth else root).prompts.append(index)
        left += [(part, branch) for part in span.within]
    return root


def in_batches(
    base: Base, prompts: Sequence[Tokens], after: Sequence[int], token_budget: int, forwards: int = 1
) -> Iterator[tuple[list[int], Beginning | None]]:
    """Batches of prompts, by indices, with the beginning that each goes on from, computed with the base as it is routed now.

    A beginning is forgotten when the last that goes on from it has been given out.

    Args:
        after: places needed after each prompt.
        token_budget: places of a batch, beginnings included where each row has a copy; at least one prompt is in a batch.
        forwards: of a batch, at most: an answer that is written takes one for each of its tokens.
    """
    left: list[tuple[Branch, Beginning | None]] = [(branches_of(prompts), None)] if prompts else []
    while left:
        branch, before = left.pop()
        beginning = begin(base, prompts[branch.first][: branch.length], before)
        left += [(further, beginning) for further in branch.branches]
        sizes = [(len(prompts[i]) - branch.length, after[i]) for i in branch.prompts]
        for batch in batches(sizes, token_budget, 0 if one_copy(base) else branch.length, FORWARD_COST * forwards):
            yield [branch.prompts[i] for i in batch], beginning


def _spans(rows: Sequence[tuple[int, ...]]) -> list[_Span]:
    """All spans of the rows, one before those within it; the first one holds everything and shares nothing."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    common = [_common(rows[one], rows[two]) for one, two in pairwise(order)]
    spans = [_Span(0, ())]
    left = [(0, len(order), spans[0])]
    while left:
        start, stop, span = left.pop()
        if stop - start < 2:
            span.prompts += order[start:stop]
            continue
        shared = min(common[start : stop - 1])
        if shared > span.shared:
            spans.append(_Span(shared, (*span.above, span.shared)))
            span.within.append(spans[-1])
            span = spans[-1]
        edges = [start, *(i + 1 for i in range(start, stop - 1) if common[i] == shared), stop]
        left += [(one, two, span) for one, two in pairwise(edges)]
    return spans


def _cost(length: int, opened: int) -> float:
    """What a row costs that may go on from a beginning of so many tokens."""
    return min(length, (1 + GOING_ON) * (length - opened)) if opened else length


def _common(one: Tokens, two: Tokens) -> int:
    """How many first tokens two rows share."""
    both = min(len(one), len(two))
    return next((i for i in range(both) if one[i] != two[i]), both)
