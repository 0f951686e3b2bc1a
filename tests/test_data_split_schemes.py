"""Split schemes and near-duplicates: laws on random groups, hand-worked cases."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staf.data.dedup import SHORTEST, minhash_keys
from staf.data.splits import LEFT_OUT, Item, divide, split_of
from staf.errors import UnknownName

SIZES = {"a": (60, 10, 20)}


def items(count: int, task_type: str = "a", own: str = "", group: int = 1, start: int = 0) -> list[Item]:
    return [Item(task_type, own or split_of(str(n // group)), f"g{n // group}", (n,)) for n in range(start, start + count)]


@given(st.lists(st.tuples(st.sampled_from(["train", "adaptation", "test"]), st.lists(st.integers(0, 30), max_size=3))))
def test_no_subject_is_ever_in_two_splits(drawn):
    given = [Item("a", split, str(n), tuple(about)) for n, (split, about) in enumerate(drawn)]
    splits, left_out = divide(given, "staf-llm", False, {})
    seen: dict[int, set[str]] = {}
    for item, split in zip(given, splits, strict=True):
        for about in item.dedup_keys if split else ():
            seen.setdefault(about, set()).add(split)
    assert all(len(found) == 1 for found in seen.values())
    assert sum(left_out.values()) == splits.count(LEFT_OUT)
    assert all(split in (item.split, LEFT_OUT) for item, split in zip(given, splits, strict=True))


@given(st.integers(90, 2000), st.integers(1, 7), st.booleans())
@settings(max_examples=40)
def test_sizes_are_never_exceeded_and_groups_never_torn(count, group, many):
    sizes = {"a": (600, 100, 200)} if many else SIZES
    given = items(count, group=group)
    splits, _ = divide(given, "staf-llm", False, sizes)
    found = Counter(splits)
    for split, size in zip(("train", "adaptation", "test"), sizes["a"], strict=True):
        assert found[split] <= size
    groups: dict[str, set[str]] = {}
    for item, split in zip(given, splits, strict=True):
        groups.setdefault(item.group, set()).add(split)
    assert all(len(found) == 1 for found in groups.values())


def test_a_large_corpus_has_table_2s_sizes_exactly_and_a_small_one_their_shares():
    found = Counter(divide(items(5000), "staf-llm", False, SIZES)[0])
    assert {split: found[split] for split in ("train", "adaptation", "test")} == {"train": 60, "adaptation": 10, "test": 20}
    small = Counter(divide(items(4500), "staf-llm", False, {"a": (6000, 1000, 2000)})[0])
    assert small["test"] == pytest.approx(1000, abs=1)
    assert small["adaptation"] == pytest.approx(500, abs=1)


def test_an_own_split_is_cut_and_never_drawn_anew():
    given = [*items(100, own="train"), *items(50, own="adaptation", start=100), *items(40, own="test", start=200)]
    splits, left_out = divide(given, "staf-llm", True, SIZES)
    for item, split in zip(given, splits, strict=True):
        assert split in (item.split, LEFT_OUT)
    assert Counter(splits) == {"train": 60, "adaptation": 10, "test": 20, LEFT_OUT: 100}
    assert left_out["beyond the sizes of Table 2"] == 100


def test_the_other_scheme_is_8_to_2_by_group_or_the_own_test():
    splits, _ = divide(items(5000, group=2), "sa-mdkif", False, SIZES)
    assert Counter(splits)["test"] == pytest.approx(1000, abs=100)
    assert set(splits) == {"adaptation", "test"}
    own, _ = divide([*items(5, own="train"), *items(5, own="test", start=9)], "sa-mdkif", True, SIZES)
    assert own == ["adaptation"] * 5 + ["test"] * 5


def test_an_unknown_scheme_is_answered_with_the_known_ones():
    with pytest.raises(UnknownName, match="Did you mean 'staf-llm'"):
        divide([], "staf-lm", False, {})


# ---- near-duplicates -------------------------------------------------------------------------------------------------


def text(words: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices("abcdefgh", k=chance.randint(2, 9))) for _ in range(words)]


def shared(one: list[str], other: list[str]) -> int:
    return len(set(minhash_keys(" ".join(one))) & set(minhash_keys(" ".join(other))))


def test_short_texts_are_compared_exactly():
    words = text(SHORTEST - 1, 0)
    assert len(minhash_keys(" ".join(words))) == 1
    assert shared(words, [*words[:-1], "other"]) == 0


def test_texts_that_differ_in_a_word_share_a_band_and_others_do_not():
    near = far = 0
    for seed in range(60):
        one = text(80, seed)
        changed = [*one[:40], "changed", *one[41:]]
        near += shared(one, changed) > 0
        far += shared(one, text(80, 1000 + seed)) > 0
    assert near >= 57
    assert far == 0


def test_case_spacing_and_marks_do_not_count():
    one = text(30, 1)
    assert minhash_keys(" ".join(one)) == minhash_keys("  ".join(one).upper() + " !")
