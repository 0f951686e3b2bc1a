"""What prompts begin with in common, each beginning computed once and gone on from, by prompts and by longer beginnings.

    instruction -- shot 1 -- shot 2 -- shot 3 -- query a        prompts of in-context learning: those whose own example is a
         |            |                   |----- query b        shot leave it out, and share what comes before it
         |            |------ shot 3 ----------- shot 2's query
         |----------- shot 2 -- shot 3 --------- shot 1's query

Opening a beginning costs a pass of its own, perhaps one batch more, and what going on from kept keys costs; it saves what all
but one of its prompts share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from staf.lm.base import Base
from staf.lm.prompts import FORWARD_COST, GOING_ON, Beginning, Tokens, batches, begin

A_BEGINNING = 2 * FORWARD_COST
"""Places that a beginning has to save."""


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
        return self.prompts[0] if self.prompts else self.branches[0].first


def branches_of(prompts: Sequence[Tokens]) -> Branch:
    """The beginnings worth computing, as a tree from the empty one; each prompt is in it once.

    No beginning is a whole prompt, as something has to be read of each.
    """
    rows = [tuple(prompt[:-1]) for prompt in prompts]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    common = [_common(rows[one], rows[two]) for one, two in pairwise(order)]
    root = Branch(0)
    left = [(0, len(order), root)]
    while left:
        start, stop, branch = left.pop()
        longest = max(len(rows[i]) for i in order[start:stop]) if stop > start else 0
        if (stop - start - 1) * (longest - branch.length) < A_BEGINNING:  # nothing below can be worth it
            branch.prompts += order[start:stop]
            continue
        shared, count = min(common[start : stop - 1]), stop - start
        rests = sum(len(rows[i]) - shared for i in order[start:stop])
        cost = A_BEGINNING + (0 if branch.length else GOING_ON * rests)
        if (count - 1) * (shared - branch.length) >= cost:
            branch.branches.append(Branch(shared))
            branch = branch.branches[-1]
        edges = [start, *(i + 1 for i in range(start, stop - 1) if common[i] == shared), stop]
        left += [(one, two, branch) for one, two in pairwise(edges)]
    return root


def in_batches(
    base: Base, prompts: Sequence[Tokens], after: Sequence[int], token_budget: int
) -> Iterator[tuple[list[int], Beginning | None]]:
    """Batches of prompts, by indices, with the beginning that each goes on from, computed with the base as it is routed now.

    A beginning is forgotten when the last that goes on from it has been given out.

    Args:
        after: places needed after each prompt.
        token_budget: places of a batch, beginnings included; at least one prompt is in a batch.
    """
    left: list[tuple[Branch, Beginning | None]] = [(branches_of(prompts), None)]
    while left:
        branch, before = left.pop()
        beginning = begin(base, prompts[branch.first][: branch.length], before) if prompts else None
        left += [(further, beginning) for further in branch.branches]
        sizes = [(len(prompts[i]) - branch.length, after[i]) for i in branch.prompts]
        for batch in batches(sizes, token_budget, branch.length):
            yield [branch.prompts[i] for i in batch], beginning


def _common(one: Tokens, two: Tokens) -> int:
    """How many first tokens two prompts share."""
    both = min(len(one), len(two))
    return next((i for i in range(both) if one[i] != two[i]), both)
