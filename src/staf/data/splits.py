"""Splits: drawn by hash, made by the scheme of either paper, and the checks that keep train, adaptation and test apart.

    staf-llm    the corpus's own split, else drawn by hash; for the papers' own corpora, the sizes of Table 2
    sa-mdkif    the corpus's own test, else 8:2; what is not test is both what experts train on and what routers adapt to

A split belongs to a group (a patient, a document, a term), never to a row, so that what is known of a group lies in one
split; no example of the rest then shares a dedup key with test. A draw needs no list and no seed: the same group falls in
the same split on every machine and in every release of a corpus.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from staf.data.answers import labels_in
from staf.data.example import SPLITS, Example
from staf.errors import ConfigError, TestLeak, UnknownName

SPLIT_SCHEMES = ("staf-llm", "sa-mdkif")
LEFT_OUT = ""
"""The split of what belongs to none."""


SHARES = (80, 10, 10)
"""Train, adaptation and test in percent."""


def seeded_rng(key: str) -> random.Random:
    """A random number generator that depends only on `key`."""
    return random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))


def split_of(group: str, shares: tuple[int, int, int] = SHARES) -> str:
    """The split in which everything about `group` belongs, by the ratios of train, adaptation and test.

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
    """Raise TestLeak before anything is fitted on a test example."""
    found = [example.id for example in examples if example.split == "test"]
    if found:
        raise TestLeak(
            f"{len(found)} of the examples to fit on belong to a test split: {', '.join(found[:3])}. "
            "A score on items that were fitted on means nothing. Fit on the train or adaptation split."
        )


def few_shot(examples: Iterable[Example], shots: int, seed: int) -> list[Example]:
    """A random draw of `shots` adaptation examples; the same seed gives the same draw, whatever the order given.

    Each label of the adaptation examples is in it where it can be: all methods that learn from one seed learn from one draw.

    Raises:
        TestLeak: a test example is among those given. ConfigError: fewer adaptation examples than `shots`, or none asked for.
    """
    given = list(examples)
    refuse_test(given)
    pool = sorted((e for e in given if e.split == "adaptation"), key=lambda e: e.id)
    if not 1 <= shots <= len(pool):
        raise ConfigError(
            f"{shots} shots cannot be drawn: the adaptation set has {len(pool)} examples. Ask for 1 to {len(pool)}."
        )
    rng = seeded_rng(f"few_shot:{seed}")
    drawn = rng.sample(pool, shots)
    labels = {example.labels for example in pool}
    return drawn if labels == {()} or len(labels) > 1 else _with_every_label(drawn, rng.sample(pool, len(pool)))


