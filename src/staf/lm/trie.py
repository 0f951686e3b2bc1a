"""Answers as a tree of tokens, so that what they begin with in common is there once.

    acute | pain | chronic pain               the prompt's last token
                                               |       |       |
    node = an answer's first tokens           acute   pain   chronic       a node with children is computed: it
                                                               |           predicts the tokens that may follow it
                                                              pain         a leaf is only predicted

Nodes with children come first, each after its parent; node 0 is the root and stands for the prompt's last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Answer = Sequence[int]
"""Token ids, at least one."""
ROOT = 0


@dataclass(frozen=True)
class Trie:
    """A tree of answers; nodes are known by their number."""

    tokens: tuple[int, ...]
    """of each node; -1 for the root"""
    parents: tuple[int, ...]
    """of each node; -1 for the root"""
    depths: tuple[int, ...]
    """tokens from the root to each node"""
    inner: int
    """nodes 0 to inner - 1 have children, or are the root"""
    ends: tuple[int, ...]
    """the node at which each answer ends, in the order in which the answers were given"""

    @cached_property
    def children(self) -> tuple[dict[int, int], ...]:
        """By node: the token of each child, and its number."""
        found: tuple[dict[int, int], ...] = tuple({} for _ in self.tokens)
        for node in range(1, len(self.tokens)):
            found[self.parents[node]][self.tokens[node]] = node
        return found

    @cached_property
    def ancestors(self) -> NDArray[np.bool_]:
        """(inner - 1, inner - 1): True where the node of a row, from 1 on, is or descends from that of the column."""
        seen = np.eye(self.inner, dtype=bool)
        for node in range(1, self.inner):
            seen[node] |= seen[self.parents[node]]
        return seen[1:, 1:]

    @cached_property
    def paths(self) -> NDArray[np.int64]:
        """(2, all tokens of all answers): the number of an answer, and a node that it goes through."""
        pairs = []
        for answer, node in enumerate(self.ends):
            while node != ROOT:
                pairs.append((answer, node))
                node = self.parents[node]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2).T

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each answer."""
        return tuple(self.depths[node] for node in self.ends)


def grow(answers: Sequence[Answer]) -> Trie:
    """The tree of some answers; one may be the beginning of another, or the same."""
    tokens, parents, children = [-1], [-1], [dict[int, int]()]
    ends = []
    for answer in answers:
        node = ROOT
        for token in answer:
            if token not in children[node]:
                children[node][token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                children.append({})
            node = children[node][token]
        ends.append(node)
    order = sorted(range(len(tokens)), key=lambda node: (node != ROOT and not children[node], node))
    place = {node: number for number, node in enumerate(order)} | {-1: -1}
    sorted_parents = [place[parents[node]] for node in order]
    depths = [0] * len(order)
    for number in range(1, len(order)):
        depths[number] = depths[sorted_parents[number]] + 1
    inner = max(1, sum(map(bool, children)))
    return Trie(
        tuple(tokens[node] for node in order), tuple(sorted_parents), tuple(depths), inner, tuple(place[end] for end in ends)
    )


def forest(answers: Sequence[Answer], limit: int) -> list[tuple[list[int], Trie]]:
    """Trees of at most `limit` nodes with children (or of one answer), and the numbers of the answers in each.

    Answers are sorted, so neighbours share beginnings; where a tree is full, the next one repeats the beginning.
    """
    groups: list[list[int]] = []
    size, before = 0, tuple[int, ...]()
    for number in sorted(range(len(answers)), key=lambda i: tuple(answers[i])):
        answer = tuple(answers[number])
        known = min(_common(before, answer), len(before) - 1)
        size += len(answer) - 1 - max(known, 0)
        if not groups or size > limit:
            groups.append([])
            size = len(answer)
        groups[-1].append(number)
        before = answer
    return [(group, grow([answers[number] for number in group])) for group in groups]


def _common(one: Answer, other: Answer) -> int:
    """How many first tokens are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
