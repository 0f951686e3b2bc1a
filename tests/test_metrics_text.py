"""Entity F1, reading comprehension and ROUGE-L: laws, and cases worked by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staf.metrics.by_output_type import compute_metrics
from staf.metrics.text import exact_match, exact_matches, normalised_words, overlap, overlap_matches, rouge, token_f1

FEW_WORDS = st.lists(st.sampled_from("abcd"), max_size=9)
MENTIONS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple), max_size=4)


def mentions(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"type": kind, "text": text} for kind, text in pairs]


def reading(gold: list[str], answer: str) -> list[dict[str, Any]]:
    return [{"id": "1", "gold": gold, "answer": answer}]


# ---- entities


def test_entity_f1_by_hand() -> None:
    rows = [
        {
            "id": "1",
            "gold": mentions(("problem", "chest pain"), ("problem", "fever"), ("treatment", "aspirin")),
            "answer": mentions(("problem", "Chest  pain"), ("problem", "high fever"), ("test", "aspirin")),
        },
        {"id": "2", "gold": mentions(("treatment", "oral aspirin")), "answer": mentions(("treatment", "aspirin"))},
        {"id": "3", "gold": [], "answer": []},
    ]
    found = compute_metrics("ner", rows, resamples=100)
    assert {name: metric["value"] for name, metric in found.items()} == pytest.approx(
        {
            "entity_f1": 2 * 1 / (4 + 4),
            "entity_f1_macro": (2 / 4 + 0 + 0) / 3,
            "entity_f1_overlap": 2 * 3 / (4 + 4),
            "entity_f1_overlap_macro": (4 / 4 + 2 / 3 + 0) / 3,
        }
    )
    assert found["entity_f1_macro"]["classes"] == 3


def test_invented_mentions_are_false_positives_and_their_rate_is_reported() -> None:
    one, invented = mentions(("sign", "fever")), mentions(("sign", "cough"), ("drug", "fever"), ("?", "fever"))
    found = compute_metrics("ner", [{"id": "1", "gold": one, "answer": one + invented, "invented": 3}], resamples=100)
    assert found["entity_f1"]["value"] == pytest.approx(0.4)
    assert found["invented_rate"]["value"] == pytest.approx(0.75)
    assert not found["invented_rate"]["higher_is_better"]


def test_a_mention_that_stands_twice_must_be_found_twice() -> None:
    pain = ("pain",)
    assert exact_matches([pain, pain], [pain]) == exact_matches([pain], [pain, pain]) == 1
    assert overlap_matches([pain, pain], [pain]) == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("chest pain", "acute chest pain", True),
        ("acute chest", "chest pain", True),
        ("chest pain", "acute chest", True),
        ("loss of weight", "signs of fever", False),
        ("chest pain", "pain relief drug", True),
        ("pain relief drug", "drug pain", True),
        ("left arm", "left leg", False),
        ("pain", "fever", False),
    ],
)
def test_overlap_means_that_the_words_could_lie_over_each_other(one: str, other: str, expected: bool) -> None:
    words = tuple(one.split()), tuple(other.split())
    assert overlap(*words) is overlap(*words[::-1]) is expected


def test_overlap_pairs_as_many_as_can_be() -> None:
    gold = [("a", "b"), ("b",)]
    assert overlap_matches(gold, [("b",), ("a",)]) == 2  # the first must leave "b" to the second


@given(MENTIONS, MENTIONS)
def test_laws_of_matching(gold: list[tuple[str, ...]], answered: list[tuple[str, ...]]) -> None:
    exact, overlapping = exact_matches(gold, answered), overlap_matches(gold, answered)
    assert exact <= overlapping <= min(len(gold), len(answered))
    assert exact == exact_matches(answered, gold)
    assert overlapping == overlap_matches(answered, gold)
    assert exact_matches(gold, gold) == overlap_matches(gold, gold) == len(gold)


# ---- reading comprehension


@pytest.mark.parametrize(
    ("gold", "answer", "match", "f1"),
    [
        (["two weeks"], "The two weeks.", 1, 1),
        (["two weeks"], "for two weeks", 0, 4 / 5),
        (["pain", "chest pain"], "chest pain", 1, 1),
        (["severe pain", "chest pain today"], "chest pain", 0, 4 / 5),
        (["pain pain"], "pain", 0, 2 / 3),
        (["fever"], "", 0, 0),
        ([], "", 1, 1),
        ([], "fever", 0, 0),
        (["the"], "", 1, 1),
        (["hepatitis A"], "hepatitis", 1, 1),
    ],
)
def test_exact_match_and_token_f1_by_hand(gold: list[str], answer: str, match: float, f1: float) -> None:
    assert exact_match(reading(gold, answer))[0] == match
    assert token_f1(reading(gold, answer))[0] == pytest.approx(f1)


def test_normalisation_drops_punctuation_without_a_gap() -> None:
    assert normalised_words(" A non-small-cell  Tumour, the IL-6 ") == ["nonsmallcell", "tumour", "il6"]


@given(FEW_WORDS, FEW_WORDS, FEW_WORDS)
def test_laws_of_reading(one: list[str], two: list[str], answer: list[str]) -> None:
    texts = [" ".join(words) for words in (one, two, answer)]
    single, both = reading(texts[:1], texts[2]), reading(texts[:2], texts[2])
    assert exact_match(both)[0] <= token_f1(both)[0] <= 1
    if normalised_words(texts[0]):
        assert token_f1(single)[0] <= token_f1(both)[0]
    assert token_f1(reading(texts[:1], texts[0]))[0] == 1


# ---- ROUGE-L; the numbers are those that rouge-score 0.1.2 prints for the same texts, and can be worked by hand


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("the patient has chest pain", "patient has severe chest pain", 0.8),  # 4 in common, 5 and 5 words
        ("The police killed the gunman", "the gunman the police killed", 0.6),  # the police killed
        ("β-blocker: 5 mg", "blocker 5mg", 0.4),  # blocker; 3 and 2 words
        ("no fever", "chest pain", 0.0),
        ("", "chest pain", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_by_hand(reference: str, answer: str, expected: float) -> None:
    assert rouge([{"gold": [reference], "answer": answer}])["rouge_l"][0] == pytest.approx(expected)


def test_the_best_reference_counts() -> None:
    references = ["no fever", "patient has chest pain"]
    assert rouge([{"gold": references, "answer": "chest pain"}])["rouge_l"][0] == pytest.approx(2 / 3)


def test_rouge_1_and_2_by_hand() -> None:
    rows = [{"gold": ["no acute chest pain"], "answer": "acute chest pain"}]
    assert rouge(rows)["rouge_1"][0] == pytest.approx(6 / 7)  # 3 of 3 and of 4 words
    assert rouge(rows)["rouge_2"][0] == pytest.approx(4 / 5)  # 2 of 2 and of 3 pairs


@given(FEW_WORDS, FEW_WORDS)
def test_rouge_l_is_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return 0
        return longest(i + 1, j + 1) + 1 if one[i] == other[j] else max(longest(i + 1, j), longest(i, j + 1))

    found = rouge([{"gold": [" ".join(one)], "answer": " ".join(other)}])["rouge_l"][0]
    assert found == pytest.approx(2 * longest(0, 0) / max(len(one) + len(other), 1))
