"""Splits: train, adaptation and test drawn by hash, and the checks that keep them apart.

A split belongs to a group (a term, a three-character category, a question), never to a row, so that what is known of a
group lies in one split. The draw needs no list and no seed: the same group falls in the same split on every machine and
in every release of a corpus.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from staf.data.example import SPLITS, Example
from staf.errors import ConfigError, TestLeak

SHARES = (80, 10, 10)
"""Train, adaptation and test in percent."""


def seeded_rng(key: str) -> random.Random:
    """A random number generator that depends only on `key`."""
    return random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))


def split_of(group: str, shares: tuple[int, int, int] = SHARES) -> str:
    """The split in which everything about `group` belongs.

    Args:
        group: what must not be torn apart; compared as it stands.
        shares: parts of train, adaptation and test; only their ratios matter.

    Raises:
        ConfigError: a share is negative or all are 0.
    """
    if min(shares) < 0 or sum(shares) == 0:
        raise ConfigError(f"shares {shares} cannot be used: give three numbers >= 0, not all 0, for example {SHARES}.")
    place = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8], "big") % sum(shares)
    if place < shares[0]:
        return SPLITS[0]
    return SPLITS[1] if place < shares[0] + shares[1] else SPLITS[2]


def refuse_test(examples: Iterable[Example]) -> None:
    """Stop before anything is fitted on a test example.

    Raises:
        TestLeak: some of the examples belong to a test split; the first few are named by id.
    """
    found = [example.id for example in examples if example.split == "test"]
    if found:
        raise TestLeak(
            f"{len(found)} of the examples to fit on belong to a test split: {', '.join(found[:3])}. "
            "A score on items that were fitted on means nothing. Fit on the train or adaptation split."
        )


def few_shot(examples: Iterable[Example], shots: int, seed: int) -> list[Example]:
    """A random draw of `shots` adaptation examples; the same seed gives the same draw, whatever the order given.

    Raises:
        TestLeak: a test example is among those given.
        ConfigError: fewer adaptation examples than `shots`, or `shots` below 1.
    """
    given = list(examples)
    refuse_test(given)
    pool = sorted((e for e in given if e.split == "adaptation"), key=lambda e: e.id)
    if not 1 <= shots <= len(pool):
        raise ConfigError(
            f"{shots} shots cannot be drawn: the adaptation set has {len(pool)} examples. Ask for 1 to {len(pool)}."
        )
    return seeded_rng(f"few_shot:{seed}").sample(pool, shots)


def dedup_keys_of(examples: Iterable[Example]) -> frozenset[str]:
    """The fingerprints of everything that the examples are about."""
    return frozenset(fingerprint for example in examples for fingerprint in example.dedup_keys)


def without_dedup_keys(examples: Iterable[Example], held_out: AbstractSet[str]) -> tuple[list[Example], int]:
    """The examples that are about nothing in `held_out`, in their order, and how many were dropped."""
    given = list(examples)
    kept = [example for example in given if held_out.isdisjoint(example.dedup_keys)]
    return kept, len(given) - len(kept)
