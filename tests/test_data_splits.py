"""Splits: who may see what."""

from __future__ import annotations

from collections import Counter

import pytest
from corpora import separate

from staf.data.example import Example, dedup_key
from staf.data.splits import few_shot, refuse_test, seeded_rng, split_of, without_dedup_keys
from staf.errors import ConfigError, StafError, TestLeak


def example(number: int, split: str, *about: str) -> Example:
    dedup_keys = tuple(dedup_key(text) for text in about)
    return Example(f"made-up/{number}", "multiple_choice", "Which?", "", "a", ("a", "b"), split, dedup_keys)


def test_a_group_always_falls_in_the_same_split_and_the_shares_are_kept():
    counts = Counter(split_of(f"group {n}") for n in range(5000))
    assert counts == Counter(split_of(f"group {n}") for n in range(5000))
    assert counts["train"] == pytest.approx(4000, abs=120)
    assert counts["adaptation"] == pytest.approx(500, abs=90)
    assert counts["test"] == pytest.approx(500, abs=90)


def test_a_share_of_zero_is_never_drawn():
    assert {split_of(str(n), (90, 10, 0)) for n in range(500)} == {"train", "adaptation"}


@pytest.mark.parametrize("shares", [(0, 0, 0), (-1, 50, 50)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ConfigError, match="shares"):
        split_of("a", shares)


def test_draws_depend_only_on_their_key():
    assert seeded_rng("a").random() == seeded_rng("a").random() != seeded_rng("b").random()


def test_a_draw_repeats_with_its_seed_whatever_the_order_given():
    pool = [example(n, "adaptation") for n in range(50)]
    drawn = few_shot(pool, 8, seed=3)
    assert drawn == few_shot(reversed(pool), 8, seed=3) != few_shot(pool, 8, seed=4)
    assert len({e.id for e in drawn}) == 8


def test_a_draw_takes_nothing_but_adaptation_examples():
    pool = [example(n, "train" if n % 2 else "adaptation") for n in range(20)]
    assert {e.split for e in few_shot(pool, 10, seed=0)} == {"adaptation"}


@pytest.mark.parametrize("shots", [0, 4])
def test_more_shots_than_there_are_or_none_are_refused(shots):
    with pytest.raises(ConfigError, match="adaptation set has 3"):
        few_shot([example(n, "adaptation") for n in range(3)], shots, seed=0)


def test_nothing_can_be_drawn_from_or_fitted_on_a_test_example():
    leaking = [example(0, "adaptation"), example(1, "test")]
    with pytest.raises(TestLeak, match="made-up/1"):
        few_shot(leaking, 1, seed=0)
    with pytest.raises(StafError, match="test split"):
        refuse_test(leaking)
    refuse_test([example(0, "adaptation"), example(2, "train")])


def test_examples_about_a_held_out_subject_are_dropped_and_counted():
    given = [example(0, "train", "green fever"), example(1, "train", "blue fever"), example(2, "train")]
    kept, dropped = without_dedup_keys(given, {dedup_key("Green  FEVER!")})
    assert ([e.id for e in kept], dropped) == (["made-up/1", "made-up/2"], 1)


def test_separating_leaves_no_subject_in_two_splits_and_every_test_example():
    given = [
        example(0, "train", "a", "b"),
        example(1, "train", "c"),
        example(2, "train", "d"),
        example(3, "adaptation", "b", "d"),
        example(4, "adaptation", "e"),
        example(5, "test", "b"),
        example(6, "test", "c"),
    ]
    kept, dropped = separate(given)
    assert ([e.id for e in kept], dropped) == (["made-up/2", "made-up/4", "made-up/5", "made-up/6"], 3)
    by_split = {s: {f for e in kept if e.split == s for f in e.dedup_keys} for s in ("train", "adaptation", "test")}
    assert by_split["train"].isdisjoint(by_split["adaptation"] | by_split["test"])
    assert by_split["adaptation"].isdisjoint(by_split["test"])
    assert [e for e in kept if e.split == "test"] == given[5:]