def _with_every_label(drawn: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """The draw, with each of the others that has a missing label in place of one whose labels are there without it, if any."""
    found, counts = list(drawn), Counter(label for example in drawn for label in labels_in(example))
    for other in others:
        new = labels_in(other)
        if all(counts[label] for label in new):
            continue
        for place in reversed(range(len(found))):
            old = labels_in(found[place])
            if all(counts[label] > 1 or label in new for label in old):
                found[place] = other
                counts.subtract(old)
                counts.update(new)
                break
    return found


def equal_shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many each source gives of `total`: all the same number; what a smaller one lacks, the larger ones give."""
    shares = [0] * len(sizes)
    for done, source in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[source] = min(sizes[source], (total - sum(shares)) // (len(sizes) - done))
    return shares


def without_dedup_keys(examples: Iterable[Example], held_out: AbstractSet[str]) -> tuple[list[Example], int]:
    """The examples that are about nothing in `held_out`, in their order, and how many were dropped."""
    given = list(examples)
    kept = [example for example in given if held_out.isdisjoint(example.dedup_keys)]
    return kept, len(given) - len(kept)


@dataclass(frozen=True, slots=True)
class Item:
    """What dividing needs to know of an example."""

    task_type: str
    split: str
    """As the reader gave it."""
    group: str
    dedup_keys: tuple[int, ...]
    """Deduplication keys as integers of 64 bits."""


def check_split_scheme(name: str) -> None:
    """Raise UnknownName unless there is such a scheme."""
    if name not in SPLIT_SCHEMES:
        raise UnknownName.among("split scheme", name, SPLIT_SCHEMES)


def divide(
    items: Sequence[Item], scheme: str, own_split: bool, sizes: Mapping[str, tuple[int, int, int]]
) -> tuple[list[str], Counter[str]]:
    """The split of each item of one data set, no dedup key in two of them, and how many are `LEFT_OUT`, by reason.

    Args:
        own_split: the corpus says what its test split is.
        sizes: Table 2's train, adaptation and test sizes, by task type.
    """
    check_split_scheme(scheme)
    if scheme == "sa-mdkif":
        splits = [_two_parts(item, own_split) for item in items]
    elif sizes:
        splits = _sized(items, own_split, sizes)
    else:
        splits = [item.split for item in items]
    beyond = splits.count(LEFT_OUT)
    splits = separate([item.dedup_keys for item in items], splits)
    shared = splits.count(LEFT_OUT) - beyond
    return splits, Counter({"beyond the sizes of Table 2": beyond, "about something in another split": shared})


def separate(keys: Sequence[Sequence[int | str]], splits: Sequence[str]) -> list[str]:
    """The splits, no dedup key of the items in two of them: those about something in test leave the rest, then train."""
    held_out = set[int | str]()
    result = list(splits)
    for split in ("test", "adaptation", "train"):
        own = set[int | str]()
        for index, about in enumerate(keys):
            if splits[index] == split:
                if held_out.isdisjoint(about):
                    own.update(about)
                else:
                    result[index] = LEFT_OUT
        held_out |= own
    return result


def _two_parts(item: Item, own_split: bool) -> str:
    if own_split:
        return "test" if item.split == "test" else "adaptation"
    return split_of(item.group, (0, 80, 20))


def _sized(items: Sequence[Item], own_split: bool, sizes: Mapping[str, tuple[int, int, int]]) -> list[str]:
    """Splits of Table 2's sizes, and where the corpus is smaller than the paper's, of their shares."""
    found = Counter(item.task_type for item in items)
    scaled = {}
    for task_type, (train, adaptation, test) in sizes.items():
        scale = 1.0 if own_split else min(1.0, found[task_type] / (train + adaptation + test))
        scaled[task_type] = {"train": train * scale, "adaptation": adaptation * scale, "test": test * scale}
    splits = [item.split for item in items] if own_split else _filled(items, scaled)
    return _cut(items, splits, scaled)


def _filled(items: Sequence[Item], caps: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Groups in the order of their hash: test first, until it is full for every task type, then adaptation, then train."""
    members: dict[str, Counter[str]] = {}
    for item in items:
        members.setdefault(item.group, Counter())[item.task_type] += 1
    room = {split: {task_type: caps[task_type][split] for task_type in caps} for split in ("test", "adaptation")}
    chosen = {}
    for group in sorted(members, key=_hash):
        own = members[group]
        wanting = (s for s, left in room.items() if any(left[task_type] >= 1 for task_type in own if task_type in left))
        chosen[group] = next(wanting, "train")
        for task_type in own.keys() & caps.keys() if chosen[group] != "train" else ():
            room[chosen[group]][task_type] -= own[task_type]
    return [chosen[item.group] for item in items]


def _hash(group: str) -> bytes:
    return hashlib.sha256(f"size:{group}".encode()).digest()


def _cut(items: Sequence[Item], splits: list[str], caps: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Complete groups, in the order of their hash, until a split of a task type is full."""
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for index, (item, split) in enumerate(zip(items, splits, strict=True)):
        if item.task_type in caps:
            groups.setdefault((item.task_type, split), {}).setdefault(item.group, []).append(index)
    for (task_type, split), members in groups.items():
        room = round(caps[task_type][split])
        for group in sorted(members, key=_hash):
            if len(members[group]) <= room:
                room -= len(members[group])
            else:
                for index in members[group]:
                    splits[index] = LEFT_OUT
    return splits
