"""Split profiles: how the two papers divide a corpus, applied to what a reader gave.

    staf-llm    the corpus's own split, else drawn by hash; for the papers' own corpora, the sizes of Table 2
    sa-mdkif    the corpus's own test, else 8:2; what is not test is both what experts train on and what routers adapt to

Both are drawn by groups (a patient, a document, a term), and then no example of the rest shares a dedup key with test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from staf.data.splits import split_of
from staf.errors import UnknownName

PROFILES = ("staf-llm", "sa-mdkif")
LEFT_OUT = ""
"""The split of what belongs to none."""


@dataclass(frozen=True, slots=True)
class Item:
    """What dividing needs to know of an example."""

    task_type: str
    split: str
    """As the reader gave it."""
    group: str
    dedup_keys: tuple[int, ...]
    """Deduplication keys as integers of 64 bits."""


def check_profile(profile: str) -> None:
    """See that there is such a profile; raises UnknownName."""
    if profile not in PROFILES:
        raise UnknownName.among("split profile", profile, PROFILES)


def divide(
    items: Sequence[Item], profile: str, own_split: bool, sizes: Mapping[str, tuple[int, int, int]]
) -> tuple[list[str], Counter[str]]:
    """The split of each item under a profile, and how many are left out, by reason.

    Args:
        items: of one data set.
        profile: one of `PROFILES`.
        own_split: the corpus says what its test split is.
        sizes: Table 2's train, adaptation and test sizes, by task type.

    Returns:
        train, adaptation, test or `LEFT_OUT` for each item, no dedup key in two of them; counts of those left out.
    """
    check_profile(profile)
    if profile == "sa-mdkif":
        splits = [_two_parts(item, own_split) for item in items]
    elif sizes:
        splits = _sized(items, own_split, sizes)
    else:
        splits = [item.split for item in items]
    left_out = Counter({"beyond the sizes of Table 2": splits.count(LEFT_OUT)})
    separated = apart(items, splits)
    left_out["about something in another split"] = separated.count(LEFT_OUT) - splits.count(LEFT_OUT)
    return separated, left_out


def apart(items: Sequence[Item], splits: Sequence[str]) -> list[str]:
    """The splits with no dedup key in two of them: those of test leave the rest, those of adaptation leave train."""
    held_out: set[int] = set()
    result = list(splits)
    for split in ("test", "adaptation", "train"):
        own: set[int] = set()
        for index, item in enumerate(items):
            if splits[index] != split:
                continue
            if held_out.isdisjoint(item.dedup_keys):
                own.update(item.dedup_keys)
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
